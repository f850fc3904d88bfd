"""What every report must be: one HTML file that needs nothing else, and Markdown whose tables and figures are whole."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path


class Parsed(HTMLParser):
    """The tags of an HTML file, its addresses, pictures, rows of tables, and text."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.addresses: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.columns: list[list[int]] = []  # cells of each row, a list a table
        self.text = ""
        self.feed(content)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            if name in ("src", "srcset", "href", "xlink:href", "action", "data", "poster"):
                self.addresses.append(value or "")
            if name == "style":
                self.addresses += _of_style(value or "")
        if tag == "img":
            self.images.append(dict(attrs))
        if tag == "table":
            self.columns.append([])
        if tag == "tr":
            self.columns[-1].append(0)
        if tag in ("td", "th"):
            self.columns[-1][-1] += 1

    def handle_data(self, data: str) -> None:
        self.text += data
        if self.lasttag == "style":
            self.addresses += _of_style(data)


def _of_style(style: str) -> list[str]:
    return re.findall(r"url\(\s*['\"]?([^)'\"]*)", style) + re.findall(r"@import\s+(\S+)", style)


def tables(markdown: str) -> list[list[list[str]]]:
    """Cells of the tables of a Markdown file, the rules left out; a line of a table that is torn fails."""
    found: list[list[list[str]]] = []
    before = ""
    for line in re.split("\r\n|\r|\n", markdown):
        if line.startswith("|"):
            assert line.endswith("|"), line
            cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
            if not before.startswith("|"):
                found.append([])
            if set(cells) != {"---"}:
                found[-1].append(cells)
        before = line
    return found


def assert_whole(folder: Path, name: str = "report") -> Parsed:
    """Check a report that was saved; returns its HTML parsed."""
    html = Parsed((folder / f"{name}.html").read_text(encoding="utf-8"))
    assert not html.tags & {"script", "link", "iframe", "object", "embed", "base"}
    assert all(address.startswith(("#s", "data:image/svg+xml;base64,")) for address in html.addresses), html.addresses
    assert all(image["alt"] for image in html.images)
    assert all(len(set(columns)) == 1 for columns in html.columns)

    markdown = (folder / f"{name}.md").read_text(encoding="utf-8")
    assert all(len({len(row) for row in table}) == 1 for table in tables(markdown))
    assert [[len(row) for row in table] for table in tables(markdown)] == html.columns
    figures = re.findall(r"^!\[(.*)\]\((.*)\)$", markdown, flags=re.MULTILINE)
    assert [about for about, _ in figures] == [image["alt"] for image in html.images]
    assert sorted(file for _, file in figures) == sorted(path.name for path in folder.glob(f"{name}-*.svg")), "each its own"
    for _, file in figures:
        assert b"<svg" in (folder / file).read_bytes()
    return html
