"""Sound files in: read, brought to a sampling rate, cut into windows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np

from onnxlrp.errors import UsageError

#: File name endings that stand for sound.
SUFFIXES = frozenset([".aif", ".aiff", ".flac", ".mp3", ".oga", ".ogg", ".opus", ".wav"])


@dataclass(frozen=True)
class Clip:
    """One sound: `samples` [channels, time] float64 in -1..1 at `rate` per second."""

    path: Path
    samples: np.ndarray
    rate: int
    notes: tuple[str, ...] = ()

    @property
    def seconds(self) -> float:
        """How long it is."""
        return float(self.samples.shape[1] / self.rate)

    def with_channels(self, count: int) -> Clip:
        """Mixed to one channel, or one channel repeated. Raises UsageError for other changes."""
        have = self.samples.shape[0]
        if have == count:
            return self
        if count == 1:
            note = f"{have} channels mixed to one"
            return Clip(self.path, self.samples.mean(axis=0, keepdims=True), self.rate, (*self.notes, note))
        if have == 1:
            note = f"one channel repeated {count} times"
            return Clip(self.path, np.repeat(self.samples, count, axis=0), self.rate, (*self.notes, note))
        raise UsageError(f"{self.path}: has {have} channels, the model takes {count}; mix it to one or {count}")


def read_sound(path: Path, rate: int | None) -> Clip:
    """Read a sound file; with `rate` it is resampled where it has another.

    Raises UsageError when it cannot be read, is empty or not finite, or when a library that this needs is missing.
    """
    soundfile = _library("soundfile", "reading sound")
    try:
        samples, own = soundfile.read(str(path), dtype="float64", always_2d=True)
    except (OSError, RuntimeError) as error:
        reason = "no such file" if not path.exists() else str(error).splitlines()[0]
        raise UsageError(f"{path}: the sound cannot be read: {reason}") from None
    if not len(samples) or not np.isfinite(samples).all():
        raise UsageError(f"{path}: the sound {'is empty' if not len(samples) else 'has samples that are not finite'}")
    if rate is None or rate == own:
        return Clip(path, samples.T.copy(), int(own))
    resampled = _library("soxr", "resampling sound").resample(samples, own, rate, quality="VHQ")
    return Clip(path, np.asarray(resampled).T.copy(), rate, (f"resampled from {own} Hz to {rate} Hz",))


def _library(name: str, purpose: str) -> ModuleType:
    from importlib import import_module

    try:
        return import_module(name)
    except (ImportError, OSError) as error:
        raise UsageError(
            f"{purpose} needs the package {name} ({error}); install it with: pip install 'onnxlrp[audio]'"
        ) from None


@dataclass(frozen=True)
class Windows:
    """Where windows of `length` samples start; the last may reach beyond the clip and is filled with silence."""

    starts: tuple[int, ...]
    length: int

    def cut(self, samples: np.ndarray) -> np.ndarray:
        """[channels, time] -> [windows, channels, length]."""
        end = self.starts[-1] + self.length
        padded = np.pad(samples, ((0, 0), (0, max(0, end - samples.shape[1]))))
        return np.stack([padded[:, start : start + self.length] for start in self.starts])

    def together(self, parts: np.ndarray, total: int) -> np.ndarray:
        """Sum of overlapping parts [windows, channels, length] on the clip's own time: [channels, total]."""
        end = max(total, self.starts[-1] + self.length)
        result = np.zeros((parts.shape[1], end))
        for start, part in zip(self.starts, parts, strict=True):
            result[:, start : start + self.length] += part
        return result[:, :total]


def windows_for(total: int, length: int | None, hop: int | None) -> Windows:
    """As many windows as reach the end of `total` samples; one that takes all where no length is fixed.

    Raises UsageError for a hop that leaves samples out.
    """
    if length is None:
        return Windows((0,), total)
    step = length if hop is None else hop
    if not 0 < step <= length:
        raise UsageError(f"--hop {step} leaves samples out: a window has {length}")
    count = 1 + max(0, -(-(total - length) // step))
    return Windows(tuple(step * i for i in range(count)), length)
