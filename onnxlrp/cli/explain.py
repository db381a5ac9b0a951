"""`onnxlrp explain`: run a model on images, text, sound, tables or arrays; write what its prediction rests on."""

from __future__ import annotations

from typing import Any

import click

from onnxlrp.cli.explain_options import (
    image_options,
    parse_data,
    parse_masks,
    similar_options,
    sound_options,
    table_options,
)
from onnxlrp.cli.explain_text import explain_text, text_options
from onnxlrp.cli.options import json_option, model_argument, provider_option, request_options
from onnxlrp.cli.output import counting, print_json


@click.command(short_help="Run a model on images, text, sound, tables or arrays and show why.")
@model_argument
@click.argument("data", nargs=-1, metavar="DATA...")
@request_options
@click.option(
    "--data",
    "by_name",
    multiple=True,
    callback=parse_data,
    metavar="NAME=FILE|NUMBER",
    help="Fill the input NAME with an .npy file, an image, or a number that is repeated; may be repeated. With DATA: "
    "the model's other inputs. Without: all of them.",
)
@click.option(
    "--target-mask",
    "mask",
    metavar="FILE",
    help="Images: explain a region of an output map: the sum of the class --target over the pixels that are not black "
    "in this image, which is as large as the photo; without --target, of the likeliest class at each.",
)
@click.option(
    "--mask",
    "masks",
    multiple=True,
    callback=parse_masks,
    metavar="TENSOR[:AXIS]=N,...",
    help="Show only the relevance that runs through these channels (3,17 or 0:64) of a tensor inside the model, "
    "counted along AXIS; may be repeated.  [default axis: 1]",
)
@click.option(
    "--labels",
    metavar="FILE",
    help="Class names, one per line or as JSON; 'imagenet' for the built-in ones.  [default: numbers only]",
)
@image_options
@sound_options
@table_options
@text_options
@similar_options
@click.option("-o", "--out-dir", default=".", show_default=True, metavar="DIR", help="Folder to write into.")
@click.option(
    "--top",
    type=click.IntRange(min=1),
    default=5,
    show_default="5",
    metavar="N",
    help="How many classes, words, moments, features or elements to list.",
)
@provider_option
@json_option
def explain(
    model: str,
    data: tuple[str, ...],
    by_name: dict[str, str],
    request: dict[str, Any],
    image: dict[str, Any],
    sound: dict[str, Any],
    table: dict[str, Any],
    text: dict[str, Any],
    similar: dict[str, Any],
    mask: str | None,
    masks: dict[str, set[int]],
    as_json: bool,
    top: int,
    **common: Any,
) -> None:
    """Explain a model's predictions on data: image files or folders of them, text, sound, tables, or arrays.

    MODEL may be an original or a converted one; the options from --rules to --rather-than are for an original. DATA
    goes by the end of its name: .wav, .flac, .ogg, .mp3 ... is sound, .csv and .tsv a table whose first line names the
    features, .npz arrays by input name, and anything else images. Text is given by --text. Pictures or an HTML page,
    and an .npz with the numbers, are written.
    """
    if not data and not by_name and not text["texts"]:
        raise click.UsageError("Missing argument 'DATA...'.")
    if data and text["texts"]:
        raise click.UsageError("--text and DATA cannot go together; fill other inputs with --data NAME=FILE.")
    from onnxlrp.cli import explain_print as show
    from onnxlrp.explain.kinds import kind_of
    from onnxlrp.explain.preprocess import ImageOptions

    kind = "texts" if text["texts"] else kind_of(data)
    if mask is not None:
        if kind != "images":
            raise click.UsageError("--target-mask goes with image files as DATA.")
        common["mask"] = mask
    if masks:
        common["masks"] = masks
    if similar["what"] is not None:
        if kind not in ("images", "texts"):
            raise click.UsageError("--similar-to goes with image files as DATA, or with --text.")
        from onnxlrp.explain.similar import SimilarTo

        common["similar_to"] = SimilarTo(tokenizer=text["tokenizer"], images=ImageOptions(**image), **similar)
    elif any(value is not None for value in similar.values()):
        raise click.UsageError("--other-model, --other-output, --pairs and --pooling go with --similar-to.")
    asked = {**common, **request, "top": top, **({"data": by_name} if by_name else {})}
    results: Any
    with counting("Explaining") as progress:
        if kind == "images":
            from onnxlrp.explain.images import explain_images

            results = explain_images(model, data, options=ImageOptions(**image), progress=progress, **asked)
        elif kind == "sounds":
            from onnxlrp.explain.sound_prepare import SoundOptions
            from onnxlrp.explain.sounds import explain_sounds

            results = explain_sounds(model, data, options=SoundOptions(**sound), progress=progress, **asked)
        elif kind == "tables":
            from onnxlrp.explain.table import TableOptions
            from onnxlrp.explain.tables import explain_tables

            results = explain_tables(model, data, options=TableOptions(**table), **asked)
        elif kind == "texts":
            results = explain_text(model, text, progress=progress, **asked)
        else:
            from onnxlrp.explain.arrays import explain_arrays

            results = explain_arrays(model, data, options=ImageOptions(**image), **asked)
    if as_json:
        print_json(results)
        return
    for index, result in enumerate(results):
        if index:
            click.echo()
        show.SHOWN[kind](result, top)
