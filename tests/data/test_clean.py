import msgspec
import numpy as np
import pytest

from reviewguard.config import DataConfig
from reviewguard.data.clean import CleaningReport, Conflict, Step, clean
from reviewguard.data.reviews import Reviews, read
from reviewguard.data.tokens import Tokenizer
from reviewguard.errors import DataError

SENTENCE = "the kettle boils fast and pours well and I would buy it again for my mother who likes her tea hot"
LONG = SENTENCE.split()
CONFIG = DataConfig(min_tokens=4, max_tokens=30)
REASONS = {
    "without": "without text or label",
    "conflict": "equal texts with different labels",
    "repeated": "repeated texts",
    "short": "shorter than 4 tokens",
    "long": "longer than 30 tokens",
    "near": "near-duplicate texts",
}

# The step that drops each row; "" means kept.
ROWS = [
    ("", SENTENCE, "real"),
    ("without", None, "real"),
    ("without", "", "real"),
    ("without", " \n\u200b", "real"),
    ("without", "a text without a label", None),
    ("conflict", "It\u2019s  a fine   product", "real"),
    ("conflict", "It's a fine product", "fake"),
    ("conflict", "It's a fine product", "real"),
    ("", "The  \u201cstrap\u201d broke on  day two", "fake"),
    ("repeated", 'The "strap" broke on day two', "fake"),
    ("repeated", "The  \u201cstrap\u201d broke on  day two", "fake"),
    ("near", " ".join([*LONG[:-1], "cold"]), "real"),
    ("", " ".join([*LONG[:-1], "sweet"]), "fake"),
    ("near", SENTENCE.upper(), "fake"),
    ("short", "far too short", "real"),
    ("", "just long enough now", "real"),
    ("", " ".join(f"x{number}" for number in range(30)), "real"),
    ("long", " ".join(f"y{number}" for number in range(31)), "fake"),
]


def _count(texts) -> np.ndarray:
    return np.array([len(text.split()) for text in texts], dtype=np.int64)


def _reviews(rows) -> Reviews:
    texts, labels = zip(*rows, strict=True)
    return Reviews(texts=list(texts), labels=list(labels), columns={"row": list(range(len(rows)))}, source="the rows")


def test_each_step_drops_the_expected_rows():
    reviews = _reviews([row[1:] for row in ROWS])
    remaining, report = clean(reviews, CONFIG, _count)
    expected = [number for number, (reason, *_) in enumerate(ROWS) if not reason]
    assert remaining.columns["row"] == expected
    assert remaining == reviews.take(expected)  # as read, not as normalised
    assert report.steps == [Step(name, sum(why == reason for why, *_ in ROWS)) for reason, name in REASONS.items()]
    assert (report.rows_in, report.rows_out) == (len(ROWS), len(expected))
    assert report.rows_in - sum(step.dropped for step in report.steps) == report.rows_out
    assert report.conflicts == [Conflict("It's a fine product", ["fake", "real"])]


def test_report_as_text():
    text = clean(_reviews([row[1:] for row in ROWS]), CONFIG, _count)[1].to_text()
    assert text.splitlines() == [
        "cleaning: 18 rows read, 5 kept",
        "  without text or label: 4 dropped",
        "  equal texts with different labels: 3 dropped",
        "  repeated texts: 2 dropped",
        "  shorter than 4 tokens: 1 dropped",
        "  longer than 30 tokens: 1 dropped",
        "  near-duplicate texts: 2 dropped",
        '  labelled fake and real: "It\'s a fine product"',
    ]


def test_the_representative_of_near_duplicates_is_not_dropped_for_its_length():
    words = [f"w{number}" for number in range(31)]
    remaining, _ = clean(_reviews([(" ".join(words), "a"), (" ".join(words[:30]), "a")]), CONFIG, _count)
    assert remaining.columns["row"] == [1]


def test_cleaning_is_idempotent():
    once, _ = clean(_reviews([row[1:] for row in ROWS]), CONFIG, _count)
    again, report = clean(once, CONFIG, _count)
    assert again == once
    assert {step.dropped for step in report.steps} == {0}


@pytest.mark.parametrize(
    ("normalization", "remaining", "conflicts"),
    [
        ("none", ["Fine, I guess so", "Fine,  I guess so", "FINE I guess so"], 0),
        ("typography", ["FINE I guess so"], 1),
        ("study", [], 1),
    ],
)
def test_texts_are_compared_after_normalisation(normalization, remaining, conflicts):
    rows = [("Fine, I guess so", "a"), ("Fine,  I guess so", "b"), ("FINE I guess so", "a"), ("something else all together", "a")]
    config = DataConfig(normalization=normalization, near_duplicates=0, min_tokens=0)
    result, report = clean(_reviews(rows), config, _count)
    assert result.texts == [*remaining, "something else all together"]
    assert len(report.conflicts) == conflicts


def test_near_duplicates_may_be_kept():
    rows = [(SENTENCE, "real"), (" ".join([*LONG[:-1], "cold"]), "real")]
    remaining, report = clean(_reviews(rows), DataConfig(near_duplicates=0, min_tokens=0), _count)
    assert len(remaining) == 2
    assert "near-duplicate texts" not in [step.name for step in report.steps]
    assert len(clean(_reviews(rows), DataConfig(min_tokens=0), _count)[0]) == 1
    assert len(clean(_reviews(rows), DataConfig(near_duplicates=0.99, min_tokens=0), _count)[0]) == 2


def test_all_conflicts_are_dropped_and_ten_are_listed():
    rows = [(f"product number {number:02d} is fine", label) for number in range(12) for label in ("b", "a", "b")]
    remaining, report = clean(_reviews([*rows, ("and this one is left", "a")]), CONFIG, _count)
    assert remaining.texts == ["and this one is left"]
    assert report.conflicts == [Conflict(f"product number {number:02d} is fine", ["a", "b"]) for number in range(10)]
    assert report.steps[1] == Step(REASONS["conflict"], 36)


def test_texts_with_lone_surrogates_can_be_reported():
    # JSON can contain one, and the report becomes part of a manifest.
    rows = [("half a pair \ud800 here", "a"), ("half a pair \ud800 here", "b"), ("half a pair \ud800 there", "a")]
    remaining, report = clean(_reviews(rows), CONFIG, _count)
    assert remaining.columns["row"] == [2]
    assert msgspec.json.decode(msgspec.json.encode(report), type=CleaningReport) == report


def test_limits_count_tokens_of_the_normalised_text(tiny_encoder):
    files = ((tiny_encoder / name).read_bytes() for name in ("tokenizer.json", "tokenizer_config.json"))
    count = Tokenizer(*files, 16).count  # its own maximum length has no effect
    rows = [(" ".join(["the"] * n), "a") for n in (9, 10, 40, 41)] + [("good \u200b" * 10, "a")]
    remaining, report = clean(_reviews(rows), DataConfig(min_tokens=10, max_tokens=40, near_duplicates=0), count)
    assert remaining.columns["row"] == [1, 2, 4]
    assert report.steps[-2:] == [Step("shorter than 10 tokens", 1), Step("longer than 40 tokens", 1)]


@pytest.mark.parametrize(
    "rows",
    [
        [("too short", "a")],
        [(None, "a"), ("a text without a label", None)],
        [("one and the same", "a"), ("one and the same", "b")],
    ],
    ids=["short", "empty", "conflict"],
)
def test_no_remaining_rows_raise_an_error_with_the_report(rows):
    with pytest.raises(DataError, match=r"(?s)no training row of the rows is left.*[12] dropped.*data\.min_tokens"):
        clean(_reviews(rows), CONFIG, _count)


def test_empty_data_raises_an_error():
    with pytest.raises(DataError, match="0 rows read"):
        clean(Reviews(texts=[], labels=[], source="nothing"), CONFIG, _count)


def test_the_sample_is_clean(sample, tiny_encoder):
    files = ((tiny_encoder / name).read_bytes() for name in ("tokenizer.json", "tokenizer_config.json"))
    reviews = read(sample)
    remaining, report = clean(reviews, DataConfig(), Tokenizer(*files, 64).count)
    assert remaining == reviews
    assert report.rows_in == report.rows_out == 320
