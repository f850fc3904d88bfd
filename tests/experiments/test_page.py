"""Reports as self-contained HTML and as Markdown, and their charts."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from base64 import b64decode
from pathlib import Path

import numpy as np
import pytest
from pages import Parsed, assert_whole, tables

from reviewguard.bundle.estimate import Estimate
from reviewguard.experiments import charts
from reviewguard.experiments.page import Figure, Items, Page, Section, Table

SVG = b'<svg xmlns="http://www.w3.org/2000/svg"/>'
NASTY = "<script>alert(1)</script> & <b>bold</b> \"quoted\" 'x'"


@pytest.fixture
def page() -> Page:
    return Page(
        title=NASTY,
        short=["First.", NASTY],
        sections=[
            Section("Words", ["A paragraph.", NASTY, Items(["one", NASTY])]),
            Section(
                NASTY, [Table([NASTY, "b|c"], [["x|y", NASTY], ["", "z"]]), Figure("one", NASTY, SVG), Figure("two", "Two.", SVG)]
            ),
        ],
        about=["Made here.", NASTY],
    )


def test_markup_in_texts_stays_text(page: Page) -> None:
    content = page.to_html()
    html = Parsed(content)
    assert not html.tags & {"script", "b"}
    assert "<script" not in content
    assert html.text.count(NASTY) == 11, "title twice, finding, link, paragraph, item, heading, head, cell, caption, about"
    assert NASTY in [image["alt"] for image in html.images]


def test_saved(page: Page, tmp_path: Path) -> None:
    page.save(tmp_path)
    html = assert_whole(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report-one.svg", "report-two.svg", "report.html", "report.md"]
    assert (tmp_path / "report-one.svg").read_bytes() == SVG
    assert html.columns == [[2, 2, 2]]
    assert html.addresses[:2] == ["#s1", "#s2"]
    assert Figure("one", "", SVG).uri in html.addresses
    page.save(tmp_path, "other")
    assert_whole(tmp_path, "other")
    assert "](other-two.svg)" in (tmp_path / "other.md").read_text()


def test_markdown(page: Page) -> None:
    text = page.to_markdown()
    assert text.startswith(f"# {NASTY}\n\n- First.\n- <script>")
    assert "\n\n## Words\n\nA paragraph.\n\n" in text
    assert "\n\n![Two.](report-two.svg)\n\nMade here.\n\n" in text
    ((head, first, second),) = tables(text)
    assert (head[1], first[0], second) == ("b\\|c", "x\\|y", ["", "z"])


@pytest.mark.parametrize("cell", ["two\nlines", "return\r\nline", "back\\", "back\\|pipe", ""])
def test_no_cell_breaks_a_table(cell: str, tmp_path: Path) -> None:
    """Column values appear in tables of slices and can be any text."""
    Page("t", [], [Section("s", [Table(["a", "b"], [[cell, "1"], ["c", cell]])])]).save(tmp_path)
    assert_whole(tmp_path)
    ((_, *rows),) = tables((tmp_path / "report.md").read_text(encoding="utf-8"))
    assert len(rows) == 2
    assert (rows[0][1], rows[1][0]) == ("1", "c")


def _pictures(labels: list[str]) -> list[bytes]:
    n, half = len(labels), Estimate(0.5, 0.4, 0.6)
    y = np.arange(40) % 2 == 0
    return [
        charts.dots(dict.fromkeys(labels, half), {label: [0.5] for label in labels}, "accuracy"),
        *(charts.ranking_curves(y, {label: np.arange(40.0)}, label) for label in labels),
        charts.confusions({label: np.eye(n) for label in labels}, labels),
        charts.pareto({label: (1.0 + i, 0.5) for i, label in enumerate(labels)}, labels[:1], "accuracy"),
        charts.steps(labels, [half] * n, [[0.5]] * n, labels[0], "accuracy"),
        charts.heatmap(np.eye(n), labels, labels, labels[0]),
        charts.pairs(dict.fromkeys(labels, (half, half)), (labels[0], "accuracy")),
    ]


@pytest.mark.parametrize("label", ["$", "$$", "$x$ \\frac", "_under_score", "a & b <c>", "%", "computer generated (GPT-3.5)"])
def test_names_of_any_kind_can_be_drawn(label: str) -> None:
    """Users name classes, sources and recipes; a dollar sign starts no formula."""
    for picture in _pictures([label, "real"]):
        ET.fromstring(picture)


@pytest.mark.parametrize("rows", [3, 4000])
def test_numbers_of_logarithmic_axes_can_be_read(rows: int, tmp_path: Path) -> None:
    """Formulas are not rendered, so axis labels must not contain any."""
    curves = charts.ranking_curves(np.arange(rows) % 2 == 0, {"a": np.arange(float(rows))}, "fake")
    pareto = charts.pareto({"a": (700.0, 0.5), "b": (700.0 + rows, 0.6)}, ["a"], "accuracy")
    Page("t", [], [Section("s", [Figure("curves", "", curves), Figure("pareto", "", pareto)])]).save(tmp_path)
    pictures = [path.read_bytes() for path in tmp_path.glob("*.svg")]
    pictures += [b64decode(image["src"].partition(",")[2]) for image in Parsed((tmp_path / "report.html").read_text()).images]
    assert len(pictures) == 4
    for picture in pictures:
        assert "mathdefault" not in (words := "".join(ET.fromstring(picture).itertext()))
        assert not {"$", "\\"} & set(words)


def test_labels_at_one_height_do_not_overlap() -> None:
    names = ["minilm-qlora+adapter=lora", "minilm-qlora", "minilm-finetune", "tfidf"]
    points = dict(zip(names, [(1000.0, 0.968), (1048.0, 0.965), (1753.0, 0.972), (1325.0, 0.956)], strict=True))
    texts = ET.fromstring(charts.pareto(points, names[:1], "accuracy")).iter("{http://www.w3.org/2000/svg}text")
    anchors = {text.text: re.findall("text-anchor: (\\w+)", text.get("style", "")) for text in texts}
    assert [anchors[name][0] for name in names] == ["end", "start", "start", "start"]


def test_names_of_any_script_can_be_read() -> None:
    """matplotlib's font lacks these letters and would draw boxes; as text, the browser's fonts show them."""
    for label in ("真", "اصلی"):
        for picture in _pictures([label, f"{label} 2"]):
            assert label in "".join(ET.fromstring(picture).itertext())


def test_charts_are_reproducible_and_load_nothing() -> None:
    values, seeds = {"a": Estimate(0.5, 0.4, 0.6), "b": Estimate(None, None, None)}, {"a": [0.4, 0.6], "b": []}
    one, other = (charts.dots(values, seeds, "accuracy") for _ in range(2))
    assert one == other
    assert not re.search(rb'(?:href|src)="(?!#)', one)
    assert b"@import" not in one


def test_undefined_values_stay_empty() -> None:
    """A setting whose runs have no interval, and a cell of transfer that failed."""
    nothing = Estimate(None, None, None)
    ET.fromstring(charts.steps(["1", "2"], [Estimate(0.5, None, None), nothing], [[0.5], []], "epochs", "accuracy"))
    ET.fromstring(charts.heatmap(np.array([[np.nan, 0.5]]), ["a"], ["a", "b"], "recall"))


def test_one_negative_row_can_be_drawn() -> None:
    truth = np.arange(10) > 0
    ET.fromstring(charts.ranking_curves(truth, {"a": np.arange(10.0)}, "fake"))
