"""Spectrograms against their definitions written out, and relevance over frequency against a slow replica."""

from __future__ import annotations

import numpy as np
import pytest

from onnxlrp.errors import UsageError
from onnxlrp.explain.spectrogram import Spectrogram, parse_spectrogram, time_frequency
from tests.graph.written import normal


def slow_power(x: np.ndarray, start: int, n_fft: int, window: int) -> np.ndarray:
    """|sum_t hann(t) x(t) exp(-2 pi i k t / n_fft)|^2 of one frame, the window in its middle."""
    left = (n_fft - window) // 2
    found = []
    for k in range(n_fft // 2 + 1):
        total = 0j
        for t in range(window):
            hann = np.sin(np.pi * t / window) ** 2
            total += hann * x[start + left + t] * np.exp(-2j * np.pi * k * (left + t) / n_fft)
        found.append(abs(total) ** 2)
    return np.array(found)


def test_power_is_the_square_of_the_windowed_fourier_transform():
    x = normal(40, seed=1)
    made = Spectrogram("power", n_fft=16, window=12, hop=4, centered=0).of(x, 100)
    assert made.shape == (9, 7)
    for frame in range(7):
        np.testing.assert_allclose(made[:, frame], slow_power(x, 4 * frame, 16, 12), rtol=1e-9, atol=1e-9)


def test_centred_frames_lie_around_their_sample_and_are_reflected_at_the_ends():
    x = normal(40, seed=1)
    mirrored = np.concatenate([x[8:0:-1], x, x[-2:-10:-1]])
    made = Spectrogram("magnitude", n_fft=16, hop=4).of(x, 100)
    assert made.shape == (9, 11)
    for frame in range(11):
        np.testing.assert_allclose(made[:, frame] ** 2, slow_power(mirrored, 4 * frame, 16, 16), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("scale", ["htk", "slaney"])
@pytest.mark.parametrize("area", [0, 1])
def test_mel_bands_are_triangles_at_equal_steps_of_the_scale(scale, area):
    """Each band of a spectrum with power at one frequency alone is the height of its triangle there."""
    settings = Spectrogram("mel", n_fft=512, hop=512, bins=6, low=100, high=3000, scale=scale, area=area, centered=0)
    hertz = np.arange(257) * 8000 / 512
    to_mel = {
        "htk": lambda f: 1127.01048 * np.log(1 + f / 700),
        "slaney": lambda f: f / (200 / 3) if f < 1000 else 15 + np.log(f / 1000) / (np.log(6.4) / 27),
    }[scale]
    mels = np.linspace(to_mel(100), to_mel(3000), 8)
    grid = np.linspace(0, 4000, 400001)
    edges = np.interp(mels, [to_mel(f) for f in grid[::100]], grid[::100])
    x = normal(512, seed=3)
    power = slow_power(x, 0, 512, 512)
    for band, (low, middle, high) in enumerate(zip(edges, edges[1:], edges[2:], strict=False)):
        heights = np.interp(hertz, [low, middle, high], [0, 1, 0], left=0, right=0)
        expected = heights @ power * (2 / (high - low) if area else 1)
        np.testing.assert_allclose(settings.of(x, 8000)[band, 0], expected, rtol=2e-3)
    np.testing.assert_allclose(settings.frequencies(8000), edges[1:-1], rtol=1e-3)


def test_logarithm_preemphasis_loudness_and_normalisation_in_their_order():
    x = normal(64, seed=4)
    base = Spectrogram("power", n_fft=16, hop=8)
    np.testing.assert_allclose(
        Spectrogram("log-power", n_fft=16, hop=8, floor=0.5).of(x, 9), np.log(base.of(x, 9) + 0.5)
    )
    sharp = x.astype(np.float64).copy()
    sharp[1:] -= 0.9 * x[:-1].astype(np.float64)
    np.testing.assert_allclose(Spectrogram("power", n_fft=16, hop=8, preemphasis=0.9).of(x, 9), base.of(sharp, 9))
    level = (sharp - sharp.mean()) / (sharp.std() + 1e-5)
    both = Spectrogram("power", n_fft=16, hop=8, preemphasis=0.9, loudness=1)
    np.testing.assert_allclose(both.of(x, 9), base.of(level, 9))
    plain = base.of(x, 9)
    by_bin = Spectrogram("power", n_fft=16, hop=8, normal="bins").of(x, 9)
    np.testing.assert_allclose(by_bin[3], (plain[3] - plain[3].mean()) / (plain[3].std() + 1e-5))
    whole = Spectrogram("power", n_fft=16, hop=8, normal="all").of(x, 9)
    np.testing.assert_allclose(whole, (plain - plain.mean()) / (plain.std() + 1e-5))


@pytest.mark.parametrize("centered", [0, 1])
def test_frames_and_samples_belong_together(centered):
    settings = Spectrogram("power", n_fft=32, hop=8, centered=centered)
    assert settings.of(np.zeros(settings.samples(7)), 100).shape == (17, 7)


def test_settings_are_written_as_names_and_values():
    assert parse_spectrogram("log-mel") == Spectrogram()
    text = "power, n_fft=400, hop=100, scale=slaney, area=1, preemphasis=0.97, normal=bins"
    expected = Spectrogram("power", n_fft=400, hop=100, scale="slaney", area=1, preemphasis=0.97, normal="bins")
    assert parse_spectrogram(text) == expected


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("mfcc", "'mfcc' is no kind of a spectrogram; there are: magnitude, power"),
        ("mel,size=3", "'size=3' is no setting"),
        ("mel,hop", "'hop' is no setting"),
        ("mel,kind=mel", "'kind=mel' is no setting"),
        ("mel,hop=x", "hop=x in the spectrogram is no number"),
        ("mel,hop=1.5", "hop=1.5 in the spectrogram is no number"),
        ("mel,scale=bark", "'bark' is no scale"),
        ("mel,normal=x", "'x' is no normal"),
        ("mel,hop=0", "at least 1"),
        ("mel,n_fft=64,window=65", "no longer than n_fft"),
    ],
)
def test_other_settings_are_refused(text, reason):
    with pytest.raises(UsageError, match=reason):
        parse_spectrogram(text)


def slow_time_frequency(x: np.ndarray, r: np.ndarray, n: int) -> np.ndarray:
    """sum_t r(t) / x(t) * (what bin k of frame j contributes to x(t)), bin by bin and frame by frame.

    x is the sum over frames of the inverse transform of its windowed part, over the sum of all windows.
    """
    hop = n // 4
    x, r = np.pad(x, n), np.pad(r, n)
    hann = np.sin(np.pi * np.arange(n) / n) ** 2
    starts = list(range(0, len(x) - n + 1, hop))
    cover = sum(np.pad(hann, (s, len(x) - n - s)) for s in starts)
    parts = np.zeros((n // 2 + 1, len(starts)))
    rebuilt = np.zeros(len(x))
    for j, s in enumerate(starts):
        spectrum = np.fft.fft(hann * x[s : s + n])
        for k in range(n // 2 + 1):
            alone = np.zeros(n, complex)
            for twin in {k, -k % n}:
                alone[twin] = spectrum[twin]
            share = np.fft.ifft(alone).real
            for t in range(n):
                if x[s + t] and cover[s + t] > 1e-9:
                    rebuilt[s + t] += share[t] / cover[s + t]
                    parts[k, j] += share[t] / cover[s + t] * r[s + t] / x[s + t]
    np.testing.assert_allclose(rebuilt, x, atol=1e-9)
    return parts


def test_relevance_over_frequency_is_that_of_the_transforms_that_make_up_the_sound():
    x, r = normal(48, seed=6).astype(np.float64), normal(48, seed=7).astype(np.float64)
    found = time_frequency(x, r, 1000, n_fft=16)
    expected = slow_time_frequency(x, r, 16)
    assert (found.times >= 0).all() and found.times[-1] <= 0.048
    inner = slice(1, -1)  # frames beyond the ends are added to the first and the last
    first = round((0 - (16 / 2 - 16) / 1000) * 1000 / 4)
    np.testing.assert_allclose(
        found.relevance[:, inner], expected[:, first + 1 : first + len(found.times) - 1], atol=1e-9
    )
    np.testing.assert_allclose(found.relevance.sum(axis=1), expected.sum(axis=1), atol=1e-9)
    assert found.relevance.sum() == pytest.approx(r.sum(), rel=1e-9)


def test_a_tone_that_is_relevant_shows_at_its_frequency_and_time():
    rate = 8000
    t = np.arange(rate) / rate
    low, high = np.sin(2 * np.pi * 440 * t) * (t < 0.5), np.sin(2 * np.pi * 1500 * t) * (t > 0.4)
    x = low + high + 1e-6
    found = time_frequency(x, x * high, rate)  # what a linear detector of the high tone would say
    frequency, time = np.unravel_index(found.relevance.argmax(), found.relevance.shape)
    assert found.frequencies[frequency] == pytest.approx(1500, abs=rate / 640)
    assert found.times[time] > 0.4
    near = np.abs(found.frequencies - 1500) < 40
    assert found.relevance[near].sum() > 0.95 * (x * high).sum()


def test_silence_has_no_relevance_and_no_division_by_zero():
    x, r = np.zeros(2000), np.zeros(2000)
    x[1000:1100] = r[1000:1100] = 1.0
    found = time_frequency(x, r, 1000)
    assert np.isfinite(found.relevance).all() and found.relevance.sum() == pytest.approx(100, rel=1e-6)
    assert not time_frequency(np.zeros(500), np.zeros(500), 1000).relevance.any()
