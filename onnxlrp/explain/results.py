"""One explained sample on disk: report, overlay, heatmap and arrays, and the words that go with them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from onnxlrp.errors import OnnxLrpError
from onnxlrp.explain.answer import DOT, Answer, Subject, TopClass, read_answer
from onnxlrp.explain.cells import CellPairs, pairs_picture
from onnxlrp.explain.colours import scale_for
from onnxlrp.explain.files import npz, png, write
from onnxlrp.explain.job import Job, beside
from onnxlrp.explain.page import Caption
from onnxlrp.explain.picture import heatmap_picture, overlay_picture, report_picture
from onnxlrp.explain.preprocess import Prepared, Recipe


@dataclass(frozen=True)
class ImageResult:
    """What was found and written for one image.

    image          the file
    top            most likely classes, best first; empty when the explained output is not [batch, classes]
    score_kind     what the scores are: "softmax", "sigmoid" or "output" probabilities, or "" for raw outputs
    target         what was explained, in words; several maps are separated by "; "
    files          everything written for the image; the report pictures first
    preprocessing  one line: preset, colour order, layout and the formula applied to pixels
    notes          what a reader of the result should know, such as relevance that is zero everywhere
    detail         more of what was explained, such as its score; several maps are separated by "; "
    """

    image: Path
    top: tuple[TopClass, ...]
    score_kind: str
    target: str
    files: tuple[Path, ...]
    preprocessing: str
    notes: tuple[str, ...] = ()
    detail: str = ""


@dataclass(frozen=True)
class Sample:
    """The result for one image, without batch axes.

    `relevance` has the input's shape, with `top:K` one such map per class. `others` is the relevance of the model's
    other explained inputs, by name, `pairs` what pairs of cells add to a cosine.
    """

    prepared: Prepared
    relevance: np.ndarray
    answer: Answer
    others: Mapping[str, np.ndarray] = field(default_factory=dict)
    pairs: CellPairs | None = None


def planned_files(prefix: Path, job: Job) -> Iterator[Path]:
    """Every file that `write_sample` writes for this prefix."""
    pairs = (".pairs.png",) if job.in_pairs else ()
    return job.planned(prefix, (".png", ".overlay.png", ".heatmap.png"), (*pairs, ".npz"))


def write_sample(prefix: Path, sample: Sample, recipe: Recipe, job: Job) -> ImageResult:
    """Write the pictures and arrays of one sample to files that start with `prefix`; makes the folder.

    Raises OnnxLrpError when the relevance is not finite (nothing is written then), UsageError when labels or
    the target do not fit the output or the folder cannot be written.
    """
    maps = sample.relevance if job.maps is not None else sample.relevance[None]
    summed = [recipe.image_input.over_channels(values) for values in maps]
    broken = sum(int((~np.isfinite(values)).sum()) for values in summed)
    if broken:
        raise OnnxLrpError(
            f"{sample.prepared.photo.path}: the relevance has {broken} values that are not finite, so there "
            "is nothing to draw; `onnxlrp verify` on this model and image shows where they arise"
        )
    reading = read_answer(sample.answer, job)
    pictures: list[tuple[Path, bytes]] = []
    extras: list[tuple[Path, bytes]] = []
    notes = list(sample.prepared.photo.notes)
    for stem, heat, subject in zip(job.map_stems(prefix), summed, reading.subjects, strict=False):
        scale = scale_for(heat)
        caption = Caption(subject.heading, subject.detail, (_origin(sample, recipe, job),))
        report = report_picture(heat, sample.prepared.view, scale, caption)
        pictures.append((beside(stem, ".png"), png(report)))
        overlay = overlay_picture(heat, sample.prepared.view, scale)
        extras.append((beside(stem, ".overlay.png"), png(overlay)))
        extras.append((beside(stem, ".heatmap.png"), png(heatmap_picture(heat, scale))))
        if scale.empty:
            notes.append(f"{subject.heading}: all relevance is zero")
    if sample.pairs is not None:
        subject = reading.subjects[0]
        caption = Caption(subject.heading, subject.detail, (_origin(sample, recipe, job),))
        picture = pairs_picture(sample.prepared, sample.pairs, caption)
        extras.append((beside(prefix, ".pairs.png"), png(picture)))
    arrays = beside(prefix, ".npz")
    extras.append((arrays, _npz(sample, recipe, job, reading.subjects)))
    for path, content in (*pictures, *extras):
        write(path, content)
    return ImageResult(
        image=sample.prepared.photo.path,
        top=reading.top,
        score_kind=reading.score_kind,
        target="; ".join(subject.heading for subject in reading.subjects),
        files=tuple(path for path, _ in (*pictures, *extras)),
        preprocessing=recipe.describe(),
        notes=tuple(notes),
        detail="; ".join(subject.detail for subject in reading.subjects if subject.detail),
    )


def _origin(sample: Sample, recipe: Recipe, job: Job) -> str:
    height, width = sample.prepared.frame.size
    return DOT.join(
        (
            f"model {job.model}",
            f"rules {job.rules}",
            f"image {sample.prepared.photo.path.name}",
            f"input {recipe.image_input.name}, {height} x {width} pixels",
        )
    )


def _npz(sample: Sample, recipe: Recipe, job: Job, subjects: Sequence[Subject]) -> bytes:
    """Arrays of one sample without batch axis:

    `relevance`, `input`, `explained_output`, `output/<name>`, `relevance/<name>` (other inputs), `pairs` (rows and
    columns of cells, then those of the other image), `settings` (JSON).
    """
    settings = {
        "image": str(sample.prepared.photo.path),
        "model": job.model,
        "rules": job.rules,
        "target": list(job.target) if isinstance(job.target, tuple) else job.target,
        "explained": [subject.heading for subject in subjects],
        "details": [subject.detail for subject in subjects],
        "input": recipe.image_input.name,
        "layout": recipe.image_input.layout,
        "preprocessing": recipe.describe(),
        "resized": sample.prepared.frame.resized,
        "box": sample.prepared.frame.box,
    }
    arrays = {
        "relevance": sample.relevance,
        "input": sample.prepared.array,
        "settings": np.asarray(json.dumps(settings)),
        **({} if sample.answer.explained is None else {"explained_output": sample.answer.explained}),
        **{f"output/{name}": value for name, value in sample.answer.outputs.items()},
        **{f"relevance/{name}": value for name, value in sample.others.items()},
        **({} if sample.pairs is None else {"pairs": sample.pairs.values.astype(np.float32)}),
    }
    return npz(arrays)
