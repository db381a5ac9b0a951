"""What is explained of an output in place of one of its elements."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from onnxlrp.explain.layout import Layout
from onnxlrp.explain.preprocess import Prepared


class Aim(Protocol):
    """Seeds on the explained output that depend on its values, and the words for what they ask.

    `tag` is the part of file names for it; `has_classes` whether the output has scores of classes to be listed.
    """

    @property
    def tag(self) -> str: ...
    @property
    def has_classes(self) -> bool: ...

    def words(self, labels: Sequence[str] | None) -> str:
        """What is explained."""
        ...

    def seeds(self, explained: np.ndarray, photos: Sequence[Prepared], layout: Layout) -> np.ndarray:
        """In the shape of the explained output [batch, ...]. Raises UsageError for outputs that do not fit."""
        ...

    def details(self, explained: np.ndarray, layout: Layout) -> Sequence[str]:
        """What is added to the words for each sample of the output, such as a value; may be empty."""
        ...
