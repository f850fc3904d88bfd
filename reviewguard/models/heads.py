"""Heads map a text's embedding to logits. They are torch modules that can hold coefficients fitted by scikit-learn.

A head is rebuilt from its tensors and its kind alone; a bundle stores the tensors in `head.safetensors`.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn


class LinearHead(nn.Module):
    """Logistic regression: logits are `x @ weight.T + bias`. Dropout is applied in training only."""

    def __init__(self, weight: Tensor, bias: Tensor, dropout: float = 0.0) -> None:
        """Take the weight (classes, width) and bias (classes,), both float32, and the input dropout."""
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map float32 (batch, width) to logits (batch, classes)."""
        return nn.functional.linear(self.dropout(x), self.weight, self.bias)


class RbfHead(nn.Module):
    """K one-vs-rest support vector machines with an RBF kernel, each followed by a Platt sigmoid.

    K = 1 means two classes, and the score is that of the second class. All SVMs share one set of support vectors; a coefficient
    is zero if its SVM does not use the vector. The sigmoid is `1 / (1 + exp(a f + b))` (Platt 1999); in new models, `b` is 0.
    """

    def __init__(self, support: Tensor, dual: Tensor, intercept: Tensor, gamma: Tensor, a: Tensor, b: Tensor) -> None:
        """Take the fitted coefficients, all float32.

        Args:
            support: Support vectors (vectors, width).
            dual: Coefficients (K, vectors).
            intercept: Intercepts (K,).
            gamma: Kernel width, a scalar.
            a: Slopes of the sigmoids (K,).
            b: Offsets of the sigmoids (K,).
        """
        super().__init__()
        self.support = nn.Parameter(support)
        self.dual = nn.Parameter(dual)
        self.intercept = nn.Parameter(intercept)
        self.gamma = nn.Parameter(gamma)
        self.a = nn.Parameter(a)
        self.b = nn.Parameter(b)

    def forward(self, x: Tensor) -> Tensor:
        """Map float32 (batch, width) to logits (batch, classes) whose softmax is the calibrated probability."""
        # |x - s|^2 is expanded, so that the main cost is one matrix product.
        squared = (x * x).sum(1, keepdim=True) - 2 * x @ self.support.T + (self.support * self.support).sum(1)
        kernel = torch.exp(-self.gamma * squared.clamp(min=0))
        odds = -(self.a * (kernel @ self.dual.T + self.intercept) + self.b)
        if odds.shape[1] == 1:
            return torch.cat([torch.zeros_like(odds), odds], dim=1)
        # softmax(log p) divides the one-vs-rest probabilities by their sum.
        return nn.functional.logsigmoid(odds)


class MlpHead(nn.Module):
    """A multilayer perceptron with ReLU between layers. Dropout is applied in training only."""

    def __init__(self, layers: list[tuple[Tensor, Tensor]], dropout: tuple[float, ...] = ()) -> None:
        """Take the weight (out, in) and bias (out,) of each layer, float32, and the dropout after each hidden layer."""
        super().__init__()
        modules: list[nn.Module] = []
        for index, (weight, bias) in enumerate(layers):
            modules.append(LinearHead(weight, bias))
            if index < len(layers) - 1:
                modules += [nn.ReLU(), nn.Dropout(dropout[index] if dropout else 0.0)]
        self.layers = nn.Sequential(*modules)

    def forward(self, x: Tensor) -> Tensor:
        """Map float32 (batch, width) to logits (batch, classes)."""
        logits: Tensor = self.layers(x)
        return logits


PlainHead = LinearHead | RbfHead | MlpHead


class SubclassHead(nn.Module):
    """Class logits from a head over subclasses: the probability of a class is the sum over its subclasses."""

    def __init__(self, inner: PlainHead, owner: Tensor) -> None:
        """Take the head over subclasses and the class index of each subclass, int64 (subclasses,).

        Raises:
            ValueError: If a class has no subclass.
        """
        super().__init__()
        self.inner = inner
        self.register_buffer("owner", owner)
        indices = owner.flatten().tolist()
        classes = sorted(set(indices))
        if owner.ndim != 1 or not classes or classes != list(range(len(classes))):
            raise ValueError(
                f"owners of subclasses have shape {tuple(owner.shape)} and values {classes}; "
                "expected one dimension and the values 0, 1, 2, ..."
            )
        self._members = [[i for i, owned in enumerate(indices) if owned == index] for index in classes]

    def forward(self, x: Tensor) -> Tensor:
        """Map float32 (batch, width) to logits (batch, classes)."""
        logits = self.inner(x)
        return torch.stack([logits[:, members].logsumexp(dim=1) for members in self._members], dim=1)


Head = PlainHead | SubclassHead
_KINDS: Final[dict[str, type[PlainHead]]] = {"linear": LinearHead, "rbf": RbfHead, "mlp": MlpHead}
_SUBCLASSES: Final = "-subclasses"


def kind_of(head: Head) -> str:
    """The name of this kind of head in a bundle."""
    if isinstance(head, SubclassHead):
        return kind_of(head.inner) + _SUBCLASSES
    return next(name for name, type_ in _KINDS.items() if type_ is type(head))


def rebuild(kind: str, tensors: dict[str, Tensor]) -> Head:
    """Build a head from its kind and its tensors (the contents of `head.safetensors`).

    Raises:
        ValueError: If the kind is unknown or a tensor is missing.
    """
    if kind.endswith(_SUBCLASSES):
        inner = {name.removeprefix("inner."): tensor for name, tensor in tensors.items() if name != "owner"}
        if "owner" not in tensors:
            raise ValueError(f"cannot build a head of kind {kind!r} from the tensors {sorted(tensors)}: 'owner' is missing")
        return SubclassHead(_plain(kind.removesuffix(_SUBCLASSES), inner), tensors["owner"])
    return _plain(kind, tensors)


def _plain(kind: str, tensors: dict[str, Tensor]) -> PlainHead:
    if kind not in _KINDS:
        raise ValueError(f"unknown kind of head {kind!r}; known: {', '.join(_KINDS)}")
    try:
        if kind == "mlp":
            steps = sorted({int(name.split(".")[1]) for name in tensors})
            return MlpHead([(tensors[f"layers.{i}.weight"], tensors[f"layers.{i}.bias"]) for i in steps])
        if kind == "linear":
            return LinearHead(tensors["weight"], tensors["bias"])
        return RbfHead(**tensors)
    except (KeyError, TypeError, IndexError) as error:
        raise ValueError(f"cannot build a head of kind {kind!r} from the tensors {sorted(tensors)}: {error}") from error
