"""Heads: from a text's vector to logits, as torch modules that scikit-learn's fitted coefficients are copied into.

Every head is rebuilt from its tensors alone, so `head.safetensors` and the kind's name are all that is stored.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn


class LinearHead(nn.Module):
    """Logits `x @ weight.T + bias`: logistic regression; dropout acts in training only."""

    def __init__(self, weight: Tensor, bias: Tensor, dropout: float = 0.0) -> None:
        """Take weight (classes, width) and bias (classes,), both float32, and the dropout on the input."""
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map float32 (batch, width) to logits (batch, classes)."""
        return nn.functional.linear(self.dropout(x), self.weight, self.bias)


class RbfHead(nn.Module):
    """Support vector machines with an RBF kernel, one a class against the rest, each under a Platt sigmoid.

    With K = 1 machine there are two classes and the machine speaks for the second. The machines share the support vectors;
    a machine that does not use one has a zero coefficient there. The sigmoid, `1 / (1 + exp(a f + b))`, is that of
    Platt (1999); new models have no offset `b`.
    """

    def __init__(self, support: Tensor, dual: Tensor, intercept: Tensor, gamma: Tensor, a: Tensor, b: Tensor) -> None:
        """Take the fitted machines, all float32.

        Args:
            support: Support vectors (vectors, width).
            dual: Coefficients (K, vectors).
            intercept: (K,).
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
        # |x - s|^2 expanded, so that the work is one matrix product.
        squared = (x * x).sum(1, keepdim=True) - 2 * x @ self.support.T + (self.support * self.support).sum(1)
        kernel = torch.exp(-self.gamma * squared.clamp(min=0))
        odds = -(self.a * (kernel @ self.dual.T + self.intercept) + self.b)
        if odds.shape[1] == 1:
            return torch.cat([torch.zeros_like(odds), odds], dim=1)
        # One-against-rest probabilities are normalised by their sum, and softmax(log p) does just that.
        return nn.functional.logsigmoid(odds)


class MlpHead(nn.Module):
    """A perceptron with ReLU between its layers; dropout acts in training only."""

    def __init__(self, layers: list[tuple[Tensor, Tensor]], dropout: tuple[float, ...] = ()) -> None:
        """Take weight (out, in) and bias (out,) of each layer, float32, and the dropout after each hidden layer."""
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
    """Logits of classes from a head over their subclasses: a class's probability is the sum of theirs."""

    def __init__(self, inner: PlainHead, owner: Tensor) -> None:
        """Take the head over the subclasses, and the index of each one's class, int64 (subclasses,).

        Raises:
            ValueError: If a class has none.
        """
        super().__init__()
        self.inner = inner
        self.register_buffer("owner", owner)
        indices = owner.flatten().tolist()
        classes = sorted(set(indices))
        if owner.ndim != 1 or not classes or classes != list(range(len(classes))):
            raise ValueError(f"owners of subclasses are {owner.shape} {classes}, not the classes from 0 on")
        self._members = [[i for i, of in enumerate(indices) if of == index] for index in classes]

    def forward(self, x: Tensor) -> Tensor:
        """Map float32 (batch, width) to logits (batch, classes)."""
        logits = self.inner(x)
        return torch.stack([logits[:, members].logsumexp(dim=1) for members in self._members], dim=1)


Head = PlainHead | SubclassHead
_KINDS: Final[dict[str, type[PlainHead]]] = {"linear": LinearHead, "rbf": RbfHead, "mlp": MlpHead}
_SUBCLASSES: Final = "-subclasses"


def kind_of(head: Head) -> str:
    """The name under which a bundle stores this kind of head."""
    if isinstance(head, SubclassHead):
        return kind_of(head.inner) + _SUBCLASSES
    return next(name for name, type_ in _KINDS.items() if type_ is type(head))


def rebuild(kind: str, tensors: dict[str, Tensor]) -> Head:
    """Make a head from its kind and its tensors (the contents of `head.safetensors`).

    Raises:
        ValueError: If the kind is unknown or a tensor is missing.
    """
    if kind.endswith(_SUBCLASSES):
        inner = {name.removeprefix("inner."): tensor for name, tensor in tensors.items() if name != "owner"}
        if "owner" not in tensors:
            raise ValueError(f"a head of kind {kind!r} does not have the tensors {sorted(tensors)}: 'owner'")
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
        raise ValueError(f"a head of kind {kind!r} does not have the tensors {sorted(tensors)}: {error}") from error
