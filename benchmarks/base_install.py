"""Predict 20,000 reviews with the base install of the wheel, and write docs/results/base-install.

    make wheel && python benchmarks/base_install.py

Creates a virtual environment, installs build/dist/*.whl into it without extras, and runs `reviewguard predict` there with the built-in
model on reviews of ../shared/data. Then compares the built-in model with transformers' pipeline with all-MiniLM-L6-v2, alternating in one
process.
"""

from __future__ import annotations

import csv
import json
import re
import subprocess
import tempfile
import time
import venv
from itertools import chain, islice, repeat
from pathlib import Path
from statistics import median
from typing import Any

import psutil
from _contenders import MAX_LENGTH, pipeline, prepare_pipeline
from _contenders import seconds as timed
from _results import ROOT, SHARED, describe, machine, write

from reviewguard import Classifier
from reviewguard.bundle.folder import open_bundle
from reviewguard.loading import BUILTIN
from reviewguard.models.sources import locate

ROWS = 20_000
#: Rows after which memory should no longer grow.
EARLY = 5_000
#: Number of reviews and of repetitions of the comparison with transformers.
BESIDE, TURNS = 1000, 3
HEAVY = ("torch", "transformers", "sklearn", "scipy", "pandas")


def measured(command: list[str], record: Path) -> tuple[float, float, float]:
    """Run a command whose progress is recorded in a file.

    Returns:
        Seconds, and peak resident memory in MiB, sampled every 20 ms: for the first `EARLY` rows, and in total.
    """
    started, early, peak, is_early = time.perf_counter(), 0, 0, True
    process = psutil.Popen(command, cwd=tempfile.gettempdir())
    while process.poll() is None:
        try:
            peak = max(peak, process.memory_info().rss)
        except psutil.NoSuchProcess:
            break
        is_early = is_early and rows_done(record) < EARLY
        early = peak if is_early else early
        time.sleep(0.02)
    if process.wait() != 0:
        raise SystemExit(f"failed: {' '.join(command)}")
    return time.perf_counter() - started, early / 2**20, peak / 2**20


def rows_done(record: Path) -> int:
    """Rows done, from the file next to an unfinished output."""
    try:
        return int(json.loads(record.read_text(encoding="utf-8"))["rows"])
    except FileNotFoundError:  # not started, or finished
        return 0


def import_milliseconds(python: Path) -> float:
    """The best of five cumulative times for `import reviewguard`, measured by `python -X importtime`."""
    times = []
    for _ in range(5):
        done = subprocess.run(
            [python, "-X", "importtime", "-c", "import reviewguard"], capture_output=True, text=True, check=True
        )
        match = re.search(r"\|\s+(\d+) \| reviewguard\n", done.stderr)
        assert match is not None
        times.append(int(match[1]) / 1000)
    return min(times)


def beside_transformers(texts: list[str], folder: Path) -> dict[str, float]:
    """Reviews per second of the built-in model and of transformers' pipeline with MiniLM and a random head; medians."""
    minilm = locate(Classifier("minilm-logreg")._recipe().encoder).folder
    prepare_pipeline(minilm, folder)
    libraries = {
        "built_in": Classifier.from_pretrained().predict,
        "pipeline": pipeline({"huggingface": str(folder), "max_length": MAX_LENGTH, "calibrate": texts[:64]}),
    }
    times: dict[str, list[float]] = {name: [] for name in libraries}
    for _ in range(TURNS):
        for name, predict in libraries.items():
            times[name].append(timed(lambda predict=predict: predict(texts)))
    return {name: len(texts) / median(of) for name, of in times.items()}


def main() -> None:
    """Install, predict and write."""
    (wheel,) = (ROOT / "build" / "dist").glob("*.whl")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        with open(SHARED / "reviews_gpt2.csv", encoding="utf-8", newline="") as source:
            reviews = list(csv.DictReader(source))
        with open(folder / "reviews.csv", "w", encoding="utf-8", newline="") as out:
            writer = csv.DictWriter(out, reviews[0])
            writer.writeheader()
            writer.writerows(islice(chain.from_iterable(repeat(reviews)), ROWS))
        venv.create(folder / "venv", with_pip=True)
        python = folder / "venv" / "bin" / "python"
        install = [python, "-m", "pip", "install", "--quiet", "--constraint", ROOT / "constraints.txt", wheel]
        subprocess.run(install, check=True)
        absent = [
            name
            for name in HEAVY
            if subprocess.run([python, "-c", f"import {name}"], stderr=subprocess.DEVNULL, check=False).returncode
        ]
        if set(absent) != set(HEAVY):
            raise SystemExit(f"the base install includes {set(HEAVY) - set(absent)}")
        size = sum(path.stat().st_size for path in (folder / "venv").rglob("*") if path.is_file()) / 2**20
        imported = import_milliseconds(python)
        command = [folder / "venv" / "bin" / "reviewguard", "predict", "DATA", "--out", "OUT"]

        def predict(data: Path, out: Path) -> tuple[float, float, float]:
            words = [str({"DATA": data, "OUT": out}.get(str(part), part)) for part in command]
            return measured(words, out.with_name(out.name + ".progress"))

        one = folder / "one.csv"
        one.write_text("text\nThe lid rattles but for the price it is fine.\n")
        cold = min(predict(one, folder / "one-out.csv")[0] for _ in range(3))
        seconds, early, peak = predict(folder / "reviews.csv", folder / "out.csv")
        with open(folder / "out.csv", encoding="utf-8", newline="") as file:
            assert sum(1 for _ in csv.DictReader(file)) == ROWS
        beside = beside_transformers([row["text"] for row in reviews[:: len(reviews) // BESIDE][:BESIDE]], folder / "minilm")
    about = machine()
    size_of_model = sum(file.size for file in open_bundle(BUILTIN).manifest.files.values()) / 2**20
    result: dict[str, Any] = {
        "rows": ROWS,
        "model_mib": size_of_model,
        "seconds": seconds,
        "reviews_per_second": ROWS / seconds,
        "early_peak_memory_mib": early,
        "peak_memory_mib": peak,
        "cold_start_seconds": cold,
        "import_milliseconds": imported,
        "absent": absent,
        "environment_mib": size,
        "beside": beside,
    }
    markdown = f"""# Prediction with the base install

The built wheel is installed without extras into a virtual environment, which then takes {size:.0f} MiB and contains none of {", ".join(absent)}.
`reviewguard predict` runs the built-in model, {size_of_model:.1f} MiB. The input is `reviews_gpt2.csv`, repeated
up to {ROWS:,} reviews.

| measurement | value |
| --- | --- |
| {ROWS:,} reviews, complete command | {seconds:.0f} s, {ROWS / seconds:.0f} reviews/s |
| peak memory for the first {EARLY:,} reviews, in total | {early:.0f} MiB, {peak:.0f} MiB |
| one review, from process start to output on disk | {cold:.2f} s |
| `import reviewguard` | {imported:.1f} ms |

Alternating in one process, on {BESIDE:,} reviews of the same file, medians of {TURNS}:

| model | reviews/s |
| --- | --- |
| built-in model, twelve layers in int8; long texts complete, in windows | {beside["built_in"]:.0f} |
| transformers' pipeline, all-MiniLM-L6-v2 with six layers in float32; the first {MAX_LENGTH} tokens; the best of its batch sizes 1, 8 and 32 | {beside["pipeline"]:.0f} |

The built-in model is {beside["built_in"] / beside["pipeline"]:.1f} times as fast.

{describe(about)}

Made by `make wheel && python benchmarks/base_install.py`; data in
[base-install.json](base-install.json).
"""
    write("base-install", {"machine": about, **result}, markdown)


if __name__ == "__main__":
    main()
