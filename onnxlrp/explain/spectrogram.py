"""Spectrograms: those that models take, and the one that shows over which frequencies relevance spreads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Literal, get_args

import numpy as np

from onnxlrp.errors import UsageError

Kind = Literal["magnitude", "power", "log-power", "mel", "log-mel"]
MelScale = Literal["htk", "slaney"]
Normal = Literal["none", "bins", "all"]

_TINY = 1e-12
#: How the settings are read, by the type that their fields state.
_TYPES: Mapping[str, Callable[[str], object]] = {"int": int, "float": float, "MelScale": str, "Normal": str}


@dataclass(frozen=True)
class Spectrogram:
    """How a model's spectrogram is made of samples. All lengths are in samples, frequencies in Hz.

    Attributes:
        kind: "mel" sums the power in triangular bands; "log-" takes the natural logarithm of value + floor.
        n_fft: length of the Fourier transform.
        window: length of the periodic Hann window in its middle; 0: n_fft.
        hop: from one frame to the next.
        bins: number of mel bands; without mel there are n_fft / 2 + 1 bins.
        low: lower end of the mel bands.
        high: upper end of the mel bands; 0: half the sampling rate.
        scale: mel scale; librosa and Whisper take "slaney" with area=1.
        area: 1: each band is divided by half its width, so that all have the same area.
        floor: added before the logarithm.
        centered: whether frame i is centred on sample i * hop (reflected at the ends) or starts there.
        preemphasis: a in x[t] - a * x[t - 1].
        loudness: 1: samples of a window are brought to mean 0 and deviation 1.
        normal: "bins" or "all": values are brought to mean 0 and deviation 1 over each bin's frames, or over all.
    """

    kind: Kind = "log-mel"
    n_fft: int = 512
    window: int = 0
    hop: int = 160
    bins: int = 64
    low: float = 0.0
    high: float = 0.0
    scale: MelScale = "htk"
    area: int = 0
    floor: float = 1e-5
    centered: int = 1
    preemphasis: float = 0.0
    loudness: int = 0
    normal: Normal = "none"

    @property
    def rows(self) -> int:
        """How many frequency bins there are."""
        return self.bins if self.kind.endswith("mel") else self.n_fft // 2 + 1

    def samples(self, frames: int) -> int:
        """How many samples give that many frames."""
        return (frames - 1) * self.hop + (0 if self.centered else self.n_fft)

    def frequencies(self, rate: int) -> np.ndarray:
        """The centre of each bin in Hz."""
        if self.kind.endswith("mel"):
            return self._edges(rate)[1:-1]
        result: np.ndarray = np.arange(self.rows) * rate / self.n_fft
        return result

    def _edges(self, rate: int) -> np.ndarray:
        ends = _to_mel(np.array([self.low, self.high or rate / 2]), self.scale)
        places: np.ndarray = np.linspace(ends[0], ends[1], self.bins + 2)
        return _from_mel(places, self.scale)

    def of(self, samples: np.ndarray, rate: int) -> np.ndarray:
        """[time] -> [bins, frames], float64."""
        x = samples.astype(np.float64)
        if self.preemphasis:
            x = np.concatenate([x[:1], x[1:] - self.preemphasis * x[:-1]])
        if self.loudness:
            x = (x - x.mean()) / (x.std() + 1e-5)
        power = np.abs(_frames(x, self.n_fft, self.window or self.n_fft, self.hop, bool(self.centered))) ** 2
        if self.kind.endswith("mel"):
            power = self._bands(rate) @ power
        values: np.ndarray = np.sqrt(power) if self.kind == "magnitude" else power
        if self.kind.startswith("log-"):
            values = np.log(values + self.floor)
        if self.normal != "none":
            axis = 1 if self.normal == "bins" else None
            values = (values - values.mean(axis=axis, keepdims=True)) / (values.std(axis=axis, keepdims=True) + 1e-5)
        return values

    def _bands(self, rate: int) -> np.ndarray:
        """Triangles [bins, n_fft / 2 + 1]."""
        edges = self._edges(rate)[:, None]
        hertz = np.arange(self.n_fft // 2 + 1)[None] * rate / self.n_fft
        rising = (hertz - edges[:-2]) / (edges[1:-1] - edges[:-2])
        falling = (edges[2:] - hertz) / (edges[2:] - edges[1:-1])
        bands = np.clip(np.minimum(rising, falling), 0.0, None)
        result: np.ndarray = bands * 2.0 / (edges[2:] - edges[:-2]) if self.area else bands
        return result


def parse_spectrogram(text: str) -> Spectrogram:
    """`log-mel`, or with numbers: `log-mel,n_fft=512,hop=160,bins=64`.

    Raises UsageError for unknown names and values that do not fit.
    """
    kind, *pairs = [part.strip() for part in text.split(",")]
    given: dict[str, object] = {"kind": kind}
    known = {field.name: field for field in fields(Spectrogram) if field.name != "kind"}
    for pair in pairs:
        name, sign, value = pair.partition("=")
        if name not in known or not sign:
            raise UsageError(f"{pair!r} is no setting of a spectrogram; write name=value with: {', '.join(known)}")
        try:
            given[name] = _TYPES[str(known[name].type)](value)
        except ValueError:
            raise UsageError(f"{name}={value} in the spectrogram is no number") from None
    made = Spectrogram(**given)  # type: ignore[arg-type]
    for name, choices in (("kind", get_args(Kind)), ("scale", get_args(MelScale)), ("normal", get_args(Normal))):
        if getattr(made, name) not in choices:
            raise UsageError(f"{getattr(made, name)!r} is no {name} of a spectrogram; there are: {', '.join(choices)}")
    if min(made.n_fft, made.hop, made.bins) < 1 or not 0 <= made.window <= made.n_fft:
        raise UsageError("n_fft, hop and bins of a spectrogram are at least 1, and the window is no longer than n_fft")
    return made


def _hann(length: int) -> np.ndarray:
    result: np.ndarray = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / length)
    return result


def _frames(x: np.ndarray, n_fft: int, window: int, hop: int, centered: bool) -> np.ndarray:
    """Windowed Fourier transforms, [n_fft / 2 + 1, frames]."""
    if centered:
        x = np.pad(x, n_fft // 2, mode="reflect" if len(x) > n_fft // 2 else "constant")
    x = np.pad(x, (0, max(0, n_fft - len(x))))
    shape = np.zeros(n_fft)
    left = (n_fft - window) // 2
    shape[left : left + window] = _hann(window)
    parts = np.lib.stride_tricks.sliding_window_view(x, n_fft)[::hop]
    return np.fft.rfft(parts * shape, axis=1).T


def _to_mel(hertz: np.ndarray, scale: MelScale) -> np.ndarray:
    """HTK: 2595 log10(1 + f / 700). Slaney: linear to 1000 Hz, logarithmic above."""
    if scale == "htk":
        htk: np.ndarray = 2595.0 * np.log10(1.0 + hertz / 700.0)
        return htk
    above = 15.0 + 27.0 * np.log(np.maximum(hertz, 1000.0) / 1000.0) / np.log(6.4)
    return np.where(hertz < 1000.0, 3.0 * hertz / 200.0, above)


def _from_mel(mel: np.ndarray, scale: MelScale) -> np.ndarray:
    if scale == "htk":
        htk: np.ndarray = 700.0 * (10.0 ** (mel / 2595.0) - 1.0)
        return htk
    above = 1000.0 * np.exp((np.maximum(mel, 15.0) - 15.0) * np.log(6.4) / 27.0)
    return np.where(mel < 15.0, 200.0 * mel / 3.0, above)


@dataclass(frozen=True)
class TimeFrequency:
    """Sound and its relevance over frequency and time; arrays are [bins, frames].

    `level` is the sound's own spectrogram in decibels, `times` and `frequencies` are centres in seconds and Hz.
    """

    level: np.ndarray
    relevance: np.ndarray
    times: np.ndarray
    frequencies: np.ndarray


def time_frequency(samples: np.ndarray, relevance: np.ndarray, rate: int, n_fft: int | None = None) -> TimeFrequency:
    """Relevance of samples as relevance of the frequencies that they are made of; its sum stays the same.

    A virtual inspection layer (Vielhaben, Lapuschkin, Montavon and Samek, Explainable AI for time series via virtual
    inspection layers, 2023, DFT-LRP and STDFT-LRP): the samples are written as the sum of their inverse short-time
    Fourier transforms, a linear layer, whose parts receive R / x times what they contribute.

    Args:
        samples: [time].
        relevance: [time]; where a sample is zero there is nothing to share.
        n_fft: length of the transform; about 80 ms when None.
    """
    length = n_fft or 1 << max(4, round(np.log2(0.08 * rate)))
    hop = length // 4
    x = np.pad(samples.astype(np.float64), length)
    r = np.pad(relevance.astype(np.float64), length)
    multiplier = np.divide(r, x, out=np.zeros_like(x), where=np.abs(x) > _TINY * max(np.abs(x).max(), _TINY))
    window = _hann(length)
    starts = range(0, len(x) - length + 1, hop)
    cover = np.zeros(len(x))
    for start in starts:
        cover[start : start + length] += window
    shared = np.divide(multiplier, cover, out=np.zeros_like(x), where=cover > 1e-9)
    view = np.lib.stride_tricks.sliding_window_view
    spectrum = np.fft.rfft(view(x, length)[::hop] * window, axis=1).T
    dual = np.fft.rfft(view(shared, length)[::hop], axis=1).T
    weight = np.full((length // 2 + 1, 1), 2.0 / length)
    weight[0] = weight[-1] = 1.0 / length  # the only two that have no twin at a negative frequency
    parts = weight * (spectrum * dual.conj()).real
    times = (np.array(starts) + length / 2 - length) / rate
    inside = (times >= 0) & (times <= len(samples) / rate)
    parts[:, np.flatnonzero(inside)[0]] += parts[:, : np.flatnonzero(inside)[0]].sum(axis=1)
    parts[:, np.flatnonzero(inside)[-1]] += parts[:, np.flatnonzero(inside)[-1] + 1 :].sum(axis=1)
    level = 20.0 * np.log10(np.abs(spectrum) + 1e-9)
    hertz = np.arange(length // 2 + 1) * rate / length
    return TimeFrequency(level[:, inside], parts[:, inside], times[inside], hertz)
