"""Measures the promises on a model: forward pass unchanged, ledger closed, values finite, samples independent."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto

from onnxlrp.api import ModelLike, Rules
from onnxlrp.check import metadata
from onnxlrp.check.strip import strip
from onnxlrp.compile import Converted, compile_model
from onnxlrp.emit.inputs import EXPLAIN_INPUT, SEED_INPUT
from onnxlrp.emit.ledger import COLUMNS
from onnxlrp.errors import ModelReadError, UsageError
from onnxlrp.graph.view import Graph
from onnxlrp.planning.concepts import MaskLike
from onnxlrp.planning.conversion import LEDGER_OUTPUT, suffix
from onnxlrp.planning.target import TargetLike, parse_target, resolve_outputs
from onnxlrp.read import structure
from onnxlrp.read.load import Source, load
from onnxlrp.read.prepare import prepare
from onnxlrp.request import Request
from onnxlrp.run.session import open_beside
from onnxlrp.tables import parse_table
from onnxlrp.understand.declared import from_text
from onnxlrp.verification.data import has_open_batch, random_inputs
from onnxlrp.verification.report import Check, Report, WorstNode

Array = np.ndarray[Any, Any]

FORWARD_LIMIT = 1e-5
#: How many times that limit the original's own outputs can move between optimisation levels by rounding.
_ROUNDING = 10.0
#: A runtime without kernels of a narrow type computes in float32 and rounds where it writes such a tensor for others to
#: read. A conversion adds readers, and so moves these points.
NARROW_LIMITS = {int(TensorProto.FLOAT16): 1e-2, int(TensorProto.BFLOAT16): 8e-2}
LEDGER_LIMIT = 1e-3
#: Kernels add up in another order for another batch size, and relevance is far more sensitive to that than logits.
BATCH_LIMIT = 1e-2
_WORST = 8
#: What is checked in place of conservation where a table normalises relevance.
_NORMALISED = {
    "operand": "mass of 1 behind each step",
    "sign": "mass of each sign kept by each step",
}


@dataclass(frozen=True)
class _Subject:
    """The original, its conversion, and how it was asked for. `given` is the converted model as the user has it."""

    source: Source
    original: onnx.ModelProto
    converted: onnx.ModelProto
    request: Request


def verify(
    model: ModelLike,
    data: Mapping[str, Array] | None = None,
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
    samples: int = 2,
    base_dir: str | os.PathLike[str] | None = None,
    providers: Sequence[str] | None = None,
) -> Report:
    """Checks the promises on a model, original or converted.

    Args:
        data: arrays by input name, batch axis first; random values when None.
        samples: how many random samples, where the batch is open.
        The other arguments are those of `onnxlrp.convert` and go with an original model only.

    Returns:
        The checks with measured values and limits, and the lines of the ledger with the widest gaps.

    Raises:
        UsageError, ModelReadError, ConversionError: as `onnxlrp.convert`.
    """
    source = load(model, base_dir)
    if metadata.converted_by(source.model) is not None:
        if (
            inputs
            or outputs
            or relevance_of
            or mask_at
            or any(value is not None for value in (rules, target, axis, position, rather_than))
        ):
            raise UsageError("the model is already converted; its rules, target, inputs and outputs are fixed")
        subject = _of_converted(source)
    else:
        request = Request(
            rules="default" if rules is None else rules,
            target="argmax" if target is None else target,
            inputs=inputs,
            outputs=outputs,
            axis=axis,
            position=position,
            rather_than=rather_than,
            relevance_of=relevance_of,
            mask_at=mask_at,
        )
        subject = _Subject(source, source.model, _compiled(source, source.model, request).model, request)
    graph = Graph(subject.original)
    feeds = dict(data) if data is not None else random_inputs(graph, samples)
    if set(feeds) != set(graph.inputs):
        raise UsageError(f"the model's inputs are {', '.join(graph.inputs)}; the data has {', '.join(feeds)}")
    return _report(subject, graph, feeds, providers)


def _compiled(source: Source, model: onnx.ModelProto, request: Request) -> Converted:
    """Converts a copy: a conversion changes the model that it is given."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return compile_model(prepare(replace(source, model=copy)), request)


def _of_converted(source: Source) -> _Subject:
    found = metadata.read(source.model)
    if found is None:
        raise UsageError("the converted model says nothing of its conversion")
    settings = found.settings
    text = settings.get("table")
    table: Rules = found.rules
    if text:
        files = from_text(settings.get("functions", {}))
        table = parse_table(text, name=found.rules, source=found.rules, files=files)
    request = Request(
        rules=table,
        target=found.target.split(" ")[0],
        inputs=tuple(settings.get("inputs", ())),
        outputs=tuple(settings.get("outputs", ())),
        axis=settings.get("axis"),
        on_demand=bool(settings.get("on_demand", False)),
        relevance_type=settings.get("relevance_type", "float32"),
        position=settings.get("position"),
        rather_than=settings.get("rather_than"),
        relevance_of=tuple(settings.get("relevance_of", ())),
        components=tuple(settings.get("components", ())),
        mask_at=tuple((tensor, mask["axis"]) for tensor, mask in settings.get("masks", {}).items()),
    )
    return _Subject(source, strip(source.model), source.model, request)


def _session(model: onnx.ModelProto, source: Source, optimised: bool, providers: Sequence[str] | None) -> Any:
    return open_beside(source, model, providers, optimised=optimised, arena=False)


def _ledger_session(model: onnx.ModelProto, source: Source, providers: Sequence[str] | None) -> Any:
    """A session for a model that returns its ledger, for which nearly every tensor is read.

    onnxruntime 1.32 then cannot optimise models in int8: where the floats of a MaxPool behind a DequantizeLinear are
    read, it puts in a QuantizeLinear of another type than its zero point.
    """
    try:
        return _session(model, source, True, providers)
    except ModelReadError:
        return _session(model, source, False, providers)


def _run(session: Any, feeds: Mapping[str, Array]) -> dict[str, Array]:
    names = [o.name for o in session.get_outputs()]
    try:
        found = session.run(names, dict(feeds))
    except Exception as error:  # onnxruntime raises its own unrelated classes
        lines = str(error).strip().splitlines()
        raise UsageError(f"onnxruntime cannot run the model on this data: {lines[0] if lines else error!r}") from error
    return {name: _numbers(value) for name, value in zip(names, found, strict=True)}


def _numbers(value: Any) -> Array:
    """An output as one array, also where it is a sequence of tensors or of maps from names to scores."""
    if not isinstance(value, list):
        return np.asarray(value)
    parts = [list(part.values()) if isinstance(part, dict) else part for part in value]
    return np.concatenate([np.ravel(part) for part in parts]) if parts else np.zeros(0)


def _with_added_inputs(
    model: onnx.ModelProto, feeds: Mapping[str, Array], explained: Mapping[str, Array]
) -> dict[str, Array]:
    """Values for the inputs that the conversion added: class 0, a fixed random seed, and random masks.

    Args:
        explained: the explained tensors by the name of the seed that is put on them.
    """
    full = dict(feeds)
    batch = next((a.shape[0] for a in feeds.values() if a.ndim), 1)
    found = metadata.read(model)
    masks = {} if found is None else {m["input"]: m["channels"] for m in found.settings.get("masks", {}).values()}
    for value in model.graph.input:
        if found is None or not metadata.is_added(found, value.name):
            continue
        dtype = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        if value.name.startswith(SEED_INPUT):
            shape = explained[value.name].shape
            full[value.name] = np.asarray(np.random.default_rng(1).standard_normal(shape), dtype)
        elif value.name in masks:
            # Where the model does not say how many channels there are, one factor is for all of them.
            size = (batch, masks[value.name] or 1)
            full[value.name] = np.asarray(np.random.default_rng(2).uniform(size=size), dtype)
        elif value.name.startswith(EXPLAIN_INPUT):
            full[value.name] = np.ones((batch, 1), dtype)
        else:
            full[value.name] = np.zeros((batch, value.type.tensor_type.shape.dim[1].dim_value), dtype)
    return full


def _relative(a: Array, b: Array) -> float:
    """Relative L2 distance; 0 for two tensors of zeros."""
    if a.shape != b.shape:
        return float("inf")
    a, b = a.astype(np.float64), b.astype(np.float64)
    size = float(np.linalg.norm(b))
    distance = float(np.linalg.norm(a - b))
    return distance / size if size else distance


def _largest(a: Array, b: Array) -> float:
    """Largest difference relative to the largest finite value; infinite where something else than numbers differs."""
    if a.dtype.kind not in "fiu" or a.shape != b.shape:
        return 0.0 if np.array_equal(a, b) else float("inf")
    a, b = a.astype(np.float64), b.astype(np.float64)
    finite = np.isfinite(a) & np.isfinite(b)
    if not np.array_equal(a[~finite], b[~finite], equal_nan=True):
        return float("inf")
    size = float(np.max(np.abs(b[finite]), initial=0.0))
    return float(np.max(np.abs(a[finite] - b[finite]), initial=0.0)) / (size or 1.0)


def allowed_apart(limit: float, own: float) -> float:
    """How far the outputs of a converted model may be from those of the original.

    Where rewriting moves the original itself, two rewritten forms may be twice as far apart; what moves it further than
    rounding does is no excuse.

    Args:
        limit: where nothing is rewritten.
        own: how far the original moves between optimisation levels.
    """
    return max(limit, 2.0 * min(own, _ROUNDING * limit))


def _report(subject: _Subject, graph: Graph, feeds: dict[str, Array], providers: Sequence[str] | None) -> Report:
    plain = replace(subject.request, target=_plain_target(subject.request), on_demand=False, ledger=True)
    kept = _compiled(subject.source, subject.original, plain)
    names = list(graph.outputs)
    results: dict[bool, dict[str, Array]] = {}
    checks: list[Check] = []
    explained = _seeded(subject, feeds, providers)
    full = _with_added_inputs(subject.converted, feeds, explained)
    limit = _forward_limit(subject.original)
    originals: list[dict[str, Array]] = []
    session: Any = None
    for optimised in (False, True):
        # One session at a time: each holds all weights.
        del session
        before = _run(_session(subject.original, subject.source, optimised, providers), feeds)
        originals.append(before)
        session = _session(subject.converted, subject.source, optimised, providers)
        after = _run(session, full)
        results[optimised] = after
        own = max(_largest(before[n], originals[0][n]) for n in names)
        checks.append(_forward_check(before, after, names, optimised, allowed_apart(limit, own)))
    relevance = {n: a for n, a in results[True].items() if n not in names}
    batch = _batch_check(graph, session, full, relevance)
    del session
    checks.append(_finite_check(relevance))
    session = _ledger_session(kept.model, subject.source, providers)
    full = _with_added_inputs(kept.model, feeds, explained)
    # Samples that depend on one another make a ledger only together.
    rows = _ledger_rows(kept, session, (_one_by_one(graph, full) if batch.passed else None) or [full])
    ledger, worst = _ledger_check(kept, rows)
    checks += [ledger, batch]
    return Report(tuple(checks), worst)


def _plain_target(request: Request) -> TargetLike:
    """The ledger of top:K is kept for its first map."""
    target = parse_target(request.target, request.axis)
    return "argmax" if target.mode == "top" else request.target


def _seeded(subject: _Subject, feeds: Mapping[str, Array], providers: Sequence[str] | None) -> dict[str, Array]:
    """The values of the explained tensors, needed only to make seeds of their shapes, by the names of the seeds."""
    if subject.request.target != "seed":
        return {}
    prepared = prepare(replace(subject.source, model=subject.original))
    targets = resolve_outputs(Graph(prepared.model, prepared.inferred), subject.request.outputs)
    model = onnx.ModelProto()
    model.CopyFrom(prepared.model)
    returned = {v.name for v in model.graph.output}
    model.graph.output.extend(
        onnx.ValueInfoProto(name=name) for name in dict.fromkeys(t.tensor for t in targets) if name not in returned
    )
    values = _run(_session(model, subject.source, True, providers), feeds)
    if subject.request.position is not None:
        values = {name: array[:, 0] if array.ndim == 3 else array for name, array in values.items()}
    return {SEED_INPUT + suffix(t, len(targets) > 1): values[t.tensor] for t in targets}


def _forward_limit(model: onnx.ModelProto) -> float:
    """By how much outputs may differ, which goes by the narrowest type that the model computes in."""
    values = (*model.graph.input, *model.graph.output, *model.graph.value_info)
    types = {v.type.tensor_type.elem_type for v in values} | {t.data_type for t in model.graph.initializer}
    for node in structure.all_nodes([model.graph.node]):
        types.update(a.i for a in node.attribute if node.op_type == "Cast" and a.name == "to")
    return max((limit for kind, limit in NARROW_LIMITS.items() if kind in types), default=FORWARD_LIMIT)


def _forward_check(
    before: Mapping[str, Array], after: Mapping[str, Array], names: Sequence[str], optimised: bool, limit: float
) -> Check:
    worst = max((_largest(after[n], before[n]) for n in names), default=0.0)
    identical = all(np.array_equal(before[n], after[n], equal_nan=before[n].dtype.kind == "f") for n in names)
    detail = "bit-identical" if identical else "largest difference over largest value"
    label = "on" if optimised else "off"
    return Check(f"forward pass, optimisation {label}", worst <= limit, worst, limit, detail)


def _finite_check(relevance: Mapping[str, Array]) -> Check:
    bad = sum(int((~np.isfinite(a)).sum()) for a in relevance.values())
    zero = [n for n, a in relevance.items() if not np.any(a)]
    detail = f"{bad} values are not finite" if bad else "all values finite"
    if zero:
        detail += f"; {', '.join(zero)} is zero everywhere"
    return Check("finite relevance", bad == 0, float(bad), 0.0, detail)


def _ledger_rows(kept: Converted, session: Any, samples: Sequence[Mapping[str, Array]]) -> Array:
    """The ledger of all samples together, [steps, 7].

    A ledger reads nearly every tensor, which are all kept until the end, so that samples one by one take less memory.
    """
    runs = [_run(session, one)[LEDGER_OUTPUT] for one in samples]
    total: Array = np.sum(runs, axis=0)
    if kept.plan.settings.get("normalize"):
        other = COLUMNS.index("other")
        total[:, other] = np.max([rows[:, other] for rows in runs], axis=0)
    return total


def _one_by_one(graph: Graph, feeds: Mapping[str, Array]) -> list[dict[str, Array]] | None:
    """The samples apart; None where the batch is fixed."""
    own = {n: a for n, a in feeds.items() if n in graph.inputs}
    if not has_open_batch(graph, own):
        return None
    return [{n: a[i : i + 1] for n, a in feeds.items()} for i in range(next(iter(own.values())).shape[0])]


def _ledger_check(kept: Converted, rows: Array) -> tuple[Check, tuple[WorstNode, ...]]:
    lines, normalised = [], kept.plan.settings.get("normalize")
    for step, row in zip(kept.plan.steps, rows.tolist(), strict=True):
        arrived, sent, bias, stabiliser, other, stopped, mass = row
        open_amount = arrived - sent - bias - stabiliser - other - stopped
        # Where relevance is normalised nothing is conserved: `other` says how far sums are from what they are made.
        gap = other if normalised else abs(open_amount) / mass if mass else abs(open_amount)
        lines.append(
            WorstNode(step.nodes[-1], step.operator, step.rule, arrived, sent, bias, stabiliser, other, stopped, gap)
        )
    lines.sort(key=lambda line: -line.gap if np.isfinite(line.gap) else -np.inf)
    widest = lines[0].gap if lines else 0.0
    passed = bool(np.isfinite([line.gap for line in lines]).all()) and widest <= LEDGER_LIMIT
    where = f"widest gap at {lines[0].node}" if lines else "no steps"
    if normalised:
        return Check(_NORMALISED[normalised], passed, widest, LEDGER_LIMIT, where), tuple(lines[:_WORST])
    return Check("ledger", passed, widest, LEDGER_LIMIT, where), tuple(lines[:_WORST])


def _batch_check(graph: Graph, session: Any, feeds: Mapping[str, Array], together: Mapping[str, Array]) -> Check:
    name = "batch independence"
    samples = _one_by_one(graph, feeds)
    if samples is None:
        return Check(name, True, None, None, "not applicable: the batch size is fixed")
    count = len(samples)
    if count < 2:
        return Check(name, True, None, None, "not applicable: one sample only")
    worst = 0.0
    for i, sample in enumerate(samples):
        alone = _run(session, sample)
        # Unlike max() this lets a NaN through.
        worst = float(np.max([worst, *(_relative(alone[n], a[i : i + 1]) for n, a in together.items())]))
    return Check(name, worst <= BATCH_LIMIT, worst, BATCH_LIMIT, f"{count} samples alone and together")
