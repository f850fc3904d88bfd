"""Number of cores available to this process."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Final

#: Files with a container's CPU quota and period, in cgroup version 2 and version 1.
_V2: Final = ("cpu.max",)
_V1: Final = ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")


def available_cores(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Number of cores allowed by the CPU affinity and the container's quota; more threads would only compete.

    Args:
        cgroup: Folder of the cgroup file system.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for names in (_V2, _V1):
        try:
            quota, period = " ".join((cgroup / name).read_text() for name in names).split()
        except (OSError, ValueError):
            continue
        # "max", or -1 in version 1, means no limit.
        if quota.isdigit() and int(period) > 0:
            return max(1, min(cores, math.ceil(int(quota) / int(period))))
    return cores
