"""Streaming prediction: every row once and in order, in any format and after any number of interruptions."""

from __future__ import annotations

import csv
import json
import tracemalloc
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest
from filelock import FileLock
from pyarrow import parquet

from reviewguard import Classifier, files
from reviewguard.data.reviews import read
from reviewguard.errors import DataError
from reviewguard.inference.streaming import added_columns, predict_file, predict_to

ADDED = added_columns(["fake", "real"])


@pytest.fixture(scope="module")
def classifier(tiny_settings: dict[str, object], sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    """An export, as used for streaming in production."""
    fitted = Classifier("minilm-logreg", **tiny_settings)
    reviews = read(sample)
    fitted.fit(reviews.texts, reviews.labels)
    folder = tmp_path_factory.mktemp("model") / "exported"
    fitted.export(folder)
    return Classifier.from_pretrained(folder)


@pytest.fixture
def other(tiny_settings: dict[str, object]) -> Classifier:
    return Classifier("minilm-logreg", **tiny_settings).fit(["a kettle", "a pan"], ["x", "y"])


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """2,500 rows (three chunks) with quotes, line breaks, an empty text and an additional column."""
    path = tmp_path / "in.csv"
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "review", "note"])
        for i in range(2500):
            text = "" if i == 7 else f'Kettle number {i}, "fine",\nreally {"good" if i % 3 else "bad"}.'
            writer.writerow([i, text, f"caf\u00e9; {i},\n"])
    return path


def load(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_every_row_is_written_in_order_with_its_other_columns(classifier: Classifier, source: Path, tmp_path: Path) -> None:
    summary = predict_file(classifier, source, tmp_path / "out.csv")
    assert (summary.rows, summary.resumed, summary.errors) == (2500, 0, 1)
    before, after = load(source), load(tmp_path / "out.csv")
    assert [{name: row[name] for name in before[0]} for row in after] == before
    assert {name: after[7][name] for name in ADDED} == {**dict.fromkeys(ADDED, ""), "error": "the text is empty"}
    del before[7], after[7]
    probabilities = classifier.predict_proba([row["review"] for row in before])
    assert [row["predicted_label"] for row in after] == classifier.classes_[probabilities.argmax(axis=1)].tolist()
    assert [float(row["predicted_score"]) for row in after] == pytest.approx(probabilities.max(axis=1).tolist(), abs=2e-6)
    assert {row["truncated"] for row in after} == {"False"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.csv", "out.csv"], "no temporary files remain"


@pytest.mark.parametrize("kind", [".jsonl", ".tsv", ".ndjson"])
def test_other_formats_contain_the_same_rows(classifier: Classifier, source: Path, tmp_path: Path, kind: str) -> None:
    predict_file(classifier, source, tmp_path / "out.csv")
    predict_file(classifier, source, tmp_path / f"mid{kind}")
    (tmp_path / "again").mkdir()
    rows = [
        {name: value for name, value in row.items() if name not in ADDED}
        for row in (
            map(json.loads, (tmp_path / f"mid{kind}").read_text().splitlines())
            if kind != ".tsv"
            else csv.DictReader((tmp_path / "mid.tsv").read_text().splitlines(keepends=True), delimiter="\t")
        )
    ]
    assert rows == load(source)


def test_rows_without_a_usable_text_become_error_rows(classifier: Classifier, tmp_path: Path) -> None:
    usual = "It boils fast and the lid stays shut."
    texts = [usual, None, 7, {"nested": 1}, "", "x" * 200_000, f"half of a pair: \ud800. {usual}", "x" * 2**20]
    source = tmp_path / "in.jsonl"
    lines = [json.dumps({"text": text, "id": i}) for i, text in enumerate(texts)] + ['{"id": 8}']
    source.write_text("\n".join(lines) + "\n\n")
    summary = predict_file(classifier, source, tmp_path / "out.jsonl")
    assert (summary.rows, summary.errors, summary.truncated, summary.out_of_distribution) == (9, 6, 1, 1)
    out = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [row["id"] for row in out] == list(range(9))
    assert [row["error"] for row in out] == [
        None,
        "the text is missing or null",
        "the text is a int, not a string",
        "the text is a dict, not a string",
        "the text is empty",
        None,
        None,
        "the text has 1,048,576 characters, more than 1,000,000",
        "the text is missing or null",
    ]
    assert [row["predicted_label"] is None for row in out] == [bool(row["error"]) for row in out]
    assert [row["truncated"] for row in out if not row["error"]] == [False, True, False]
    assert [row["out_of_distribution"] for row in out if not row["error"]] == [False, True, False]


class Interrupted(Exception):
    pass


def interrupt_after(monkeypatch: pytest.MonkeyPatch, chunks: int) -> None:
    real, done = files.replace, []

    def replace(path: Path, content: bytes) -> None:
        real(path, content)
        done.append(1)
        if len(done) == chunks:
            raise Interrupted

    monkeypatch.setattr(files, "replace", replace)


@pytest.mark.parametrize("chunks", [1, 2, 3])
def test_an_interrupted_run_resumes(
    classifier: Classifier, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunks: int
) -> None:
    predict_file(classifier, source, tmp_path / "whole.csv")
    out = tmp_path / "out.csv"
    with monkeypatch.context() as patch:
        interrupt_after(patch, chunks)
        with pytest.raises(Interrupted):
            predict_file(classifier, source, out)
    assert not out.exists()
    with open(tmp_path / "out.csv.partial", "a") as file:
        file.write('torn,"row')  # left by an interruption during a write
    summary = predict_file(classifier, source, out)
    assert summary.rows == 2500
    assert summary.resumed == min(chunks * 1024, 2500)
    assert out.read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert not (tmp_path / "out.csv.partial").exists()
    assert not (tmp_path / "out.csv.progress").exists()


def test_a_run_does_not_resume_with_other_input_or_another_model(
    classifier: Classifier, other: Classifier, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        interrupt_after(patch, 1)
        with pytest.raises(Interrupted):
            predict_file(classifier, source, tmp_path / "out.csv")
    with pytest.raises(DataError, match="started with another model or text column"):
        predict_file(other, source, tmp_path / "out.csv")
    with pytest.raises(DataError, match="started with another model or text column"):
        predict_file(classifier, source, tmp_path / "out.csv", text="note")
    original = source.read_text()
    source.write_text(original.replace("Kettle number 3,", "Kettle number 4,", 1))
    with pytest.raises(DataError, match=r"first 1024 rows of .* differ from those"):
        predict_file(classifier, source, tmp_path / "out.csv")
    source.write_text("\n".join(original.splitlines()[:4]) + "\n")
    with pytest.raises(DataError, match="differ from those"):
        predict_file(classifier, source, tmp_path / "out.csv")
    source.write_text(original)
    assert predict_file(classifier, source, tmp_path / "out.csv").resumed == 1024


@pytest.mark.parametrize("damage", ["record", "partial"])
def test_damaged_progress_files_are_reported(
    classifier: Classifier, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    with monkeypatch.context() as patch:
        interrupt_after(patch, 2)
        with pytest.raises(Interrupted):
            predict_file(classifier, source, tmp_path / "out.csv")
    broken = tmp_path / ("out.csv.progress" if damage == "record" else "out.csv.partial")
    broken.write_bytes(broken.read_bytes()[:50])
    with pytest.raises(DataError, match=r"out.csv.progress is damaged .*; delete it and"):
        predict_file(classifier, source, tmp_path / "out.csv")


def test_a_malformed_row_late_in_the_file_loses_no_progress(classifier: Classifier, source: Path, tmp_path: Path) -> None:
    good = source.read_text()
    source.write_text(good + "one,field,too,many\n")
    with pytest.raises(DataError, match="4 fields, but the header has 3"):
        predict_file(classifier, source, tmp_path / "out.csv")
    source.write_text(good)
    assert predict_file(classifier, source, tmp_path / "out.csv").resumed == 2048


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "has no rows"),
        ("text\n", "has no rows"),
        ("words,note\na,b\n", "no column of .* looks like the text: it has 'words', 'note'"),
        ("text,error\na,b\n", "predictions would overwrite: error"),
    ],
)
def test_unusable_input_is_refused(classifier: Classifier, tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "in.csv").write_text(content)
    with pytest.raises(DataError, match=message):
        predict_file(classifier, tmp_path / "in.csv", tmp_path / "out.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["in.csv"]


@pytest.mark.parametrize(
    ("out", "message"), [("out.parquet", "predictions can be written as .csv"), ("in.csv", "is the input file")]
)
def test_unusable_outputs_are_refused(classifier: Classifier, source: Path, tmp_path: Path, out: str, message: str) -> None:
    before = source.read_bytes()
    with pytest.raises(DataError, match=message):
        predict_file(classifier, source, tmp_path / out)
    assert [path.name for path in tmp_path.iterdir()] == ["in.csv"]
    assert source.read_bytes() == before


def test_the_text_column_of_training_is_predicted(tiny_settings: dict[str, object], sample: Path, tmp_path: Path) -> None:
    reviews = read(sample)
    data = {"text": ["SKU 1"] * 320, "words": reviews.texts, "label": reviews.labels}
    named = Classifier("minilm-logreg", **tiny_settings, data__text="words")
    named.train(data)
    lines = [json.dumps({"text": "SKU 1", "words": text}) for text in reviews.texts]
    (tmp_path / "in.jsonl").write_text("\n".join(lines))
    predict_file(named, tmp_path / "in.jsonl", tmp_path / "out.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [row["predicted_label"] for row in rows] == named.predict(reviews.texts).tolist()


def test_in_a_file_of_one_column_an_empty_line_is_an_empty_text(classifier: Classifier, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("text\na kettle\n\na pan\n")
    assert predict_file(classifier, tmp_path / "in.csv", tmp_path / "out.jsonl").rows == 3


def test_a_field_without_a_csv_column_is_refused(classifier: Classifier, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"text": "a"}\n{"text": "b", "more": [1]}\n')
    with pytest.raises(DataError, match=r"'more', which the first row lacks; write .jsonl"):
        predict_file(classifier, tmp_path / "in.jsonl", tmp_path / "out.csv")


def test_two_processes_do_not_write_one_file(classifier: Classifier, source: Path, tmp_path: Path) -> None:
    with FileLock(tmp_path / ".out.csv.lock"), pytest.raises(DataError, match="another process is writing"):
        predict_file(classifier, source, tmp_path / "out.csv")


def test_predict_to_passes_on_the_rows_of_predict_file(classifier: Classifier, source: Path, tmp_path: Path) -> None:
    predict_file(classifier, source, tmp_path / "out.csv")
    blocks: list[str] = []
    predict_to(blocks.append, classifier, source)
    assert "".join(blocks) == (tmp_path / "out.csv").read_bytes().decode()
    blocks.clear()
    predict_to(blocks.append, classifier, source, as_json=True)
    assert json.loads("".join(blocks).splitlines()[7])["id"] == "7"


def test_the_input_is_never_the_output(classifier: Classifier, source: Path, tmp_path: Path) -> None:
    content = source.read_bytes()
    (tmp_path / "hard.csv").hardlink_to(source)
    (tmp_path / "out.csv.partial").hardlink_to(source)
    for out in (source, tmp_path / "hard.csv", tmp_path / "out.csv"):
        with pytest.raises(DataError, match="is the input file, which would be overwritten"):
            predict_file(classifier, source, out)
    assert source.read_bytes() == content


def test_every_input_format_can_be_predicted(classifier: Classifier, tmp_path: Path) -> None:
    day = datetime(2026, 1, 2, tzinfo=UTC)
    table = pa.table({"text": ["It boils fast.", None, "The lid rattles."], "day": [day] * 3})
    parquet.write_table(table, tmp_path / "in.parquet")
    summary = predict_file(classifier, tmp_path / "in.parquet", tmp_path / "out.jsonl")
    assert (summary.rows, summary.errors) == (3, 1)
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [row["day"] for row in rows] == [str(day)] * 3
    assert rows[0]["score_fake"] + rows[0]["score_real"] == pytest.approx(1, abs=2e-6)
    assert rows[0]["predicted_score"] == max(rows[0]["score_fake"], rows[0]["score_real"])
    assert rows[1]["score_fake"] is None


def test_memory_does_not_grow_with_the_file(classifier: Classifier, tmp_path: Path) -> None:
    peaks = []
    for rows in (3_000, 12_000):
        source = tmp_path / f"{rows}.csv"
        source.write_text("text\n" + "a kettle that boils\n" * rows)
        tracemalloc.start()
        predict_file(classifier, source, tmp_path / "out.csv")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.1 * peaks[0]
