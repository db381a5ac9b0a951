"""Loop and Scan for `onnx.reference`: its own put slices together along an existing axis, and know no other axes and
directions than the first ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from onnx.reference.op_run import OpRun
from onnx.reference.ops.op_loop import Loop as StandardLoop

Array = np.ndarray


def _stacked(slices: Sequence[Array], axis: int, backwards: bool, like: Array | None = None) -> Array:
    if not slices:
        return np.zeros((0,)) if like is None else like[:0]
    return np.stack(slices[::-1] if backwards else slices, axis=axis)


class Loop(StandardLoop):
    """Loop as the standard defines it: scan outputs get an axis of their own in front."""

    def _run(self, m: Array | None, condition: Array | None, *states: Any, context: Any = None, **a: Any) -> Any:
        body, values = a["body"], list(states)
        names, count = body.input_names, len(states)
        stacked: list[list[Array]] = [[] for _ in body.output_names[1 + count :]]
        inputs: dict[str, Any] = dict(context or {})
        iteration, more = 0, True if condition is None else bool(condition)
        while more and (m is None or iteration < int(m)):
            inputs.update(zip(names, [np.array(iteration, np.int64), np.array(more), *values], strict=True))
            outputs = self._run_body(inputs, attributes=a.get("attributes"), bindings=a.get("bindings"))
            more, values = bool(outputs[0]), list(outputs[1 : 1 + count])
            for slices, value in zip(stacked, outputs[1 + count :], strict=True):
                slices.append(np.asarray(value))
            iteration += 1
        return (*values, *(_stacked(s, 0, False) for s in stacked))


class Scan(OpRun):
    """Scan with all axes and directions."""

    def need_context(self) -> bool:
        return True

    def _run(self, *args: Any, context: Any = None, **a: Any) -> Any:
        body, n = a["body"], a["num_scan_inputs"]
        states, scanned = list(args[: len(args) - n]), args[len(args) - n :]
        outs = len(body.output_names) - len(states)
        axes, backwards = a["scan_input_axes"] or [0] * n, a["scan_input_directions"] or [0] * n
        out_axes, out_backwards = a["scan_output_axes"] or [0] * outs, a["scan_output_directions"] or [0] * outs
        length = scanned[0].shape[axes[0]]
        slices: list[list[Array]] = [[] for _ in range(outs)]
        inputs: dict[str, Any] = dict(context or {})
        for t in range(length):
            elements = [
                np.take(x, length - 1 - t if back else t, axis=axis)
                for x, axis, back in zip(scanned, axes, backwards, strict=True)
            ]
            inputs.update(zip(body.input_names, [*states, *elements], strict=True))
            outputs = self._run_body(inputs, bindings=a.get("bindings"))
            states = list(outputs[: len(states)])
            for kept, value in zip(slices, outputs[len(states) :], strict=True):
                kept.append(np.asarray(value))
        put = zip(slices, out_axes, out_backwards, strict=True)
        return (*states, *(_stacked(s, axis, bool(back)) for s, axis, back in put))


CONTROL: Mapping[str, type[OpRun]] = {"Loop": Loop, "Scan": Scan}
