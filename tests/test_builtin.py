"""The built-in model: the one that its card and its results are about, alone on a machine with the base install."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import msgspec
import numpy as np
import pytest
from commands import call

from reviewguard import Classifier
from reviewguard.bundle.folder import open_bundle
from reviewguard.data.perturb import perturbed
from reviewguard.data.reviews import read
from reviewguard.errors import EncoderError
from reviewguard.inference.references import FILE as REFERENCES
from reviewguard.loading import BUILTIN

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "docs" / "results"
GRAPH = "onnx/model_quantized.onnx"
MIB = 2**20


@pytest.fixture(scope="module")
def built_in() -> Classifier:
    return Classifier.from_pretrained()


def tables(markdown: str) -> list[str]:
    return [block for block in markdown.split("\n\n") if block.startswith("| ")]


def test_card_results_and_model_belong_together() -> None:
    bundle = open_bundle(BUILTIN)  # every file against its hash
    found = json.loads((RESULTS / "built-in.json").read_text(encoding="utf-8"))
    assert found["graph_sha256"] == bundle.manifest.files[GRAPH].sha256
    assert found["operating_point"] == msgspec.to_builtins(bundle.manifest.decision.operating_point)
    of_page = tables((RESULTS / "built-in.md").read_text(encoding="utf-8"))
    of_card = tables(bundle.read("README.md").decode())
    assert len(of_card) == 4  # domains, lengths, generators, licences
    assert set(of_card) <= set(of_page)


def test_it_is_small_and_holds_nothing_of_the_training_rows() -> None:
    files = open_bundle(BUILTIN).manifest.files
    assert set(files) == {
        "config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "export_report.json",
        "README.md",
        REFERENCES,
        GRAPH,
    }
    assert sum(file.size for file in files.values()) <= 40 * MIB
    assert {path.relative_to(BUILTIN).as_posix() for path in BUILTIN.rglob("*") if path.is_file()} == {
        *files,
        "reviewguard.json",
    }


def test_thresholds_hold_by_length_and_domain_and_nobody_is_certified(built_in: Classifier) -> None:
    decision = built_in.manifest.decision
    assert decision.operating_point is not None
    assert [band.words for band in decision.operating_point.bands] == [8, 20, 40, 80]
    assert decision.abstention is not None
    assert decision.abstention.one_sided
    rates = [*decision.operating_point.bands, *decision.operating_point.groups.values()]
    assert all(one.false_positive_rate.value <= 0.02 for one in rates)  # type: ignore[operator]


def test_it_tells_generated_reviews_from_human_ones(built_in: Classifier) -> None:
    generated = [
        "I've been using this kettle every morning for about three months now and it still works like new. Heats up fast, pours "
        "cleanly, and the handle stays cool. Definitely worth the price.",
        "The packaging arrived in great shape and setup took less than five minutes. It feels sturdy, looks sharp on the "
        "counter, and hasn't let me down once. Would happily recommend it to anyone.",
    ]
    human = [
        "Bought 2, one DOA. seller sent another no questions asked so 4 stars i guess. cord is WAY too short tho, had to dig out "
        "an extension cord from the garage.",
        "my wife hates it, I like it. Fits the '09 Tacoma but you gotta bend the tab on the left side a little, took me 20 min.",
    ]
    odds = np.log(built_in.predict_proba(generated + human)[:, built_in.classes_.tolist().index("fake")])
    assert odds[:2].min() > odds[2:].max()
    assert "fake" not in [one.decision for one in built_in.stream(human)]


def test_look_alike_letters_change_nothing(built_in: Classifier) -> None:
    text = "These headphones exceeded my expectations in every way, and the battery easily lasts all day."
    changed = [perturbed(text, name) for name in ("homoglyphs 100 %", "invisible characters", "variation selectors")]
    assert all(one != text for one in changed)
    scores = built_in.predict_proba([text, *changed])
    assert (scores == scores[0]).all()


def test_it_says_what_the_readme_says(capsys: pytest.CaptureFixture[str]) -> None:
    snippet = (ROOT / "README.md").read_text(encoding="utf-8").split("```python\n", 1)[1].split("```")[0]
    exec(snippet, {})
    printed = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [decision for decision, _, _ in printed] == ["fake", "not_flagged"]


def test_the_demonstration_shows_all_three_decisions(built_in: Classifier) -> None:
    with open(ROOT / "examples" / "incoming_reviews.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    decided = dict(zip((row["id"] for row in rows), built_in.stream([row["text"] for row in rows]), strict=True))
    assert {one.decision for one in decided.values()} == {"fake", "needs_review", "not_flagged"}
    assert [decided[short_or_german].out_of_distribution for short_or_german in ("r-111", "r-112")] == [True, True]


def test_other_languages_need_review(built_in: Classifier) -> None:
    [spanish] = built_in.stream(["La habitación estaba limpia y el desayuno fue excelente, volveremos el próximo verano."])
    assert spanish.out_of_distribution
    assert spanish.decision == "needs_review"


def test_what_is_too_short_to_tell_needs_review(built_in: Classifier) -> None:
    assert [answer.decision for answer in built_in.stream(["ok", "Five stars", "Great product!"])] == ["needs_review"] * 3


def test_it_certifies_nobody(built_in: Classifier, sample: Path) -> None:
    answers = built_in.predict_detailed([text for text in read(sample).texts if text])
    assert {answer.decision for answer in answers} <= {"fake", "needs_review", "not_flagged"}
    assert {answer.label for answer in answers} <= {"fake", "real"}


def test_it_is_not_the_start_of_another(built_in: Classifier, sample: Path) -> None:
    with pytest.raises(EncoderError, match="preset"):
        built_in.train(sample)


def test_the_command_line_takes_it_where_no_model_is_named(
    tmp_path: Path, sample: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not call("predict", str(sample), "--out", str(tmp_path / "out.csv"))
    said = capsys.readouterr().err
    assert "built-in model" in said
    assert "README.md" in said
    rows = (tmp_path / "out.csv").read_text(encoding="utf-8").splitlines()
    assert len(rows) == len(sample.read_text(encoding="utf-8").splitlines())
