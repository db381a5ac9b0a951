"""The Explainer: a model with its explanation in one onnxruntime session."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import helper

from onnxlrp.api import ModelLike, Rules
from onnxlrp.check import metadata
from onnxlrp.compile import compile_model
from onnxlrp.emit.inputs import EXPLAIN_INPUT, POSITION_INPUT, SEED_INPUT, TARGET_INPUT
from onnxlrp.errors import ModelReadError, UsageError
from onnxlrp.graph.view import dimension
from onnxlrp.planning.concepts import MaskLike
from onnxlrp.planning.target import TargetLike
from onnxlrp.read.load import load
from onnxlrp.read.prepare import prepare
from onnxlrp.request import Request
from onnxlrp.run.masks import Masks, MaskValue, mask_array, stated, tensor_of
from onnxlrp.run.session import open_beside

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Explanation:
    """One answer of an Explainer.

    Attributes:
        outputs: the model's own outputs by name.
        relevance: a map in the input's shape by input name (with an axis 1 of length K for "top:K"). With
            several explained outputs, those of the first; the others are in `by_output`.
        target: what was explained, in words.
        explained_output: the tensor that relevance started from (the logits; those of the position that was asked
            for, in its last axis), None if the model does not return it.
        by_output: relevance by explained output and input.
        relevance_of: relevance of the other tensors that were asked for, by name, in their shapes.
    """

    outputs: dict[str, Array]
    relevance: dict[str, Array]
    target: str
    explained_output: Array | None
    by_output: dict[str, dict[str, Array]]
    relevance_of: dict[str, Array] = field(default_factory=dict)


class Explainer:
    """Holds an onnxruntime session of a converted model.

    Args:
        model: an original or an already converted model. The options of conversion go with an original only.
        masks: what the relevance of hidden tensors is multiplied by in every run that says nothing else, as for
            `explain`. Of an original model this asks for `mask_at` as well.
        providers: onnxruntime execution providers; the CPU when None.
        lean: keeps weights once in memory and not once for each way in which they are multiplied, for a little more
            time at small batches.
        The other arguments are those of `onnxlrp.convert`.

    Raises:
        UsageError: onnxruntime is missing, an option does not fit, or conversion options go with a converted model.
        ModelReadError, ConversionError: as `onnxlrp.convert`.
    """

    def __init__(
        self,
        model: ModelLike,
        *,
        rules: Rules | None = None,
        target: TargetLike | None = None,
        inputs: Sequence[str] = (),
        outputs: Sequence[str] = (),
        axis: int | None = None,
        position: str | int | None = None,
        rather_than: TargetLike | None = None,
        relevance_of: Sequence[str] = (),
        mask_at: Sequence[MaskLike] = (),
        components: Sequence[str] = (),
        masks: Masks | None = None,
        on_demand: bool = False,
        relevance_type: str | None = None,
        base_dir: str | os.PathLike[str] | None = None,
        providers: Sequence[str] | None = None,
        lean: bool = False,
    ) -> None:
        source = load(model, base_dir)
        if metadata.converted_by(source.model) is not None:
            given = (rules, target, axis, relevance_type, position, rather_than)
            listed = (inputs, outputs, relevance_of, mask_at, components)
            if any(value is not None for value in given) or any(listed) or on_demand:
                raise UsageError(
                    "the model is already converted; rules, target, inputs and outputs were fixed then."
                    " Give the original model to choose others"
                )
            converted = source.model
        else:
            request = Request(
                rules="default" if rules is None else rules,
                target="argmax" if target is None else target,
                inputs=inputs,
                outputs=outputs,
                axis=axis,
                on_demand=on_demand,
                relevance_type=relevance_type or "float32",
                position=position,
                rather_than=rather_than,
                relevance_of=relevance_of,
                mask_at=(*mask_at, *(key for key in masks or () if key not in mask_at)),
                components=components,
            )
            converted = compile_model(prepare(source), request).model
        found = metadata.read(converted)
        if found is None:
            raise ModelReadError("the converted model says nothing of its relevance outputs")
        self.metadata = found
        initial = {t.name for t in converted.graph.initializer}
        values = [v for v in converted.graph.input if v.name not in initial]
        own = [v for v in values if not metadata.is_added(found, v.name)]
        self._extra = [v for v in values if v not in own]
        relevance_names = metadata.relevance_outputs(found)
        self.input_names: tuple[str, ...] = tuple(v.name for v in own)
        self.input_shapes: dict[str, tuple[int | str | None, ...]] = {v.name: _shape(v) for v in own}
        self.input_types: dict[str, np.dtype[Any]] = {
            v.name: helper.tensor_dtype_to_np_dtype(v.type.tensor_type.elem_type) for v in own
        }
        self.output_names: tuple[str, ...] = tuple(
            v.name for v in converted.graph.output if v.name not in relevance_names
        )
        self.explained: tuple[str, ...] = tuple(found.relevance)
        self._masks: dict[str, dict[str, Any]] = found.settings.get("masks", {})
        #: How many channels the mask at each tensor has; None where the model does not say.
        self.channels: dict[str, int | None] = {x: mask["channels"] for x, mask in self._masks.items()}
        self._usual_masks = self._by_tensor(masks)
        #: The converted model; its weights may lie in files beside the original.
        self.model = converted
        logits = found.explained_output
        returned = {v.name for v in converted.graph.output}
        made = {name for node in converted.graph.node for name in node.output}
        if logits in made - returned:
            # The logits are wanted beside the outputs; the added output exists in this session only.
            converted = _with_output(converted, logits)
        self._logits = logits
        self._session = open_beside(source, converted, providers, lean=lean)

    def explain(
        self,
        inputs: Mapping[str, Array] | Array,
        *,
        target: Any = None,
        seed: Array | None = None,
        position: Any = None,
        masks: Masks | None = None,
    ) -> Explanation:
        """Runs the model once.

        Args:
            inputs: arrays by input name; a bare array where the model has one input.
            target: for a conversion with target "input": an index, a tuple, or an int array [batch, k].
            seed: for a conversion with target "seed": an array in the explained output's shape.
            position: for a conversion with position "input": an index, or an int array [batch] or [batch, 1].
            masks: by tensor of `mask_at`, what its relevance is multiplied by: an array [batch, channels] or
                [channels], or a set or range of the channels to keep. A tensor that is not named keeps all.

        Raises:
            UsageError: an input is missing or unknown, or target, seed, position or masks do not go with the
                conversion.
        """
        feeds = self._feeds(inputs)
        batch = len(next(iter(feeds.values()))) if feeds and next(iter(feeds.values())).ndim else 1
        kept = self._usual_masks if masks is None else self._by_tensor(masks)
        by_name = {mask["input"]: x for x, mask in self._masks.items()}
        for value in self._extra:
            if value.name in by_name:
                x = by_name[value.name]
                feeds[value.name] = mask_array(x, kept.get(x), self.channels[x], batch, _dtype(value))
            else:
                feeds[value.name] = self._extra_feed(value, batch, target, seed, position)
        if target is not None and not any(v.name.startswith(TARGET_INPUT) for v in self._extra):
            raise UsageError("a target per call needs a conversion with target='input'")
        if seed is not None and not any(v.name.startswith(SEED_INPUT) for v in self._extra):
            raise UsageError("a seed needs a conversion with target='seed'")
        if position is not None and not any(v.name == POSITION_INPUT for v in self._extra):
            raise UsageError("a position per call needs a conversion with position='input'")
        names = [o.name for o in self._session.get_outputs()]
        try:
            results = dict(zip(names, self._session.run(names, feeds), strict=True))
        except Exception as error:  # onnxruntime raises its own unrelated classes
            text = str(error).strip().splitlines()
            raise UsageError(
                f"onnxruntime cannot run the model on this input: {text[0] if text else error!r}"
            ) from error
        relevance = {x: results[name] for x, name in self.metadata.relevance.items()}
        by_output = {
            output: {x: results[name] for x, name in maps.items()}
            for output, maps in self.metadata.settings.get("relevance_by_output", {}).items()
        }
        return Explanation(
            {name: results[name] for name in self.output_names},
            relevance,
            f"{self.metadata.target} of {self._logits}{self._place()}{self._through(kept)}",
            self._of_position(results.get(self._logits), feeds.get(POSITION_INPUT)),
            by_output,
            {x: results[name] for x, name in metadata.further_outputs(self.metadata).items()},
        )

    def _by_tensor(self, masks: Masks | None) -> dict[str, MaskValue]:
        return {tensor_of(key, self._masks): value for key, value in (masks or {}).items()}

    def _through(self, masks: Masks) -> str:
        """Which part of the relevance it is, in words."""
        return f" through {' and '.join(stated(x, mask) for x, mask in masks.items())}" if masks else ""

    def _place(self) -> str:
        stated = self.metadata.settings.get("position")
        return "" if stated in (None, "all") else f" at position {POSITION_INPUT if stated == 'input' else stated}"

    def _of_position(self, logits: Array | None, given: Array | None) -> Array | None:
        """The logits of the position that is explained, where it is one."""
        stated = self.metadata.settings.get("position")
        if logits is None or stated in (None, "all"):
            return logits
        if given is not None:
            found: Array = np.take_along_axis(logits, given[:, :, None] % logits.shape[1], axis=1)[:, 0]
            return found
        result: Array = logits[:, -1 if stated == "last" else int(stated)]
        return result

    def _feeds(self, inputs: Mapping[str, Array] | Array) -> dict[str, Array]:
        if not isinstance(inputs, Mapping):
            if len(self.input_names) != 1:
                raise UsageError(
                    f"the model has {len(self.input_names)} inputs; give arrays by name: {', '.join(self.input_names)}"
                )
            inputs = {self.input_names[0]: inputs}
        unknown = [n for n in inputs if n not in self.input_names]
        missing = [n for n in self.input_names if n not in inputs]
        if unknown or missing:
            which = f"no input {unknown[0]!r}" if unknown else f"input {missing[0]!r} is missing"
            raise UsageError(f"{which}; the model's inputs are {', '.join(self.input_names)}")
        return {n: _array(a, self.input_types[n], f"input {n!r}") for n, a in inputs.items()}

    def _extra_feed(
        self, value: onnx.ValueInfoProto, batch: int, target: Any, seed: Array | None, position: Any
    ) -> Array:
        dtype = _dtype(value)
        if value.name.startswith(EXPLAIN_INPUT):
            return np.ones((batch, 1), dtype)
        if value.name.startswith(SEED_INPUT):
            if seed is None:
                raise UsageError("the model was converted with target='seed': give a seed")
            return _array(seed, dtype, "the seed")
        what = "position" if value.name == POSITION_INPUT else "target"
        asked = position if what == "position" else target
        if asked is None:
            raise UsageError(f"the model was converted with {what}='input': give a {what}")
        if np.asarray(asked).dtype.kind not in "iu":
            raise UsageError(f"a {what} is made of whole numbers, not {asked!r}")
        given = np.asarray(asked, dtype)
        if given.ndim == 2:
            return given
        width = _shape(value)[1]
        row = given.reshape(-1)
        if isinstance(width, int) and row.size != width:
            if width == 1 and row.size == batch:
                return row.reshape(batch, 1)
            raise UsageError(f"a {what} takes {width} indices per sample, not {row.size}")
        return np.tile(row[None, :], (batch, 1))


def _array(given: Any, dtype: np.dtype[Any], what: str) -> Array:
    try:
        return np.asarray(given, dtype)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{what} must be an array of {dtype}: {error}") from error


def _dtype(value: onnx.ValueInfoProto) -> np.dtype[Any]:
    return helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)


def _shape(value: onnx.ValueInfoProto) -> tuple[int | str | None, ...]:
    return tuple(map(dimension, value.type.tensor_type.shape.dim))


def _with_output(model: onnx.ModelProto, tensor: str) -> onnx.ModelProto:
    """A shallow variant with one more output of unstated type, which the runtime infers."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    result.graph.output.append(onnx.ValueInfoProto(name=tensor))
    return result
