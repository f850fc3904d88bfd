"""Predict 10,000 reviews with nothing but the wheel's base install, and write docs/results/base-install.

    make wheel && python benchmarks/base_install.py --model build/models/minilm-logreg

Exports the model, makes an empty virtual environment, installs build/dist/*.whl into it without any extra, and runs
`reviewguard predict` there on reviews of ../shared/data.
"""

from __future__ import annotations

import argparse
import csv
import re
import subprocess
import tempfile
import time
import venv
from pathlib import Path
from typing import Any

import psutil
from _results import ROOT, SHARED, describe, machine, write

from reviewguard import Classifier

ROWS = 10_000
HEAVY = ("torch", "transformers", "sklearn", "scipy", "pandas")


def measured(command: list[str]) -> tuple[float, float]:
    """Run a command; returns its seconds and its largest resident memory in MiB, sampled every 20 ms."""
    started, peak = time.perf_counter(), 0
    process = psutil.Popen(command, cwd=tempfile.gettempdir())
    while process.poll() is None:
        try:
            peak = max(peak, process.memory_info().rss)
        except psutil.NoSuchProcess:
            break
        time.sleep(0.02)
    if process.wait() != 0:
        raise SystemExit(f"failed: {' '.join(command)}")
    return time.perf_counter() - started, peak / 2**20


def import_milliseconds(python: Path) -> float:
    """The best of five cumulative times that `python -X importtime` gives for `import reviewguard`."""
    times = []
    for _ in range(5):
        done = subprocess.run(
            [python, "-X", "importtime", "-c", "import reviewguard"], capture_output=True, text=True, check=True
        )
        found = re.search(r"\|\s+(\d+) \| reviewguard\n", done.stderr)
        assert found is not None
        times.append(int(found[1]) / 1000)
    return min(times)


def main() -> None:
    """Install, predict, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="a trained model with a published encoder")
    model = parser.parse_args().model
    (wheel,) = (ROOT / "build" / "dist").glob("*.whl")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        Classifier.from_pretrained(model).export(folder / "export")
        rows = 0
        with (
            open(SHARED / "reviews_gpt2.csv", encoding="utf-8", newline="") as source,
            open(folder / "reviews.csv", "w", encoding="utf-8", newline="") as out,
        ):
            reader = csv.DictReader(source)
            writer = csv.DictWriter(out, reader.fieldnames or [])
            writer.writeheader()
            for rows, row in enumerate(reader, start=1):
                writer.writerow(row)
                if rows == ROWS:
                    break
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
            raise SystemExit(f"the base install brings {set(HEAVY) - set(absent)}")
        size = sum(path.stat().st_size for path in (folder / "venv").rglob("*") if path.is_file()) / 2**20
        imported = import_milliseconds(python)
        command = [folder / "venv" / "bin" / "reviewguard", "predict", "DATA", "--model", folder / "export", "--out", "OUT"]

        def predict(data: Path, out: Path) -> tuple[float, float]:
            return measured([str({"DATA": data, "OUT": out}.get(str(part), part)) for part in command])

        one = folder / "one.csv"
        one.write_text("text\nThe lid rattles but for the price it is fine.\n")
        cold = min(predict(one, folder / "one-out.csv")[0] for _ in range(3))
        seconds, peak = predict(folder / "reviews.csv", folder / "out.csv")
        with open(folder / "out.csv", encoding="utf-8", newline="") as file:
            assert sum(1 for _ in csv.DictReader(file)) == rows
    about = machine()
    result: dict[str, Any] = {
        "rows": rows,
        "seconds": seconds,
        "reviews_per_second": rows / seconds,
        "peak_memory_mib": peak,
        "cold_start_seconds": cold,
        "import_milliseconds": imported,
        "absent": absent,
        "environment_mib": size,
    }
    markdown = f"""# Prediction with the base install

From the built wheel, installed without any extra into an empty virtual environment of {size:.0f} MiB; absent there: {", ".join(absent)}.
The model is an fp32 export of `{model.name}`, run by `reviewguard predict`; the reviews are the first {rows} of `reviews_gpt2.csv`.

| what | figure |
| --- | --- |
| {rows} reviews, whole command | {seconds:.1f} s, {rows / seconds:.0f} reviews/s |
| peak memory | {peak:.0f} MiB |
| one review, process start to answer on disk | {cold:.2f} s |
| `import reviewguard` | {imported:.1f} ms |

{describe(about)}

Made by `make wheel && python benchmarks/base_install.py --model build/models/{model.name}`; figures in
[base-install.json](base-install.json).
"""
    write("base-install", {"machine": about, **result}, markdown)


if __name__ == "__main__":
    main()
