"""The Python interface; the command line is a thin skin over it."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import onnx

from onnxlrp.check.save import default_output, save
from onnxlrp.compile import Converted, compile_model
from onnxlrp.errors import UsageError
from onnxlrp.planning.concepts import MaskLike
from onnxlrp.planning.model import Plan
from onnxlrp.planning.target import TargetLike
from onnxlrp.read.load import load
from onnxlrp.read.prepare import prepare
from onnxlrp.request import Request
from onnxlrp.tables import RuleTable

ModelLike = str | os.PathLike[str] | bytes | onnx.ModelProto
Rules = str | os.PathLike[str] | RuleTable


def compile_like(model: ModelLike, request: Request, base_dir: str | os.PathLike[str] | None = None) -> Converted:
    """Reads, plans and emits; the shared way of everything below."""
    return compile_model(prepare(load(model, base_dir)), request)


def convert(
    model: ModelLike,
    *,
    rules: Rules = "default",
    target: TargetLike = "argmax",
    inputs: Sequence[str] = (),
    outputs: Sequence[str] = (),
    axis: int | None = None,
    position: str | int | None = None,
    rather_than: TargetLike | None = None,
    relevance_of: Sequence[str] = (),
    mask_at: Sequence[MaskLike] = (),
    components: Sequence[str] = (),
    on_demand: bool = False,
    relevance_type: str = "float32",
    ledger: bool = False,
    base_dir: str | os.PathLike[str] | None = None,
) -> onnx.ModelProto:
    """The model with relevance outputs added; the given one is not changed.

    Args:
        model: a path, the bytes of a file, or a ModelProto.
        rules: a preset's name, a path to a TOML file, or a rule table.
        target: "argmax" (per sample the largest element of the explained output), an index or tuple of indices
            (batch left out; slices, or "10:20,5", explain the sum of several elements), "input" (adds an int64 input
            `lrp_target` [batch, k]), "seed" (adds an input `lrp_seed` in the explained output's shape, float32, or
            float64 for a float64 output), or "top:K" (K maps, axis 1 of each relevance output).
        inputs: names of the inputs to explain; every float input that the target depends on when empty.
        outputs: names of the tensors to explain; the first float output when empty. With several, relevance outputs
            are called `<input>_relevance_<output>`.
        axis: with target "argmax", the axis along which the largest element is explained at every position.
        position: for an output [batch, sequence, classes], such as the logits of a language model: the position along
            the sequence whose classes are explained: "last", an index, "input" (adds an int64 input `lrp_position`
            [batch, 1], for texts of different lengths), or "all" (the likeliest class of every position, summed).
            The target is then one of [batch, classes].
        rather_than: an index like `target`: explained is the difference of the two, "why A rather than B".
        relevance_of: names of tensors between target and inputs whose relevance is returned as well, in outputs
            `<tensor>_relevance` of their shapes.
        mask_at: tensors "NAME" or "NAME:AXIS" whose relevance is multiplied by a new float input `<tensor>_mask`
            [batch, channels] on its way back, along axis 1 unless stated: ones change nothing, a one-hot mask gives the
            relevance that runs through one channel (Achtibat et al. 2023).
        components: "heads" and "neurons" of transformers: the contribution of each pair of query and key in every head,
            in outputs `heads_<layer>_relevance` [batch, heads, query, key], and of each neuron of every feed-forward
            layer, in outputs `neurons_<layer>_relevance` (Jantsch et al. 2026). Layers count from 0 at the input.
        on_demand: adds a bool input `lrp_explain` [batch, 1]; where none is true, relevance is zeros and costs nothing.
        relevance_type: element type of the relevance outputs: "float32", "float64", or "model" for that of the
            explained input. Relevance is computed in float32, in float64 for a float64 model; what is too large for
            a smaller type becomes its largest number.
        ledger: adds the float64 output `lrp_ledger` [steps, 7], see `onnxlrp.emit.ledger`.
        base_dir: folder of external data, for bytes and ModelProto.

    Returns:
        A ModelProto with one more output `<input>_relevance` per explained input, in the shape of the input.

    Raises:
        ModelReadError: the model cannot be read.
        UsageError: an option does not fit the model.
        ConversionError: the model cannot be converted; every node in the way is named.
    """
    return compile_like(
        model,
        Request(
            rules=rules,
            target=target,
            inputs=inputs,
            outputs=outputs,
            axis=axis,
            on_demand=on_demand,
            ledger=ledger,
            relevance_type=relevance_type,
            position=position,
            rather_than=rather_than,
            relevance_of=relevance_of,
            mask_at=mask_at,
            components=components,
        ),
        base_dir,
    ).model


def plan(
    model: ModelLike,
    *,
    rules: Rules = "default",
    target: TargetLike = "argmax",
    inputs: Sequence[str] = (),
    outputs: Sequence[str] = (),
    axis: int | None = None,
    position: str | int | None = None,
    rather_than: TargetLike | None = None,
    relevance_of: Sequence[str] = (),
    mask_at: Sequence[MaskLike] = (),
    components: Sequence[str] = (),
    on_demand: bool = False,
    relevance_type: str = "float32",
    base_dir: str | os.PathLike[str] | None = None,
) -> Plan:
    """What `convert` would do with the same arguments, node by node, with reasons and cost."""
    request = Request(
        rules=rules,
        target=target,
        inputs=inputs,
        outputs=outputs,
        axis=axis,
        on_demand=on_demand,
        ledger=False,
        relevance_type=relevance_type,
        position=position,
        rather_than=rather_than,
        relevance_of=relevance_of,
        mask_at=mask_at,
        components=components,
    )
    return compile_like(model, request, base_dir).plan


@dataclass(frozen=True)
class ConvertResult:
    """What `convert_file` wrote.

    Attributes:
        path: the converted model.
        relevance: name of the relevance output of each explained input.
        relevance_of: name of the relevance output of each other tensor that was asked for.
        grown_bytes: by how much the file is larger than the original.
        seconds: how long it took.
        written: every file that was written (data files that had to come along included).
    """

    path: Path
    relevance: dict[str, str]
    warnings: tuple[str, ...]
    notes: tuple[str, ...]
    grown_bytes: int
    seconds: float
    plan: Plan
    written: tuple[Path, ...] = ()
    relevance_of: dict[str, str] = field(default_factory=dict)


def convert_file(
    model: str | os.PathLike[str],
    out: str | os.PathLike[str] | None = None,
    *,
    rules: Rules = "default",
    target: TargetLike = "argmax",
    inputs: Sequence[str] = (),
    outputs: Sequence[str] = (),
    axis: int | None = None,
    position: str | int | None = None,
    rather_than: TargetLike | None = None,
    relevance_of: Sequence[str] = (),
    mask_at: Sequence[MaskLike] = (),
    components: Sequence[str] = (),
    on_demand: bool = False,
    relevance_type: str = "float32",
) -> ConvertResult:
    """Converts a file to a file, `<stem>.lrp.onnx` beside it unless `out` is given. Nothing half-written is left."""
    begun = time.perf_counter()
    path = Path(model)
    source = load(model)
    target_path = default_output(path) if out is None else Path(out)
    if target_path.is_dir():
        raise UsageError(f"{target_path} is a folder; name the file to write")
    request = Request(
        rules=rules,
        target=target,
        inputs=inputs,
        outputs=outputs,
        axis=axis,
        on_demand=on_demand,
        ledger=False,
        relevance_type=relevance_type,
        position=position,
        rather_than=rather_than,
        relevance_of=relevance_of,
        mask_at=mask_at,
        components=components,
    )
    converted = compile_model(prepare(source), request)
    written = save(converted.model, target_path, source)
    return ConvertResult(
        target_path,
        dict(converted.relevance),
        converted.plan.warnings,
        converted.plan.notes,
        target_path.stat().st_size - path.stat().st_size,
        time.perf_counter() - begun,
        converted.plan,
        tuple(written),
        dict(converted.relevance_of),
    )
