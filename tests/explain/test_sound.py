"""Sound files in, and the windows that a clip is cut into."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import soundfile

from onnxlrp.errors import UsageError
from onnxlrp.explain.sound import Clip, read_sound, windows_for
from tests.graph.written import normal


def tone(hertz: float, rate: int, seconds: float = 0.5) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(int(rate * seconds)) / rate)


def test_samples_are_read_as_they_are(tmp_path):
    samples = 0.1 * normal(500, 2, seed=1)
    soundfile.write(tmp_path / "a.wav", samples, 8000, subtype="FLOAT")
    clip = read_sound(tmp_path / "a.wav", None)
    np.testing.assert_array_equal(clip.samples, samples.T)
    assert (clip.rate, clip.seconds, clip.notes) == (8000, 500 / 8000, ())
    assert read_sound(tmp_path / "a.wav", 8000).notes == ()


def test_another_rate_is_resampled_and_said(tmp_path):
    soundfile.write(tmp_path / "a.flac", tone(440, 44100), 44100)
    clip = read_sound(tmp_path / "a.flac", 16000)
    assert clip.samples.shape == (1, 8000) and clip.notes == ("resampled from 44100 Hz to 16000 Hz",)
    inner = slice(500, -500)
    np.testing.assert_allclose(clip.samples[0, inner], tone(440, 16000)[inner], atol=1e-3)


def test_what_is_no_sound_is_refused_by_name(tmp_path):
    (tmp_path / "text.wav").write_text("hello")
    soundfile.write(tmp_path / "empty.wav", np.zeros(0), 8000)
    soundfile.write(tmp_path / "nan.wav", np.array([0.0, np.nan]), 8000, subtype="FLOAT")
    for name, reason in (("none", "no such file"), ("text", "cannot be read"), ("empty", "empty"), ("nan", "finite")):
        with pytest.raises(UsageError, match=rf"{name}\.wav: .*{reason}"):
            read_sound(tmp_path / f"{name}.wav", None)


@pytest.mark.parametrize(("module", "rate"), [("soundfile", None), ("soxr", 4000)])
def test_a_missing_library_is_named_with_what_installs_it(tmp_path, monkeypatch, module, rate):
    soundfile.write(tmp_path / "a.wav", np.zeros(10), 8000)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UsageError, match=rf"needs the package {module} .*pip install 'onnxlrp\[audio\]'"):
        read_sound(tmp_path / "a.wav", rate)


def test_channels_are_mixed_or_repeated_and_nothing_else(tmp_path):
    stereo = Clip(tmp_path / "a.wav", np.array([[1.0, 2.0], [3.0, 6.0]]), 8000)
    mono = stereo.with_channels(1)
    np.testing.assert_array_equal(mono.samples, [[2.0, 4.0]])
    assert mono.notes == ("2 channels mixed to one",)
    np.testing.assert_array_equal(mono.with_channels(2).samples, [[2.0, 4.0], [2.0, 4.0]])
    assert stereo.with_channels(2) is stereo
    with pytest.raises(UsageError, match="has 2 channels, the model takes 3"):
        stereo.with_channels(3)


@pytest.mark.parametrize(
    ("total", "length", "hop", "starts"),
    [
        (10, None, None, (0,)),
        (10, 10, None, (0,)),
        (10, 20, None, (0,)),
        (10, 4, None, (0, 4, 8)),
        (12, 4, None, (0, 4, 8)),
        (10, 4, 2, (0, 2, 4, 6)),
        (11, 4, 2, (0, 2, 4, 6, 8)),
    ],
)
def test_windows_reach_the_end_and_no_further_than_needed(total, length, hop, starts):
    assert windows_for(total, length, hop).starts == starts


@pytest.mark.parametrize("hop", [0, 5])
def test_a_hop_that_leaves_samples_out_is_refused(hop):
    with pytest.raises(UsageError, match=f"--hop {hop} leaves samples out: a window has 4"):
        windows_for(10, 4, hop)


def test_windows_cut_and_put_together_count_each_sample_as_often_as_it_was_seen():
    windows = windows_for(11, 4, 2)
    samples = np.arange(22.0).reshape(2, 11)
    parts = windows.cut(samples)
    assert parts.shape == (5, 2, 4)
    np.testing.assert_array_equal(parts[1], samples[:, 2:6])
    np.testing.assert_array_equal(parts[4], np.pad(samples[:, 8:], ((0, 0), (0, 1))))
    seen = np.array([1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 1])
    np.testing.assert_array_equal(windows.together(parts, 11), samples * seen)
