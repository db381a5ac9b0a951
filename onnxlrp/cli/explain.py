"""`onnxlrp explain`: run a model on images and write pictures of what its prediction rests on."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import click

from onnxlrp.cli.options import json_option, model_argument, provider_option, request_options
from onnxlrp.cli.output import counting, print_facts, print_json, print_warnings
from onnxlrp.explain.presets import PRESETS

if TYPE_CHECKING:
    from onnxlrp.explain.results import ImageResult


def _size(_ctx: click.Context, _parameter: click.Parameter, text: str | None) -> int | tuple[int, ...] | None:
    """`256`, or height and width as in `256x192`."""
    if text is None:
        return None
    if not re.fullmatch(r"0*[1-9]\d*(x0*[1-9]\d*)?", text, re.ASCII):
        raise click.BadParameter(f"{text!r} is no size; write 256, or height x width as in 256x192")
    sides = tuple(map(int, text.split("x")))
    return sides if len(sides) > 1 else sides[0]


def _numbers(_ctx: click.Context, _parameter: click.Parameter, text: str | None) -> tuple[float, ...] | None:
    """One number, or one per channel separated by commas."""
    return None if text is None else tuple(map(_quotient, text.split(",")))


def _number(_ctx: click.Context, _parameter: click.Parameter, text: str | None) -> float | None:
    return None if text is None else _quotient(text)


def _quotient(text: str) -> float:
    """A finite number, or a quotient of two such as `1/255`."""
    dividend, _, divisor = text.partition("/")
    try:
        number = float(dividend) / float(divisor or 1)
    except (ValueError, ZeroDivisionError):
        number = math.nan
    if not math.isfinite(number):
        raise click.BadParameter(f"{text!r} is no number; write 0.5 or 1/255")
    return number


@click.command(short_help="Run a model on images and write pictures.")
@model_argument
@click.argument("data", nargs=-1, required=True, metavar="DATA...")
@request_options
@click.option(
    "--labels",
    metavar="FILE",
    help="Class names, one per line or as JSON; 'imagenet' for the built-in ones.  [default: numbers only]",
)
@click.option(
    "--preprocess",
    type=click.Choice(list(PRESETS)),
    metavar="NAME",
    help=f"How pixels become numbers: {', '.join(PRESETS)}.  [default: imagenet for colour, raw for gray]",
)
@click.option(
    "--resize",
    callback=_size,
    metavar="N|HxW",
    help="Shorter side, or exact size, before cropping.  [default: what the crop needs, by the preset]",
)
@click.option("--crop", callback=_size, metavar="N|HxW", help="Size of the centre crop.  [default: the model's]")
@click.option(
    "--mean",
    callback=_numbers,
    metavar="M[,M...]",
    help="Subtracted after scaling; one, or one per channel.  [default: the preset's]",
)
@click.option(
    "--std",
    callback=_numbers,
    metavar="S[,S...]",
    help="Divided by after that; one, or one per channel.  [default: the preset's]",
)
@click.option(
    "--scale",
    callback=_number,
    metavar="X",
    help="Factor on pixels of 0..255, such as 1/255.  [default: the preset's; 1/255 with --mean or --std alone]",
)
@click.option(
    "--layout",
    type=click.Choice(["auto", "nchw", "nhwc"]),
    default="auto",
    show_default=True,
    help="Order of the input's axes; auto goes by the place of the axis of length 1, 3 or 4.",
)
@click.option(
    "--color",
    type=click.Choice(["rgb", "bgr"]),
    help="Order of colours that the model expects.  [default: the preset's; rgb but for caffe]",
)
@click.option("-o", "--out-dir", default=".", show_default=True, metavar="DIR", help="Folder to write into.")
@click.option(
    "--top",
    type=click.IntRange(min=1),
    default=5,
    show_default="5",
    metavar="N",
    help="How many classes to list.",
)
@provider_option
@json_option
def explain(
    model: str,
    data: tuple[str, ...],
    request: dict[str, Any],
    labels: str | None,
    preprocess: str | None,
    color: Literal["rgb", "bgr"] | None,
    out_dir: str,
    top: int,
    providers: list[str] | None,
    as_json: bool,
    **preparation: Any,
) -> None:
    """Explain a model's predictions on images: files, or folders of them.

    MODEL may be an original or a converted one; the options from --rules to --axis are for an original. For each
    image a report picture, the heatmap, the overlay and an .npz with the numbers are written.
    """
    from onnxlrp.explain.images import explain_images
    from onnxlrp.explain.preprocess import ImageOptions

    with counting("Explaining") as progress:
        results = explain_images(
            model,
            data,
            options=ImageOptions(preset=preprocess, order=color, **preparation),
            out_dir=out_dir,
            labels=labels,
            top=top,
            providers=providers,
            progress=progress,
            **request,
        )
    if as_json:
        print_json(results)
    else:
        _print_results(results)


def _print_results(results: Sequence[ImageResult]) -> None:
    for index, result in enumerate(results):
        if index:
            click.echo()
        print_warnings(f"{result.image}: {note}" for note in result.notes)
        print_facts(
            {
                "image": str(result.image),
                "classes": [_class_line(result, rank) for rank in range(len(result.top))],
                "explained": result.target,
                "prepared": result.preprocessing,
                "written": [str(file) for file in result.files],
            }
        )


def _class_line(result: ImageResult, rank: int) -> str:
    found = result.top[rank]
    score = f"{found.score:7.2%}" if result.score_kind else f"{found.score:9.4g}"
    return f"{score}  {found.index:>4}  {found.label or ''}".rstrip()
