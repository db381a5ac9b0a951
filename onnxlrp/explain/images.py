"""Explain a model on image files: one session for all images, pictures and numbers on disk for each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Unpack

import numpy as np

from onnxlrp.errors import UsageError
from onnxlrp.explain.feeds import Value, feeds_for
from onnxlrp.explain.job import Job
from onnxlrp.explain.layout import find_image_input
from onnxlrp.explain.load import check_photo, expand_paths, read_photo
from onnxlrp.explain.naming import refuse_overwriting, unique_stems
from onnxlrp.explain.preprocess import ImageOptions, Prepared, Recipe, recipe_for
from onnxlrp.explain.region import Region, read_region
from onnxlrp.explain.results import ImageResult, Sample, planned_files, write_sample
from onnxlrp.explain.session import Asked, Explainer, Model, answer_of, open_model, open_region, run, sample_of

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
    `out_dir` is made when missing. `labels` is a file, a sequence of names or "imagenet"; `top` how many
    classes each result lists.

    Raises UsageError for files, options and models that do not fit, before anything is written where that can
    be known.
    """
    files = expand_paths(paths)
    for file in files:
        check_photo(file)
    seeded, region = None, None
    if mask is None:
        explainer, job = open_model(model, asked, labels, top)
    else:
        region = read_region(mask, asked.get("target"), asked.get("axis"))
        explainer, seeded, job = open_region(model, asked, labels, top, region)
    options = options or ImageOptions()
    others = {name: feed.array for name, feed in feeds_for(explainer, dict(data or {}), options).items()}
    return explain_files(
        explainer,
        files,
        job,
        options=options,
        others=others,
        seeding=None if seeded is None or region is None else Seeding(seeded, region),
        out_dir=Path(out_dir),
        progress=progress,
    )


@dataclass(frozen=True)
class Seeding:
    """What explains a region: a session that takes a seed, and the region that seeds are made of."""

    explainer: Explainer
    region: Region


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
    free = [name for name in explainer.input_names if name not in others]
    image_input = find_image_input(free, explainer.input_shapes, explainer.input_types, options.layout)
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
    if seeding is not None:
        if found.explained_output is None:
            raise UsageError("the explained output is an input of the model, which no mask can be laid on")
        seeds = seeding.region.seeds(found.explained_output, batch, recipe.image_input.layout)
        found = seeding.explainer.explain(feeds, seed=seeds)
    for index, prepared in enumerate(batch):
        relevance = {name: sample_of(value, index, size) for name, value in found.relevance.items()}
        yield Sample(prepared, relevance.pop(recipe.image_input.name), answer_of(found, index, size), relevance)
