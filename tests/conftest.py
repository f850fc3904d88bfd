"""What tests share: the real small encoder, tiny encoders made on the spot, and models trained on the sample."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from reviewguard import Classifier

# Off the network: huggingface_hub reads it when it is first imported, which the modules of tests do.
os.environ["HF_HUB_OFFLINE"] = "1"

ROOT = Path(__file__).parent.parent
SAMPLE = ROOT / "examples" / "sample_reviews.csv"
SHARED = ROOT.parent / "shared"
LONGEST = ("test_docs", "test_examples", "test_distributed", "test_resume")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest files, so that no process works on one alone at the end."""
    items.sort(key=lambda item: item.path.stem not in LONGEST)


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory):
    """Keep the tests' features out of the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REVIEWGUARD_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session", autouse=True)
def _full_precision():
    """Without a word from a test, all is computed in fp32, for most compare to 1e-4; some CPUs would choose bf16."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("reviewguard.inference.engines.select._bf16_available", lambda: False)
        patch.setattr("torch.cpu.get_capabilities", dict)
        yield


@pytest.fixture(scope="session")
def sample() -> Path:
    """320 short reviews written for demonstration."""
    return SAMPLE


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random BERT of 2 layers and width 32 with a WordPiece tokenizer, in Hugging Face layout."""
    return make_tiny_bert(tmp_path_factory.mktemp("tiny-bert"))


def make_tiny_bert(folder: Path) -> Path:
    import torch
    from transformers import BertConfig, BertModel

    vocabulary_size = make_wordpiece(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=vocabulary_size,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=48,
        max_position_embeddings=64,
    )
    BertModel(config).save_pretrained(folder)
    return folder


def make_wordpiece(folder: Path) -> int:
    """Write a WordPiece tokenizer with a vocabulary of the sample; returns the size of the vocabulary.

    The vocabulary was trained once and stored: the trainer of the tokenizers library breaks ties at random, so the scores of tiny
    models would differ between test runs.
    """
    import tokenizers

    pieces = (ROOT / "tests" / "tiny_vocabulary.txt").read_text(encoding="utf-8").splitlines()
    tokenizer = tokenizers.BertWordPieceTokenizer(vocab={piece: index for index, piece in enumerate(pieces)})
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "BertTokenizer", "pad_token": "[PAD]"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return tokenizer.get_vocab_size()


@pytest.fixture(scope="session")
def tiny_settings(tiny_encoder: Path) -> dict[str, object]:
    """Overrides that put any preset on the tiny encoder."""
    return {
        "encoder__repo": str(tiny_encoder),
        "encoder__revision": "",
        "encoder__weights_sha256": "",
        "encoder__dense": "",
        "encoder__max_length": 32,
    }


@pytest.fixture(scope="module")
def classifier(tiny_settings: dict[str, object], sample: Path) -> Classifier:
    """Logistic regression on the tiny encoder, fitted on the sample; modules that need another one define their own."""
    from reviewguard import Classifier
    from reviewguard.data.reviews import read

    reviews = read(sample)
    return Classifier("minilm-logreg", **tiny_settings).fit(reviews.texts, reviews.labels)


@pytest.fixture(scope="module")
def no_processes() -> Iterator[None]:
    """Runs of experiments in this process: to start one takes seconds. `test_runs` and `test_cli_experiments` do."""

    def here(workers: int, **_: Any) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(workers)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("reviewguard.experiments.runs.ProcessPoolExecutor", here)
        yield
