"""Explain a model on image files: one session for all images, pictures and numbers on disk for each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Unpack

import numpy as np

from onnxlrp.errors import UsageError
from onnxlrp.explain.aim import Aim
from onnxlrp.explain.cells import Pairing, Seen
from onnxlrp.explain.embedding import Embedding
from onnxlrp.explain.feeds import Value, arrays_for, feeds_for
from onnxlrp.explain.job import Job
from onnxlrp.explain.layout import ImageInput, find_image_input
from onnxlrp.explain.load import check_photo, expand_paths, read_photo
from onnxlrp.explain.naming import refuse_overwriting, unique_stems
from onnxlrp.explain.preprocess import ImageOptions, Prepared, Recipe, recipe_for
from onnxlrp.explain.region import read_region
from onnxlrp.explain.results import ImageResult, Sample, planned_files, write_sample
from onnxlrp.explain.session import Asked, Explainer, Model, answer_of, open_model, open_seeded, run, sample_of
from onnxlrp.explain.similar import Likeness, SimilarTo, check_similar, embed_elsewhere

#: Called with the number of images done and of all images; first with 0.
Progress = Callable[[int, int], None]

_BATCH = 8


def explain_images(
    model: Model,
    paths: Sequence[str | Path],
    *,
    options: ImageOptions | None = None,
    data: Mapping[str, Value] | None = None,
    mask: str | Path | None = None,
    similar_to: SimilarTo | None = None,
    out_dir: str | Path = ".",
    labels: str | Path | Sequence[str] | None = None,
    top: int = 5,
    progress: Progress | None = None,
    **asked: Unpack[Asked],
) -> list[ImageResult]:
    """Explain `model` on image files (a folder stands for the images in it), with pictures into `out_dir`.

    For `cat.jpg` and the rule table `default` there will be `cat.default.png` (report),
    `cat.default.overlay.png`, `cat.default.heatmap.png` and `cat.default.npz`. A chosen class adds
    `.class-7`, each map of top:K `.top-1`, `.top-2` ...; a second image with the same name gets a number.
    `data` fills the model's other inputs by name; images then go through one by one.
    `mask` is an image as large as the photo: explained is the sum of the class `target` over the positions of an output
    map that lie in it, or without a target the sum of the largest class at each of them.
    With `similar_to` explained is the cosine between the embedding of each image and that one; an image goes through
    `model` like the others, or through a model of its own with the options of `similar_to`.
    `out_dir` is made when missing. `labels` is a file, a sequence of names or "imagenet"; `top` how many
    classes each result lists.

    Raises UsageError for files, options and models that do not fit, before anything is written where that can
    be known.
    """
    files = expand_paths(paths)
    for file in files:
        check_photo(file)
    options = options or ImageOptions()
    opened = _opened(model, asked, labels, top, options, data or {}, mask, similar_to)
    return explain_files(
        opened.explainer,
        files,
        opened.job,
        options=options,
        others=opened.others,
        seeding=opened.seeding,
        out_dir=Path(out_dir),
        progress=progress,
    )


@dataclass(frozen=True)
class Seeding:
    """What explains more than an element of an output: a session that takes a seed, and what seeds are made of.

    `pairing` shares what was found for an image among pairs of cells.
    """

    explainer: Explainer
    aim: Aim
    pairing: Pairing | None = None


@dataclass(frozen=True)
class _Opened:
    """A model opened for images, with the arrays for its other inputs."""

    explainer: Explainer
    job: Job
    others: Mapping[str, np.ndarray]
    seeding: Seeding | None = None


def _opened(
    model: Model,
    asked: Asked,
    labels: str | Path | Sequence[str] | None,
    top: int,
    options: ImageOptions,
    data: Mapping[str, Value],
    mask: str | Path | None,
    similar_to: SimilarTo | None,
) -> _Opened:
    if mask is not None and similar_to is not None:
        raise UsageError("a mask and a cosine are both what is explained: give one of them")
    if mask is None and similar_to is None:
        explainer, job = open_model(model, asked, labels, top)
        return _Opened(explainer, job, arrays_for(explainer, data, options))
    if similar_to is not None:
        check_similar(similar_to, asked, "image")
        scout, seeded, job = open_seeded(model, asked, labels, top, "the cosine")
        others = arrays_for(scout, data, options)
        seeding = _towards(similar_to, scout, seeded, others, options, asked)
    else:
        if asked.get("position") is not None or asked.get("rather_than") is not None:
            raise UsageError("a mask is the target: leave position and rather-than out")
        region = read_region(str(mask), asked.get("target"), asked.get("axis"))
        plain: Asked = {**asked, "target": None, "axis": None}
        scout, seeded, job = open_seeded(model, plain, labels, top, "a mask as the target")
        others, seeding = arrays_for(scout, data, options), Seeding(seeded, region)
    aim = seeding.aim
    shown = job.top if aim.has_classes else 0
    job = replace(job, aim=aim.words(job.labels), aim_tag=aim.tag, top=shown, in_pairs=seeding.pairing is not None)
    return _Opened(scout, job, others, seeding)


def _towards(
    similar: SimilarTo,
    scout: Explainer,
    seeded: Explainer,
    others: Mapping[str, np.ndarray],
    options: ImageOptions,
    asked: Asked,
) -> Seeding:
    """The cosine to what images are compared with; an image goes through their own model where no other is named."""
    if similar.settled:
        return Seeding(seeded, Likeness(embed_elsewhere(similar, asked), similar.pooling))
    if similar.path is None:
        raise UsageError(f"the model takes images: name another model that embeds the text {similar.name}")
    taken = _image_input(scout, others, options)
    feed = feeds_for(scout, {taken.name: similar.path}, options)[taken.name]
    feeds = {taken.name: feed.array, **others}
    output = scout.explain(feeds).explained_output
    if output is None or feed.photo is None:
        raise UsageError(f"{similar.name} has no embedding here: the model does not return what is explained")
    pairing = Pairing(seeded, taken, similar.pooling, Seen(feed.photo, feeds, output), similar.pairs or 0)
    vector = pairing.pool(pairing.partner).vectors(output)[0]
    likeness = Likeness(Embedding(similar.name, vector), similar.pooling)
    return Seeding(seeded, likeness, None if similar.pairs is None else pairing)


def _image_input(explainer: Explainer, others: Mapping[str, np.ndarray], options: ImageOptions) -> ImageInput:
    free = [name for name in explainer.input_names if name not in others]
    return find_image_input(free, explainer.input_shapes, explainer.input_types, options.layout)


def explain_files(
    explainer: Explainer,
    files: Sequence[Path],
    job: Job,
    *,
    options: ImageOptions,
    others: Mapping[str, np.ndarray] | None = None,
    seeding: Seeding | None = None,
    out_dir: Path,
    progress: Progress | None = None,
) -> list[ImageResult]:
    """`explain_images` with an explainer that exists already and was built for `job.target`."""
    others = others or {}
    image_input = _image_input(explainer, others, options)
    if image_input.name not in explainer.explained:
        raise UsageError(
            f"the image input {image_input.name!r} is not explained; these are: {', '.join(explainer.explained)}"
        )
    recipe = recipe_for(options, image_input)
    prefixes = [out_dir / f"{stem}.{job.tag}" for stem in unique_stems(files)]
    refuse_overwriting((file for prefix in prefixes for file in planned_files(prefix, job)), files)
    report = progress or (lambda done, total: None)
    report(0, len(files))
    results: list[ImageResult] = []
    for batch in _batches(files, recipe, 1 if others else _BATCH):
        for sample in _run(explainer, recipe, batch, others, job, seeding):
            prefix = prefixes[len(results)]
            results.append(write_sample(prefix, sample, recipe, job))
            report(len(results), len(files))
    return results


def _batches(files: Sequence[Path], recipe: Recipe, open_batch: int) -> Iterator[list[Prepared]]:
    """Prepared photos in groups that fit the model's batch and have one shape, in the order of the files."""
    limit = recipe.image_input.batch or open_batch
    waiting: list[Prepared] = []
    for file in files:
        prepared = recipe.prepare(read_photo(file))
        if waiting and (len(waiting) == limit or waiting[0].array.shape != prepared.array.shape):
            yield waiting
            waiting = []
        waiting.append(prepared)
    yield waiting


def _run(
    explainer: Explainer,
    recipe: Recipe,
    batch: Sequence[Prepared],
    others: Mapping[str, np.ndarray],
    job: Job,
    seeding: Seeding | None,
) -> Iterator[Sample]:
    """Run one batch; a model with a fixed batch gets its last photo repeated to fill it."""
    size = recipe.image_input.batch or len(batch)
    arrays = [prepared.array for prepared in batch]
    stacked = np.stack(arrays + arrays[-1:] * (size - len(arrays)))
    feeds = {recipe.image_input.name: stacked, **others}
    found = run(explainer, job, feeds)
    details: Sequence[str] = [""] * len(batch)
    explained: np.ndarray | None = None
    if seeding is not None:
        explained, layout = found.explained_output, recipe.image_input.layout
        if explained is None:
            raise UsageError("the explained output is an input of the model, of which only elements can be explained")
        details = seeding.aim.details(explained, layout)
        found = seeding.explainer.explain(feeds, seed=seeding.aim.seeds(explained, batch, layout))
    for index, (prepared, detail) in enumerate(zip(batch, details, strict=False)):
        relevance = {name: sample_of(value, index, size) for name, value in found.relevance.items()}
        answer = replace(answer_of(found, index, size), detail=detail)
        pairs = None
        if seeding is not None and seeding.pairing is not None and explained is not None:
            alone = np.repeat(prepared.array[None], recipe.image_input.batch or 1, axis=0)
            own = np.roll(explained, -index, axis=0)[: len(alone)]
            pairs = seeding.pairing.of(Seen(prepared, {**feeds, recipe.image_input.name: alone}, own))
        yield Sample(prepared, relevance.pop(recipe.image_input.name), answer, relevance, pairs)
