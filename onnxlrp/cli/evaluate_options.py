"""Options that `onnxlrp evaluate` and `onnxlrp tune` share: how data goes in, and what is explained."""

from __future__ import annotations

import re
from typing import Any

import click

from onnxlrp.cli.explain_options import Callback, gathered, image_options, parse_data
from onnxlrp.cli.explain_text import parse_feed
from onnxlrp.cli.options import provider_option


def comma_list(_ctx: click.Context, _parameter: click.Parameter, text: str | None) -> tuple[str, ...]:
    """`a,b,c`."""
    return () if text is None else tuple(part for name in text.split(",") if (part := name.strip()))


def parse_class(_ctx: click.Context, _parameter: click.Parameter, text: str) -> str | int:
    """`predicted`, `label`, or the index of a class."""
    if text in ("predicted", "label"):
        return text
    if re.fullmatch(r"\d+", text, re.ASCII):
        return int(text)
    raise click.BadParameter(f"{text!r} is no target; write predicted, label or the index of a class")


def parse_settings(
    _ctx: click.Context, _parameter: click.Parameter, given: tuple[str, ...]
) -> dict[str, dict[str, float | str]]:
    """`NAME.SETTING=VALUE` pairs, by name."""
    found: dict[str, dict[str, float | str]] = {}
    for text in given:
        match = re.fullmatch(r"([\w-]+)\.([\w-]+)=(.+)", text)
        if match is None:
            raise click.BadParameter(f"{text!r} is no setting; write NAME.SETTING=VALUE, such as occlusion.patch=16")
        name, key, value = match.groups()
        try:
            found.setdefault(name, {})[key] = float(value)
        except ValueError:
            found.setdefault(name, {})[key] = value
    return found


_DATA = (
    click.option(
        "--labels",
        metavar="FILE",
        help="Class names, one per line or as JSON; 'imagenet' for the built-in ones.",
    ),
    click.option("--truth", metavar="FILE", help="Photos: a CSV file with lines `file,label`."),
    click.option("--label-column", metavar="COLUMN", help="Table: the column that holds the class."),
    click.option("--tokenizer", metavar="FILE", help="Text: the tokenizer.json that belongs to the model."),
    click.option(
        "--feed",
        multiple=True,
        callback=parse_feed,
        metavar="NAME=ROLE",
        help="Text: the input NAME takes ids, mask, types or positions.  [default: by the usual names]",
    ),
    click.option(
        "--data",
        "fixed",
        multiple=True,
        callback=parse_data,
        metavar="NAME=FILE|NUMBER",
        help="Fill another input of the model, the same for every sample; may be repeated.",
    ),
    click.option(
        "--rows", default=":", show_default="all", metavar="N|A:B", help="Table: rows from A up to B, from 0."
    ),
    click.option("--drop", multiple=True, metavar="COLUMN", help="Table: leave this column out; may be repeated."),
)
_CASE = (
    click.option("--input", "input_name", metavar="NAME", help="The explained input, where the model has several."),
    click.option("--output", metavar="NAME", help="The explained output.  [default: the first float output]"),
    click.option(
        "--target",
        default="predicted",
        show_default=True,
        callback=parse_class,
        metavar="predicted|label|N",
        help="The class that is explained: of each sample the likeliest or the true one, or one for all.",
    ),
    click.option(
        "--fill",
        metavar="WHAT",
        help="What is taken away becomes zero, mean, blur (pictures), a number, or for texts mask or a token's number."
        "  [default: zero for pictures and arrays, mean for tables, mask for texts]",
    ),
    click.option(
        "--unit",
        type=click.IntRange(min=1),
        metavar="N",
        help="Pictures are taken apart into squares of N x N pixels.  [default: 1 up to 64 pixels, then a 14th]",
    ),
    click.option("--samples", type=click.IntRange(min=1), metavar="N", help="Use the first N samples.  [default: all]"),
    click.option(
        "--batch",
        type=click.IntRange(min=1),
        default=8,
        show_default=True,
        metavar="N",
        help="How many samples are held at once; results do not depend on it.",
    ),
    click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of all random numbers."),
)


def data_options(command: Callback) -> Callback:
    """How data goes in, as `data`; and the options of photos, as `image`."""
    return image_options(gathered(command, _DATA, "data"))


def case_options(command: Callback) -> Callback:
    """What is explained and how it is taken apart, as `case`."""
    return provider_option(gathered(command, _CASE, "case"))


def made_options(data: dict[str, Any], image: dict[str, Any]) -> Any:
    """The options of the data as `DataOptions`."""
    from onnxlrp.evaluation.data.open import DataOptions
    from onnxlrp.explain.preprocess import ImageOptions
    from onnxlrp.explain.table import TableOptions

    table = TableOptions(rows=data.pop("rows"), drop=tuple(data.pop("drop")))
    return DataOptions(**data, image=ImageOptions(**image), table=table)
