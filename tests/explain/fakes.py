"""An explainer without a model behind it:

four classes by quadrant, relevance by a rule that can be done by hand.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np


class QuadrantExplainer:
    """Class k has the mean of the k-th image quadrant as its logit; all pixels get pixel * (-1)^row as
    relevance.

    `seen` keeps every batch it was given. `spoil` changes the relevance, `maps` repeats it as top:K does.
    """

    def __init__(self, shape: tuple[int | str, ...], layout: str = "nchw", maps: int = 0, spoil: Any = None) -> None:
        self.input_names = ["photo"]
        self.input_shapes = {"photo": shape}
        self.input_types = {"photo": "tensor(float)"}
        self.explained = ["photo"]
        self.seen: list[np.ndarray] = []
        self._layout, self._maps, self._spoil = layout, maps, spoil

    def explain(self, inputs: Mapping[str, np.ndarray], /, *, target: Any = None) -> Any:
        x = inputs["photo"]
        self.seen.append(x)
        axes = {"nchw": (0, 1, 2, 3), "nhwc": (0, 3, 1, 2)}[self._layout]
        planes = x.transpose(axes).mean(axis=1)
        down, right = planes.shape[1] // 2, planes.shape[2] // 2
        parts = (
            planes[:, :down, :right],
            planes[:, :down, right:],
            planes[:, down:, :right],
            planes[:, down:, right:],
        )
        logits = np.stack([part.mean(axis=(1, 2)) for part in parts], axis=1).astype(np.float32)
        relevance = x.copy()
        rows = relevance if self._layout == "nhwc" else relevance.transpose(0, 2, 3, 1)
        rows[:, 1::2] *= -1
        if self._spoil is not None:
            relevance = self._spoil(relevance)
        if self._maps:
            relevance = np.stack([relevance] * self._maps, axis=1)
        return SimpleNamespace(
            outputs={"logits": logits},
            relevance={"photo": relevance},
            target="argmax",
            explained_output=logits,
        )
