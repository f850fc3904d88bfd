"""Settings of a classifier, and scikit-learn's conventions about them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Self

import msgspec

from reviewguard import config
from reviewguard.errors import ConfigError, requires


class Estimator:
    """A recipe with overrides, with the methods by which scikit-learn reads, changes and copies settings."""

    def __init__(self, preset: str | os.PathLike[str] | Mapping[str, Any], **overrides: Any) -> None:
        """Take settings, as `reviewguard.Classifier` documents them; they are checked when they are used."""
        self.preset = preset
        self._overrides = dict(overrides)

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Settings as scikit-learn wants them.

        Args:
            deep: Every setting there is, with its value; else what the constructor was given.

        Raises:
            ConfigError: With `deep`, if a setting is wrong.
        """
        given = {"preset": self.preset, **self._overrides}
        return {**_flatten(msgspec.to_builtins(self._recipe())), **given} if deep else given

    def set_params(self, **params: Any) -> Self:
        """Change settings; they are checked at once and take effect at the next training.

        Args:
            **params: As for the constructor, and `preset`.

        Raises:
            ConfigError: If a setting is wrong; then none is changed.
        """
        previous = self.preset, self._overrides
        self.preset = params.pop("preset", self.preset)
        self._overrides = {**self._overrides, **params}
        try:
            self._recipe()
        except ConfigError:
            self.preset, self._overrides = previous
            raise
        return self

    def __repr__(self) -> str:
        given = "".join(f", {name}={value!r}" for name, value in self._overrides.items())
        preset = f"<{self.preset.get('backend')} recipe>" if isinstance(self.preset, Mapping) else repr(str(self.preset))
        return f"{type(self).__name__}({preset}{given})"

    def __sklearn_tags__(self) -> Any:
        # Only scikit-learn asks for tags, so it is there to be imported.
        from sklearn.utils import ClassifierTags, InputTags, Tags, TargetTags

        return Tags(
            estimator_type="classifier",
            target_tags=TargetTags(required=True),
            classifier_tags=ClassifierTags(),
            input_tags=InputTags(one_d_array=True, two_d_array=False, string=True),
        )

    def _recipe(self) -> config.Recipe:
        with requires("train"):
            from reviewguard import backends
        base = self.preset if isinstance(self.preset, Mapping) else config.load_preset(self.preset)
        return backends.recipe_from(config.merge(base, self._overrides))


def _flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flatten(value, f"{prefix}{key}__") if isinstance(value, Mapping) else {prefix + key: value}
    return flat
