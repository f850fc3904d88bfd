"""The package's names, and what importing it costs."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version

import pytest

import reviewguard


def test_names_are_complete_sorted_and_there() -> None:
    assert reviewguard.__all__ == sorted(reviewguard.__all__)
    assert set(reviewguard.__all__) == {*reviewguard._HOME, "__version__"}
    for name in reviewguard.__all__:
        assert getattr(reviewguard, name) is not None
    assert dir(reviewguard) == reviewguard.__all__
    assert reviewguard.__version__ == version("reviewguard")
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        reviewguard.nothing  # noqa: B018


def test_every_public_error_is_exported() -> None:
    from reviewguard import errors

    own = {n for n, v in vars(errors).items() if isinstance(v, type) and issubclass(v, errors.ReviewGuardError)}
    assert own <= set(reviewguard.__all__)


def test_importing_loads_nothing_heavy() -> None:
    code = """
import sys
import reviewguard
heavy = {"numpy", "torch", "transformers", "sklearn", "pandas", "onnxruntime", "tokenizers", "msgspec", "typer"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)
