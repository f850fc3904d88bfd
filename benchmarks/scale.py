"""Predict the same reviews by the local engine and by Ray, on the same cores, and write docs/results/scale.

    python benchmarks/scale.py [--rows N]

Runs `reviewguard predict` with the built-in model both ways, one after the other, on reviews of ../shared/data. Ray is a cluster
of this machine alone, which the command starts and ends.
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

#: Parts of the input: enough that cores end at about the same time.
PARTS: Final = 40
#: US dollars for an hour of one virtual core: an assumption, about what clouds ask without a discount.
PRICE: Final = 0.05
#: Reviews that the worked plan is for, and days that it may take.
PLANS: Final = (10**8, 10**10)
DAYS: Final = 1


def reviews(rows: int, folder: Path) -> tuple[Path, Path]:
    """The same rows as CSV and as a folder of Parquet."""
    with open(SHARED / "reviews_gpt2.csv", encoding="utf-8", newline="") as file:
        found = list(csv.DictReader(file))
    order = np.random.default_rng(0).permutation(len(found)).tolist()
    chosen = list(islice(chain.from_iterable(repeat([found[row] for row in order])), rows))
    with open(folder / "in.csv", "w", encoding="utf-8", newline="") as out:
        writer = csv.DictWriter(out, chosen[0])
        writer.writeheader()
        writer.writerows(chosen)
    (folder / "in").mkdir()
    for number in range(PARTS):
        own = chosen[number * rows // PARTS : (number + 1) * rows // PARTS]
        parquet.write_table(pa.Table.from_pylist(own), folder / "in" / f"{number:03}.parquet")
    return folder / "in.csv", folder / "in"


def run(command: list[str], is_ours: Callable[[psutil.Process], bool]) -> dict[str, float]:
    """Seconds of a command, and the largest memory of one of its processes that counts, in MiB, sampled each second."""
    started, peak = time.perf_counter(), 0
    environment = {**os.environ, "RAY_ADDRESS": "local", "RAY_USAGE_STATS_ENABLED": "0"}
    process = psutil.Popen([sys.executable, "-m", "reviewguard", *command], env=environment)
    while process.poll() is None:
        for one in [process, *process.children(recursive=True)]:
            try:
                peak = max(peak, one.memory_info().rss if is_ours(one) else 0)
            except psutil.Error:  # it has ended
                continue
        time.sleep(1)
    if process.returncode:
        raise SystemExit(f"failed: {' '.join(command)}")
    return {"seconds": time.perf_counter() - started, "peak_memory_mib": peak / 2**20}


def is_actor(process: psutil.Process) -> bool:
    """Whether it is one of the actors that predict."""
    return "_Parts" in " ".join(process.cmdline()[:2])


def agree(csv_file: Path, folder: Path) -> dict[str, float]:
    """How the two outputs differ."""
    with open(csv_file, encoding="utf-8", newline="") as file:
        local = list(csv.DictReader(file))
    ray = pa.concat_tables(parquet.read_table(path) for path in sorted(folder.glob("*.parquet"))).to_pylist()
    assert [row["text"] for row in local] == [row["text"] for row in ray]
    scores = np.array([[float(one["predicted_score"]), two["predicted_score"]] for one, two in zip(local, ray, strict=True)])
    other = sum(one["predicted_label"] != two["predicted_label"] for one, two in zip(local, ray, strict=True))
    return {"other_labels": other, "largest_difference": float(np.abs(scores[:, 0] - scores[:, 1]).max())}


def page(found: dict[str, Any], about: str) -> str:
    """The results as Markdown."""
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
            "# Prediction on Ray beside the local engine",
            "",
            f"{found['rows']:,} reviews of `reviews_gpt2.csv`, by `reviewguard predict` with the built-in model, {cores} cores each "
            "time; whole commands, the start of Ray included.",
            "",
            "| engine | seconds | reviews/s | reviews a core-second | largest process (MiB) |",
            "| --- | --- | --- | --- | --- |",
            *(
                f"| {name} | {found[name]['seconds']:.0f} | {rate[name]:.0f} | {rate[name] / cores:.0f} | "
                f"{found[name]['peak_memory_mib']:.0f} |"
                for name in ("local", "ray")
            ),
            "",
            f"Ray takes {ray['seconds'] / local['seconds']:.3f} times as long, the start of its cluster included; "
            f"{found['idle_seconds']:.0f} s of it are what the command takes for 100 reviews. Of the labels "
            f"{found['other_labels']} differ, and probabilities by {found['largest_difference']:.1g} at most.",
            "",
            "## A plan for more",
            "",
            f"Computed from the rate above, for cores like these; a core-hour at {PRICE} US dollars, which is an assumption.",
            "",
            f"| reviews | core-hours | cores for {DAYS} day | their actors' memory | Parquet out | dollars a million |",
            "| --- | --- | --- | --- | --- | --- |",
            *lines,
            "",
            about,
            "",
            "Made by `python benchmarks/scale.py`; figures in [scale.json](scale.json).",
        ]
    )


def main() -> None:
    """Run both, compare, write."""
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
