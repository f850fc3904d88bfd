"""The model in the box: the one that its card and its results are about, alone on a machine with the base install."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from commands import call

from reviewguard import Classifier
from reviewguard.bundle import open_bundle
from reviewguard.data.reviews import read
from reviewguard.errors import EncoderError
from reviewguard.loading import DEFAULT_MODEL

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "docs" / "results"
GRAPH = "onnx/model_quantized.onnx"
MIB = 2**20


@pytest.fixture(scope="module")
def box() -> Classifier:
    return Classifier.from_pretrained()


def tables(markdown: str) -> list[str]:
    return [block for block in markdown.split("\n\n") if block.startswith("| ")]


def test_card_results_and_model_belong_together() -> None:
    bundle = open_bundle(DEFAULT_MODEL)  # every file against its hash
    found = json.loads((RESULTS / "default-model.json").read_text(encoding="utf-8"))
    assert found["graph_sha256"] == bundle.manifest.files[GRAPH].sha256
    assert bundle.manifest.decision.point is not None
    assert found["threshold"] == bundle.manifest.decision.point.threshold
    of_page = tables((RESULTS / "default-model.md").read_text(encoding="utf-8"))
    assert len(of_page) == 2
    assert tables(bundle.read("README.md").decode()) == of_page


def test_it_is_small_and_holds_nothing_of_the_training_rows() -> None:
    files = open_bundle(DEFAULT_MODEL).manifest.files
    assert set(files) == {"config.json", "tokenizer.json", "tokenizer_config.json", "export_report.json", "README.md", GRAPH}
    assert sum(file.size for file in files.values()) <= 24 * MIB
    assert {path.relative_to(DEFAULT_MODEL).as_posix() for path in DEFAULT_MODEL.rglob("*") if path.is_file()} == {
        *files,
        "reviewguard.json",
    }


def test_of_no_source_of_products_it_accuses_more_than_two_percent_of_the_people() -> None:
    found = json.loads((RESULTS / "default-model.json").read_text(encoding="utf-8"))
    assert set(found["sources"]) == {"gpt2", "deepseek", "glm", "lfm", "gpt4"}
    rates = {source: one["false_positive_rate"]["value"] for source, one in found["sources"].items()}
    assert max(rate for source, rate in rates.items() if source != "gpt4") <= 0.02


def test_it_tells_generated_reviews_from_peoples(box: Classifier) -> None:
    fakes = [
        "I've been using this kettle every morning for about three months now and it still works like new. Heats up fast, pours "
        "cleanly, and the handle stays cool. Definitely worth the price.",
        "The packaging arrived in great shape and setup took less than five minutes. It feels sturdy, looks sharp on the "
        "counter, and hasn't let me down once. Would happily recommend it to anyone.",
    ]
    people = [
        "Bought 2, one DOA. seller sent another no questions asked so 4 stars i guess. cord is WAY too short tho, had to dig out "
        "an extension cord from the garage.",
        "my wife hates it, I like it. Fits the '09 Tacoma but you gotta bend the tab on the left side a little, took me 20 min.",
    ]
    assert box.predict(fakes + people).tolist() == ["fake", "fake", "real", "real"]


def test_it_says_what_the_readme_says(capsys: pytest.CaptureFixture[str]) -> None:
    snippet = (ROOT / "README.md").read_text(encoding="utf-8").split("```python\n", 1)[1].split("```")[0]
    exec(snippet, {})
    printed = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [(label, decision) for label, _, decision in printed] == [("fake", "fake"), ("real", "real")]


def test_the_demonstration_shows_all_three_decisions(box: Classifier) -> None:
    with open(ROOT / "examples" / "incoming_reviews.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    decided = dict(zip((row["id"] for row in rows), box.stream([row["text"] for row in rows]), strict=True))
    assert {one.decision for one in decided.values()} == {"fake", "real", "needs_review"}
    assert [decided[short_or_german].unfamiliar for short_or_german in ("r-111", "r-112")] == [True, True]


def test_other_languages_are_left_to_people(box: Classifier) -> None:
    [spanish] = box.stream(["La habitación estaba limpia y el desayuno fue excelente, volveremos el próximo verano."])
    assert spanish.unfamiliar
    assert spanish.decision == "needs_review"


def test_what_is_too_short_to_tell_is_left_to_people(box: Classifier) -> None:
    assert [answer.decision for answer in box.stream(["ok", "Five stars", "Great product!"])] == ["needs_review"] * 3


def test_it_abstains_where_it_is_not_sure(box: Classifier, sample: Path) -> None:
    answers = [answer for answer in box.triage([text for text in read(sample).texts if text]) if not answer.unfamiliar]
    assert {answer.decision for answer in answers} == {"fake", "real", "needs_review"}
    left, decided = (
        [answer.score for answer in answers if (answer.decision == "needs_review") is is_left] for is_left in (True, False)
    )
    assert max(left) < max(decided)


def test_it_is_not_the_start_of_another(box: Classifier, sample: Path) -> None:
    with pytest.raises(EncoderError, match="preset"):
        box.train(sample)


def test_the_command_line_takes_it_where_no_model_is_named(
    tmp_path: Path, sample: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not call("predict", str(sample), "--out", str(tmp_path / "out.csv"))
    said = capsys.readouterr().err
    assert "model in the box" in said
    assert "README.md" in said
    rows = (tmp_path / "out.csv").read_text(encoding="utf-8").splitlines()
    assert len(rows) == len(sample.read_text(encoding="utf-8").splitlines())
