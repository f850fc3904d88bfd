import json
import math
from dataclasses import replace

import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from reviewguard.data.normalize import NORMALIZERS
from reviewguard.data.tokens import ENOUGH, MAX_CHARS, DistributionLimits, Encoded, Tokenizer
from reviewguard.errors import BundleError

LENGTH = 16


@pytest.fixture(scope="module")
def files(tiny_encoder) -> tuple[bytes, bytes]:
    return (tiny_encoder / "tokenizer.json").read_bytes(), (tiny_encoder / "tokenizer_config.json").read_bytes()


@pytest.fixture(scope="module")
def tokenizer(files) -> Tokenizer:
    return Tokenizer(*files, LENGTH)


@pytest.fixture(scope="module")
def raw(files) -> tokenizers.Tokenizer:
    return tokenizers.Tokenizer.from_buffer(files[0])


@pytest.fixture(scope="module")
def texts(sample) -> list[str]:
    return sample.read_text(encoding="utf-8").splitlines()[1:]


def test_ids_match_the_tokenizers_library(files, raw, texts):
    encoded = Tokenizer(*files, 512).encode(texts)
    assert [item.ids for item in encoded] == [encoding.ids for encoding in raw.encode_batch(texts)]
    assert not any(item.truncated for item in encoded)


def test_texts_do_not_influence_each_other(tokenizer, texts):
    assert tokenizer.encode(texts[:40]) == [tokenizer.encode([text])[0] for text in texts[:40]]


@pytest.mark.parametrize(("words", "truncated"), [(LENGTH - 3, False), (LENGTH - 2, False), (LENGTH - 1, True), (1000, True)])
def test_truncation_is_flagged(tokenizer, raw, words, truncated):
    [item] = tokenizer.encode([" ".join(["the"] * words)])
    assert item.truncated is truncated
    assert len(item.ids) == min(words + 2, LENGTH)
    assert (item.ids[0], item.ids[-1]) == (raw.token_to_id("[CLS]"), raw.token_to_id("[SEP]"))
    assert set(item.ids[1:-1]) == {raw.token_to_id("the")}


@pytest.mark.parametrize(("length", "truncated"), [(MAX_CHARS, False), (MAX_CHARS + 1, True)])
def test_characters_are_limited_too(tokenizer, length, truncated):
    # The text is almost all white space, so that only the number of characters can cause truncation.
    [item] = tokenizer.encode(["the".ljust(length)])
    assert item == replace(tokenizer.encode(["the"])[0], truncated=truncated)


def test_text_beyond_the_limit_is_ignored(files):
    tokenizer = Tokenizer(*files, 512)
    [item, other] = tokenizer.encode(["the" + " " * MAX_CHARS + "good", "the"])
    assert (item.ids, item.truncated, other.truncated) == (other.ids, True, False)


@pytest.mark.parametrize("special", ["[SEP]", "[CLS]", "[PAD]", "[MASK]", "[UNK]"])
def test_special_tokens_inside_a_text_are_characters(tokenizer, raw, special):
    text = f"good {special} good"
    [item] = tokenizer.encode([text])
    specials = {raw.token_to_id(name) for name in ("[SEP]", "[CLS]", "[PAD]", "[MASK]")}
    assert not specials & set(item.ids[1:-1])
    assert tokenizer.count([text])[0] > tokenizer.count(["good good"])[0] + 1


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("good \ud800", "good \ufffd"),
        ("\udc00good", "\ufffdgood"),
        ("go\ud83dod", "go\ufffdod"),
        ("good \ud83d\ude00", "good \U0001f600"),
        ("\ud800\ud800", "\ufffd\ufffd"),
    ],
)
def test_lone_surrogates_are_replaced(tokenizer, text, same):
    assert tokenizer.encode([text]) == tokenizer.encode([same])
    assert tokenizer.count([text]) == tokenizer.count([same])


def test_empty_text(tokenizer, raw):
    cls, sep = raw.token_to_id("[CLS]"), raw.token_to_id("[SEP]")
    assert tokenizer.encode([""]) == [Encoded([cls, sep], truncated=False, fertility=math.inf, words=0)]
    assert tokenizer.encode([]) == []


def test_empty_text_without_special_tokens_gets_a_token(files):
    plain = json.loads(files[0]) | {"post_processor": None}
    tokenizer = Tokenizer(json.dumps(plain).encode(), files[1], LENGTH)
    encoded = tokenizer.encode(["", "the"])
    assert [len(item.ids) for item in encoded] == [1, 1]
    assert tokenizer.pad(encoded)["attention_mask"].tolist() == [[1], [1]]
    assert tokenizer.count([""]).tolist() == [0]


@pytest.mark.parametrize(
    ("text", "fertility"),
    [
        ("the the", 1.0),
        ("the (the), the!", 1.0),
        (" ".join(["the"] * 500), 1.0),
        ("the \u4f60", 1.0),
        ("\u4f60\u597d\u4e16\u754c", math.inf),
        (" \t", math.inf),
    ],
    ids=["words", "punctuation", "beyond the cut", "one unknown word", "unknown script", "white space"],
)
def test_fertility(tokenizer, text, fertility):
    assert tokenizer.encode([text])[0].fertility == fertility


def test_fertility_of_another_language_is_high(tokenizer):
    english, german = tokenizer.encode(
        ["This is a good product and I like it very much.", "Hervorragendes Fruehstueck, unvergleichliche Gastfreundschaft."]
    )
    assert english.fertility * 2 < german.fertility < math.inf


def test_count_is_uncut_and_without_special_tokens(tokenizer):
    counts = tokenizer.count(["", "the", "the the", " ".join(["the"] * 500), "the" * MAX_CHARS])
    assert counts.dtype == np.int64
    assert counts[:4].tolist() == [0, 1, 2, 500]
    assert tokenizer.count([]).shape == (0,)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.text(st.characters(), max_size=80), max_size=5))
def test_any_text_is_encoded(tokenizer, texts):
    encoded, counts = tokenizer.encode(texts), tokenizer.count(texts)
    assert [len(item.ids) for item in encoded] == [min(count + 2, LENGTH) for count in counts]
    assert [item.truncated for item in encoded] == [count + 2 > LENGTH for count in counts]


@pytest.mark.parametrize("pad", ["[MASK]", {"content": "[MASK]", "lstrip": False}])
def test_padding(files, raw, pad):
    config = json.dumps({**json.loads(files[1]), "pad_token": pad}).encode()
    tokenizer = Tokenizer(files[0], config, LENGTH)
    encoded = tokenizer.encode(["the", "", "the the the"])
    batch = tokenizer.pad(encoded)
    assert set(batch) == {"input_ids", "attention_mask"}
    assert all(array.dtype == np.int64 and array.shape == (3, 5) for array in batch.values())
    for item, ids, mask in zip(encoded, *batch.values(), strict=True):
        n = len(item.ids)
        assert ids.tolist() == item.ids + [raw.token_to_id("[MASK]")] * (5 - n)
        assert mask.tolist() == [1] * n + [0] * (5 - n)


@pytest.mark.parametrize("pad", [None, "[NOT THERE]", 5])
def test_padding_without_a_pad_token_uses_some_id(files, pad):
    tokenizer = Tokenizer(files[0], json.dumps({"pad_token": pad}).encode(), LENGTH)
    assert tokenizer.pad(tokenizer.encode(["", "the"]))["input_ids"][0, -1] == 0


def test_padding_and_truncation_of_the_file_are_overridden(files, raw):
    other = tokenizers.Tokenizer.from_str(raw.to_str())
    other.enable_padding(length=64)
    other.enable_truncation(4)
    tokenizer = Tokenizer(other.to_str().encode(), files[1], LENGTH)
    [item] = tokenizer.encode([" ".join(["the"] * 9)])
    assert (len(item.ids), item.truncated) == (11, False)
    assert tokenizer.count([" ".join(["the"] * 9)])[0] == 9


def test_files_round_trip(files, tokenizer, texts):
    config = json.dumps({**json.loads(files[1]), "model_max_length": 10**30, "own": [1]}).encode()
    written = Tokenizer(files[0], config, LENGTH).files()
    again = Tokenizer(written["tokenizer.json"], written["tokenizer_config.json"], LENGTH)
    hard = [*texts, "", "good [SEP] good", "\ud800"]
    assert again.encode(hard) == tokenizer.encode(hard)
    assert again.count(hard).tolist() == tokenizer.count(hard).tolist()
    assert again.files() == written
    assert json.loads(written["tokenizer_config.json"]) == json.loads(config) | {"model_max_length": LENGTH}
    assert tokenizers.Tokenizer.from_buffer(written["tokenizer.json"]).truncation["max_length"] == LENGTH


def portable(tokenizer: Tokenizer, normalization: str) -> Tokenizer:
    files = tokenizer.files(normalization)
    return Tokenizer(files["tokenizer.json"], files["tokenizer_config.json"], LENGTH)


HARD = [
    "",
    "   ",
    " \u201cGood\u201d \u2014  but\tdear , really\u2026 ",
    "a  |||IP|||  b",
    "a \u201cx\u201d b",
    "GOOD [SEP] <s> s good",
    "s a _ b",
]


@pytest.fixture(scope="module", params=["wordpiece", "bytes"])
def any_tokenizer(request, tokenizer, sample) -> Tokenizer:
    """A tokenizer like BERT's, and one like ModernBERT's, where white space matters and runs of it are added tokens."""
    if request.param == "wordpiece":
        return tokenizer
    made = tokenizers.ByteLevelBPETokenizer()
    made.train(str(sample), vocab_size=500, show_progress=False, special_tokens=[])
    content = json.loads(made.to_str())
    other = tokenizers.Tokenizer.from_str(json.dumps(content))
    added = [("   ", True), ("  ", False), ("\u201cx\u201d", True), ("|||IP|||", True)]
    other.add_tokens([tokenizers.AddedToken(text, normalized=normalized) for text, normalized in added])
    other.add_special_tokens([tokenizers.AddedToken("<s>", normalized=True)])
    return Tokenizer(other.to_str().encode(), b"{}", LENGTH)


@pytest.mark.parametrize("normalization", NORMALIZERS)
def test_a_normalisation_in_the_tokenizer_does_not_change_our_ids(any_tokenizer, normalization, texts):
    normal = [NORMALIZERS[normalization](text) for text in [*texts, *HARD]]
    again = portable(any_tokenizer, normalization)
    assert again.encode(normal) == any_tokenizer.encode(normal)
    assert again.count(normal).tolist() == any_tokenizer.count(normal).tolist()


@pytest.mark.parametrize("normalization", NORMALIZERS)
def test_other_libraries_normalise_by_the_tokenizer(any_tokenizer, normalization, texts):
    hard = [text for text in [*texts, *HARD] if "[SEP]" not in text]  # other libraries read it as the special token
    expected = any_tokenizer.encode([NORMALIZERS[normalization](text) for text in hard])
    alone = tokenizers.Tokenizer.from_buffer(any_tokenizer.files(normalization)["tokenizer.json"])
    # Our tokenizer adds a token to texts without tokens.
    assert [encoding.ids or [0] for encoding in alone.encode_batch(hard)] == [item.ids for item in expected]


def test_ids_of_added_tokens_do_not_change(any_tokenizer):
    before, after = (
        {token["id"]: token["content"] for token in json.loads(any_tokenizer.files(name)["tokenizer.json"])["added_tokens"]}
        for name in ("none", "typography")
    )
    assert set(before) == set(after)
    assert all(after[number] in (content, f"\0{number}") for number, content in before.items())


def test_an_added_token_in_the_vocabulary_is_not_renamed():
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0, "  ": 1, "b": 2}, "a"))
    made.add_tokens(["  ", "zz"])
    content = Tokenizer(made.to_str().encode(), b"{}", LENGTH).files("typography")["tokenizer.json"]
    assert tokenizers.Tokenizer.from_buffer(content).get_vocab() == {"a": 0, "  ": 1, "b": 2, "zz": 3}


def test_without_a_normalisation_the_files_are_unchanged(files, tokenizer):
    assert tokenizer.files("none") == tokenizer.files()
    assert json.loads(tokenizer.files()["tokenizer_config.json"])["tokenizer_class"] == "BertTokenizer"


@pytest.mark.parametrize("bad", [b"", b"{}", b"[]", b"\xff", b'{"model": null}'])
def test_malformed_tokenizer(files, bad):
    with pytest.raises(BundleError, match="malformed"):
        Tokenizer(bad, files[1], LENGTH)


@pytest.mark.parametrize("bad", [b"", b"{", b"[]", b"null", b"\xff"])
def test_malformed_tokenizer_config(files, bad):
    with pytest.raises(BundleError, match="malformed"):
        Tokenizer(files[0], bad, LENGTH)


def test_limits_of_familiar_texts(tokenizer):
    usual, short, odd = ["the kettle boils fast"], ["kettle"], ["\u8fd9\u662f\u4e00\u5bb6\u9152\u5e97"]
    (entry,), (few,) = tokenizer.encode(usual), tokenizer.encode(short)
    # A few outliers among a thousand texts do not change the limits; ten do.
    assert DistributionLimits.of(tokenizer, usual * 1000 + short * 2 + odd * 2) == (entry.fertility, len(entry.ids))
    assert DistributionLimits.of(tokenizer, usual * 1000 + short * 10).min_tokens == len(few.ids)
    assert DistributionLimits.of(tokenizer, usual * 1000 + odd * 10).max_fertility != entry.fertility
    assert DistributionLimits.of(tokenizer, [""] * 3).max_fertility is None
    assert (
        DistributionLimits.of(tokenizer, usual * 10).min_tokens
        < DistributionLimits.of(tokenizer, [usual[0] * 9]).min_tokens
        == ENOUGH
    )
