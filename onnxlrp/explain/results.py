"""One explained sample on disk: report, overlay, heatmap and arrays, and the words that go with them."""

from __future__ import annotations

import io
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from onnxlrp.errors import OnnxLrpError, UsageError
from onnxlrp.explain.colours import scale_for
from onnxlrp.explain.labels import labels_for
from onnxlrp.explain.naming import safe
from onnxlrp.explain.picture import Caption, heatmap_picture, overlay_picture, report_picture
from onnxlrp.explain.preprocess import Prepared, Recipe
from onnxlrp.explain.scores import ClassScores, class_scores

Target = str | int | tuple[int, ...]

_DOT = "  \u00b7  "


@dataclass(frozen=True)
class TopClass:
    """One of the most likely classes.

    `score` is a probability, or the raw output where `ImageResult.score_kind` is "".
    """

    index: int
    label: str | None
    score: float


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
    """

    image: Path
    top: tuple[TopClass, ...]
    score_kind: str
    target: str
    files: tuple[Path, ...]
    preprocessing: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Job:
    """What all images of one call share; `model` and `rules` are names for people.

    `target_each_run`: the model takes the target with every run (it was converted with the target "input").
    """

    model: str
    rules: str
    target: Target = "argmax"
    labels: tuple[str, ...] | None = None
    top: int = 5
    target_each_run: bool = False

    @property
    def tag(self) -> str:
        """The part of file names that tells rule table and chosen target apart."""
        name = safe(self.rules)
        if isinstance(self.target, int):
            return f"{name}.class-{self.target}"
        if isinstance(self.target, tuple):
            return f"{name}.class-{'-'.join(map(str, self.target))}"
        return name

    @property
    def maps(self) -> int | None:
        """How many maps each image gets with `top:K`; None for the single map of other targets."""
        if isinstance(self.target, str) and self.target.startswith("top:"):
            return int(self.target.removeprefix("top:"))
        return None


@dataclass(frozen=True)
class Sample:
    """The result for one image, without batch axes.

    `relevance` has the input's shape, with `top:K` one such map per class.
    """

    prepared: Prepared
    relevance: np.ndarray
    outputs: Mapping[str, np.ndarray]
    explained: np.ndarray | None
    target: str


@dataclass(frozen=True)
class _Subject:
    """One explained thing in words."""

    heading: str
    detail: str = ""


def planned_files(prefix: Path, job: Job) -> Iterator[Path]:
    """Every file that `write_sample` writes for this prefix."""
    for stem in _map_stems(prefix, job):
        for ending in (".png", ".overlay.png", ".heatmap.png"):
            yield stem.with_name(stem.name + ending)
    yield prefix.with_name(prefix.name + ".npz")


def _map_stems(prefix: Path, job: Job) -> list[Path]:
    if job.maps is None:
        return [prefix]
    return [prefix.with_name(f"{prefix.name}.top-{place}") for place in range(1, job.maps + 1)]


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
    # A model may call what relevance started from by no output name; then its first output has to speak.
    values = sample.explained if sample.explained is not None else next(iter(sample.outputs.values()))
    scores = class_scores(values, sample.outputs.values())
    labels = None if job.labels is None or scores is None else labels_for(scores.values.size, job.labels)
    subjects = _subjects(sample, values, scores, labels, job, len(summed))

    pictures: list[tuple[Path, bytes]] = []
    extras: list[tuple[Path, bytes]] = []
    notes = list(sample.prepared.photo.notes)
    for stem, heat, subject in zip(_map_stems(prefix, job), summed, subjects, strict=False):
        scale = scale_for(heat)
        caption = Caption(subject.heading, subject.detail, (_origin(sample, recipe, job),))
        report = report_picture(heat, sample.prepared.view, scale, caption)
        pictures.append((stem.with_name(stem.name + ".png"), _png(report)))
        overlay = overlay_picture(heat, sample.prepared.view, scale)
        extras.append((stem.with_name(stem.name + ".overlay.png"), _png(overlay)))
        extras.append((stem.with_name(stem.name + ".heatmap.png"), _png(heatmap_picture(heat, scale))))
        if scale.empty:
            notes.append(f"{subject.heading}: all relevance is zero")
    arrays = prefix.with_name(prefix.name + ".npz")
    extras.append((arrays, _npz(sample, recipe, job, subjects)))
    for path, content in (*pictures, *extras):
        _write(path, content)
    return ImageResult(
        image=sample.prepared.photo.path,
        top=_top(scores, labels, job.top),
        score_kind=scores.kind if scores else "",
        target="; ".join(subject.heading for subject in subjects),
        files=tuple(path for path, _ in (*pictures, *extras)),
        preprocessing=recipe.describe(),
        notes=tuple(notes),
    )


def _subjects(
    sample: Sample,
    values: np.ndarray,
    scores: ClassScores | None,
    labels: tuple[str, ...] | None,
    job: Job,
    count: int,
) -> list[_Subject]:
    """What each map explains."""
    if job.maps is not None and scores is not None:
        return [_class_subject(index, scores, labels) for index in scores.top(count)]
    if scores is not None and job.target == "argmax":
        return [_class_subject(scores.top(1)[0], scores, labels)]
    if scores is not None and (index := _class_index(job.target)) is not None:
        if not 0 <= index < scores.values.size:
            raise UsageError(f"class {index} does not exist: the explained output has {scores.values.size} classes")
        return [_class_subject(index, scores, labels)]
    if isinstance(job.target, tuple) and len(job.target) == values.ndim:
        return [_Subject(f"output element {list(job.target)}", f"value {values[job.target]:.4g}")]
    return [_Subject(sample.target)] * count


def _class_index(target: Target) -> int | None:
    if isinstance(target, int):
        return target
    return target[0] if isinstance(target, tuple) and len(target) == 1 else None


def _class_subject(index: int, scores: ClassScores, labels: tuple[str, ...] | None) -> _Subject:
    value = scores.values[index]
    parts = [f"class {index}"] if labels else []
    if scores.probabilities is not None:
        parts.append(f"probability {_percent(float(scores.probabilities[index]))}")
    if scores.kind != "output":
        parts.append(f"{'logit' if scores.kind else 'output'} {value:.4g}")
    return _Subject(labels[index] if labels else f"class {index}", _DOT.join(parts))


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %" if share >= 0.001 else f"{100 * share:.1e} %"


def _top(scores: ClassScores | None, labels: tuple[str, ...] | None, count: int) -> tuple[TopClass, ...]:
    if scores is None:
        return ()
    shown = scores.values if scores.probabilities is None else scores.probabilities
    return tuple(TopClass(index, labels[index] if labels else None, float(shown[index])) for index in scores.top(count))


def _origin(sample: Sample, recipe: Recipe, job: Job) -> str:
    height, width = sample.prepared.frame.size
    return _DOT.join(
        (
            f"model {job.model}",
            f"rules {job.rules}",
            f"image {sample.prepared.photo.path.name}",
            f"input {recipe.image_input.name}, {height} x {width} pixels",
        )
    )


def _npz(sample: Sample, recipe: Recipe, job: Job, subjects: list[_Subject]) -> bytes:
    """Arrays of one sample without batch axis:

    `relevance`, `input`, `explained_output`, `output/<name>`, and `settings` (JSON).
    """
    settings = {
        "image": str(sample.prepared.photo.path),
        "model": job.model,
        "rules": job.rules,
        "target": list(job.target) if isinstance(job.target, tuple) else job.target,
        "explained": [subject.heading for subject in subjects],
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
        **({} if sample.explained is None else {"explained_output": sample.explained}),
        **{f"output/{name}": value for name, value in sample.outputs.items()},
    }
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def _write(path: Path, content: bytes) -> None:
    """Write a file in one step: a reader sees the old content or the new, never a part."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
            Path(name).chmod(0o666 & ~_umask())
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise UsageError(f"{path}: cannot be written: {error.strerror or error}") from None


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
