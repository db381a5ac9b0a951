"""Options of `onnxlrp explain` that go with one kind of data, and the forms in which values may be written."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable
from typing import Any

import click

from onnxlrp.explain.presets import PRESETS

Callback = Callable[..., Any]


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


def parse_data(_ctx: click.Context, _parameter: click.Parameter, pairs: tuple[str, ...]) -> dict[str, str]:
    """`NAME=FILE` or `NAME=NUMBER` pairs as a dict."""
    found: dict[str, str] = {}
    for pair in pairs:
        name, sign, value = pair.partition("=")
        if not sign or not name or not value:
            raise click.BadParameter(f"{pair!r} names no input; write NAME=FILE or NAME=NUMBER")
        if name in found:
            raise click.BadParameter(f"input {name!r} is given twice")
        found[name] = value
    return found


def parse_masks(_ctx: click.Context, _parameter: click.Parameter, texts: tuple[str, ...]) -> dict[str, set[int]]:
    """`TENSOR=3,17` or `TENSOR=0:64`: the channels to keep, by tensor; the last = counts."""
    found: dict[str, set[int]] = {}
    for text in texts:
        tensor, _, listed = text.rpartition("=")
        if not tensor or not re.fullmatch(r"\d+(:\d+)?(,\d+(:\d+)?)*", listed, re.ASCII):
            raise click.BadParameter(f"{text!r} names no channels; write TENSOR=3,17 or TENSOR=0:64")
        kept = found.setdefault(tensor, set())
        for part in listed.split(","):
            first, _, end = part.partition(":")
            kept.update(range(int(first), int(end) if end else int(first) + 1))
    return found


def _spectrogram(_ctx: click.Context, _parameter: click.Parameter, text: str | None) -> Any:
    if text is None:
        return None
    from onnxlrp.explain.spectrogram import parse_spectrogram

    return parse_spectrogram(text)


def parse_count(_ctx: click.Context, _parameter: click.Parameter, text: str | None) -> int | None:
    """`all`, which is 0, or a positive number."""
    if text is None or text == "all":
        return None if text is None else 0
    if not (text.isascii() and text.isdecimal() and int(text)):
        raise click.BadParameter(f"{text!r} is no count; write all, or a number such as 16")
    return int(text)


_IMAGE = (
    click.option(
        "--preprocess",
        type=click.Choice(list(PRESETS)),
        metavar="NAME",
        help=f"Images: how pixels become numbers: {', '.join(PRESETS)}.  [default: imagenet for colour, raw for gray]",
    ),
    click.option(
        "--resize",
        callback=_size,
        metavar="N|HxW",
        help="Images: shorter side, or exact size, before cropping.  [default: what the crop needs, by the preset]",
    ),
    click.option(
        "--crop", callback=_size, metavar="N|HxW", help="Images: size of the centre crop.  [default: the model's]"
    ),
    click.option(
        "--mean",
        callback=_numbers,
        metavar="M[,M...]",
        help="Images: subtracted after scaling; one, or one per channel.  [default: the preset's]",
    ),
    click.option(
        "--std",
        callback=_numbers,
        metavar="S[,S...]",
        help="Images: divided by after that; one, or one per channel.  [default: the preset's]",
    ),
    click.option(
        "--scale",
        callback=_number,
        metavar="X",
        help="Images: factor on pixels, such as 1/255.  [default: the preset's; 1/255 with --mean or --std alone]",
    ),
    click.option(
        "--layout",
        type=click.Choice(["auto", "nchw", "nhwc"]),
        default="auto",
        show_default=True,
        help="Images: order of the input's axes; auto goes by the place of the axis of length 1, 3 or 4.",
    ),
    click.option(
        "--color",
        type=click.Choice(["rgb", "bgr"]),
        help="Images: order of colours that the model expects.  [default: the preset's; rgb but for caffe]",
    ),
)
_SOUND = (
    click.option(
        "--rate",
        type=click.IntRange(min=1),
        metavar="HZ",
        help="Sound: sampling rate of the model, to which files are resampled.  [default: the file's own]",
    ),
    click.option(
        "--window",
        type=click.IntRange(min=1),
        metavar="N",
        help="Sound: samples in a window, where the model leaves that open.  [default: the whole clip]",
    ),
    click.option(
        "--hop",
        type=click.IntRange(min=1),
        metavar="N",
        help="Sound: samples from one window to the next.  [default: the window's length]",
    ),
    click.option(
        "--spectrogram",
        callback=_spectrogram,
        metavar="KIND[,NAME=VALUE...]",
        help="Sound: the model takes log-mel, mel, log-power, power or magnitude, such as "
        "log-mel,n_fft=512,hop=160,bins=64; see the guide for all settings.",
    ),
)
_TABLE = (
    click.option(
        "--rows",
        default="0:10",
        show_default=True,
        metavar="N|A:B",
        help="Table: a row, or rows from A up to B, counted from 0 below the header; : for all.",
    ),
    click.option(
        "--drop",
        multiple=True,
        metavar="COLUMN",
        help="Table: leave this column out, such as the label; may be repeated.",
    ),
    click.option(
        "--columns",
        callback=lambda _ctx, _parameter, text: tuple(name.strip() for name in text.split(",")) if text else (),
        metavar="A,B,...",
        help="Table: take these columns in this order.  [default: all in theirs]",
    ),
)

_SIMILAR = (
    click.option(
        "--similar-to",
        metavar="FILE|TEXT",
        help="Images and text: explain the cosine between the embedding of each and that of this image, text, or "
        "embedding (.npy, .npz).",
    ),
    click.option(
        "--other-model",
        metavar="FILE",
        help="With --similar-to: the model that embeds the other one, such as the text tower beside an image tower.  "
        "[default: MODEL]",
    ),
    click.option(
        "--other-output",
        metavar="NAME",
        help="With --other-model: the embedding among its outputs.  [default: the only one made of floats]",
    ),
    click.option(
        "--pairs",
        "in_pairs",
        callback=parse_count,
        metavar="all|N",
        help="With --similar-to: also share the cosine among pairs of tokens, or of cells of both images (BiLRP), with "
        "one pass for each number of the embeddings, or for the N that count most.",
    ),
    click.option(
        "--pooling",
        type=click.Choice(["mean", "first", "last", "none"]),
        help="With --similar-to: how the vectors of tokens or places become an embedding.  [default: mean, for an "
        "output with one vector for each]",
    ),
)


def image_options(command: Callback) -> Callback:
    """The options for images; the command receives them as `image`, the fields of ImageOptions."""
    return gathered(command, _IMAGE, "image", preprocess="preset", color="order")


def sound_options(command: Callback) -> Callback:
    """The options for sound; the command receives them as `sound`, the fields of SoundOptions."""
    return gathered(command, _SOUND, "sound")


def table_options(command: Callback) -> Callback:
    """The options for tables; the command receives them as `table`, the fields of TableOptions."""
    return gathered(command, _TABLE, "table")


def similar_options(command: Callback) -> Callback:
    """The options for a cosine; the command receives them as `similar`, fields of SimilarTo."""
    names = {"similar_to": "what", "other_model": "model", "other_output": "output", "in_pairs": "pairs"}
    return gathered(command, _SIMILAR, "similar", **names)


def gathered(
    command: Callback, options: tuple[Callable[[Callback], Callback], ...], into: str, **renamed: str
) -> Callback:
    """The command with options whose values it receives as one dict."""
    names: list[str] = []

    @functools.wraps(command)
    def gathering(**values: Any) -> Any:
        return command(**{into: {renamed.get(name, name): values.pop(name) for name in names}}, **values)

    wrapped: Callback = gathering
    before = {parameter.name for parameter in getattr(command, "__click_params__", ())}
    for option in reversed(options):
        wrapped = option(wrapped)
    names += [p.name for p in wrapped.__click_params__ if p.name not in before]  # type: ignore[attr-defined]
    return wrapped
