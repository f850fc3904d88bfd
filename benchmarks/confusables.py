"""Write reviewguard/data/confusables.py: letters of other scripts that look like Latin ones, from Unicode data.

    pip install --no-deps confusable_homoglyphs==3.3.1 && python benchmarks/confusables.py

The package contains confusables.txt of Unicode Technical Standard 39 as JSON. This script selects single letters that compatibility
normalisation (NFKC) does not change and that no language in Latin script uses: letters of other scripts, and phonetic signs.
"""

from __future__ import annotations

import importlib.metadata
import json
import string
import unicodedata
from pathlib import Path
from typing import Final

PACKAGE: Final = "confusable_homoglyphs"
VERSION: Final = "3.3.1"
TARGET: Final = Path(__file__).parent.parent / "reviewguard" / "data" / "confusables.py"
#: IPA Extensions, and Phonetic Extensions with their supplement.
PHONETIC: Final = ((0x250, 0x2AF), (0x1D00, 0x1DBF))
#: Letters that the standard treats as one; here a capital look-alike maps to the capital.
CAPITAL: Final = {"l": "I"}
HEAD: Final = '''"""Letters that look like Latin ones: of other scripts, and phonetic signs.

Made by benchmarks/confusables.py from confusables.txt of Unicode Technical Standard 39, "Unicode Security Mechanisms"
(https://www.unicode.org/reports/tr39/). Copyright Unicode, Inc.; Unicode License v3 (https://www.unicode.org/license.txt).
"""

from typing import Final

#: By the Latin letter, the code points that look like it.
CONFUSABLES: Final[dict[str, str]] = {
'''


def main() -> None:
    """Read, select and write."""
    files = importlib.metadata.files(PACKAGE)
    if files is None or importlib.metadata.version(PACKAGE) != VERSION:
        raise SystemExit(f"{PACKAGE} {VERSION} is needed; run: pip install --no-deps {PACKAGE}=={VERSION}")
    [path] = [entry.locate() for entry in files if entry.name == "confusables.json"]
    listed = json.loads(Path(str(path)).read_text(encoding="utf-8"))
    look_alikes: dict[str, set[str]] = {}
    for letter in string.ascii_letters:
        for one in (entry["c"] for entry in listed.get(letter, [])):
            if is_look_alike(one):
                latin = CAPITAL.get(letter, letter) if unicodedata.category(one) == "Lu" else letter
                look_alikes.setdefault(latin, set()).add(one)
    lines = [
        f'    "{letter}": "{"".join(escaped(one) for one in sorted(look_alikes[letter]))}",' for letter in sorted(look_alikes)
    ]
    TARGET.write_text(HEAD + "\n".join(lines) + "\n}\n", encoding="utf-8")
    print(f"{sum(map(len, look_alikes.values()))} look-alikes of {len(look_alikes)} letters")


def is_look_alike(one: str) -> bool:
    """Whether a string is a single letter to fold."""
    if len(one) != 1 or unicodedata.normalize("NFKC", one) != one or not unicodedata.category(one).startswith("L"):
        return False
    return "LATIN" not in unicodedata.name(one) or any(low <= ord(one) <= high for low, high in PHONETIC)


def escaped(one: str) -> str:
    """The Python escape sequence of a code point."""
    return f"\\u{ord(one):04x}" if ord(one) < 0x10000 else f"\\U{ord(one):08x}"


if __name__ == "__main__":
    main()
