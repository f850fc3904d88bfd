"""Heads are rebuilt from their tensors, and wrong tensors are rejected."""

from __future__ import annotations

import pytest
import torch

from reviewguard.models.heads import Head, LinearHead, MlpHead, RbfHead, SubclassHead, kind_of, rebuild


def heads() -> list[Head]:
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    return [
        LinearHead(random(3, 5), random(3)),
        RbfHead(random(7, 5), random(1, 7), random(1), torch.tensor(0.3), random(1), random(1)),
        RbfHead(random(7, 5), random(4, 7), random(4), torch.tensor(0.3), random(4), random(4)),
        MlpHead([(random(6, 5), random(6)), (random(4, 6), random(4)), (random(2, 4), random(2))], (0.5, 0.5)),
        SubclassHead(LinearHead(random(3, 5), random(3)), torch.tensor([1, 0, 1])),
        SubclassHead(MlpHead([(random(6, 5), random(6)), (random(2, 6), random(2))]), torch.tensor([0, 1])),
    ]


@pytest.mark.parametrize("head", heads(), ids=kind_of)
def test_head_is_rebuilt_from_kind_and_tensors(head: Head) -> None:
    x = torch.randn(9, 5, generator=torch.Generator().manual_seed(1))
    rebuilt = rebuild(kind_of(head), dict(head.state_dict())).eval()
    assert torch.equal(head.eval()(x), rebuilt(x))


def test_unknown_kind_and_missing_tensors_are_rejected() -> None:
    with pytest.raises(ValueError, match="unknown kind of head 'forest'; known: linear, rbf, mlp"):
        rebuild("forest", {})
    for kind in ("linear", "rbf", "mlp", "linear-subclasses"):
        with pytest.raises(ValueError, match=f"cannot build a head of kind '{kind}' from the tensors"):
            rebuild(kind, {"planted": torch.zeros(1)})
    with pytest.raises(ValueError, match="unknown kind of head 'forest'"):
        rebuild("forest-subclasses", {"owner": torch.tensor([0, 1])})


def test_class_probability_is_the_sum_over_its_subclasses() -> None:
    draw = torch.Generator().manual_seed(0)
    inner, x = LinearHead(torch.randn(4, 5, generator=draw), torch.randn(4, generator=draw)), torch.randn(9, 5, generator=draw)
    subclass_probabilities = inner(x).softmax(dim=1)
    class_probabilities = SubclassHead(inner, torch.tensor([0, 1, 0, 1]))(x).softmax(dim=1)
    torch.testing.assert_close(class_probabilities, subclass_probabilities[:, [0, 1]] + subclass_probabilities[:, [2, 3]])


@pytest.mark.parametrize("owner", [[0, 2], [-1, 0], [[0, 1]], [], [0, 10**15], [0.5, 1.5]])
def test_invalid_owners_are_rejected(owner: list[object]) -> None:
    tensors = {"inner.weight": torch.zeros(2, 5), "inner.bias": torch.zeros(2), "owner": torch.tensor(owner)}
    with pytest.raises(ValueError, match="expected one dimension and the values 0, 1, 2"):
        rebuild("linear-subclasses", tensors)
