"""Options that several commands share, and the forms in which values may be written."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any

import click

Callback = Callable[..., Any]
Target = str | int | tuple[int, ...]


def parse_target(_ctx: click.Context, _parameter: click.Parameter, text: str | None) -> Target | None:
    """`argmax`, `input`, `seed`, `top:5`, an index such as `7`, one per axis such as `7,3,5`, or spans: `10:20,5`."""
    if text is None or text in ("argmax", "input", "seed") or re.fullmatch(r"top:0*[1-9]\d*", text, re.ASCII):
        return text
    if re.fullmatch(r"\d+( *, *\d+)*", text, re.ASCII):
        index = tuple(int(part) for part in text.split(","))
        return index if len(index) > 1 else index[0]
    if re.fullmatch(r"(\d+|\d*:\d*)( *, *(\d+|\d*:\d*))*", text, re.ASCII):
        return text.replace(" ", "")
    raise click.BadParameter(
        f"{text!r} is no target; write argmax, an index (7, or 7,3,5 or 10:20,5 for several axes), top:K, input or seed"
    )


def parse_position(_ctx: click.Context, _parameter: click.Parameter, text: str | None) -> str | int | None:
    """`last`, `input`, `all`, or an index, which counts from the end where it is negative."""
    if text is None or text in ("last", "input", "all"):
        return text
    if re.fullmatch(r"-?\d+", text, re.ASCII):
        return int(text)
    raise click.BadParameter(f"{text!r} is no position; write last, an index such as 4 or -2, input or all")


def parse_components(_ctx: click.Context, _parameter: click.Parameter, text: str | None) -> tuple[str, ...]:
    """`heads`, `neurons` or both, parted by a comma."""
    return tuple(part.strip() for part in text.split(",")) if text else ()


_CONCEPTS = (
    click.option(
        "--relevance-of",
        "relevance_of",
        multiple=True,
        metavar="TENSOR",
        help="Also return the relevance of this tensor between target and inputs, as output TENSOR_relevance; may be "
        "repeated.",
    ),
    click.option(
        "--mask-at",
        "mask_at",
        multiple=True,
        metavar="TENSOR[:AXIS]",
        help="Add the input TENSOR_mask [batch, channels], by which the relevance of this tensor is multiplied along "
        "AXIS on its way back; ones change nothing; may be repeated.  [default axis: 1]",
    ),
    click.option(
        "--components",
        callback=parse_components,
        metavar="heads,neurons",
        help="Transformers: also return the contribution of each pair of query and key in every attention head, as "
        "outputs heads_0_relevance, ..., and of each neuron of every feed-forward layer, as neurons_0_relevance, ...",
    ),
)

_REQUEST_NAMES = ("rules", "inputs", "outputs", "target", "axis", "position", "rather_than")
_REQUEST = (
    click.option(
        "--rules",
        metavar="NAME|FILE",
        help="Rule table: a preset (see 'onnxlrp rules') or the path of a .toml file.  [default: default]",
    ),
    click.option(
        "--input",
        "inputs",
        multiple=True,
        metavar="NAME",
        help="Explain this input only; may be repeated.  [default: every float input that the target depends on]",
    ),
    click.option(
        "--output",
        "outputs",
        multiple=True,
        metavar="NAME",
        help="Explain this output, or any tensor inside the model; may be repeated.  [default: the first float output]",
    ),
    click.option(
        "--target",
        callback=parse_target,
        metavar="T",
        help="What to explain: argmax, an index (7, or 7,3,5 without the batch axis; 10:20,5 sums from 10 up to 20), "
        "top:K (K maps in one run), input (adds the input lrp_target) or seed (adds lrp_seed).  [default: argmax]",
    ),
    click.option(
        "--axis",
        type=int,
        metavar="A",
        help="With argmax: the largest along axis A at every position, summed.  [default: the largest "
        "element of each sample]",
    ),
    click.option(
        "--position",
        callback=parse_position,
        metavar="P",
        help="For an output [batch, sequence, classes], as language models have it: explain the classes of one "
        "position: last, an index, input (adds the input lrp_position), or all (the likeliest of each, summed).",
    ),
    click.option(
        "--rather-than",
        callback=parse_target,
        metavar="T",
        help="Explain why --target rather than this index: the difference of the two.",
    ),
)
_ON_DEMAND = click.option(
    "--on-demand",
    is_flag=True,
    help="Add the input lrp_explain; while it is false the model costs no more than the original.",
)

_RELEVANCE_TYPE = click.option(
    "--relevance-type",
    type=click.Choice(["float32", "float64", "model"]),
    help="Element type of the relevance outputs; model: that of the explained input.  [default: float32]",
)

#: Short names of onnxruntime's execution providers; any other name is handed on as it is.
_PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
    "dml": "DmlExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "rocm": "ROCMExecutionProvider",
}


def _full_names(_ctx: click.Context, _parameter: click.Parameter, names: tuple[str, ...]) -> list[str] | None:
    return [_PROVIDERS.get(name.lower(), name) for name in names] or None


provider_option = click.option(
    "--provider",
    "providers",
    multiple=True,
    callback=_full_names,
    metavar="NAME",
    help="Where to run: cpu, cuda, or a name that onnxruntime knows; may be repeated.  [default: cpu]",
)
model_argument = click.argument("model", metavar="MODEL")
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON on standard output.")


def request_options(command: Callback) -> Callback:
    """The options that say what is explained; the command receives those stated as `request`, a dict."""
    return _collected(command, _REQUEST, _REQUEST_NAMES)


def conversion_options(command: Callback) -> Callback:
    """`request_options` and those that shape the emitted model."""
    names = (*_REQUEST_NAMES, "relevance_of", "mask_at", "components", "on_demand", "relevance_type")
    return _collected(command, (*_REQUEST, *_CONCEPTS, _ON_DEMAND, _RELEVANCE_TYPE), names)


def _collected(
    command: Callback, options: tuple[Callable[[Callback], Callback], ...], names: tuple[str, ...]
) -> Callback:
    @functools.wraps(command)
    def with_request(**values: Any) -> Any:
        # What is not stated is left to the Python API, so that defaults are written once. (0 is stated.)
        given = {name: values.pop(name) for name in names}
        request = {
            name: value for name, value in given.items() if value is not None and value is not False and value != ()
        }
        return command(request=request, **values)

    wrapped: Callback = with_request
    for option in reversed(options):
        wrapped = option(wrapped)
    return wrapped
