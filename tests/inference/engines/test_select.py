"""Selection of engine and precision, and incompatible combinations."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from graphs import int8_of

from reviewguard import Classifier
from reviewguard.data.reviews import read
from reviewguard.errors import ConfigError, MissingExtra
from reviewguard.inference.engines import select as choose
from reviewguard.inference.engines.cores import available_cores


@pytest.fixture(scope="module")
def models(tiny_settings: dict[str, object], sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, reviews = tmp_path_factory.mktemp("models"), read(sample)
    classifier = Classifier("minilm-logreg", **tiny_settings).fit(reviews.texts, reviews.labels)
    classifier.save(folder / "saved")
    classifier.export(folder / "fp32")
    int8_of(classifier, folder / "both", (reviews.texts, reviews.labels))
    return folder


@pytest.mark.parametrize(
    ("bf16", "model", "asked", "got"),
    [
        (False, "fp32", {}, "onnxruntime in fp32"),
        (False, "both", {}, "onnxruntime in int8"),
        (False, "both", {"precision": "fp32"}, "onnxruntime in fp32"),
        (False, "both", {"runtime": "openvino"}, "openvino in fp32"),
        (True, "both", {}, "openvino in bf16"),
        (True, "both", {"precision": "int8"}, "onnxruntime in int8"),
        (True, "both", {"precision": "fp32"}, "onnxruntime in fp32"),
        (True, "both", {"runtime": "onnxruntime"}, "onnxruntime in int8"),
        (True, "both", {"runtime": "openvino"}, "openvino in bf16"),
        (True, "fp32", {"precision": "bf16"}, "openvino in bf16"),
    ],
)
def test_selection(
    models: Path, bf16: bool, model: str, asked: dict[str, str], got: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choose, "_bf16_available", lambda: bf16)
    chosen = Classifier.from_pretrained(models / model, threads=3, **asked)
    assert chosen.runtime == f"{got}, threads: 3"


def test_threads_default_to_the_cores_of_the_process(models: Path) -> None:
    assert Classifier.from_pretrained(models / "fp32").runtime.endswith(f"threads: {available_cores()}")


def test_incompatible_combinations_are_refused(models: Path) -> None:
    with pytest.raises(ConfigError, match="onnxruntime does not support bf16"):
        Classifier.from_pretrained(models / "both", runtime="onnxruntime", precision="bf16")
    with pytest.raises(ConfigError, match="openvino does not support int8"):
        Classifier.from_pretrained(models / "both", runtime="openvino", precision="int8")
    with pytest.raises(
        ConfigError, match=r"has no onnx/model_quantized\.onnx, which int8 requires; it contains onnx/model\.onnx"
    ):
        Classifier.from_pretrained(models / "fp32", precision="int8")
    with pytest.raises(ConfigError, match="runtime is 'tensorrt'; allowed: auto, onnxruntime, openvino"):
        Classifier.from_pretrained(models / "fp32", runtime="tensorrt")
    for folder in ("saved", "minilm-logreg"):
        with pytest.raises(ConfigError, match="runtime, precision and threads apply to exports only"):
            Classifier.from_pretrained(models / folder if folder == "saved" else folder, threads=2)


def test_missing_openvino_is_reported(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.delitem(sys.modules, "reviewguard.inference.engines.openvino", raising=False)
    with pytest.raises(MissingExtra, match=r"reviewguard\[openvino\]"):
        Classifier.from_pretrained(models / "fp32", runtime="openvino")


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, 8),
        ({"cpu.max": "max 100000\n"}, 8),
        ({"cpu.max": "150000 100000\n"}, 2),
        ({"cpu.max": "10000 100000\n"}, 1),
        ({"cpu.max": "9900000 100000\n"}, 8),
        ({"cpu/cpu.cfs_quota_us": "300000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 3),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 8),
        ({"cpu.max": "garbage"}, 8),
    ],
)
def test_the_containers_quota_limits_the_cores(
    files: dict[str, str], cores: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(8)))
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    assert available_cores(tmp_path) == cores
