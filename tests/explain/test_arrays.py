"""Arrays in, arrays and a summary out: any number of inputs of any shape."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from onnxlrp.errors import OnnxLrpError, UsageError
from onnxlrp.explain.arrays import explain_arrays
from onnxlrp.explain.preprocess import ImageOptions
from tests.explain.linear import EXACT, WEIGHTS, best, rows_model
from tests.explain.test_images import quadrant
from tests.graph.written import network, normal

W = normal(2, 3, 5, seed=3)
V = normal(4, 5, seed=4)


def two_inputs():
    """y = <a, W> + b V, for a [N,2,3] and b [N,4]."""
    text = """g (float[N,2,3] a, float[N,4] b) => (float[N,5] y)
    { f = Flatten(a) p = MatMul(f, w) q = MatMul(b, v) y = Add(p, q) }"""
    return network(text, w=W.reshape(6, 5), v=V)


def test_an_npz_holds_an_array_for_each_input(tmp_path):
    a, b = normal(2, 2, 3, seed=1), normal(2, 4, seed=2)
    np.savez(tmp_path / "x.npz", a=a, b=b)
    (result,) = explain_arrays(two_inputs(), [tmp_path / "x.npz"], out_dir=tmp_path / "out", rules=EXACT, top=2)
    y = np.einsum("nij,ijk->nk", a, W) + b @ V
    winners = y.argmax(axis=1)
    expected = a * W[:, :, winners].transpose(2, 0, 1)
    assert result.targets == tuple(f"class {k}" for k in winners)
    with np.load(tmp_path / "out" / f"x.{EXACT}.npz") as saved:
        np.testing.assert_allclose(saved["relevance/a"], expected, rtol=1e-5)
        np.testing.assert_allclose(saved["relevance/b"], b * V[:, winners].T, rtol=1e-5)
        np.testing.assert_array_equal(saved["input/b"], b)
        np.testing.assert_allclose(saved["output/y"], y, rtol=1e-5)
        assert json.loads(str(saved["settings"]))["explained"] == [[f"class {k}"] for k in winners]
    first = result.inputs[0]
    assert (first.name, first.shape) == ("a", (2, 2, 3))
    assert first.total == pytest.approx(expected.sum(), rel=1e-5)
    assert first.positive == pytest.approx(expected[expected > 0].sum(), rel=1e-5)
    assert first.negative == pytest.approx(expected[expected < 0].sum(), rel=1e-5)
    order = np.argsort(-np.abs(expected), axis=None)[:2]
    assert [element.index for element in first.largest] == [np.unravel_index(i, expected.shape) for i in order]
    assert [e.relevance for e in first.largest] == pytest.approx(expected.ravel()[order].tolist(), rel=1e-5)


def test_an_npy_fills_the_one_input_that_is_not_named(tmp_path):
    a, b = normal(2, 2, 3, seed=1), normal(2, 4, seed=2)
    np.save(tmp_path / "a.npy", a)
    np.save(tmp_path / "b.npy", b)
    files, named = [tmp_path / "a.npy"], {"b": tmp_path / "b.npy"}
    (result,) = explain_arrays(two_inputs(), files, data=named, out_dir=tmp_path, rules=EXACT, target=2)
    with np.load(result.files[0]) as saved:
        np.testing.assert_allclose(saved["relevance/a"], a * W[:, :, 2], rtol=1e-5)
        np.testing.assert_allclose(saved["relevance/b"], b * V[:, 2], rtol=1e-5)
    with pytest.raises(UsageError, match="a single array fills one input, but the model has 2 to fill: a, b"):
        explain_arrays(two_inputs(), files, out_dir=tmp_path)


def test_all_inputs_by_name_and_a_picture_for_the_image(tmp_path):
    text = """g (float[N,1,16,16] photo, float[N,4] b) => (float[N,5] y)
    { f = Flatten(photo) p = MatMul(f, w) q = MatMul(b, v) y = Add(p, q) }"""
    model = network(text, w=normal(256, 5, seed=5), v=V)
    b = normal(1, 4, seed=2)
    (result,) = explain_arrays(
        model,
        data={"photo": str(quadrant(tmp_path / "spot.png", 1)), "b": b},
        options=ImageOptions(preset="unit"),
        out_dir=tmp_path / "out",
        rules=EXACT,
        target=0,
    )
    assert [file.name for file in result.files] == [f"spot.{EXACT}.class-0.npz", f"spot.{EXACT}.class-0.photo.png"]
    with Image.open(result.files[1]) as image:
        image.verify()
    with np.load(result.files[0]) as saved:
        expected = saved["input/photo"] * normal(256, 5, seed=5)[:, 0].reshape(1, 1, 16, 16)
        np.testing.assert_allclose(saved["relevance/photo"], expected, rtol=1e-4, atol=1e-6)


def test_a_map_of_zeros_is_said(tmp_path):
    (result,) = explain_arrays(rows_model(), data={"features": np.zeros((1, 4))}, out_dir=tmp_path, rules=EXACT)
    assert result.notes == ("the relevance of 'features' is zero everywhere",)
    assert result.inputs[0].largest == ()


def test_each_file_is_a_run_of_its_own(tmp_path):
    for name, seed in (("a", 1), ("b", 2)):
        np.save(tmp_path / f"{name}.npy", normal(3, 4, seed=seed))
    results = explain_arrays(rows_model(), [tmp_path / "a.npy", tmp_path / "b.npy"], out_dir=tmp_path, rules=EXACT)
    for result, seed in zip(results, (1, 2), strict=True):
        with np.load(result.files[0]) as saved:
            x = normal(3, 4, seed=seed)
            np.testing.assert_allclose(saved["relevance/features"], best(x, WEIGHTS), rtol=1e-5)


def test_relevance_that_is_not_finite_is_an_error_and_nothing_is_written(tmp_path):
    with pytest.raises(OnnxLrpError, match="relevance of 'features' has 3 values that are not finite"):
        data = {"features": np.array([[1.0, np.nan, np.nan, np.nan]])}
        explain_arrays(rows_model(), data=data, out_dir=tmp_path / "out", rules=EXACT, target=1)
    assert not (tmp_path / "out").exists()


def test_results_never_replace_what_was_read(tmp_path):
    ones = np.ones((1, 4))
    np.savez(tmp_path / "x.npz", features=ones)
    earlier = tmp_path / f"x.{EXACT}.npz"
    np.savez(earlier, features=ones)
    with pytest.raises(UsageError, match="would replace"):
        files, data = [tmp_path / "x.npz"], {"features": earlier}
        explain_arrays(rows_model(), files, data=data, out_dir=tmp_path, rules=EXACT)
