"""A model run as it is, for what is only to be known of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from onnxlrp.errors import UsageError
from onnxlrp.read.load import load
from onnxlrp.run.session import open_beside

Array = np.ndarray[Any, Any]


class ForwardModel:
    """The forward pass of a model, original or converted.

    Args:
        model: a file, its bytes, or a model.
        providers: onnxruntime execution providers; the CPU when None.

    Raises:
        UsageError, ModelReadError: as `onnxlrp.Explainer`.
    """

    def __init__(self, model: str | Path | bytes | onnx.ModelProto, providers: Sequence[str] | None = None) -> None:
        source = load(model)
        self._session = open_beside(source, source.model, providers)
        given = self._session.get_inputs()
        self.input_names: tuple[str, ...] = tuple(value.name for value in given)
        self.input_shapes: dict[str, tuple[int | str | None, ...]] = {v.name: tuple(v.shape) for v in given}
        #: As onnxruntime writes them: "tensor(float)".
        self.input_types: dict[str, str] = {v.name: v.type for v in given}
        self.output_names: tuple[str, ...] = tuple(value.name for value in self._session.get_outputs())

    def run(self, feeds: Mapping[str, Array], output: str | None = None) -> Array:
        """An output by name; when None the only one made of floats.

        Raises UsageError for names that are no outputs, a model of which no single output is meant, and one that does
        not take the feeds.
        """
        if output is not None and output not in self.output_names:
            raise UsageError(f"the model has no output {output!r}; its outputs are {', '.join(self.output_names)}")
        try:
            found = self._session.run(None if output is None else [output], dict(feeds))
        except Exception as error:  # onnxruntime raises its own unrelated classes
            raise UsageError(
                f"onnxruntime cannot run the model on this input: {str(error).strip().splitlines()[0]}"
            ) from error
        named = zip(self.output_names if output is None else (output,), found, strict=True)
        floats = {n: value for n, value in named if isinstance(value, np.ndarray) and value.dtype.kind == "f"}
        if len(floats) != 1:
            listed = ", ".join(f"{name} {list(value.shape)}" for name, value in floats.items())
            raise UsageError(
                f"the model has {len(floats)} outputs made of floats: {listed}; name the one that is meant"
                if floats
                else "the model has no output made of floats"
            )
        return next(iter(floats.values()))
