"""Explain a model on arrays: any number of inputs of any shape; numbers out, and a picture for an image input."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Unpack

import numpy as np

from onnxlrp.errors import OnnxLrpError, UsageError
from onnxlrp.explain.answer import DOT, Reading, read_answer
from onnxlrp.explain.colours import scale_for
from onnxlrp.explain.feeds import Feed, Value, feeds_for, named_files, read_array_file
from onnxlrp.explain.files import npz, png, write
from onnxlrp.explain.job import Job, beside
from onnxlrp.explain.naming import refuse_overwriting, safe, unique_stems
from onnxlrp.explain.page import Caption
from onnxlrp.explain.picture import report_picture
from onnxlrp.explain.preprocess import ImageOptions
from onnxlrp.explain.session import Asked, Explainer, Explanation, Model, answer_of, open_model, run


@dataclass(frozen=True)
class Element:
    """One element of an input, by its index (batch axis included), and its relevance."""

    index: tuple[int, ...]
    relevance: float


@dataclass(frozen=True)
class InputRelevance:
    """The relevance of one input in short: its shape, its sums, and the elements with the largest sizes."""

    name: str
    shape: tuple[int, ...]
    total: float
    positive: float
    negative: float
    largest: tuple[Element, ...]


@dataclass(frozen=True)
class ArraysResult:
    """What was found and written for one set of arrays.

    data     the file, or what `--data` named
    targets  what was explained, one for each sample of the batch
    inputs   the explained inputs
    files    everything written
    notes    what a reader of the result should know
    """

    data: str
    targets: tuple[str, ...]
    inputs: tuple[InputRelevance, ...]
    files: tuple[Path, ...]
    notes: tuple[str, ...] = ()


def explain_arrays(
    model: Model,
    paths: Sequence[str | Path] = (),
    *,
    data: Mapping[str, Value] | None = None,
    options: ImageOptions | None = None,
    out_dir: str | Path = ".",
    labels: str | Path | Sequence[str] | None = None,
    top: int = 5,
    **asked: Unpack[Asked],
) -> list[ArraysResult]:
    """Explain `model` on each file of `paths`, and on `data` alone where there is none.

    A file is an .npz with arrays by input name, or an .npy for the one input that `data` does not name. Arrays
    are as the model takes them, batch axis first. `data` fills inputs by name, for every file alike: with an
    array, a number, an .npy file, or an image that is prepared by `options`.

    For `x.npz` and the rule table `default` there will be `x.default.npz` with `relevance/NAME`, `input/NAME`,
    `output/NAME`, `explained_output` and `settings` (JSON), and `x.default.NAME.png` for an input given as an image.

    Raises UsageError for files and names that do not fit, before anything is written.
    """
    files = [Path(path) for path in paths]
    explainer, job = open_model(model, asked, labels, top)
    others = dict(data or {})
    fixed = feeds_for(explainer, others, options or ImageOptions())
    named = named_files(others)
    sets = [{**_from_file(explainer, file, fixed), **fixed} for file in files] or [fixed]
    stems = unique_stems(files) if files else (safe(named[0].stem) if named else "arrays",)
    prefixes = [Path(out_dir) / f"{stem}.{job.tag}" for stem in stems]
    refuse_overwriting((file for prefix in prefixes for file in _planned(prefix, fixed)), [*files, *named])
    labelled = [str(file) for file in files] or [", ".join(f"{name}={value}" for name, value in others.items())]
    return [
        _explain(explainer, feeds, job, prefix, said)
        for feeds, prefix, said in zip(sets, prefixes, labelled, strict=True)
    ]


def _planned(prefix: Path, fixed: Mapping[str, Feed]) -> Iterator[Path]:
    yield beside(prefix, ".npz")
    for name, feed in fixed.items():
        if feed.photo is not None:
            yield beside(prefix, f".{safe(name)}.png")


def _from_file(explainer: Explainer, file: Path, fixed: Mapping[str, Feed]) -> dict[str, Feed]:
    found = read_array_file(file)
    if isinstance(found, dict):
        return feeds_for(explainer, found, ImageOptions())
    free = [name for name in explainer.input_names if name not in fixed]
    if len(free) != 1:
        raise UsageError(
            f"{file}: a single array fills one input, but the model has {len(free)} to fill: {', '.join(free)}. "
            "Save them by name in an .npz, or name each: --data NAME=FILE"
        )
    return {free[0]: Feed(found)}


def _explain(explainer: Explainer, feeds: Mapping[str, Feed], job: Job, prefix: Path, said: str) -> ArraysResult:
    found = run(explainer, job, {name: feed.array for name, feed in feeds.items()})
    for name in explainer.explained:
        broken = int((~np.isfinite(found.relevance[name])).sum())
        if broken:
            raise OnnxLrpError(
                f"{said}: the relevance of {name!r} has {broken} values that are not finite; `onnxlrp verify` on "
                "this model and data shows where they arise"
            )
    size = _batch(feeds)
    readings = [read_answer(answer_of(found, index, size), job) for index in range(size)]
    inputs = tuple(_summary(name, found.relevance[name], job.top) for name in explainer.explained)
    files = [beside(prefix, ".npz")]
    write(files[0], _arrays(feeds, found, job, readings, said))
    for name in explainer.explained:
        if feeds[name].photo is not None and job.maps is None:
            files.append(beside(prefix, f".{safe(name)}.png"))
            write(files[-1], _picture(name, feeds[name], found, readings[0], job))
    notes = [f"the relevance of {entry.name!r} is zero everywhere" for entry in inputs if not entry.largest]
    targets = tuple("; ".join(subject.heading for subject in reading.subjects) for reading in readings)
    return ArraysResult(said, targets, inputs, tuple(files), tuple(notes))


def _batch(feeds: Mapping[str, Feed]) -> int:
    """How many samples there are: the length of the first axis, where all inputs agree on one."""
    sizes = {feed.array.shape[0] for feed in feeds.values() if feed.array.ndim}
    return sizes.pop() if len(sizes) == 1 else 1


def _summary(name: str, relevance: np.ndarray, count: int) -> InputRelevance:
    exact = relevance.astype(np.float64)
    order = np.argsort(-np.abs(exact), axis=None, kind="stable")[:count]
    places = [tuple(int(i) for i in np.unravel_index(place, exact.shape)) for place in order]
    return InputRelevance(
        name,
        exact.shape,
        float(exact.sum()),
        float(exact[exact > 0].sum()),
        float(exact[exact < 0].sum()),
        tuple(Element(index, float(exact[index])) for index in places if exact[index] != 0),
    )


def _arrays(feeds: Mapping[str, Feed], found: Explanation, job: Job, readings: Sequence[Reading], said: str) -> bytes:
    settings = {
        "data": said,
        "model": job.model,
        "rules": job.rules,
        "target": list(job.target) if isinstance(job.target, tuple) else job.target,
        "explained": [[subject.heading for subject in reading.subjects] for reading in readings],
    }
    return npz(
        {
            **{f"relevance/{name}": value for name, value in found.relevance.items()},
            **{f"input/{name}": feed.array for name, feed in feeds.items()},
            **{f"output/{name}": value for name, value in found.outputs.items() if isinstance(value, np.ndarray)},
            **({} if found.explained_output is None else {"explained_output": found.explained_output}),
            "settings": np.asarray(json.dumps(settings)),
        }
    )


def _picture(name: str, feed: Feed, found: Explanation, reading: Reading, job: Job) -> bytes:
    assert feed.photo is not None and feed.recipe is not None
    heat = feed.recipe.image_input.over_channels(found.relevance[name][0])
    subject = reading.subjects[0]
    origin = DOT.join(
        (f"model {job.model}", f"rules {job.rules}", f"image {feed.photo.photo.path.name}", f"input {name}")
    )
    caption = Caption(subject.heading, subject.detail, (origin,))
    return png(report_picture(heat, feed.photo.view, scale_for(heat), caption))
