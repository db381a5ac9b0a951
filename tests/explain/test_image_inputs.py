"""An image beside other inputs, which are filled by name."""

from __future__ import annotations

import numpy as np
import pytest

from onnxlrp.errors import UsageError
from onnxlrp.explain.images import explain_images
from onnxlrp.explain.preprocess import ImageOptions
from tests.explain.linear import EXACT
from tests.explain.test_images import quadrant
from tests.graph.written import network, normal

W, V = normal(256, 2, seed=1), normal(3, 2, seed=2)
TEXT = """g (float[N,1,16,16] photo, float[N,3] place) => (float[N,2] y)
{ f = Flatten(photo) p = MatMul(f, w) q = MatMul(place, v) y = Add(p, q) }"""


def test_images_go_one_by_one_beside_the_inputs_that_are_named(tmp_path):
    files = [quadrant(tmp_path / f"{k}.png", k) for k in range(2)]
    place = np.array([[0.5, -1.0, 2.0]], np.float32)
    results = explain_images(
        network(TEXT, w=W, v=V),
        files,
        options=ImageOptions(preset="unit"),
        data={"place": place},
        target=1,
        rules=EXACT,
        out_dir=tmp_path / "out",
    )
    for result in results:
        with np.load(result.files[-1]) as saved:
            expected = saved["input"].ravel() * W[:, 1]
            np.testing.assert_allclose(saved["relevance"].ravel(), expected, rtol=1e-4, atol=1e-6)
            np.testing.assert_allclose(saved["relevance/place"], place[0] * V[:, 1], rtol=1e-5)
            np.testing.assert_allclose(saved["output/y"], saved["input"].ravel() @ W + place[0] @ V, rtol=1e-4)


def test_a_second_input_that_is_not_named_is_asked_for(tmp_path):
    with pytest.raises(UsageError, match=r"photo \[N, 1, 16, 16\], place \[N, 3\]. Fill the others with --data"):
        explain_images(network(TEXT, w=W, v=V), [quadrant(tmp_path / "a.png", 0)], out_dir=tmp_path)
