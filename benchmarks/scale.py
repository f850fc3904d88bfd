"""Predict the same reviews with the local engine and with Ray, on the same cores, and write docs/results/scale.

    python benchmarks/scale.py [--rows N]

Runs `reviewguard predict` with the built-in model and each engine in turn, on reviews of ../shared/data. The command starts and stops a
Ray cluster on this machine.
"""

from __future__ import annotations

import argparse
import csv
import os
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import chain, islice, repeat
from pathlib import Path
from typing import Any, Final

import numpy as np
import psutil
import pyarrow as pa
from _results import SHARED, describe, machine, write
from pyarrow import parquet

#: Number of input files, large enough that all cores finish at about the same time.
PARTS: Final = 40
#: Assumed price of a virtual core in US dollars per hour, about the list price of cloud providers.
PRICE: Final = 0.05
#: Numbers of reviews in the plan, and its duration in days.
PLANS: Final = (10**8, 10**10)
DAYS: Final = 1


def reviews(rows: int, folder: Path) -> tuple[Path, Path]:
    """Write the same rows as CSV and as a folder of Parquet files."""
    with open(SHARED / "reviews_gpt2.csv", encoding="utf-8", newline="") as file:
        source = list(csv.DictReader(file))
    order = np.random.default_rng(0).permutation(len(source)).tolist()
    chosen = list(islice(chain.from_iterable(repeat([source[row] for row in order])), rows))
    with open(folder / "in.csv", "w", encoding="utf-8", newline="") as out:
        writer = csv.DictWriter(out, chosen[0])
        writer.writeheader()
        writer.writerows(chosen)
    (folder / "in").mkdir()
    for number in range(PARTS):
        part = chosen[number * rows // PARTS : (number + 1) * rows // PARTS]
        parquet.write_table(pa.Table.from_pylist(part), folder / "in" / f"{number:03}.parquet")
    return folder / "in.csv", folder / "in"


def run(command: list[str], is_ours: Callable[[psutil.Process], bool]) -> dict[str, float]:
    """Run a command; returns seconds, and the peak memory of its largest selected process in MiB, sampled every second."""
    started, peak = time.perf_counter(), 0
    environment = {**os.environ, "RAY_ADDRESS": "local", "RAY_USAGE_STATS_ENABLED": "0"}
    process = psutil.Popen([sys.executable, "-m", "reviewguard", *command], env=environment)
    while process.poll() is None:
        for one in [process, *process.children(recursive=True)]:
            try:
                peak = max(peak, one.memory_info().rss if is_ours(one) else 0)
            except psutil.Error:  # the process has ended
                continue
        time.sleep(1)
    if process.returncode:
        raise SystemExit(f"failed: {' '.join(command)}")
    return {"seconds": time.perf_counter() - started, "peak_memory_mib": peak / 2**20}


def is_actor(process: psutil.Process) -> bool:
    """Whether a process is a predicting actor."""
    return "_Parts" in " ".join(process.cmdline()[:2])


def agree(csv_file: Path, folder: Path) -> dict[str, float]:
    """Compare the two outputs."""
    with open(csv_file, encoding="utf-8", newline="") as file:
        local = list(csv.DictReader(file))
    ray = pa.concat_tables(parquet.read_table(path) for path in sorted(folder.glob("*.parquet"))).to_pylist()
    assert [row["text"] for row in local] == [row["text"] for row in ray]
    scores = np.array([[float(one["predicted_score"]), two["predicted_score"]] for one, two in zip(local, ray, strict=True)])
    other = sum(one["predicted_label"] != two["predicted_label"] for one, two in zip(local, ray, strict=True))
    return {"other_labels": other, "largest_difference": float(np.abs(scores[:, 0] - scores[:, 1]).max())}


def page(found: dict[str, Any], about: str) -> str:
    """Render the results as Markdown."""
    local, ray, cores = found["local"], found["ray"], found["machine"]["cores"]
    rate = {name: found["rows"] / found[name]["seconds"] for name in ("local", "ray")}
    lines = []
    for rows in PLANS:
        hours = rows / (rate["ray"] / cores) / 3600
        lines.append(
            f"| 10<sup>{len(str(rows)) - 1}</sup> | {hours:,.0f} | {hours / 24 / DAYS:,.0f} | "
            f"{hours / 24 / DAYS * ray['peak_memory_mib'] / 1024:,.0f} GiB | {rows / found['rows'] * found['mib_out'] / 1024:,.0f} GiB | "
            f"{PRICE * hours / (rows / 1e6):.2f} |"
        )
    return "\n".join(
        [
            "# Prediction on Ray and with the local engine",
            "",
            f"{found['rows']:,} reviews of `reviews_gpt2.csv`, predicted by `reviewguard predict` with the built-in model, on {cores} "
            "cores with each engine. Times are for complete commands, including the start of Ray.",
            "",
            "| engine | seconds | reviews/s | reviews per core-second | largest process (MiB) |",
            "| --- | --- | --- | --- | --- |",
            *(
                f"| {name} | {found[name]['seconds']:.0f} | {rate[name]:.0f} | {rate[name] / cores:.0f} | "
                f"{found[name]['peak_memory_mib']:.0f} |"
                for name in ("local", "ray")
            ),
            "",
            f"Ray takes {ray['seconds'] / local['seconds']:.3f} times as long, including the start of its cluster; the command takes "
            f"{found['idle_seconds']:.0f} s for 100 reviews. The outputs differ in {found['other_labels']} labels, and probabilities "
            f"differ by at most {found['largest_difference']:.1g}.",
            "",
            "## Larger data sets",
            "",
            f"Extrapolated from the rate above, for similar cores, at an assumed price of {PRICE} US dollars per core-hour.",
            "",
            f"| reviews | core-hours | cores for {DAYS} day | memory of actors | Parquet output | dollars per million |",
            "| --- | --- | --- | --- | --- | --- |",
            *lines,
            "",
            about,
            "",
            "Made by `python benchmarks/scale.py`; data in [scale.json](scale.json).",
        ]
    )


def main() -> None:
    """Run both engines, compare and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=50_000)
    rows = parser.parse_args().rows
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        csv_file, parts = reviews(rows, folder)
        local = run(["predict", str(csv_file), "--out", str(folder / "out.csv")], lambda _: True)
        ray = run(["predict", str(parts), "--engine", "ray", "--out", str(folder / "out")], is_actor)
        first = parquet.read_table(next(parts.iterdir())).slice(0, 100)
        (folder / "one").mkdir()
        parquet.write_table(first, folder / "one" / "000.parquet")
        idle = run(["predict", str(folder / "one"), "--engine", "ray", "--out", str(folder / "one-out")], is_actor)
        found = {
            "machine": machine(("ray", "pyarrow")),
            "rows": rows,
            "local": local,
            "ray": ray,
            "idle_seconds": idle["seconds"],
            "mib_out": sum(path.stat().st_size for path in (folder / "out").glob("*.parquet")) / 2**20,
            **agree(folder / "out.csv", folder / "out"),
        }
    write("scale", found, page(found, describe(found["machine"])))


if __name__ == "__main__":
    main()
