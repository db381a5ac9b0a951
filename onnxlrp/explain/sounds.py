"""Explain a model on sound files: windows through the model, relevance on the clip's own time, pictures and numbers."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Unpack

import numpy as np

from onnxlrp.errors import OnnxLrpError, UsageError
from onnxlrp.explain.answer import DOT, Answer, Reading, read_answer
from onnxlrp.explain.feeds import Value, arrays_for
from onnxlrp.explain.files import npz, png, write
from onnxlrp.explain.job import Job, beside
from onnxlrp.explain.naming import refuse_overwriting, unique_stems
from onnxlrp.explain.page import Caption
from onnxlrp.explain.preprocess import ImageOptions
from onnxlrp.explain.session import Asked, Explainer, Model, answer_of, open_model, run
from onnxlrp.explain.sound import read_sound
from onnxlrp.explain.sound_input import find_sound_input
from onnxlrp.explain.sound_picture import SoundView, sound_picture
from onnxlrp.explain.sound_prepare import PreparedSound, SoundOptions, prepare_sound
from onnxlrp.explain.sound_view import Moment, moments, view_of

#: Called with the number of files done and of all files; first with 0.
Progress = Callable[[int, int], None]

#: Samples that go through the model at once where its batch is open; more are run one after the other.
_AT_ONCE = 1 << 19


@dataclass(frozen=True)
class WindowResult:
    """What one window of the clip was explained for, and the model's numbers for it in words; times in seconds."""

    start: float
    end: float
    target: str
    detail: str


@dataclass(frozen=True)
class SoundResult:
    """What was found and written for one sound.

    sound        the file
    windows      the windows that the model saw, and what was explained in each
    moments      the moments with the largest |relevance|, largest first; of the first map where there are several
    files        everything written; the report pictures first
    preparation  one line: rate, channels, windows, and spectrogram
    notes        what a reader of the result should know
    """

    sound: Path
    windows: tuple[WindowResult, ...]
    moments: tuple[Moment, ...]
    files: tuple[Path, ...]
    preparation: str
    notes: tuple[str, ...] = ()


def explain_sounds(
    model: Model,
    paths: Sequence[str | Path],
    *,
    options: SoundOptions | None = None,
    data: Mapping[str, Value] | None = None,
    out_dir: str | Path = ".",
    labels: str | Path | Sequence[str] | None = None,
    top: int = 5,
    progress: Progress | None = None,
    **asked: Unpack[Asked],
) -> list[SoundResult]:
    """Explain `model` on sound files. `data` fills the model's other inputs: arrays, numbers or files by name.

    For `clip.wav` and the rule table `default` there will be `clip.default.png` (waveform, relevance over time, and
    over time and frequency) and `clip.default.npz`. A model with windows of fixed length gets the clip in several,
    the last filled up with silence; the relevance of overlapping windows is added up.

    Raises UsageError for files and options that do not fit, before anything is written where that can be known.
    """
    options = options or SoundOptions()
    files = [Path(path) for path in paths]
    for file in files:
        read_sound(file, None)
    explainer, job = open_model(model, asked, labels, top)
    others = arrays_for(explainer, data or {}, ImageOptions())
    free = [name for name in explainer.input_names if name not in others]
    sound_input = find_sound_input(free, explainer.input_shapes, explainer.input_types, options.spectrogram)
    if sound_input.name not in explainer.explained:
        raise UsageError(
            f"the input {sound_input.name!r} is not explained; these are: {', '.join(explainer.explained)}"
        )
    prefixes = [Path(out_dir) / f"{stem}.{job.tag}" for stem in unique_stems(files)]
    refuse_overwriting((file for prefix in prefixes for file in job.planned(prefix, (".png",), (".npz",))), files)
    results: list[SoundResult] = []
    for file, prefix in zip(files, prefixes, strict=True):
        if progress:
            progress(len(results), len(files))
        prepared = prepare_sound(file, sound_input, options)
        results.append(_write(prefix, prepared, _through(explainer, prepared, job, others), job))
    if progress:
        progress(len(results), len(files))
    return results


@dataclass(frozen=True)
class _Found:
    """Relevance of all windows, [windows, maps, rows, time], and what the model said about each window.

    `whole`: the windows are no batch: the model reads them as one sequence, and gives one answer for all of them.
    """

    relevance: np.ndarray
    answers: tuple[Answer, ...]
    whole: bool
    notes: tuple[str, ...] = ()


def _through(explainer: Explainer, prepared: PreparedSound, job: Job, others: Mapping[str, np.ndarray]) -> _Found:
    """Run all windows, as many at once as the model's batch and the memory allow."""
    groups = _groups(prepared)
    notes = prepared.clip.notes
    found = [_group(explainer, prepared, groups[0], job, others)]
    if prepared.sound_input.batched and prepared.sound_input.batch is None and len(groups) > 1:
        if found[0].whole:
            # A sequence that is cut would begin anew at every cut.
            groups, found = groups[:1], [_group(explainer, prepared, prepared.arrays, job, others)]
        else:
            notes = (*notes, f"run in {len(groups)} parts, because all windows at once would need much memory")
    found += [_group(explainer, prepared, group, job, others) for group in groups[1:]]
    unseen = [name for name in explainer.explained if name != prepared.sound_input.name]
    if unseen:
        notes = (*notes, f"relevance also goes to {', '.join(unseen)}, which is not shown; --input leaves them out")
    answers = tuple(answer for part in found for answer in part.answers)
    return _Found(np.concatenate([part.relevance for part in found]), answers, found[0].whole, notes)


def _groups(prepared: PreparedSound) -> list[np.ndarray]:
    size = prepared.sound_input.batch if prepared.sound_input.batched else 1
    size = size or max(1, _AT_ONCE // prepared.windows.length)
    return [prepared.arrays[start : start + size] for start in range(0, len(prepared.arrays), size)]


def _group(
    explainer: Explainer, prepared: PreparedSound, group: np.ndarray, job: Job, others: Mapping[str, np.ndarray]
) -> _Found:
    """Run some windows at once; a model with a fixed batch gets the last one repeated to fill it."""
    sound_input = prepared.sound_input
    count = len(group)
    size = sound_input.batch or count
    feed = np.concatenate([group, np.repeat(group[-1:], size - count, axis=0)]) if sound_input.batched else group[0]
    found = run(explainer, job, {sound_input.name: feed, **others})
    maps = found.relevance[sound_input.name] if sound_input.batched else found.relevance[sound_input.name][None]
    if job.maps is None:
        maps = maps[:, None]
    relevance = [np.stack([sound_input.rows_of(one) for one in several]) for several in maps[:count]]
    answers = tuple(answer_of(found, i, size if sound_input.batched else -1) for i in range(count))
    one = answers[0].explained is not None and all(answer.explained is answers[0].explained for answer in answers)
    return _Found(np.stack(relevance), answers, one and count > 1)


def _write(prefix: Path, prepared: PreparedSound, found: _Found, job: Job) -> SoundResult:
    clip = prepared.clip
    if not np.isfinite(found.relevance).all():
        raise OnnxLrpError(
            f"{clip.path}: the relevance has values that are not finite, so there is nothing to draw; `onnxlrp verify` "
            "on this model and data shows where they arise. Digital silence (samples that are exactly zero) can be the "
            "cause with rules that use derivatives"
        )
    readings = [read_answer(answer, job) for answer in (found.answers[:1] if found.whole else found.answers)]
    views = [view_of(prepared, found.relevance[:, place]) for place in range(found.relevance.shape[1])]
    files: list[tuple[Path, bytes]] = []
    for place, (stem, view) in enumerate(zip(job.map_stems(prefix), views, strict=False)):
        picture = sound_picture(view, prepared.starts[1 : len(readings)], _caption(prepared, readings, place, job))
        files.append((beside(stem, ".png"), png(picture)))
    windows = tuple(
        _window(prepared, index, reading, -1 if found.whole else index) for index, reading in enumerate(readings)
    )
    files.append((beside(prefix, ".npz"), _arrays(prepared, found, views, windows, job)))
    for path, content in files:
        write(path, content)
    notes = found.notes if found.relevance.any() else (*found.notes, "all relevance is zero")
    return SoundResult(
        clip.path, windows, moments(views[0], job.top), tuple(path for path, _ in files), prepared.describe(), notes
    )


def _window(prepared: PreparedSound, index: int, reading: Reading, last: int) -> WindowResult:
    start = prepared.starts[index]
    end = min(prepared.starts[last] + prepared.windows.length / prepared.clip.rate, prepared.clip.seconds)
    heading = "; ".join(subject.heading for subject in reading.subjects)
    return WindowResult(start, end, heading, reading.subjects[0].detail)


def _caption(prepared: PreparedSound, readings: Sequence[Reading], place: int, job: Job) -> Caption:
    subjects = [reading.subjects[place] for reading in readings]
    if len(subjects) == 1:
        heading, detail = subjects[0].heading, subjects[0].detail
    else:
        names = list(dict.fromkeys(subject.heading for subject in subjects))
        heading = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        detail = f"in {len(subjects)} windows"
    clip = prepared.clip
    origin = DOT.join((f"model {job.model}", f"rules {job.rules}", f"sound {clip.path.name}", prepared.describe()))
    return Caption(heading, detail, (origin,))


def _arrays(
    prepared: PreparedSound, found: _Found, views: Sequence[SoundView], windows: Sequence[WindowResult], job: Job
) -> bytes:
    """`relevance` and `input` [windows, ...] as the model has them, the clip, and relevance on its time."""
    settings = {
        "sound": str(prepared.clip.path),
        "model": job.model,
        "rules": job.rules,
        "target": list(job.target) if isinstance(job.target, tuple) else job.target,
        "rate": prepared.clip.rate,
        "window_starts": prepared.windows.starts,
        "explained": [window.target for window in windows],
        "preparation": prepared.describe(),
    }
    several = job.maps is not None
    outputs = found.answers[0].outputs
    relevance = found.relevance if several else found.relevance[:, 0]
    return npz(
        {
            "relevance": relevance.astype(np.float32),
            "input": prepared.arrays,
            "samples": prepared.clip.samples.astype(np.float32),
            "relevance_over_time": np.stack([view.over_time for view in views]),
            "relevance_over_frequency": np.stack([view.map.relevance for view in views]).astype(np.float32),
            "times": views[0].map.times,
            "frequencies": views[0].map.frequencies,
            "settings": np.asarray(json.dumps(settings)),
            **{f"output/{name}": np.stack([a.outputs[name] for a in found.answers]) for name in outputs},
        }
    )
