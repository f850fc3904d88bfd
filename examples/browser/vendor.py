"""Copy the page's libraries from installed npm packages to `vendor/`, so that the page loads nothing from other servers."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

HERE = Path(__file__).parent
PACKAGES = HERE.parent.parent / "tests" / "portability" / "node_modules"
LIBRARIES = (
    "@huggingface/tokenizers/dist/tokenizers.min.mjs",
    "onnxruntime-web/dist/ort.wasm.bundle.min.mjs",
    "onnxruntime-web/dist/ort-wasm-simd-threaded.wasm",
)


def vendor(target: Path) -> None:
    """Copy the files that page.js imports to a folder."""
    target.mkdir(parents=True, exist_ok=True)
    for name in LIBRARIES:
        shutil.copy(PACKAGES / name, target)


if __name__ == "__main__":
    if not PACKAGES.is_dir():
        sys.exit(f"{PACKAGES} does not exist; see README.md for how to install the libraries")
    vendor(HERE / "vendor")
