"""From a sound file to the windows that a model takes: samples, or spectrograms of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from onnxlrp.errors import UsageError
from onnxlrp.explain.sound import Clip, Windows, read_sound, windows_for
from onnxlrp.explain.sound_input import SoundInput
from onnxlrp.explain.spectrogram import Spectrogram


@dataclass(frozen=True)
class SoundOptions:
    """How sound is prepared.

    Attributes:
        rate: samples per second that the model expects; None: as the file has them, which the result says.
        window: samples in a window, where the model leaves their number open; None: the whole clip.
        hop: samples from one window to the next; None: windows follow one another without overlap.
        spectrogram: what the model takes in place of samples.
    """

    rate: int | None = None
    window: int | None = None
    hop: int | None = None
    spectrogram: Spectrogram | None = None


@dataclass(frozen=True)
class PreparedSound:
    """A clip ready for the model: `arrays` [windows, ...] without the model's batch axis."""

    clip: Clip
    windows: Windows
    arrays: np.ndarray
    sound_input: SoundInput
    spectrogram: Spectrogram | None

    def describe(self) -> str:
        rows = self.sound_input.rows
        parts = [
            f"{self.clip.rate} Hz",
            f"{rows} {'bins' if self.spectrogram else 'channel' if rows == 1 else 'channels'}",
        ]
        if self.spectrogram:
            parts[1] = f"{self.spectrogram.kind} of {rows} bins, a frame every {self.spectrogram.hop} samples"
        count = len(self.windows.starts)
        length = self.windows.length / self.clip.rate
        parts.append(f"{count} window{'s' if count > 1 else ''} of {length:.3f} s ({self.windows.length} samples)")
        return ", ".join(parts)

    @property
    def starts(self) -> list[float]:
        """Where the windows begin, in seconds."""
        return [start / self.clip.rate for start in self.windows.starts]


def prepare_sound(file: Path, sound_input: SoundInput, options: SoundOptions) -> PreparedSound:
    """Read, resample, mix and cut one file. Raises UsageError where file, options and model do not fit."""
    spectrogram = options.spectrogram
    clip = read_sound(file, options.rate).with_channels(1 if spectrogram else sound_input.rows)
    if options.rate is None:
        clip = replace(clip, notes=(*clip.notes, f"taken at the file's own {clip.rate} Hz; --rate states the model's"))
    fixed = sound_input.length
    if fixed is not None and spectrogram is not None:
        fixed = spectrogram.samples(fixed)
    if options.window is not None and fixed not in (None, options.window):
        raise UsageError(f"--window {options.window} does not fit the model, whose window has {fixed} samples")
    windows = windows_for(clip.samples.shape[1], fixed or options.window, options.hop)
    parts = windows.cut(clip.samples)
    silent = windows.starts[-1] + windows.length - clip.samples.shape[1]
    if silent > 0:
        clip = replace(clip, notes=(*clip.notes, f"filled up with {silent / clip.rate:.3f} s of silence at the end"))
    if spectrogram is not None:
        frames = sound_input.length
        parts = np.stack([spectrogram.of(part[0], clip.rate)[:, :frames] for part in parts])
    arrays = np.stack([sound_input.arrange(part) for part in parts])
    return PreparedSound(clip, windows, arrays, sound_input, spectrogram)
