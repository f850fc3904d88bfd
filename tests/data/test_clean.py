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

# What becomes of each row: "" is kept.
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


def test_every_step_drops_exactly_what_it_should():
    reviews = _reviews([row[1:] for row in ROWS])
    kept, report = clean(reviews, CONFIG, _count)
    expected = [number for number, (reason, *_) in enumerate(ROWS) if not reason]
    assert kept.columns["row"] == expected
    assert kept == reviews.take(expected)  # as read, not as normalised
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


def test_a_text_that_stands_for_its_near_duplicates_is_not_dropped_for_its_length():
    words = [f"w{number}" for number in range(31)]
    kept, _ = clean(_reviews([(" ".join(words), "a"), (" ".join(words[:30]), "a")]), CONFIG, _count)
    assert kept.columns["row"] == [1]


def test_cleaning_what_is_clean_drops_nothing():
    once, _ = clean(_reviews([row[1:] for row in ROWS]), CONFIG, _count)
    again, report = clean(once, CONFIG, _count)
    assert again == once
    assert {step.dropped for step in report.steps} == {0}


@pytest.mark.parametrize(
    ("normalization", "kept", "conflicts"),
    [
        ("none", ["Fine, I guess so", "Fine,  I guess so", "FINE I guess so"], 0),
        ("typography", ["FINE I guess so"], 1),
        ("study", [], 1),
    ],
)
def test_texts_are_compared_as_normalised(normalization, kept, conflicts):
    rows = [("Fine, I guess so", "a"), ("Fine,  I guess so", "b"), ("FINE I guess so", "a"), ("something else all together", "a")]
    config = DataConfig(normalization=normalization, near_duplicates=0, min_tokens=0)
    found, report = clean(_reviews(rows), config, _count)
    assert found.texts == [*kept, "something else all together"]
    assert len(report.conflicts) == conflicts


def test_near_duplicates_may_be_kept():
    rows = [(SENTENCE, "real"), (" ".join([*LONG[:-1], "cold"]), "real")]
    kept, report = clean(_reviews(rows), DataConfig(near_duplicates=0, min_tokens=0), _count)
    assert len(kept) == 2
    assert "near-duplicate texts" not in [step.name for step in report.steps]
    assert len(clean(_reviews(rows), DataConfig(min_tokens=0), _count)[0]) == 1
    assert len(clean(_reviews(rows), DataConfig(near_duplicates=0.99, min_tokens=0), _count)[0]) == 2


def test_conflicts_are_listed_up_to_ten_and_dropped_all():
    rows = [(f"product number {number:02d} is fine", label) for number in range(12) for label in ("b", "a", "b")]
    kept, report = clean(_reviews([*rows, ("and this one is left", "a")]), CONFIG, _count)
    assert kept.texts == ["and this one is left"]
    assert report.conflicts == [Conflict(f"product number {number:02d} is fine", ["a", "b"]) for number in range(10)]
    assert report.steps[1] == Step(REASONS["conflict"], 36)


def test_texts_with_half_a_surrogate_pair_can_be_reported():
    # JSON may carry one; the report becomes part of a manifest.
    rows = [("half a pair \ud800 here", "a"), ("half a pair \ud800 here", "b"), ("half a pair \ud800 there", "a")]
    kept, report = clean(_reviews(rows), CONFIG, _count)
    assert kept.columns["row"] == [2]
    assert msgspec.json.decode(msgspec.json.encode(report), type=CleaningReport) == report


def test_limits_count_tokens_of_the_normalised_text(tiny_encoder):
    files = ((tiny_encoder / name).read_bytes() for name in ("tokenizer.json", "tokenizer_config.json"))
    count = Tokenizer(*files, 16).count  # its own maximum length plays no part
    rows = [(" ".join(["the"] * n), "a") for n in (9, 10, 40, 41)] + [("good \u200b" * 10, "a")]
    kept, report = clean(_reviews(rows), DataConfig(min_tokens=10, max_tokens=40, near_duplicates=0), count)
    assert kept.columns["row"] == [1, 2, 4]
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
def test_nothing_left_is_an_error_with_the_account(rows):
    with pytest.raises(DataError, match=r"(?s)no training row of the rows is left.*[12] dropped.*data\.min_tokens"):
        clean(_reviews(rows), CONFIG, _count)


def test_no_rows_at_all_are_an_error():
    with pytest.raises(DataError, match="0 rows read"):
        clean(Reviews(texts=[], labels=[], source="nothing"), CONFIG, _count)


def test_the_sample_is_clean(sample, tiny_encoder):
    files = ((tiny_encoder / name).read_bytes() for name in ("tokenizer.json", "tokenizer_config.json"))
    reviews = read(sample)
    kept, report = clean(reviews, DataConfig(), Tokenizer(*files, 64).count)
    assert kept == reviews
    assert report.rows_in == report.rows_out == 320
