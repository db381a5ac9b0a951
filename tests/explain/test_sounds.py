"""Sound in, pictures, moments and numbers out: the whole way with linear models."""

from __future__ import annotations

import json

import numpy as np
import pytest
import soundfile
from PIL import Image

from onnxlrp.errors import OnnxLrpError, UsageError
from onnxlrp.explain import sounds
from onnxlrp.explain.sound_prepare import SoundOptions
from onnxlrp.explain.sounds import explain_sounds
from onnxlrp.explain.spectrogram import Spectrogram
from tests.explain.linear import EXACT, best, samples_model
from tests.graph.written import network, normal

RATE = 1000


def clip(path, samples):
    soundfile.write(path, samples, RATE, subtype="FLOAT")
    return path


def explain(model, file, out, options=None, **more):
    (result,) = explain_sounds(model, [file], options=options or SoundOptions(RATE), out_dir=out, rules=EXACT, **more)
    return result


def saved(result):
    with np.load(result.files[-1]) as arrays:
        return dict(arrays)


def test_a_clip_longer_than_the_window_is_cut_and_filled_up(tmp_path):
    model, w = samples_model(200)
    x = 0.1 * normal(500, seed=1)
    result = explain(model, clip(tmp_path / "a.wav", x), tmp_path / "out", labels=["low", "high"])
    parts = np.pad(x, (0, 100)).reshape(3, 200)
    arrays = saved(result)
    np.testing.assert_allclose(arrays["input"], parts, rtol=1e-6)
    np.testing.assert_allclose(arrays["relevance"].reshape(3, 200), best(parts, w), rtol=1e-4, atol=1e-7)
    assert [window.target for window in result.windows] == [["low", "high"][k] for k in (parts @ w).argmax(axis=1)]
    assert [(window.start, window.end) for window in result.windows] == [(0.0, 0.2), (0.2, 0.4), (0.4, 0.5)]
    assert result.notes == ("filled up with 0.100 s of silence at the end",)
    assert result.preparation == "1000 Hz, 1 channel, 3 windows of 0.200 s (200 samples)"
    assert [file.name for file in result.files] == [f"a.{EXACT}.png", f"a.{EXACT}.npz"]
    with Image.open(result.files[0]) as image:
        image.verify()


def test_moments_are_sums_over_time_largest_first(tmp_path):
    model, w = samples_model(1000)
    x = 0.1 * normal(1000, seed=1)
    result = explain(model, clip(tmp_path / "a.wav", x), tmp_path, top=3)
    expected = best(x[None], w)[0].reshape(100, 10).sum(axis=1)
    np.testing.assert_allclose(saved(result)["relevance_over_time"][0], expected, rtol=1e-4, atol=1e-6)
    order = np.argsort(-np.abs(expected))[:3]
    assert [round(moment.start / 0.01) for moment in result.moments] == order.tolist()
    assert [moment.relevance for moment in result.moments] == pytest.approx(expected[order].tolist(), rel=1e-4)
    assert result.moments[0].share == pytest.approx(np.abs(expected[order[0]]) / np.abs(expected).sum(), rel=1e-4)


def test_overlapping_windows_are_added_up_on_the_clips_own_time(tmp_path):
    model, w = samples_model(200)
    x = 0.1 * normal(500, seed=1)
    result = explain(model, clip(tmp_path / "a.wav", x), tmp_path, SoundOptions(RATE, hop=100), target=1)
    total = np.zeros(500)
    for start in (0, 100, 200, 300):
        total[start : start + 200] += x[start : start + 200] * w[:, 1]
    arrays = saved(result)
    np.testing.assert_allclose(
        arrays["relevance_over_time"][0], total.reshape(50, 10).sum(axis=1), rtol=1e-4, atol=1e-6
    )
    assert arrays["relevance_over_frequency"].sum() == pytest.approx(total.sum(), rel=1e-4)
    assert json.loads(str(arrays["settings"]))["window_starts"] == [0, 100, 200, 300]


def test_a_tone_that_the_model_looks_for_is_found_at_its_frequency(tmp_path):
    t = np.arange(1000) / RATE
    w = np.stack([np.sin(2 * np.pi * 200 * t), np.sin(2 * np.pi * 60 * t)], axis=1)
    model = network("g (float[N,1000] samples) => (float[N,2] y) { y = MatMul(samples, w) }", w=w)
    x = 0.3 * np.sin(2 * np.pi * 200 * t) * (t > 0.5) + 0.1 * np.sin(2 * np.pi * 60 * t)
    result = explain(model, clip(tmp_path / "a.wav", x), tmp_path)
    assert result.windows[0].target == "class 0"
    assert all(moment.start > 0.45 and abs(moment.frequency - 200) < 15 for moment in result.moments)


def test_stereo_and_channels_first(tmp_path):
    w = normal(2, 50, seed=4)
    model = network("g (float[1,2,50] x) => (float[1,1] y) { f = Flatten(x) y = MatMul(f, w) }", w=w.reshape(100, 1))
    x = 0.1 * normal(120, 2, seed=5)
    result = explain(model, clip(tmp_path / "a.wav", x), tmp_path)
    parts = np.pad(x.T, ((0, 0), (0, 30))).reshape(2, 3, 50).transpose(1, 0, 2)
    np.testing.assert_allclose(saved(result)["relevance"], parts * w, rtol=1e-4, atol=1e-7)


def test_an_open_length_takes_the_whole_clip_or_windows_that_are_asked_for(tmp_path):
    text = "g (float[N,T] x) => (float[N,1] y) { y = ReduceSum<keepdims = 1>(x, axes) }"
    model = network(text, axes=np.array([1]))
    file = clip(tmp_path / "a.wav", 0.1 * normal(300, seed=1))
    assert len(explain(model, file, tmp_path).windows) == 1
    assert len(explain(model, file, tmp_path, SoundOptions(RATE, window=100)).windows) == 3
    fixed, _ = samples_model(200)
    with pytest.raises(UsageError, match="--window 100 does not fit the model, whose window has 200 samples"):
        explain(fixed, file, tmp_path, SoundOptions(RATE, window=100))


def test_a_spectrogram_in_place_of_samples(tmp_path):
    """[N,bins,frames], windows of frames; relevance lies over the bins and frames themselves."""
    settings = Spectrogram("log-power", n_fft=16, hop=8)
    w = normal(9 * 5, 2, seed=6)
    text = "g (float[N,9,5] x) => (float[N,2] y) { f = Flatten(x) y = MatMul(f, w) }"
    x = 0.1 * normal(80, seed=7)
    result = explain(
        network(text, w=w), clip(tmp_path / "a.wav", x), tmp_path, SoundOptions(RATE, spectrogram=settings)
    )
    windows = [settings.of(part, RATE)[:, :5] for part in np.pad(x, (0, 16)).reshape(3, 32)]
    expected = best(np.reshape(windows, (3, 45)).astype(np.float32), w).reshape(3, 9, 5)
    arrays = saved(result)
    np.testing.assert_allclose(arrays["relevance"], expected, rtol=1e-4, atol=1e-5)
    assert arrays["relevance_over_frequency"].shape == (1, 9, 13)
    np.testing.assert_allclose(arrays["relevance_over_frequency"][0].sum(), expected.sum(), rtol=1e-4)
    np.testing.assert_allclose(arrays["relevance_over_frequency"][0, :, 5], expected[1, :, 1], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(arrays["times"], np.arange(13) * 8 / RATE)


def test_several_maps_get_a_picture_each(tmp_path):
    model, w = samples_model(200, classes=3)
    x = 0.1 * normal(200, seed=1)
    result = explain(model, clip(tmp_path / "a.wav", x), tmp_path, target="top:2")
    assert [file.name for file in result.files[:2]] == [f"a.{EXACT}.top-1.png", f"a.{EXACT}.top-2.png"]
    order = np.argsort(-(x @ w))[:2]
    np.testing.assert_allclose(saved(result)["relevance"][0, :, 0], x * w[:, order].T, rtol=1e-4, atol=1e-7)


def test_long_clips_run_in_parts_with_the_same_result(tmp_path, monkeypatch):
    model, _ = samples_model(100)
    file = clip(tmp_path / "a.wav", 0.1 * normal(1000, seed=1))
    whole = saved(explain(model, file, tmp_path / "whole"))
    monkeypatch.setattr(sounds, "_AT_ONCE", 300)
    result = explain(model, file, tmp_path / "parts")
    assert result.notes == ("run in 4 parts, because all windows at once would need much memory",)
    np.testing.assert_allclose(saved(result)["relevance"], whole["relevance"], rtol=1e-6)


@pytest.mark.parametrize("at_once", [1000, 200])
def test_windows_that_the_model_reads_as_one_sequence_have_one_answer(tmp_path, monkeypatch, at_once):
    """[windows, 100] -> [1, 2], the sum over the windows; never run in parts."""
    monkeypatch.setattr(sounds, "_AT_ONCE", at_once)
    w = normal(100, 2, seed=3)
    text = "g (float[T,100] x) => (float[1,2] y) { s = ReduceSum<keepdims = 1>(x, first) y = MatMul(s, w) }"
    x = 0.1 * normal(300, seed=1)
    result = explain(network(text, w=w, first=np.array([0])), clip(tmp_path / "a.wav", x), tmp_path)
    winner = (x.reshape(3, 100).sum(axis=0) @ w).argmax()
    assert [(window.start, window.end, window.target) for window in result.windows] == [(0.0, 0.3, f"class {winner}")]
    expected = x.reshape(3, 1, 100) * w[:, winner]
    np.testing.assert_allclose(saved(result)["relevance"], expected, rtol=1e-4, atol=1e-7)
    assert result.notes == ()


def test_other_inputs_are_filled_by_name(tmp_path):
    text = "g (float[N,50] x, float[1,50] gain) => (float[N,1] y) { z = Mul(x, gain) y = ReduceSum(z, axes) }"
    model = network(text, axes=np.array([1]))
    x = 0.1 * normal(50, seed=1)
    result = explain(model, clip(tmp_path / "a.wav", x), tmp_path, data={"gain": 2.0}, inputs=["x"])
    np.testing.assert_allclose(saved(result)["relevance"][0, 0], 2 * x, rtol=1e-5)


def test_a_rate_that_was_not_stated_is_said(tmp_path):
    model, _ = samples_model(50)
    result = explain(model, clip(tmp_path / "a.wav", 0.1 * normal(50, seed=1)), tmp_path, SoundOptions())
    assert result.notes == ("taken at the file's own 1000 Hz; --rate states the model's",)


def test_a_model_without_a_batch_axis_gets_one_window_after_another(tmp_path):
    w = normal(50, 1, seed=2)
    model = network("g (float[50] x) => (float[1] y) { y = MatMul(x, w) }", w=w)
    x = 0.1 * normal(100, seed=1)
    result = explain(model, clip(tmp_path / "a.wav", x), tmp_path)
    np.testing.assert_allclose(saved(result)["relevance"].ravel(), x * np.tile(w[:, 0], 2), rtol=1e-4, atol=1e-7)
    assert len(result.windows) == 2 and result.notes == ()


def test_relevance_that_is_not_finite_is_an_error_and_nothing_is_written(tmp_path):
    model = network("g (float[N,50] x) => (float[N,2] y) { y = MatMul(x, w) }", w=np.full((50, 2), np.nan))
    with pytest.raises(OnnxLrpError, match="not finite"):
        explain(model, clip(tmp_path / "a.wav", np.zeros(50)), tmp_path / "out", target=0)
    assert not (tmp_path / "out").exists()
