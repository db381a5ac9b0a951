"""What a user asks of a conversion."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from onnx import TensorProto

from onnxlrp.errors import UsageError
from onnxlrp.planning.concepts import MaskLike
from onnxlrp.planning.target import TargetLike
from onnxlrp.tables import RuleTable

#: Element types of relevance outputs by the name that users give; "model" is the type of the explained input.
RELEVANCE_TYPES: Mapping[str, int | None] = {
    "float32": int(TensorProto.FLOAT),
    "float64": int(TensorProto.DOUBLE),
    "model": None,
}


@dataclass(frozen=True, kw_only=True)
class Request:
    """What the user asks for; see `onnxlrp.convert` for the meaning of each field."""

    rules: str | os.PathLike[str] | RuleTable = "default"
    target: TargetLike = "argmax"
    inputs: Sequence[str] = ()
    outputs: Sequence[str] = ()
    axis: int | None = None
    on_demand: bool = False
    ledger: bool = False
    relevance_type: str = "float32"
    position: str | int | None = None
    rather_than: TargetLike | None = None
    relevance_of: Sequence[str] = ()
    mask_at: Sequence[MaskLike] = ()
    components: Sequence[str] = ()

    def relevance_dtype(self, of_model: int) -> int:
        """The element type of a relevance output, given that of the tensor it belongs to.

        Raises:
            UsageError: there is no such type.
        """
        if self.relevance_type not in RELEVANCE_TYPES:
            raise UsageError(f"relevance type {self.relevance_type!r} is none of {', '.join(RELEVANCE_TYPES)}")
        return RELEVANCE_TYPES[self.relevance_type] or of_model
