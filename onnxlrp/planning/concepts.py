"""Concept relevance: which tensors between target and input have relevance to show, and where it can be conditioned.

Achtibat et al. 2023 (CRP): relevance restricted to some channels of a hidden layer says what those channels looked at.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from onnxlrp.errors import UsageError
from onnxlrp.graph.view import Graph, graph_names
from onnxlrp.planning.program import Planner, Program
from onnxlrp.tables.names import did_you_mean

MaskLike = str | tuple[str, int]


@dataclass(frozen=True)
class Mask:
    """A graph input that multiplies the relevance of a tensor.

    Attributes:
        tensor: of rank `rank`, batch axis first.
        axis: of the channels, heads or neurons; never the batch.
        channels: how many there are, None where the model does not say.
    """

    tensor: str
    axis: int
    rank: int
    channels: int | None

    @property
    def name(self) -> str:
        return f"{self.tensor}_mask"


class Askable:
    """The tensors whose relevance can be asked: those to which the programs send some, under the model's own names."""

    def __init__(self, original: Graph, planners: Sequence[Planner], programs: Sequence[Program]) -> None:
        self._original, self._graph = original, planners[0].graph
        self._explained = frozenset(x for planner in planners for x in planner.paths.explained) & {*original.inputs}
        self._merged: dict[str, tuple[str, str]] = {}
        self.tensors: set[str] = set()
        for planner, program in zip(planners, programs, strict=True):
            self.tensors.update(planner.paths.targets)
            self.tensors.update(x for step in program.steps for x in step.receivers if x in planner.paths.between)
            for step in program.steps:
                inside = (o for node in step.nodes[:-1] for o in node.outputs)
                self._merged.update(dict.fromkeys(inside, (step.operator, step.nodes[-1].outputs[0])))
        self.tensors = {t for t in self.tensors if original.exists(t) and t not in self._explained}

    def relevance_of(self, names: Sequence[str]) -> tuple[str, ...]:
        """The tensors of these names, each once.

        Raises:
            UsageError: one has no relevance; says why and what is near.
        """
        for name in names:
            self._check(name)
        return tuple(dict.fromkeys(names))

    def masks(self, asked: Iterable[MaskLike]) -> tuple[Mask, ...]:
        """The masks at `TENSOR`, `TENSOR:AXIS` or (TENSOR, AXIS); the axis is 1 unless stated.

        Raises:
            UsageError: a tensor has no relevance, an axis that is not there, or two masks.
        """
        found: dict[str, Mask] = {}
        for item in asked:
            tensor, axis = self._parsed(item)
            self._check(tensor)
            if tensor in found:
                raise UsageError(f"tensor {tensor!r} has one mask only; name it once")
            found[tensor] = self._mask(tensor, axis)
        return tuple(found.values())

    def _parsed(self, item: MaskLike) -> tuple[str, int]:
        if not isinstance(item, str):
            return item
        stated = None if self._original.exists(item) else re.fullmatch(r"(.+):(-?\d+)", item, re.DOTALL)
        return (stated[1], int(stated[2])) if stated else (item, 1)

    def _mask(self, tensor: str, axis: int) -> Mask:
        shape = self._graph.shape(tensor)
        if shape is None:
            raise UsageError(f"the rank of tensor {tensor!r} is not known, so that no mask can be put on it")
        if not -len(shape) <= axis < len(shape):
            raise UsageError(f"axis {axis} is out of range for a mask at tensor {tensor!r} of rank {len(shape)}")
        axis %= len(shape)
        if axis == 0:
            raise UsageError(f"axis 0 of tensor {tensor!r} is the batch; a mask goes along another axis")
        size = shape[axis]
        return Mask(tensor, axis, len(shape), size if isinstance(size, int) else None)

    def _check(self, name: str) -> None:
        if name in self.tensors:
            return
        if name in self._explained:
            raise UsageError(f"tensor {name!r} is an explained input, whose relevance is returned as it is")
        if not self._original.exists(name) and name in graph_names(self._original.proto.graph)[0]:
            raise UsageError(
                f"tensor {name!r} stands inside the body of an If, Loop or Scan; relevance can be asked of tensors of"
                f" the main graph{self._near(name)}"
            )
        if not self._original.exists(name):
            raise UsageError(f"the model has no tensor {name!r}{self._near(name)}")
        if name in self._merged:
            operators, output = self._merged[name]
            raise UsageError(
                f"tensor {name!r} lies inside {operators}, which are treated as one layer; ask for its output"
                f" {output!r}"
            )
        raise UsageError(
            f"tensor {name!r} has no relevance: it does not lie between target and explained inputs, or the rules send"
            f" it none{self._near(name)}"
        )

    def _near(self, name: str) -> str:
        """Names that are like it, or else those nearest to the target."""
        hint = did_you_mean(name, self.tensors)
        if hint != ".":
            return hint
        last = [o for node in reversed(self._graph.nodes) for o in node.outputs if o in self.tensors]
        return f"; tensors that have are, from the target on, {', '.join(last[:5])}" if last else "."
