"""The sets of oldest versions are of pyproject.toml as it is now."""

from __future__ import annotations

import tomllib
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent


def test_each_lowest_version_is_one_that_is_tested() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = [*project["dependencies"], *(line for extra in project["optional-dependencies"].values() for line in extra)]
    lowest = {}
    for requirement in map(Requirement, lines):
        if requirement.name not in {"reviewguard", "torch"}:  # of torch, the file says why
            (bound,) = (specifier for specifier in requirement.specifier if specifier.operator != "!=")
            assert bound.operator == ">="
            lowest[requirement.name] = bound.version
    tested: dict[str, set[str]] = {}
    for name in ("base.txt", "all.txt"):
        for line in (ROOT / "tests" / "floor" / name).read_text(encoding="utf-8").splitlines():
            if not line.startswith("#"):
                package, version = line.split("==")
                tested.setdefault(package, set()).add(version)
    # A patch of it will do, for some first ones were withdrawn.
    missing = {name: at for name, at in lowest.items() if not any(f"{of}.".startswith(f"{at}.") for of in tested[name])}
    assert missing == {}
