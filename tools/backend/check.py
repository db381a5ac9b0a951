"""One case checked: its relevance against finite differences, its forward pass, its ledger, its finite values."""

from __future__ import annotations

import signal
import time
import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import FrameType
from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto
from reference.evaluate import Array, reference, relative_l2, to_float64

import onnxlrp
from backend import emitted, point
from backend.cases import Case
from backend.emitted import LRP_0, Conversion
from backend.results import Result
from onnxlrp.errors import ConversionError, OnnxLrpError
from onnxlrp.planning.conversion import LEDGER_OUTPUT
from onnxlrp.planning.model import PlanStep
from onnxlrp.tables import parse_table

GRADIENT = "gradient-x-input"
LEDGERS = ("epsilon", "default")
#: Relative errors that pass: float64 against differences and against the ledger, and onnxruntime by width of float.
SLOPE_LIMIT, LEDGER_LIMIT, FORWARD_LIMIT = 1e-5, 1e-6, 1e-9
RUNTIME_LIMITS: Mapping[int, tuple[float, float]] = {
    TensorProto.FLOAT: (1e-5, 1e-2),
    TensorProto.DOUBLE: (1e-5, 1e-2),
    TensorProto.FLOAT16: (1e-2, 1e-1),
    TensorProto.BFLOAT16: (5e-2, 3e-1),
}
_SECONDS = 120
#: Rules that divide relevance otherwise than the derivative does: of an operator in parts, linear as a whole.
_CHOICES = frozenset({"signal", "half"})


class WrongError(Exception):
    """A check that failed; the message says which, and by how much."""


class NothingError(Exception):
    """No relevance can flow."""


class _RoughError(Exception):
    """The point is not one where the function has a derivative."""


@dataclass
class _Case:
    """What is known of a case while it is checked."""

    case: Case
    rng: np.random.Generator
    outputs: tuple[str, ...]
    checks: Counter[str] = field(default_factory=Counter)
    worst: dict[str, float] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)

    @cached_property
    def model(self) -> ModelProto:
        return emitted.probed(self.case.model)

    @cached_property
    def _run(self) -> Callable[[Mapping[str, Any]], dict[str, Array]]:
        return reference(to_float64(self.case.model))

    def values(self, feeds: Mapping[str, Any]) -> list[Array]:
        """The explained outputs in float64."""
        found = self._run(feeds)
        return [np.asarray(found[y], np.float64) for y in self.outputs]

    def count(self, check: str, error: float, limit: float, what: str, rounding: float = 0.0) -> None:
        """Notes the error of a check.

        Args:
            rounding: how far the number compared with may be off itself.

        Raises:
            WrongError: it is larger than the limit, or no number.
        """
        self.checks[check] += 1
        self.worst[check] = max(self.worst.get(check, 0.0), error if np.isfinite(error) else 9e99)
        if not error <= limit + rounding:
            raise WrongError(f"{check}: {what} is off by {error:.1e}")


def check(case: Case) -> Result:
    """The result of a case; never raises."""
    begun = time.perf_counter()
    rng = np.random.default_rng(zlib.crc32(case.name.encode()))
    state = _Case(case, rng, case.float_outputs)
    result = Result(case.name, case.operator, case.kind, case.expanded, "right")
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        try:
            with _time_limit(_SECONDS):
                runtime = _check(state)
            result = replace(result, runtime=runtime)
        except NothingError:
            result = replace(result, status="nothing")
        except OnnxLrpError as refusal:
            result = replace(result, status="refused", reason=str(refusal))
        except WrongError as wrong:
            result = replace(result, status="wrong", reason=str(wrong))
        except Exception as error:  # whatever a case raises is its result
            result = replace(result, status="wrong", reason=f"{type(error).__name__}: {_short(str(error))}")
    return replace(
        result,
        checks=dict(state.checks),
        worst=state.worst,
        left_out=tuple(state.left_out),
        seconds=time.perf_counter() - begun,
    )


@contextmanager
def _time_limit(seconds: int) -> Iterator[None]:
    """Raises WrongError inside the block when it takes too much processor time."""

    def late(_number: int, _frame: FrameType | None) -> None:
        raise WrongError(f"it takes more than {seconds} s")

    before = signal.signal(signal.SIGPROF, late)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def _short(text: str) -> str:
    return " ".join(text.split())[:400]


def _check(state: _Case) -> str:
    """Runs all checks at the first point that is smooth; returns what ran the emitted model."""
    _leave_out_infinite(state)
    gradient = _converted(state)
    explained = gradient.explained(state.case.float_inputs)
    _expect_finite(state, gradient, explained)
    rough: dict[str, None] = {}
    for way in point.WAYS:
        try:
            return _check_at(state, gradient, explained, way)
        except _RoughError as error:
            rough[str(error)] = None
    raise WrongError(f"no smooth point found: {'; '.join(rough)}")


def _leave_out_infinite(state: _Case) -> None:
    """Outputs that hold infinite values at finite inputs (masked scores) are not explained, where there are others."""
    infinite = [y for y in state.outputs if not np.isfinite(np.asarray(state.case.expected[y], np.float64)).all()]
    if infinite and len(infinite) < len(state.outputs):
        state.outputs = tuple(y for y in state.outputs if y not in infinite)
        state.left_out += [f"output {y}: it has infinite values" for y in infinite]


def _converted(state: _Case) -> Conversion:
    """The case under gradient-x-input, all float outputs explained, or where that is refused the first that can be."""
    try:
        return emitted.convert(state.case, state.model, GRADIENT, state.outputs)
    except ConversionError as refusal:
        if "nothing to explain" in str(refusal):
            x = _expect_nothing(state)
            raise ConversionError(f"{state.case.operator}: {x} is a parameter, and no float input is data") from refusal
        for y in state.outputs if len(state.outputs) > 1 else ():
            try:
                found = emitted.convert(state.case, state.model, GRADIENT, (y,))
                state.values(state.case.feeds)
            except Exception:  # refused as well, or other outputs are made by what the reference does not know
                continue
            state.left_out.append(f"outputs beside {y}: {_reason(refusal)}")
            state.outputs = (y,)
            return found
        raise


def _reason(refusal: Exception) -> str:
    return " ".join(str(refusal).split())


def _expect_nothing(state: _Case) -> str:
    """Confirms that no output changes with a float input, which the conversion says; else names the input.

    Raises:
        NothingError: it is so.
    """
    at = _place(state, state.case.float_inputs, point.Way(0.01))
    seeds = _seeds(state, at, masked=True)
    for x in state.case.float_inputs:
        if _slopes(state, at, seeds, x, None):
            return x
    raise NothingError


def _place(state: _Case, names: Sequence[str], way: point.Way) -> dict[str, Any]:
    """The case's inputs in float64, those named moved."""
    feeds = dict(state.case.feeds)
    for name in state.case.float_inputs:
        x = np.asarray(feeds[name])
        feeds[name] = point.moved(x, state.rng, way) if name in names else x.astype(np.float64)
    return feeds


def _seeds(state: _Case, at: Mapping[str, Any], masked: bool = False) -> dict[str, Array]:
    """A random seed per explained output, with `masked` zero where a value is not finite."""
    seeds = {}
    for y, value in zip(state.outputs, state.values(at), strict=True):
        expected = np.asarray(state.case.expected[y]).astype(np.float64)
        if value.shape != expected.shape:
            raise _RoughError(f"output {y} has another shape than at the given inputs")
        if not masked and not np.isfinite(value).all():
            raise _RoughError(f"output {y} is not finite")
        seeds[y] = np.where(np.isfinite(value), state.rng.normal(size=value.shape), 0.0)
    return seeds


def _weighted(seed: Array, value: Array) -> Array:
    """seed * value; what is not finite, and has no seed, counts nothing."""
    return np.where(seed == 0.0, 0.0, seed * value)


def _slopes(
    state: _Case,
    at: Mapping[str, Any],
    seeds: Mapping[str, Array],
    x: str,
    multiplier: Array | None,
    tied: bool = False,
) -> bool:
    """Compares sum(multiplier * d) with the slope along random directions d, or asks whether a slope is not zero."""
    here = zip(state.outputs, state.values(at), strict=True)
    size = sum(float(np.abs(_weighted(seeds[y], v)).sum()) for y, v in here)

    def f(feeds: Mapping[str, Any]) -> float:
        values = state.values(feeds)
        if any(v.shape != seeds[y].shape for y, v in zip(state.outputs, values, strict=True)):
            return float("nan")
        return sum(float(_weighted(seeds[y], v).sum()) for y, v in zip(state.outputs, values, strict=True))

    compared: list[tuple[Array, point.Slope]] = []
    for direction in point.directions(at[x], state.rng, tied):
        found = point.slope(f, at, x, direction, size)
        if multiplier is None:
            if found.smooth and abs(found.value) > 100 * found.error:
                return True
            continue
        if not found.smooth:
            raise _RoughError(f"a kink or a pole beside the inputs ({x})")
        compared.append((multiplier * direction, found))
    # Errors are relative to the steepest direction: what is flat beside it is known no better.
    unit = max((float(np.linalg.norm(shares)) + abs(found.value) for shares, found in compared), default=0.0)
    for shares, found in compared:
        off, rounding = abs(float(shares.sum()) - found.value), found.error
        if unit > rounding:
            state.count("differences", off / unit, SLOPE_LIMIT, f"the gradient of {x}", rounding / unit)
        else:
            # Saturated through and through: that the gradient is as small as rounding is all that can be seen.
            state.count("differences, flat", off, 2 * rounding, f"the gradient of {x}")
    return False


def _check_at(state: _Case, gradient: Conversion, explained: Sequence[str], way: point.Way) -> str:
    at = _place(state, explained, way)
    seeds = _seeds(state, at, way.masked)
    outputs = gradient.in_float64({**at, **gradient.seeds(seeds)})
    _expect_same_forward(state, outputs, at)
    for x in explained:
        relevance = gradient.relevance(outputs, x)
        if not np.isfinite(relevance).all():
            raise WrongError(f"finite: the relevance of {x} has values that are not")
        _slopes(state, at, seeds, x, relevance / at[x], way.tied)
    runtime = _check_in_onnxruntime(state, gradient, explained, at, seeds, outputs)
    if not way.masked:  # there is no relevance of an infinite value
        for name in LEDGERS:
            _check_ledger(state, name, explained, at, seeds)
    if not state.case.expanded:
        _check_linear(state, explained, at, seeds)
    _note_unexplained(state, explained, at, seeds)
    return runtime


def _expect_same_forward(state: _Case, outputs: Mapping[str, Array], at: Mapping[str, Any]) -> None:
    plain = reference(to_float64(state.model))(at)
    for name, value in plain.items():
        if _numbers(value):
            state.count("forward", _distance(outputs[name], value), FORWARD_LIMIT, f"output {name}")


def _check_ledger(
    state: _Case, rules: str, explained: Sequence[str], at: Mapping[str, Any], seeds: Mapping[str, Array]
) -> None:
    kept = emitted.convert(state.case, state.model, rules, state.outputs, ledger=True)
    outputs = kept.in_float64({**at, **kept.seeds(seeds)})
    for x in explained:
        if not np.isfinite(kept.relevance(outputs, x)).all():
            raise WrongError(f"finite: the relevance of {x} has values that are not, under {rules}")
    for number, row in enumerate(outputs[LEDGER_OUTPUT].tolist()):
        arrived, *gone, mass = row
        gap = abs(arrived - sum(gone))
        state.count("ledger", gap / mass if mass else gap, LEDGER_LIMIT, f"step {number} under {rules}")


def _check_linear(state: _Case, explained: Sequence[str], at: Mapping[str, Any], seeds: Mapping[str, Array]) -> None:
    """LRP-0 of what is affine in an input is the input times the transposed matrix, which differences give."""
    for x in explained:
        if not point.is_affine(state.values, at, x, state.rng):
            continue
        table = parse_table(LRP_0, name="lrp-0", source="lrp-0")
        plan = onnxlrp.plan(state.model, rules=table, target="seed", inputs=(x,), outputs=state.outputs)
        if _CHOICES & set(_rules(plan.steps)):
            continue
        conversion = emitted.convert(state.case, state.model, table, state.outputs, (x,))
        if any(node.op_type in ("Loop", "Scan") for node in conversion.model.graph.node):
            # The rules inside a body are those for any number of iterations; one iteration may be affine by chance.
            continue
        outputs = conversion.in_float64({**at, **conversion.seeds(seeds)})
        _slopes_of_linear(state, at, seeds, x, conversion.relevance(outputs, x) / at[x])


def _rules(steps: Iterable[PlanStep]) -> Iterator[str]:
    """The rules of all steps, those inside bodies included."""
    for step in steps:
        yield step.rule
        yield from _rules(step.inner)


def _slopes_of_linear(
    state: _Case, at: Mapping[str, Any], seeds: Mapping[str, Array], x: str, multiplier: Array
) -> None:
    size = point.scale(at[x])
    for direction in point.directions(at[x], state.rng):
        up, down = (state.values({**at, x: at[x] + sign * size * direction}) for sign in (0.5, -0.5))
        slope = sum(float((seeds[y] * (a - b)).sum()) for y, a, b in zip(state.outputs, up, down, strict=True)) / size
        shares = multiplier * direction
        unit = float(np.linalg.norm(shares)) + abs(slope)
        off = abs(float(shares.sum()) - slope)
        state.count("LRP-0", off / unit if unit else off, SLOPE_LIMIT, f"the relevance of {x}")


def _note_unexplained(
    state: _Case, explained: Sequence[str], at: Mapping[str, Any], seeds: Mapping[str, Array]
) -> None:
    """Notes float inputs that change the output and receive nothing."""
    for x in state.case.float_inputs:
        if x in explained:
            continue
        try:
            changes = _slopes(state, at, seeds, x, None)
        except Exception:  # a parameter that must not be moved, such as a size
            changes = True
        if changes:
            state.left_out.append(f"input {x}")


def _expect_finite(state: _Case, gradient: Conversion, explained: Sequence[str]) -> None:
    """Under each table every value is finite at the case's own inputs, zeros and all."""
    feeds = _place(state, (), point.Way(0.0))
    floats = [feeds[x] for x in state.case.float_inputs]
    values = state.values(feeds)
    if not all(np.isfinite(v).all() for v in (*floats, *values)):
        return
    seeds = {y: np.ones(v.shape) for y, v in zip(state.outputs, values, strict=True)}
    tables: Sequence[tuple[str, Conversion]] = [
        (GRADIENT, gradient),
        *((name, emitted.convert(state.case, state.model, name, state.outputs)) for name in LEDGERS),
    ]
    for name, conversion in tables:
        outputs = conversion.in_float64({**feeds, **conversion.seeds(seeds)})
        for x in explained:
            state.checks["finite"] += 1
            if not np.isfinite(conversion.relevance(outputs, x)).all():
                raise WrongError(
                    f"finite: at the given inputs the relevance of {x} has values that are not, under {name}"
                )


def _check_in_onnxruntime(
    state: _Case,
    gradient: Conversion,
    explained: Sequence[str],
    at: Mapping[str, Any],
    seeds: Mapping[str, Array],
    expected: Mapping[str, Array],
) -> str:
    """Runs the emitted model as it is; returns what ran it."""
    try:
        session = emitted.onnxruntime_session(state.model, optimised=False)
        plain = emitted.run(session, emitted.typed(state.model, at))
    except Exception as error:
        return f"onnx.reference (onnxruntime cannot run the original: {_short(str(error))})"
    feeds = emitted.typed(gradient.model, {**at, **gradient.seeds(seeds)})
    kind = max(v.type.tensor_type.elem_type for v in state.model.graph.input if v.name in explained)
    forward, relevance = RUNTIME_LIMITS[kind]
    for optimised in (False, True):
        try:
            outputs = emitted.run(emitted.onnxruntime_session(gradient.model, optimised=optimised), feeds)
        except Exception as error:
            raise WrongError(
                f"onnxruntime runs the original, but not what was emitted: {_short(str(error))}"
            ) from error
        for name, value in plain.items():
            if _numbers(value):
                state.count("onnxruntime forward", _distance(outputs[name], value), forward, f"output {name}")
        if any(
            relative_l2(plain[n], expected[n]) > forward * 10 for n in plain if n in expected and _numbers(plain[n])
        ):
            return "onnxruntime (it computes something else than the reference)"
        for x in explained:
            # What underflows in the model's own precision is no difference.
            found, right = gradient.relevance(outputs, x), gradient.relevance(expected, x)
            off = (
                0.0
                if max(np.abs(found).max(initial=0.0), np.abs(right).max(initial=0.0)) < 1e-30
                else relative_l2(found, right)
            )
            state.count("onnxruntime", off, relevance, f"the relevance of {x}")
    return "onnxruntime"


def _distance(actual: Array, expected: Array) -> float:
    """Relative L2 distance of the finite values; infinite where others differ."""
    finite = np.isfinite(expected)
    if actual.shape != expected.shape or not np.array_equal(actual[~finite], expected[~finite], equal_nan=True):
        return float("inf")
    return relative_l2(actual[finite], expected[finite].astype(np.float64))


def _numbers(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind == "f"
