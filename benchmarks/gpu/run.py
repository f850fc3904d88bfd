"""Unpack what `pack.py` packed, and run the large comparisons on this machine.

    python benchmarks/gpu/run.py --packed packed --out results [--jobs 4]

The machine needs a GPU, torch, and this package with its extras qlora and experiments, but neither the Hub nor other files. An interrupted
run resumes when the command is repeated. The reports, with the logits for paired tests, are copied to `--out`.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pandas
from pack import unpacked
from safetensors.torch import load_file, save_file

BENCHMARKS = Path(__file__).resolve().parent.parent
ROOT = BENCHMARKS.parent
EXPERIMENTS = ("compare-mpnet", "multilingual")


def unpack(pieces: Path, scratch: Path, weights: Path, data: Path) -> None:
    """Write weights in Hugging Face layout, and data as CSV."""
    scratch.mkdir(parents=True, exist_ok=True)
    with (scratch / "all.tar").open("wb") as whole:
        for piece in sorted(pieces.glob("piece-*")):
            whole.write(piece.read_bytes())
    with tarfile.open(scratch / "all.tar") as archive:
        archive.extractall(scratch, filter="data")
    (scratch / "all.tar").unlink()
    for folder in (scratch / "weights").iterdir():
        target = weights / folder.name
        if not target.exists():
            built = shutil.copytree(folder, weights / f".{folder.name}", dirs_exist_ok=True)
            save_file(unpacked(load_file(folder / "packed.safetensors")), built / "model.safetensors", metadata={"format": "pt"})
            (built / "packed.safetensors").unlink()
            built.rename(target)
    data.mkdir(parents=True, exist_ok=True)
    for table in (scratch / "data").glob("*.parquet"):
        pandas.read_parquet(table).to_csv(data / table.stem, index=False)


def main() -> None:
    """Unpack and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--packed", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--jobs", type=int, default=4, help="parallel runs")
    parser.add_argument("--only", nargs="+", choices=EXPERIMENTS, default=EXPERIMENTS, metavar="NAME")
    arguments = parser.parse_args()
    weights = ROOT / "build" / "weights"
    unpack(arguments.packed, ROOT / "build" / "unpacked", weights, ROOT.parent / "shared" / "data")
    path = os.pathsep.join([str(ROOT), str(BENCHMARKS)])
    environment = {**os.environ, "REVIEWGUARD_WEIGHTS": str(weights), "HF_HUB_OFFLINE": "1", "PYTHONPATH": path}
    command = [
        sys.executable,
        str(BENCHMARKS / "evidence.py"),
        "--full",
        "--jobs",
        str(arguments.jobs),
        "--only",
        *arguments.only,
    ]
    done = subprocess.run(command, env=environment, cwd=ROOT, check=False)
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name in arguments.only:
        for path in (ROOT / "docs" / "results").glob(f"{name}[-.]*"):
            shutil.copy(path, arguments.out)
        shutil.copytree(ROOT / "build" / "evidence" / name / "scores", arguments.out / f"{name}-scores", dirs_exist_ok=True)
    raise SystemExit(done.returncode)


if __name__ == "__main__":
    main()
