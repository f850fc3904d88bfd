"""Untrusted models run no code and read no files outside their folder; defects raise errors of reviewguard."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto

from reviewguard import Classifier
from reviewguard.bundle.manifest import MANIFEST
from reviewguard.errors import ReviewGuardError

GOLDEN = Path(__file__).parent / "golden" / "format-1"
GRAPH = "onnx/model.onnx"
TEXTS = ["a good kettle", "?"]


@pytest.fixture(params=["exported", "saved"])
def model(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    shutil.copytree(GOLDEN / request.param, tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    shutil.copytree(GOLDEN / "exported", tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    shutil.copytree(GOLDEN / "saved", tmp_path / "model")
    return tmp_path / "model"


def enter(model: Path, name: str, size: int, sha256: str) -> None:
    """Add a file to the manifest."""
    manifest = json.loads((model / MANIFEST).read_text())
    manifest["files"][name] = {"size": size, "sha256": sha256}
    (model / MANIFEST).write_text(json.dumps(manifest))


def put(model: Path, name: str, data: bytes) -> None:
    """Add a file and list it with its hash, as an attacker could."""
    (model / name).write_bytes(data)
    enter(model, name, len(data), hashlib.sha256(data).hexdigest())


def change(model: Path, name: str, **values: object) -> None:
    put(model, name, json.dumps({**json.loads((model / name).read_text()), **values}).encode())


def use(model: Path) -> None:
    Classifier.from_pretrained(model).predict(TEXTS)


class Bomb:
    """An object whose pickle creates a file when it is loaded."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str, ...]]:
        return os.system, (f"touch {self.canary}",)


@pytest.mark.parametrize("name", ["encoder/model.safetensors", "encoder/pytorch_model.bin", "head.safetensors", "tokenizer.json"])
def test_a_planted_pickle_is_not_loaded(saved: Path, tmp_path: Path, name: str):
    canary = tmp_path / "canary"
    bomb = pickle.dumps(Bomb(canary))
    pickle.loads(bomb)
    assert canary.exists()  # the payload works
    canary.unlink()
    put(saved, name, bomb)
    if name.endswith(".bin"):
        use(saved)  # the file is ignored
    else:
        with pytest.raises(ReviewGuardError):
            use(saved)
    assert not canary.exists()


def test_a_pickle_instead_of_safetensors_is_refused(saved: Path):
    (saved / "encoder" / "model.safetensors").unlink()
    manifest = json.loads((saved / MANIFEST).read_text())
    del manifest["files"]["encoder/model.safetensors"]
    (saved / MANIFEST).write_text(json.dumps(manifest))
    put(saved, "encoder/pytorch_model.bin", b"whatever")
    with pytest.raises(ReviewGuardError, match="pickled weights are not read"):
        use(saved)


@pytest.mark.parametrize("model_type", ["bert", "new", "strangers"])
def test_planted_code_is_not_run(saved: Path, tmp_path: Path, model_type: str):
    canary = tmp_path / "canary"
    put(saved, "encoder/modeling.py", f"open({str(canary)!r}, 'w')\nclass Config: ...\nclass Model: ...\n".encode())
    loads = {"AutoConfig": "modeling.Config", "AutoModel": "modeling.Model", "AutoTokenizer": ["modeling.Model", None]}
    change(saved, "encoder/config.json", auto_map=loads, model_type=model_type)
    change(saved, "encoder/tokenizer_config.json", auto_map=loads)
    try:
        use(saved)
    except ReviewGuardError:
        assert model_type != "bert"
    assert not canary.exists()


@pytest.mark.parametrize("setting", ["attn_implementation", "quantization_config"])
def test_a_configuration_chooses_no_libraries(saved: Path, setting: str):
    change(saved, "encoder/config.json", **{setting: {"quant_method": "strangers"}})
    with pytest.raises(ReviewGuardError, match="not allowed"):
        use(saved)


def test_excessive_depth_is_refused_before_the_model_is_built(saved: Path):
    change(saved, "encoder/config.json", num_hidden_layers=10**9)
    with pytest.raises(ReviewGuardError, match="contain only 39 tensors"):
        use(saved)


@pytest.mark.parametrize("location", ["../../secret.bin", "/{}/secret.bin", "secret.bin", "link.bin", "../config.json", ""])
def test_a_graph_cannot_read_unlisted_files(exported: Path, tmp_path: Path, location: str):
    graph = onnx.load(exported / GRAPH)
    large = max(graph.graph.initializer, key=lambda item: len(item.raw_data))
    secret = tmp_path / "secret.bin"
    secret.write_bytes(large.raw_data)
    shutil.copy(secret, exported / "onnx" / "secret.bin")
    (exported / "onnx" / "link.bin").symlink_to(secret)
    large.ClearField("raw_data")
    large.data_location = TensorProto.EXTERNAL
    large.external_data.add(key="location", value=location.format(tmp_path))
    put(exported, GRAPH, graph.SerializeToString())
    with pytest.raises(ReviewGuardError, match="does not list"):
        use(exported)


def test_listed_external_data_is_read(exported: Path):
    expected = Classifier.from_pretrained(exported).predict_proba(TEXTS)
    graph = onnx.load(exported / GRAPH)
    onnx.save_model(graph, exported / GRAPH, save_as_external_data=True, location="model.onnx_data", size_threshold=1024)
    for name in (GRAPH, "onnx/model.onnx_data"):
        put(exported, name, (exported / name).read_bytes())
    assert (Classifier.from_pretrained(exported).predict_proba(TEXTS) == expected).all()


@pytest.mark.parametrize("name", ["../outside", "/etc/hostname", "a/../../outside", "C:\\outside", "a\0b"])
def test_a_manifest_cannot_list_files_outside_the_folder(model: Path, name: str):
    enter(model, name, 1, "0" * 64)
    with pytest.raises(ReviewGuardError, match="not a plain path inside the folder"):
        use(model)


def names(kind: str) -> list[str]:
    """Files that are read in loading and using a model."""
    result = (path.relative_to(GOLDEN / kind).as_posix() for path in (GOLDEN / kind).rglob("*") if path.is_file())
    return sorted(set(result) - {MANIFEST, "README.md", "split.csv"})


damage = st.one_of(
    st.tuples(st.just("replaced"), st.binary(max_size=200), st.just(0.0)),
    st.tuples(st.just("cut"), st.just(b""), st.floats(0, 1)),
    st.tuples(st.just("inserted"), st.binary(min_size=1, max_size=20), st.floats(0, 1)),
    st.tuples(st.just("overwritten"), st.binary(min_size=1, max_size=20), st.floats(0, 0.02)),
    st.tuples(st.just("overwritten"), st.binary(min_size=1, max_size=20), st.floats(0, 1)),
)


def damaged(data: bytes, how: str, other: bytes, where: float) -> bytes:
    place = int(where * len(data))
    edits = {"replaced": (b"", b""), "cut": (data[:place], b""), "inserted": (data[:place], data[place:])}
    before, after = edits.get(how, (data[:place], data[place + len(other) :]))
    return before + other + after


@pytest.mark.parametrize("kind", ["exported", "saved"])
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_damage_is_harmless_or_raises_our_error(kind: str, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject):
    model = tmp_path_factory.mktemp("damaged") / "model"
    shutil.copytree(GOLDEN / kind, model)
    name = data.draw(st.sampled_from(names(kind)))
    put(model, name, damaged((model / name).read_bytes(), *data.draw(damage)))
    try:
        use(model)
    except ReviewGuardError as error:
        assert str(error)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    raw=st.one_of(
        st.binary(max_size=300),
        st.text(max_size=300).map(str.encode),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
            max_leaves=8,
        ).map(lambda value: json.dumps(value).encode()),
    )
)
def test_any_malformed_manifest_raises_our_error(tmp_path_factory: pytest.TempPathFactory, raw: bytes):
    folder = tmp_path_factory.mktemp("manifest")
    (folder / MANIFEST).write_bytes(raw)
    with pytest.raises(ReviewGuardError):
        Classifier.from_pretrained(folder)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(["rows.csv", "rows.tsv", "rows.jsonl", "rows.parquet"]),
    raw=st.one_of(st.binary(max_size=300), st.text(max_size=300).map(str.encode)),
)
def test_any_table_is_read_or_raises_our_error(tmp_path_factory: pytest.TempPathFactory, name: str, raw: bytes):
    from reviewguard.data.reviews import read

    path = tmp_path_factory.mktemp("table") / name
    path.write_bytes(raw)
    try:
        rows = read(path)
    except ReviewGuardError as error:
        assert str(error)
    else:
        assert all(text is None or isinstance(text, str) for text in rows.texts)


@pytest.fixture(scope="module")
def loaded() -> Classifier:
    return Classifier.from_pretrained(GOLDEN / "exported")


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(st.text(st.characters(codec=None, exclude_categories=()), max_size=200), max_size=4))
def test_any_text_gets_a_prediction(loaded: Classifier, texts: list[str]):
    answers = list(loaded.stream(texts))
    assert len(answers) == len(texts)
    for text, answer in zip(texts, answers, strict=True):
        if answer.score is None:
            assert answer.error == "the text is empty"
            assert not text.isprintable() or not text.strip()
        else:
            assert 0 <= answer.score <= 1
