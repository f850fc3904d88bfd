"""Pack weights and data of the large comparisons into pieces that travel to a GPU machine without access to the Hub.

    python benchmarks/gpu/pack.py --out packed

Matrices are rounded to int8 with a float16 scale per row, which is as good to start fine-tuning from: MiniLM takes 23 MB, MPNet 106 MB. Data
are Parquet with zstd. No piece is larger than 60 MB. `run.py` unpacks them. Needs ../shared/data and the weights of benchmarks/weights.py.
"""

from __future__ import annotations

import argparse
import sys
import tarfile
from pathlib import Path

import pandas
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent.parent))

import evidence
import weights
from _results import SHARED

from reviewguard.config import EncoderConfig, load_preset
from reviewguard.models.sources import locate

PIECE_BYTES = 60 * 2**20
DATA = ("reviews_gpt2.csv", "reviews_multilingual.csv")
#: Suffix of the names of scales.
SCALE = ".scale"


def packed(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Round matrices to int8 by rows; vectors stay."""
    result = {}
    for name, tensor in tensors.items():
        if tensor.ndim != 2:
            result[name] = tensor
            continue
        scale = (tensor.float().abs().amax(dim=1, keepdim=True) / 127).clamp(min=torch.finfo(torch.float16).tiny).half()
        result[name] = (tensor.float() / scale.float()).round().clamp(-127, 127).to(torch.int8)
        result[name + SCALE] = scale
    return result


def unpacked(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Undo `packed`, up to the rounding."""
    return {
        name: tensor.float() * tensors[name + SCALE].float() if name + SCALE in tensors else tensor
        for name, tensor in tensors.items()
        if not name.endswith(SCALE)
    }


def encoder_folder(name: str) -> Path:
    """The folder of an encoder in Hugging Face layout."""
    if name == "minilm":
        return locate(EncoderConfig(**load_preset("minilm-finetune")["encoder"])).folder
    return locate(EncoderConfig(repo=str(weights.locate(name)))).folder


def pack(out: Path, names: list[str]) -> list[Path]:
    """Write the pieces, and return their paths."""
    content = out / "content"
    for name in names:
        source, target = encoder_folder(name), content / "weights" / name
        target.mkdir(parents=True, exist_ok=True)
        for path in source.iterdir():
            if path.name in ("config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
                (target / path.name).write_bytes(path.read_bytes())
        save_file(packed(load_file(source / "model.safetensors")), target / "packed.safetensors")
    (content / "data").mkdir(parents=True, exist_ok=True)
    for name in DATA:
        table = pandas.read_csv(SHARED / name, dtype=str, keep_default_na=False)
        table.to_parquet(content / "data" / f"{name}.parquet", compression="zstd")
    with tarfile.open(out / "all.tar", "w") as archive:
        archive.add(content, arcname=".")
    whole, pieces = (out / "all.tar").read_bytes(), []
    for number, start in enumerate(range(0, len(whole), PIECE_BYTES)):
        pieces.append(out / f"piece-{number:02}")
        pieces[-1].write_bytes(whole[start : start + PIECE_BYTES])
    (out / "all.tar").unlink()
    return pieces


def main() -> None:
    """Pack."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--weights", nargs="+", default=["minilm", *sorted(set(evidence.LOCAL.values()))])
    arguments = parser.parse_args()
    for piece in pack(arguments.out, arguments.weights):
        print(f"{piece}: {piece.stat().st_size / 2**20:.0f} MiB")


if __name__ == "__main__":
    main()
