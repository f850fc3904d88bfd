"""Copy the page's libraries from a folder of npm packages to `vendor/`, so that the page needs no other server."""

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
    """Fill a folder with the files that page.js imports."""
    target.mkdir(parents=True, exist_ok=True)
    for name in LIBRARIES:
        shutil.copy(PACKAGES / name, target)


if __name__ == "__main__":
    if not PACKAGES.is_dir():
        sys.exit(f"there is no {PACKAGES}; README.md says how to install the libraries")
    vendor(HERE / "vendor")
