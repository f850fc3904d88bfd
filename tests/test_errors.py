import importlib
import json
import pickle
import subprocess
import sys

import pytest

from reviewguard import errors
from reviewguard.errors import (
    BundleError,
    CheckpointError,
    ConfigError,
    DataError,
    EncoderError,
    ExportError,
    FormatVersionError,
    HubError,
    IntegrityError,
    MissingExtra,
    NotTrainedError,
    PredictionError,
    ReviewGuardError,
    TrainingError,
    TrainingInterrupted,
    nearest,
    requires,
)

TREE = {
    ReviewGuardError: (Exception,),
    ConfigError: (ReviewGuardError, ValueError),
    DataError: (ReviewGuardError, ValueError),
    NotTrainedError: (ReviewGuardError, ValueError, AttributeError),
    EncoderError: (ReviewGuardError, OSError),
    BundleError: (ReviewGuardError, ValueError),
    IntegrityError: (BundleError,),
    FormatVersionError: (BundleError,),
    ExportError: (ReviewGuardError, RuntimeError),
    HubError: (ReviewGuardError, RuntimeError),
    PredictionError: (ReviewGuardError, RuntimeError),
    CheckpointError: (ReviewGuardError, RuntimeError),
    TrainingError: (ReviewGuardError, RuntimeError),
    TrainingInterrupted: (ReviewGuardError, RuntimeError),
    MissingExtra: (ReviewGuardError, ImportError),
}


@pytest.mark.parametrize("error", TREE, ids=lambda error: error.__name__)
def test_hierarchy_matches_the_documentation(error):
    assert error.__bases__ == TREE[error]
    assert error.__name__ in errors.__doc__


def test_hierarchy_is_complete():
    assert {cls for cls in vars(errors).values() if isinstance(cls, type) and issubclass(cls, Exception)} == set(TREE)


@pytest.mark.parametrize(
    "error",
    [*(error("what", "why") for error in TREE if error is not MissingExtra), MissingExtra("torch", "train")],
    ids=lambda error: type(error).__name__,
)
def test_errors_survive_pickling(error):
    # joblib sends errors from worker processes to their parent as pickles.
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy), copy.args) == (type(error), str(error), error.args)


def test_missing_extra_names_the_package_and_the_command():
    error = MissingExtra("torch", "train")
    assert "'torch'" in str(error)
    assert "pip install 'reviewguard[train]'" in str(error)
    assert error.name == "torch"


@pytest.mark.parametrize("module", ["surely_not_installed", "reviewguardian", "json.no_such_part"])
def test_requires_translates_missing_foreign_modules(module):
    with pytest.raises(MissingExtra, match=r"reviewguard\[export\]") as caught, requires("export"):
        importlib.import_module(module)
    assert caught.value.name == module
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)


def test_requires_does_not_translate_missing_own_modules():
    with pytest.raises(ModuleNotFoundError, match=r"reviewguard\.no_such_part") as caught, requires("train"):
        importlib.import_module("reviewguard.no_such_part")
    assert not isinstance(caught.value, MissingExtra)


@pytest.mark.parametrize("error", [ImportError("cannot import name"), ValueError("x"), KeyError("x")], ids=repr)
def test_requires_does_not_translate_other_errors(error):
    with pytest.raises(type(error)) as caught, requires("train"):
        raise error
    assert caught.value is error


def test_requires_has_no_effect_on_installed_modules():
    with requires("train"):
        module = importlib.import_module("json")
    assert module is json


@pytest.mark.parametrize(
    ("module", "absent"),
    [("reviewguard.evaluation.metrics", "sklearn"), ("reviewguard.data.near", "rensa"), ("reviewguard.data.split", "scipy")],
)
def test_modules_for_training_name_their_extra(module, absent):
    code = (
        f"import sys; sys.modules[{absent!r}] = None\n"
        f"from reviewguard.errors import MissingExtra\n"
        f"try: import {module}\n"
        f"except MissingExtra as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert absent in done.stdout
    assert "pip install 'reviewguard[train]'" in done.stdout


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("labl", "did you mean 'label'? Allowed: label, rating, text"),
        ("text", "did you mean 'text'? Allowed: label, rating, text"),
        ("qqqq", "Allowed: label, rating, text"),
        ("", "Allowed: label, rating, text"),
    ],
)
def test_nearest(name, message):
    assert nearest(name, iter(["text", "label", "rating"])) == message
