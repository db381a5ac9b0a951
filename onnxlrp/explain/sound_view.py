"""Relevance of a model's windows on the clip's own time and over frequency, and the moments with most of it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from onnxlrp.explain.sound_picture import SoundView, nice_step
from onnxlrp.explain.sound_prepare import PreparedSound
from onnxlrp.explain.spectrogram import TimeFrequency, time_frequency

#: Into how many moments a clip is cut at most, and the shortest one in seconds.
_MOMENTS, _SHORTEST = 100, 0.01


@dataclass(frozen=True)
class Moment:
    """A stretch of time, its relevance, its share of all moments' |relevance|, and the frequency with most of it."""

    start: float
    end: float
    relevance: float
    share: float
    frequency: float


def view_of(prepared: PreparedSound, relevance: np.ndarray) -> SoundView:
    """One map on the clip's own time; `relevance` is [windows, rows, time]."""
    clip = prepared.clip
    total = clip.samples.shape[1]
    count = moments_in(clip.seconds)
    mixed = clip.samples.mean(axis=0)
    if prepared.spectrogram is not None:
        shown = _frames_together(prepared, relevance)
        over_time = _binned(shown.relevance.sum(axis=0), shown.times / clip.seconds, count)
        return SoundView(mixed, clip.rate, over_time, shown)
    samples = prepared.windows.together(relevance, total)
    over_time = _binned(samples.sum(axis=0), (np.arange(total) + 0.5) / total, count)
    parts = [time_frequency(x, r, clip.rate) for x, r in zip(clip.samples, samples, strict=True)]
    shown = replace(parts[0], relevance=np.sum([part.relevance for part in parts], axis=0))
    return SoundView(mixed, clip.rate, over_time, shown)


def _frames_together(prepared: PreparedSound, relevance: np.ndarray) -> TimeFrequency:
    """The frames of all windows on one grid of time, overlapping ones added up."""
    assert prepared.spectrogram is not None
    clip, spectrogram = prepared.clip, prepared.spectrogram
    offset = 0 if spectrogram.centered else spectrogram.n_fft // 2
    plain = replace(spectrogram, kind="log-mel" if spectrogram.kind.endswith("mel") else "log-power", normal="none")
    padded = np.pad(
        clip.samples[0], (0, max(0, prepared.windows.starts[-1] + prepared.windows.length - len(clip.samples[0])))
    )
    level = replace(plain, floor=1e-12, loudness=0, preemphasis=0.0).of(padded, clip.rate)
    places = [round(start / spectrogram.hop) for start in prepared.windows.starts]
    width = places[-1] + relevance.shape[2]
    level = np.pad(level, ((0, 0), (0, max(0, width - level.shape[1]))), mode="edge")[:, :width]
    result = np.zeros_like(level)
    for place, part in zip(places, relevance, strict=True):
        result[:, place : place + part.shape[1]] += part
    times = (np.arange(width) * spectrogram.hop + offset) / clip.rate
    return TimeFrequency(level * 10 / np.log(10), result, times, spectrogram.frequencies(clip.rate))


def moments_in(seconds: float) -> int:
    """Into how many equal moments a clip of that length is cut."""
    step = max(_SHORTEST, nice_step(seconds / _MOMENTS))
    return max(1, round(seconds / step))


def _binned(values: np.ndarray, places: np.ndarray, count: int) -> np.ndarray:
    """Sums of the values at places in 0..1 over `count` equal parts."""
    parts = np.clip((places * count).astype(np.int64), 0, count - 1)
    return np.bincount(parts, weights=values, minlength=count)


def moments(view: SoundView, count: int) -> tuple[Moment, ...]:
    """The `count` moments with the largest |relevance|, largest first; those without any are left out."""
    width = view.seconds / len(view.over_time)
    mass = float(np.abs(view.over_time).sum()) or 1.0
    order = np.argsort(-np.abs(view.over_time), kind="stable")[:count]
    found = []
    for place in order:
        value = float(view.over_time[place])
        if value == 0.0:
            break
        frames = np.abs(view.map.times - (place + 0.5) * width) <= width / 2
        if not frames.any():
            frames = np.arange(len(view.map.times)) == np.abs(view.map.times - (place + 0.5) * width).argmin()
        bins = view.map.relevance[:, frames].sum(axis=1) * np.sign(value)
        found.append(
            Moment(
                place * width, (place + 1) * width, value, abs(value) / mass, float(view.map.frequencies[bins.argmax()])
            )
        )
    return tuple(found)
