"""Predictions on Ray equal local ones: all rows, in order, computed once, also after failures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import ray.data
from commands import captured
from pyarrow import parquet

from reviewguard import Classifier
from reviewguard.errors import BundleError, ConfigError, DataError, MissingExtra
from reviewguard.inference.streaming import added_columns
from reviewguard.scale import predict_dataset, predict_parquet
from reviewguard.scale.predict import RECORD

ADDED = added_columns(["fake", "real"])

pytestmark = [
    # Ray uses deprecated names of other packages.
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),
    pytest.mark.filterwarnings("ignore::FutureWarning:ray"),
    pytest.mark.usefixtures("cluster"),
]
#: Actors are separate processes, and would select bf16 if the CPU supports it.
FP32 = {"runtime": "onnxruntime", "precision": "fp32"}
TEXTS = [f"Kettle number {i} is really {'good' if i % 3 else 'bad'}. I recommend it to everyone." for i in range(300)]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Two files of 150 rows with row groups of 40."""
    for number in range(2):
        rows = range(150 * number, 150 * (number + 1))
        table = pa.table({"id": list(rows), "text": [TEXTS[row] for row in rows], "tags": [["a", str(row)] for row in rows]})
        (tmp_path / "in").mkdir(exist_ok=True)
        parquet.write_table(table, tmp_path / "in" / f"{number}.parquet", row_group_size=40)
    return tmp_path / "in"


def load(folder: Path) -> pa.Table:
    return pa.concat_tables(parquet.read_table(path) for path in sorted(folder.glob("*.parquet")))


def require_local(found: pa.Table, exported: Path) -> None:
    """Local predictions of each text."""
    here = list(Classifier.from_pretrained(exported, **FP32).stream(found["text"].to_pylist()))
    for name, field in (
        ("predicted_label", "label"),
        *((name, name) for name in ("decision", "truncated", "out_of_distribution")),
    ):
        assert found[name].to_pylist() == [getattr(one, field) for one in here]
    np.testing.assert_allclose(found["predicted_score"].to_numpy(), [one.score for one in here], atol=1e-5)
    assert found["error"].null_count == len(found)


def test_parquet_equals_local_predictions(source: Path, exported: Path, tmp_path: Path) -> None:
    summary = predict_parquet(source, tmp_path / "out", exported, part_rows=80, **FP32)
    assert (summary.rows, summary.resumed, summary.errors, summary.out) == (300, 0, 0, str(tmp_path / "out"))
    found, before = load(tmp_path / "out"), load(source)
    assert found.column_names == [*before.column_names, *ADDED]
    assert found.select(before.column_names).equals(before)
    require_local(found, exported)
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["0-00000.parquet", "0-00002.parquet", "1-00000.parquet", "1-00002.parquet", RECORD]
    assert len(parquet.read_table(tmp_path / "out")) == 300, "Parquet readers ignore the record"


def test_a_dataset_equals_local_predictions(exported: Path) -> None:
    dataset = ray.data.from_arrow(pa.table({"id": list(range(300)), "text": TEXTS}))
    found = pa.concat_tables(ray.get(predict_dataset(dataset, exported, actors=2, **FP32).to_arrow_refs())).sort_by("id")
    assert found.column_names == ["id", "text", *ADDED]
    assert found["text"].to_pylist() == TEXTS
    require_local(found, exported)


def test_only_missing_or_changed_parts_are_computed(source: Path, exported: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    predict_parquet(source, out, exported, part_rows=80, **FP32)
    whole = {path.name: path.read_bytes() for path in out.glob("*.parquet")}
    made = {path.name: path.stat().st_mtime_ns for path in out.glob("*.parquet")}
    (out / "0-00002.parquet").unlink()
    (out / "1-00000.parquet").write_bytes(whole["1-00000.parquet"][:100])
    (out / ".1-00002.parquet.x.tmp").write_bytes(b"of a worker that was killed")
    summary = predict_parquet(source, out, exported, part_rows=80, **FP32)
    assert (summary.rows, summary.resumed) == (300, 150)
    assert {path.name: path.read_bytes() for path in out.iterdir() if path.name != RECORD} == whole
    same = [name for name, when in made.items() if (out / name).stat().st_mtime_ns == when]
    assert sorted(same) == ["0-00000.parquet", "1-00002.parquet"]
    changed = parquet.read_table(source / "1.parquet").set_column(1, "text", pa.array(TEXTS[:150]))
    parquet.write_table(changed, source / "1.parquet", row_group_size=40)
    assert predict_parquet(source, out, exported, part_rows=80, **FP32).resumed == 150
    require_local(load(out), exported)


def test_unusable_rows_become_error_rows(exported: Path, tmp_path: Path) -> None:
    broken = pa.StringArray.from_buffers(1, pa.py_buffer(np.array([0, 2], np.int32).tobytes()), pa.py_buffer(b"\xff\xfe"))
    texts = pa.concat_arrays([pa.array(["fine", None, "x" * 2**20, ""]), broken])
    (tmp_path / "in").mkdir()
    parquet.write_table(pa.table({"text": texts, "id": range(5)}), tmp_path / "in" / "a.parquet")
    parquet.write_table(pa.table({"text": [b"bytes", None], "id": [5, 6]}), tmp_path / "in" / "b.parquet")
    parquet.write_table(pa.table({"text": [7, 8], "id": [7, 8]}), tmp_path / "in" / "c.parquet")
    summary = predict_parquet(tmp_path / "in", tmp_path / "out", exported)
    assert (summary.rows, summary.errors, summary.truncated) == (9, 8, 0)
    tables = [parquet.read_table(path).select(["id", *ADDED]) for path in sorted((tmp_path / "out").glob("*.parquet"))]
    found = [row for table in tables for row in table.to_pylist()]
    assert [row["id"] for row in found] == list(range(9))
    missing, odd, number = "the text is missing or null", "the text is a bytes, not a string", "the text is a int, not a string"
    long = "the text has 1,048,576 characters, more than 1,000,000"
    assert [row["error"] for row in found] == [None, missing, long, "the text is empty", odd, odd, missing, number, number]
    assert [row["predicted_label"] is None for row in found] == [bool(row["error"]) for row in found]
    mixed = ray.data.from_items([{"text": text} for text in ("fine", None)])
    assert [row["error"] for row in predict_dataset(mixed, exported, actors=1).take_all()] == [None, missing]


def test_a_damaged_file_fails_only_its_own_parts(source: Path, exported: Path, tmp_path: Path) -> None:
    path = source / "0.parquet"
    good = path.read_bytes()
    path.write_bytes(good[:200] + b"\0" * 400 + good[600:])
    parquet.write_table(pa.table({"words": ["a"]}), source / "2.parquet")
    with pytest.raises(DataError, match=r"2 of 3 parts failed, and 150 of 301 rows are done; the first failure: .*0\.parquet"):
        predict_parquet(source, tmp_path / "out", exported)
    path.write_bytes(good)
    (source / "2.parquet").unlink()
    summary = predict_parquet(source, tmp_path / "out", exported)
    assert (summary.rows, summary.resumed) == (300, 150)


def test_folders_of_other_jobs_are_refused(source: Path, exported: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is inside the input"):
        predict_parquet(source, source / "out", exported)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("mine")
    with pytest.raises(DataError, match=r"contains files of another origin, such as 'thesis\.txt'"):
        predict_parquet(source, tmp_path / "mine", exported)
    predict_parquet(source, tmp_path / "out", exported)
    with pytest.raises(DataError, match="started with another model, text column"):
        predict_parquet(source, tmp_path / "out")
    with pytest.raises(DataError, match="started with another model, text column"):
        predict_parquet(source, tmp_path / "out", exported, text="id")
    (source / "1.parquet").unlink()
    with pytest.raises(DataError, match=r"no longer in the input, such as '1-00000\.parquet'"):
        predict_parquet(source, tmp_path / "out", exported)
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"cannot use .*file/out for the output"):
        predict_parquet(source, tmp_path / "file" / "out", exported)
    (tmp_path / "out" / RECORD).write_text("{")
    with pytest.raises(DataError, match=r"cannot use .*out for the output"):
        predict_parquet(source, tmp_path / "out", exported)


def test_models_that_are_not_exports_are_refused(source: Path, tiny_settings: dict[str, object], tmp_path: Path) -> None:
    for name in ("minilm-logreg", tmp_path / "saved"):
        if name != "minilm-logreg":
            Classifier("minilm-logreg", **tiny_settings).fit(["a kettle", "a pan"], ["x", "y"]).save(name)
        with pytest.raises(
            ConfigError, match=r"prediction on Ray requires an export, and .* is not one; run: reviewguard export"
        ):
            predict_parquet(source, tmp_path / "out", name)
    with pytest.raises(BundleError):
        predict_dataset(ray.data.range(1), tmp_path)
    assert not (tmp_path / "out").exists()


def test_a_node_caches_a_model_and_repairs_it(
    source: Path, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from reviewguard.scale import cluster

    monkeypatch.setenv("REVIEWGUARD_CACHE", str(tmp_path / "cache"))
    _, shipped = cluster.ship(exported, None, None, "onnxruntime", "fp32")
    here = Classifier.from_pretrained(exported).predict_proba(TEXTS)
    np.testing.assert_allclose(shipped.load().probabilities(TEXTS), here, atol=1e-6)
    [folder] = (tmp_path / "cache" / "bundles").iterdir()
    graph = folder / "onnx" / "model.onnx"
    before = graph.stat().st_mtime_ns
    shipped.load()
    assert graph.stat().st_mtime_ns == before
    graph.write_bytes(b"damaged")
    np.testing.assert_allclose(shipped.load().probabilities(TEXTS), here, atol=1e-6)
    assert [path.name for path in (tmp_path / "cache" / "bundles").iterdir()] == [folder.name]


def test_the_command_line(source: Path, tmp_path: Path) -> None:
    done = captured("predict", source, "--engine", "ray", "--out", tmp_path / "out")
    assert done.stdout.startswith(f"300 rows in {tmp_path / 'out'}")
    assert "rows per second" in done.stdout
    assert "The built-in model" in done.stderr
    found = load(tmp_path / "out")
    assert found["predicted_label"].to_pylist() == Classifier.from_pretrained().predict(TEXTS).tolist()
    again = captured("predict", source, "--engine", "ray", "--out", tmp_path / "out", "--json")
    assert '"resumed": 300' in again.stdout
    refused = captured("predict", source, "--engine", "ray", check=False)
    assert (refused.returncode, "pass DATA and --out" in refused.stderr) == (1, True)


def test_missing_ray_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    for name in [name for name in sys.modules if name.split(".")[0] == "ray" or name.startswith("reviewguard.scale")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtra, match=r"reviewguard\[scale\]"):
        from reviewguard.scale import predict_parquet as _again  # noqa: F401
