import re
from types import MappingProxyType

import msgspec
import pytest

from reviewguard import Classifier
from reviewguard.config import (
    DataConfig,
    EncoderConfig,
    EncoderRecipe,
    LoraConfig,
    decode,
    load_preset,
    merge,
    parse_assignments,
    preset_names,
)
from reviewguard.errors import ConfigError, EncoderError
from reviewguard.training.backends import get_backend

GENERIC = ("decoder", "encoder")
PLAIN = {"backend": "logreg", "encoder": {"repo": "owner/name", "max_length": 64}}


def test_preset_names():
    names = preset_names()
    heads = {f"{encoder}-{head}" for encoder in ("minilm", "mpnet", "stella") for head in ("logreg", "mlp", "svm")} | {
        "e5-logreg"
    }
    tuned = {f"{encoder}-{kind}" for encoder in ("minilm", "mpnet") for kind in ("finetune", "qlora")} | {"e5-finetune"}
    tuned |= {"stella-qlora", "stella-rsqlora", "flan-t5-qlora", "smollm2-qlora", "gemma3-qlora", "detector-large"}
    assert names == sorted(heads | tuned | {"tfidf"} | set(GENERIC))


@pytest.mark.parametrize("name", sorted(set(preset_names()) - {*GENERIC, "tfidf"}))
def test_presets_decode_and_pin_their_encoder(name):
    recipe = decode(load_preset(name), get_backend(load_preset(name)["backend"]).Config)
    assert recipe.backend in (name.split("-")[1], "finetune")
    assert recipe.description
    assert recipe.data == DataConfig() or name == "detector-large"
    assert re.fullmatch(r"[0-9a-f]{40}", recipe.encoder.revision)
    assert re.fullmatch(r"[0-9a-f]{64}|", recipe.encoder.weights_sha256)


@pytest.mark.parametrize("encoder", ["minilm", "mpnet", "e5", "stella"])
def test_presets_of_one_encoder_share_it(encoder):
    # Fine-tuning has its own head instead of the Dense layer and the normalisation of the embeddings.
    changes = {"dense": "", "normalize": False}
    encoders = [{**load_preset(name)["encoder"], **changes} for name in preset_names() if name.startswith(encoder)]
    assert all(encoder_ == encoders[0] for encoder_ in encoders)


@pytest.mark.parametrize("name", GENERIC)
def test_generic_presets_take_any_encoder(name, tmp_path):
    with pytest.raises(
        EncoderError, match=r"encoder\.repo is empty; set it to a Hub id.*encoder\.repo=answerdotai/ModernBERT-base"
    ):
        Classifier(name).fit(["a", "b"], ["x", "y"])
    settings = Classifier(name, encoder__repo="owner/name", encoder__revision="0" * 40).get_params()
    assert settings["encoder__repo"] == "owner/name"


def test_the_studys_recipe():
    recipe = decode(load_preset("stella-qlora"), get_backend("finetune").Config)
    assert (recipe.adapter, recipe.encoder.pooling, recipe.encoder.dense, recipe.encoder.max_length) == ("qlora", "mean", "", 512)
    targets = ("q_proj", "k_proj", "v_proj", "o_proj")
    assert recipe.lora == LoraConfig(r=16, alpha=32, dropout=0.05, target_modules=targets)
    loop = recipe.loop
    assert (loop.batch_size, loop.learning_rate, loop.schedule, loop.warmup, loop.epochs) == (16, 2e-4, "cosine", 0.1, 3)
    assert (loop.optimizer, loop.precision, loop.dropout) == ("paged_adamw_8bit", "auto", 0.1)


def test_unknown_preset_names_the_nearest_and_all():
    with pytest.raises(ConfigError, match=r"'minilm-logrge'.*did you mean 'minilm-logreg'.*stella-svm.*toml file"):
        load_preset("minilm-logrge")


@pytest.mark.parametrize("as_path", [str, lambda path: path], ids=["str", "Path"])
def test_own_recipe_file(tmp_path, as_path):
    path = tmp_path / "own.toml"
    path.write_text('backend = "svm"\n[encoder]\nrepo = "caf\u00e9/x"\n', encoding="utf-8")
    assert load_preset(as_path(path)) == {"backend": "svm", "encoder": {"repo": "caf\u00e9/x"}}


@pytest.mark.parametrize("content", [b"backend =", b'backend = "\xff"', None], ids=["no TOML", "not UTF-8", "missing"])
def test_unreadable_recipe_files_are_refused(tmp_path, content):
    path = tmp_path / "own.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"own\.toml"):
        load_preset(path)


@pytest.mark.parametrize(
    ("item", "value"),
    [
        ("k=10", "10"),
        ("k=0.5", "0.5"),
        ("k=true", "true"),
        ("k=[1, 2]", [1, 2]),
        ('k="10"', "10"),
        ("k=minilm", "minilm"),
        ("k=owner/name", "owner/name"),
        ("k=a=b", "a=b"),
        ("k=", ""),
        ("k = 10 ", "10"),
        ("k= two words ", "two words"),
        ("k=a\nb=2", "a\nb=2"),
        ("k=1\nb=2", "1\nb=2"),
    ],
)
def test_assignments(item, value):
    assert parse_assignments([item]) == {"k": value}
    assert type(parse_assignments([item])["k"]) is type(value)


def test_assignments_keep_dotted_keys_and_the_last_value():
    assert parse_assignments(["C=1", "encoder.max_length=128", "C=2"]) == {"C": "2", "encoder.max_length": "128"}


@pytest.mark.parametrize("item", ["C", "", "=1", " =1"])
def test_assignment_without_key_or_value(item):
    with pytest.raises(ConfigError, match=re.escape(repr(item))):
        parse_assignments([item])


@pytest.mark.parametrize("value", ["1", "0", "fake"])
def test_string_options_may_look_like_numbers(value):
    # Labels are often 0 and 1, so data.positive=1 must work in a shell without nested quotes.
    assert decode(merge(PLAIN, parse_assignments([f"data.positive={value}"])), EncoderRecipe).data.positive == value


@pytest.mark.parametrize("key", ["encoder.max_length", "encoder__max_length"])
def test_merge_overrides_one_leaf(key):
    merged = merge(PLAIN, {key: 128, "seed": 7})
    assert merged == {"backend": "logreg", "encoder": {"repo": "owner/name", "max_length": 128}, "seed": 7}
    assert PLAIN["encoder"]["max_length"] == 64


def test_merge_creates_missing_sections_and_accepts_any_mapping():
    merged = merge(MappingProxyType({"encoder": MappingProxyType({"repo": "a/b"})}), {"data.text": "body", "encoder.repo": "c/d"})
    assert merged == {"encoder": {"repo": "c/d"}, "data": {"text": "body"}}


def test_merge_into_a_value_is_refused():
    with pytest.raises(ConfigError, match=r"'backend\.C' is not an option: 'backend' is a value"):
        merge(PLAIN, {"backend.C": 1})


def test_decode_fills_in_defaults_and_returns_a_frozen_recipe():
    recipe = decode(PLAIN, EncoderRecipe)
    assert recipe == EncoderRecipe(backend="logreg", encoder=EncoderConfig(repo="owner/name", max_length=64))
    assert (recipe.seed, recipe.data.min_tokens, recipe.data.max_tokens) == (42, 10, 512)
    with pytest.raises(AttributeError):
        recipe.seed = 1
    assert decode(msgspec.to_builtins(recipe), EncoderRecipe) == recipe


@pytest.mark.parametrize(
    ("overrides", "place", "hint"),
    [
        ({"sead": 1}, "sead", "'seed'"),
        ({"encoder.max_lenght": 1}, r"encoder\.max_lenght", "'max_length'"),
        ({"data.lable": "x"}, r"data\.lable", "'label'"),
        ({"qqq": 1}, "qqq", "Allowed: backend, data, description, encoder, seed"),
    ],
)
def test_unknown_options_name_place_and_nearest(overrides, place, hint):
    with pytest.raises(ConfigError, match=f"^{place} is not an option; .*{hint}"):
        decode(merge(PLAIN, overrides), EncoderRecipe)


def test_unknown_option_of_a_section_names_the_full_path():
    with pytest.raises(ConfigError, match=r"^encoder\.max_lenght is not an option"):
        decode({"repo": "a/b", "max_lenght": 8}, EncoderConfig, "encoder")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seed", "one"),
        ("encoder", 5),
        ("encoder.max_length", 7),
        ("encoder.max_length", 8.5),
        ("encoder.normalize", "yes"),
        ("data.near_duplicates", 1.1),
        ("data.near_duplicates", -0.1),
        ("data.near_duplicates", float("nan")),
        ("data.test", 1.0),
        ("data.test", -0.1),
        ("data.validation", float("nan")),
        ("data.min_tokens", -1),
        ("data.max_tokens", 0),
        ("data.augment", 1.1),
        ("data.augmentations", []),
        ("data.augmentations", "case"),
    ],
)
def test_values_out_of_range_name_the_place(key, value):
    with pytest.raises(ConfigError, match=rf"invalid value: .*\$\.{re.escape(key)}"):
        decode(merge(PLAIN, {key: value}), EncoderRecipe)


@pytest.mark.parametrize(
    ("key", "value", "meant"),
    [
        ("data.normalization", "stdy", "study"),
        ("data.augmentations", ["case", "mispelling"], "misspelling"),
        ("encoder.pooling", "men", "mean"),
    ],
)
def test_misspelt_values_name_the_nearest(key, value, meant):
    with pytest.raises(ConfigError, match=rf"^{re.escape(key)} has an invalid value: .*did you mean '{meant}'"):
        decode(merge({**PLAIN, "data": {}}, {key: value}), EncoderRecipe)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("near_duplicates", 0),
        ("near_duplicates", 1),
        ("test", 0),
        ("min_tokens", 0),
        ("max_tokens", 1),
        ("normalization", "study"),
    ],
)
def test_values_at_the_edge_of_the_range(key, value):
    assert getattr(decode(merge(PLAIN, {f"data.{key}": value}), EncoderRecipe).data, key) == value


@pytest.mark.parametrize("missing", ["backend", "encoder"])
def test_missing_options_are_named(missing):
    with pytest.raises(ConfigError, match=f"`{missing}`"):
        decode({key: value for key, value in PLAIN.items() if key != missing}, EncoderRecipe)
