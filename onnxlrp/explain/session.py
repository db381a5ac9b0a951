"""A model opened for explaining: its session, and what is asked of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypedDict

import numpy as np
import onnx

from onnxlrp.check import metadata
from onnxlrp.errors import UsageError
from onnxlrp.explain.answer import Answer
from onnxlrp.explain.job import Job, Target
from onnxlrp.explain.labels import read_labels
from onnxlrp.explain.layout import Dimension
from onnxlrp.read.load import load
from onnxlrp.run.masks import Masks
from onnxlrp.run.masks import stated as stated_mask

Model = str | Path | bytes | onnx.ModelProto


class Asked(TypedDict, total=False):
    """What is asked of a model: options of `onnxlrp.convert`, and where it runs.

    A model that was converted already has all but `providers` and `masks` inside, and they must be left out, except
    that `target` names the class for one converted with the target "input".
    """

    rules: Any
    target: Target | None
    inputs: Sequence[str]
    outputs: Sequence[str]
    axis: int | None
    position: str | int | None
    rather_than: Any
    masks: Masks
    providers: Sequence[str] | None


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


class ModelInputs(Protocol):
    """What has to be known of a model to fill its inputs with data."""

    @property
    def input_names(self) -> Sequence[str]: ...
    @property
    def input_shapes(self) -> Mapping[str, Sequence[Dimension] | None]: ...
    @property
    def input_types(self) -> Mapping[str, Any]: ...


class Explainer(ModelInputs, Protocol):
    """The part of `onnxlrp.Explainer` that is used here."""

    @property
    def explained(self) -> Sequence[str]: ...
    def explain(
        self, inputs: Mapping[str, np.ndarray], /, *, target: Any = None, seed: Any = None, position: Any = None
    ) -> Explanation: ...


def open_model(
    model: Model, asked: Asked, labels: str | Path | Sequence[str] | None, top: int, *, gives_position: bool = False
) -> tuple[Explainer, Job]:
    """One onnxruntime session for all samples, and what they share.

    Args:
        gives_position: whether the caller knows the position of each sample, for a model that takes it with every run.

    Raises UsageError for labels that cannot be read and targets that need a value with every run, and what
    `onnxlrp.Explainer` raises.
    """
    from onnxlrp import Explainer as Session  # here, because converting and planning need no onnxruntime

    names = None if labels is None else read_labels(labels)
    target = asked.get("target")
    converted = metadata.read(load(model).model)
    if not gives_position:
        _refuse_position_input(asked.get("position") if converted is None else converted.settings.get("position"))
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
        rules=asked.get("rules"),
        target=None if each_run else target,
        inputs=asked.get("inputs", ()),
        outputs=asked.get("outputs", ()),
        axis=asked.get("axis"),
        position=asked.get("position"),
        rather_than=asked.get("rather_than"),
        masks=asked.get("masks"),
        providers=asked.get("providers"),
    )
    stated, _, other = session.metadata.target.partition(" rather than ")
    job = Job(
        model=Path(model).name if isinstance(model, str | Path) else "model",
        rules=session.metadata.rules,
        target=target if each_run and target is not None else _stated_target(stated),
        labels=names,
        top=top,
        target_each_run=each_run,
        rather_than=_stated_target(other) if other else None,
        through=" and ".join(stated_mask(x, mask) for x, mask in asked.get("masks", {}).items()),
    )
    return session, job


def open_seeded(
    model: Model, asked: Asked, labels: str | Path | Sequence[str] | None, top: int, what: str
) -> tuple[Explainer, Explainer, Job]:
    """Two sessions: one that says what the explained output is, and one that takes a seed in its shape.

    Raises UsageError for a model that was converted already, naming `what` needs the original, and what `open_model`
    raises.
    """
    from onnxlrp import Explainer as Session

    if metadata.read(load(model).model) is not None:
        raise UsageError(f"{what} needs the original model, not one that was converted already")

    scout, job = open_model(model, asked, labels, top)
    seeded = Session(
        model,
        rules=asked.get("rules"),
        target="seed",
        inputs=asked.get("inputs", ()),
        outputs=asked.get("outputs", ()),
        masks=asked.get("masks"),
        providers=asked.get("providers"),
    )
    return scout, seeded, job


def _refuse_position_input(position: Any) -> None:
    if position == "input":
        raise UsageError(
            "the position 'input' takes a value with every run, which files do not bring; name last or an index"
        )


def _refuse_given_values(target: Target | None, advice: str) -> None:
    if target in ("input", "seed"):
        raise UsageError(f"the target {target!r} takes a value with every run, which files do not bring; {advice}")


def _stated_target(text: str) -> Target:
    """The target that a converted model states about itself."""
    if text.startswith("argmax"):  # where an axis follows, each position has its own class, which no title can name
        return "argmax"
    if ":" in text:
        return text
    index = tuple(int(part) for part in text.split(","))
    return index if len(index) > 1 else index[0]


def run(explainer: Explainer, job: Job, feeds: Mapping[str, np.ndarray]) -> Explanation:
    """Run the model once, with the target where it takes one."""
    return explainer.explain(feeds, target=job.target if job.target_each_run else None)


def answer_of(found: Explanation, index: int, size: int) -> Answer:
    """What was found for one sample of a batch of `size`."""
    return Answer(
        outputs={
            name: sample_of(array, index, size)
            for name, value in found.outputs.items()
            if (array := _array_of(value)) is not None
        },
        explained=None if found.explained_output is None else sample_of(found.explained_output, index, size),
        target=found.target,
    )


def _array_of(value: Any) -> np.ndarray | None:
    """An output as an array: scores that ZipMap gave names lose them, and sequences of tensors are left out."""
    if isinstance(value, list) and value and all(isinstance(entry, Mapping) for entry in value):
        return np.array([list(entry.values()) for entry in value])
    return value if isinstance(value, np.ndarray) else None


def sample_of(value: np.ndarray, index: int, size: int) -> np.ndarray:
    """One sample of an output; an output without batch axis belongs to every sample."""
    return value[index] if value.ndim and value.shape[0] == size else value
