"""The model card of the model in the box."""

from __future__ import annotations

from reviewguard.bundle import Manifest

_CARD = """---
library_name: reviewguard
pipeline_tag: text-classification
license: apache-2.0
language: en
base_model: sentence-transformers/all-MiniLM-L6-v2
tags:
- reviewguard
- fake-reviews
---

# The detector in the box

Tells English reviews that language models wrote (`fake`) from those that people wrote (`real`). It comes with reviewguard, and needs neither
network nor torch:

```python
from reviewguard import Classifier

Classifier.from_pretrained().predict(["A review."])
```

## How good it is

On reviews that it was not trained on, at the threshold that it ships with; in percent, with 95 % intervals. People's reviews of the first four
sources are of one population, and partly the same.

SOURCES

Trained in the same way, without one generator's fakes, and scored on them:

UNSEEN

## What it must not be used for

- To punish an author on its word alone. It accuses honest ones too, and the rarer fakes are, the more of those accused are honest: where
  one review in a hundred is a fake, HONEST %.
- As evidence that a text was, or was not, written by a machine; of anything but reviews; in other languages than English.

## What it fails on

- Lies that people wrote. It tells who wrote, not whether it is true; a paid person's review is `real` to it.
- Generators unlike those that it was shown, and fakes edited by people or written to evade detectors: expect to miss more of these than the
  figures say.
- People whose writing is close to a language model's: polished, balanced, general. What it does to reviews by non-native speakers was not
  measured.
- Reviews of other things than products. Of people's reviews of hotels it accuses far more, as the table says; set a threshold on reviews of
  your own (`set_operating_point`).
- Short reviews, in which there is little to go by: most of those wrongly accused are short. The shortest, and texts in other languages or
  scripts, are flagged `unfamiliar` and left to people; a few slip through.
- Only the first TOKENS tokens of a text are read.

## What it was trained on

- Salminen, Kandpal, Kamel, Jung and Jansen (2022), *Creating and detecting fake reviews of online products*, Journal of Retailing and Consumer
  Services 64: Amazon reviews by people, and by GPT-2. CC BY 4.0.
- PurplexyFlower/Fake-review (revision 0f08ad4): reviews of the same products by DeepSeek-v4-pro, GLM-5.2 and LFM2.5-1.2B. CC BY 4.0.
- MAiDE-up, MichiganNLP/multilingual_reviews_deception (revision e66f8d9): hotel reviews by people and by GPT-4, the English ones. MIT.
- Its first weights are those of sentence-transformers/all-MiniLM-L6-v2, Apache-2.0.

Changed: text was normalised (white space, quotes, dashes), and rows that recur were used once. `benchmarks/train_default.py` makes it from
pinned data; `docs/results/default-model.md` has all figures.
"""


def card(sources: str, unseen: str, manifest: Manifest) -> str:
    """The card around two tables of results.

    Args:
        sources: Table of the sources.
        unseen: Table of the generators left out.
        manifest: Of the model, its operating point set.
    """
    point = manifest.decision.point
    assert point is not None
    right = point.precision(0.01).value
    assert right is not None
    filled = {"SOURCES": sources, "UNSEEN": unseen, "TOKENS": f"{manifest.max_length}", "HONEST": f"{100 * (1 - right):.0f}"}
    text = _CARD
    for place, content in filled.items():
        text = text.replace(place, content)
    return text
