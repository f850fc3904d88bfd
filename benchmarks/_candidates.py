"""Selection of the built-in model: cells that are left out of training, and candidate recipes that are scored on them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final, Literal, NamedTuple, get_args

import msgspec
from _corpus import HUMAN, Row, balanced, band, digest, draw, group, part, validation
from _encoder import Encoder, folder
from msgspec.structs import replace

from reviewguard.config import Augmentation
from reviewguard.experiments.candidates import recipe_of

#: Most fakes and human texts that are scored in a cell; domains with fewer than `ENOUGH` human texts add those of products.
FAKES, HUMANS, ENOUGH = 250, 400, 150
REWRITERS: Final = ("gpt-3.5-turbo", "gpt-4o", "llama-3-70b")
PRODUCTS: Final = ("gpt2", "deepseek", "glm", "lfm", "claude")
OTHERS: Final = ("Entertainment", "FoodCusine", "OnlineContent", "PersonalCommunication", "Sports")


class Cell(NamedTuple):
    """Rows that are left out of training and scored.

    Attributes:
        domains: Domains whose texts are scored.
        generators: Generators whose fakes are left out in every domain, and scored in these domains. Empty: no generator is
            left out, and the fakes of all rewriters are scored.
        unseen: Whether all texts of these domains are left out, human ones included.
    """

    domains: tuple[str, ...]
    generators: tuple[str, ...] = ()
    unseen: bool = False

    def leaves_out(self, row: Row) -> bool:
        """Whether a row is excluded from training."""
        return row.generator in self.generators or (self.unseen and row.domain in self.domains)

    def scored(self, rows: Sequence[Row], of: Literal["selection", "published"]) -> list[Row]:
        """Fakes and human texts to score; in domains that are trained on, human texts are validation rows."""
        # Left-out rows set no thresholds, so all that are not published can serve selection.
        matching = [row for row in rows if row.domain in self.domains and (part(row) == "published") == (of == "published")]
        fakes = [row for row in matching if row.label == "fake" and row.generator in (self.generators or REWRITERS)]
        human = [row for row in matching if row.label == "real"]
        if not self.unseen:
            human = [row for row in human if row.split == "validation" and part(row) == of]
        if len(human) < ENOUGH:
            human += [row for row in validation(rows, of) if row.label == "real" and row.domain == "products"]
        return [*draw(fakes, FAKES, lambda row: (row.generator, row.domain)), *human[:HUMANS]]


CELLS: Final = {
    **{generator: Cell(("products",), (generator,)) for generator in PRODUCTS},
    "gpt-4 hotels": Cell(("hotels",), ("gpt-4",), unseen=True),
    **{f"{generator} reviews": Cell(("ProductReview",), (generator,), unseen=True) for generator in REWRITERS},
    "five domains": Cell(OTHERS, unseen=True),
    "all products": Cell(("products",), PRODUCTS),
}
#: Cells that each screening run leaves out together.
SCREENING: Final = {
    "A": ("lfm", "claude", "gpt-4 hotels"),
    "B": ("deepseek", "gpt-4o reviews", "five domains"),
}
#: Cuts are drawn three times as often, so that a cut end does not indicate a generator that stops in mid-sentence.
AUGMENTATIONS: Final = (*get_args(Augmentation), "snippet", "snippet")
#: An unfinished sentence at the end of a text.
FRAGMENT: Final = re.compile(r"(?<=[.!?])\s+[^.!?]+$")
#: Training domains, by name of the mix.
MIXES: Final = {
    "products": ("products",),
    "reviews": ("products", "hotels", "ProductReview", "sentences", "clothing", "medicine", "cars"),
    "all": ("products", "hotels", "ProductReview", "sentences", "clothing", "medicine", "cars", "other"),
}


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """A training recipe.

    Attributes:
        encoder: The initial encoder.
        mix: Training domains, a key of `MIXES`.
        rows: Number of training rows, half of them human, stratified by generator, domain and length.
        products: Number of further training rows from the largest source: product reviews by people and by GPT-2.
        kinds: Subclasses of fakes: "generator" or "none".
        epochs: Epochs of a pass.
        learning_rate: Peak learning rate.
        max_length: Most tokens of a text.
        ngrams: Buckets of n-gram features next to the encoder; 0: none.
        smoothing: Label smoothing.
        normalization: Normalisation of the texts.
        augment: Share of the training texts that are augmented (`data.augment`), mostly by cuts.
        whole: Share of the GPT-2 texts whose unfinished last sentence is removed. Two in three end in mid-sentence, but only one
            human text in ten: a model that learns this classifies every human text that is cut as a fake.
        passes: Consecutive training runs, each from the encoder of the previous one, with new augmentation.
    """

    encoder: Encoder
    mix: str = "all"
    rows: int = 4000
    products: int = 0
    kinds: str = "none"
    epochs: int = 1
    learning_rate: float = 2e-4
    max_length: int = 128
    ngrams: int = 0
    smoothing: float = 0.0
    normalization: str = "typography"
    augment: float = 0.0
    whole: float = 0.0
    passes: int = 1


E5: Final = Candidate(encoder=Encoder(name="e5", least=2))
#: The recipe of the built-in model, which uses nearly all rows of most sources.
SHIPPED: Final = replace(
    E5, rows=16_000, products=14_000, normalization="unicode-english", augment=0.4, whole=0.75, learning_rate=1e-4, passes=2
)
#: The same recipe on fewer rows, which is trained again without each cell.
SELECTED: Final = "as shipped, fewer rows"
CANDIDATES: Final = {
    SELECTED: replace(SHIPPED, rows=4000, products=2000, passes=1),
    "e5": E5,
    "e5, generators as subclasses": replace(E5, kinds="generator"),
    "e5, more product reviews": replace(E5, products=3000),
    "minilm": Candidate(encoder=Encoder(name="minilm")),
    "e5, 8 layers": replace(E5, encoder=Encoder(name="e5", least=2, layers=8)),
    "e5, reviews only": replace(E5, mix="reviews"),
    "e5, products only": replace(E5, mix="products"),
    "e5, learning rate 1e-4": replace(E5, learning_rate=1e-4),
    "e5, augmented": replace(E5, normalization="unicode-english", augment=0.3),
}


def training_rows(candidate: Candidate, rows: Sequence[Row], cells: Sequence[Cell]) -> list[Row]:
    """Training rows of a candidate, without those that some cells leave out."""
    usable = trainable([row for row in rows if row.split == "train"], candidate, cells)
    largest = [row for row in usable if row.domain == "products" and row.generator in (HUMAN, "gpt2")]
    # Rows that are drawn twice count once.
    drawn = dict.fromkeys([*balanced(usable, candidate.rows), *balanced(largest, candidate.products)])
    return [_whole(row) if digest(row.text)[3] < 256 * candidate.whole else row for row in drawn]


def _whole(row: Row) -> Row:
    text = FRAGMENT.sub("", row.text)
    return row._replace(text=text) if row.generator == "gpt2" and band(text) else row


def trainable(rows: Sequence[Row], candidate: Candidate, cells: Sequence[Cell]) -> list[Row]:
    """Rows of a candidate's domains that are long enough to classify and that no cell leaves out."""
    eligible = [row for row in rows if group(row.domain) in MIXES[candidate.mix] and band(row.text)]
    return [row for row in eligible if not any(cell.leaves_out(row) for cell in cells)]


def columns(rows: Sequence[Row]) -> dict[str, list[str]]:
    """Rows as columns, the input format of the library."""
    return {
        "text": [row.text for row in rows],
        "label": [row.label for row in rows],
        "kind": ["" if row.generator == HUMAN else row.generator for row in rows],
        "domain": [row.domain for row in rows],
    }


def settings(candidate: Candidate, rows: Sequence[Row]) -> dict[str, Any]:
    """The recipe of a candidate, as plain data."""
    human = [row.text for row in rows if row.split == "train" and row.label == "real"]
    return recipe_of(
        "minilm-finetune",
        {
            "encoder__repo": str(folder(candidate.encoder, human)),
            "encoder__revision": "",
            "encoder__weights_sha256": "",
            "encoder__max_length": candidate.max_length,
            "loop__epochs": candidate.epochs,
            "loop__learning_rate": candidate.learning_rate,
            "loop__label_smoothing": candidate.smoothing,
            # The rows are balanced already; equal weight for each subclass would reduce human texts to a tenth.
            "loop__class_weight": "none",
            "ngrams": candidate.ngrams,
            "data__normalization": candidate.normalization,
            "data__augment": candidate.augment,
            "data__augmentations": AUGMENTATIONS,
            "data__subclass": "kind" if candidate.kinds == "generator" else "",
            # The rows are unique already, and short reviews are kept.
            "data__near_duplicates": 0,
            "data__min_tokens": 0,
            "data__max_tokens": 10**6,
        },
    )
