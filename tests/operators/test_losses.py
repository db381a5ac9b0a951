"""Losses at the end of a network: derivatives by scores and weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.operators.examples import expect_derivatives
from tests.support.case import Case
from tests.support.models import Net

LABELS = np.array([[0, 2], [1, 3], [2, 0]])


def lost(op: str, *, weighted: bool, labels: np.ndarray = LABELS, **attributes: Any) -> Case:
    def build(net: Net, x: str, *weights: str) -> str:
        return net.op(op, x, net.constant(labels), *weights, **attributes)

    rank = 2 if attributes.get("reduction") == "none" else 0
    return Case(((3, 4, 2), *([(4,)] if weighted else [])), build, rank)


@pytest.mark.parametrize("ignored", [None, 2])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
@pytest.mark.parametrize("op", ["NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss"])
def test_derivatives(op: str, reduction: str, weighted: bool, ignored: int | None) -> None:
    attributes = {} if ignored is None else {"ignore_index": ignored}
    expect_derivatives(lost(op, weighted=weighted, reduction=reduction, **attributes))


def test_an_ignored_label_may_be_no_class() -> None:
    labels = np.where(LABELS == 2, -1, LABELS)
    expect_derivatives(lost("SoftmaxCrossEntropyLoss", weighted=True, labels=labels, ignore_index=-1))


def test_logarithms_of_probabilities_are_a_further_output() -> None:
    def build(net: Net, x: str) -> str:
        loss = net.op("SoftmaxCrossEntropyLoss", x, net.constant(LABELS), outputs=2)
        return net.op("Add", loss, f"{loss}_1")

    expect_derivatives(Case(((3, 4, 2),), build, 3))


def test_logarithms_of_probabilities_may_be_what_is_explained() -> None:
    """They are no head of the model's own, and are explained as they are."""

    def build(net: Net, x: str) -> str:
        return f"{net.op('SoftmaxCrossEntropyLoss', x, net.constant(LABELS), outputs=2)}_1"

    expect_derivatives(Case(((3, 4, 2),), build, 3))
