"""Explain a model on image files: one session for all images, pictures and numbers on disk for each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnx

from onnxlrp.check import metadata
from onnxlrp.errors import UsageError
from onnxlrp.explain.labels import read_labels
from onnxlrp.explain.layout import Dimension, find_image_input
from onnxlrp.explain.load import check_photo, expand_paths, read_photo
from onnxlrp.explain.naming import refuse_overwriting, unique_stems
from onnxlrp.explain.preprocess import ImageOptions, Prepared, Recipe, recipe_for
from onnxlrp.explain.results import ImageResult, Job, Sample, Target, planned_files, write_sample
from onnxlrp.read.load import load

#: Called with the number of images done and of all images; first with 0.
Progress = Callable[[int, int], None]

_BATCH = 8


class Explanation(Protocol):
    """The part of `onnxlrp.Explanation` that is used here; every array has the batch axis first."""

    @property
    def outputs(self) -> Mapping[str, np.ndarray]: ...
    @property
    def relevance(self) -> Mapping[str, np.ndarray]: ...
    @property
    def target(self) -> str: ...
    @property
    def explained_output(self) -> np.ndarray | None: ...


class Explainer(Protocol):
    """The part of `onnxlrp.Explainer` that is used here."""

    @property
    def input_names(self) -> Sequence[str]: ...
    @property
    def input_shapes(self) -> Mapping[str, Sequence[Dimension] | None]: ...
    @property
    def input_types(self) -> Mapping[str, Any]: ...
    @property
    def explained(self) -> Sequence[str]: ...
    def explain(self, inputs: Mapping[str, np.ndarray], /, *, target: Any = None) -> Explanation: ...


def explain_images(
    model: str | Path | bytes | onnx.ModelProto,
    paths: Sequence[str | Path],
    *,
    options: ImageOptions | None = None,
    rules: Any = None,
    target: Target | None = None,
    inputs: Sequence[str] = (),
    outputs: Sequence[str] = (),
    axis: int | None = None,
    out_dir: str | Path = ".",
    labels: str | Path | Sequence[str] | None = None,
    top: int = 5,
    providers: Sequence[str] | None = None,
    progress: Progress | None = None,
) -> list[ImageResult]:
    """Explain `model` on image files (a folder stands for the images in it), with pictures into `out_dir`.

    For `cat.jpg` and the rule table `default` there will be `cat.default.png` (report),
    `cat.default.overlay.png`, `cat.default.heatmap.png` and `cat.default.npz`. A chosen class adds
    `.class-7`, each map of top:K `.top-1`, `.top-2` ...; a second image with the same name gets a number.
    `out_dir` is made when missing. `labels` is a file, a sequence of names or "imagenet"; `top` how many
    classes each result lists.

    `rules`, `target`, `inputs`, `outputs` and `axis` are those of `onnxlrp.convert`. A model that was
    converted already has them inside, and they must be left out, except that `target` names the class for one
    converted with the target "input". One onnxruntime session with `providers` serves all images.

    Raises UsageError for files, options and models that do not fit, before anything is written where that can
    be known.
    """
    from onnxlrp import Explainer as Session  # here, because converting and planning need no onnxruntime

    files = expand_paths(paths)
    for file in files:
        check_photo(file)
    names = None if labels is None else read_labels(labels)
    converted = metadata.read(load(model).model)
    each_run = converted is not None and converted.target == "input"
    if each_run and not isinstance(target, int | tuple):
        raise UsageError("the model was converted with --target input: name the class, as in --target 7")
    if converted is None:
        _refuse_given_values(target, "leave it out, or name argmax, a class or top:K")
    else:
        _refuse_given_values(
            None if each_run else converted.target,
            "give the original model, or use onnxlrp.Explainer in Python",
        )
    session = Session(
        model,
        rules=rules,
        target=None if each_run else target,
        inputs=inputs,
        outputs=outputs,
        axis=axis,
        providers=providers,
    )
    job = Job(
        model=Path(model).name if isinstance(model, str | Path) else "model",
        rules=session.metadata.rules,
        target=target if each_run and target is not None else _stated_target(session.metadata.target),
        labels=names,
        top=top,
        target_each_run=each_run,
    )
    return explain_files(
        session, files, job, options=options or ImageOptions(), out_dir=Path(out_dir), progress=progress
    )


def _refuse_given_values(target: Target | None, advice: str) -> None:
    if target in ("input", "seed"):
        raise UsageError(f"the target {target!r} takes a value with every run, which images do not bring; {advice}")


def _stated_target(text: str) -> Target:
    """The target that a converted model states about itself."""
    if text.startswith("argmax"):  # where an axis follows, each position has its own class, which no title can name
        return "argmax"
    if text.startswith("top:"):
        return text
    index = tuple(int(part) for part in text.split(","))
    return index if len(index) > 1 else index[0]


def explain_files(
    explainer: Explainer,
    files: Sequence[Path],
    job: Job,
    *,
    options: ImageOptions,
    out_dir: Path,
    progress: Progress | None = None,
) -> list[ImageResult]:
    """`explain_images` with an explainer that exists already and was built for `job.target`."""
    image_input = find_image_input(explainer.input_names, explainer.input_shapes, explainer.input_types, options.layout)
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
    for batch in _batches(files, recipe):
        for sample in _run(explainer, recipe, batch, job.target if job.target_each_run else None):
            prefix = prefixes[len(results)]
            results.append(write_sample(prefix, sample, recipe, job))
            report(len(results), len(files))
    return results


def _batches(files: Sequence[Path], recipe: Recipe) -> Iterator[list[Prepared]]:
    """Prepared photos in groups that fit the model's batch and have one shape, in the order of the files."""
    limit = recipe.image_input.batch or _BATCH
    waiting: list[Prepared] = []
    for file in files:
        prepared = recipe.prepare(read_photo(file))
        if waiting and (len(waiting) == limit or waiting[0].array.shape != prepared.array.shape):
            yield waiting
            waiting = []
        waiting.append(prepared)
    yield waiting


def _run(explainer: Explainer, recipe: Recipe, batch: Sequence[Prepared], target: Target | None) -> Iterator[Sample]:
    """Run one batch; a model with a fixed batch gets its last photo repeated to fill it."""
    size = recipe.image_input.batch or len(batch)
    arrays = [prepared.array for prepared in batch]
    stacked = np.stack(arrays + arrays[-1:] * (size - len(arrays)))
    found = explainer.explain({recipe.image_input.name: stacked}, target=target)
    for index, prepared in enumerate(batch):
        yield Sample(
            prepared,
            relevance=found.relevance[recipe.image_input.name][index],
            outputs={name: _sample(value, index, size) for name, value in found.outputs.items()},
            explained=None if found.explained_output is None else _sample(found.explained_output, index, size),
            target=found.target,
        )


def _sample(value: np.ndarray, index: int, size: int) -> np.ndarray:
    """One sample of an output; an output without batch axis belongs to every sample."""
    return value[index] if value.ndim and value.shape[0] == size else value
