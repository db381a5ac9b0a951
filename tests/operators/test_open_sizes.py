"""Networks whose batch, height and width are all open give the map of the same network with every size known."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pytest

import onnxlrp
from tests.support.evaluate import reference, relative_l2, run_onnxruntime, to_float64
from tests.support.gradients import distinct
from tests.support.models import Dim, Net

Array = np.ndarray
RULES = ("default", "epsilon", "epsilon-plus-flat", "epsilon-alpha2-beta1", "epsilon-gamma-box", "gradient-x-input")
#: Not those of an example model: odd, unequal, and no multiple of any stride.
SIZES = ((2, 3, 13, 10), (1, 3, 8, 15))


class _Layers:
    """Layers with random weights; each call takes the next numbers of one sequence."""

    def __init__(self, net: Net) -> None:
        self.net, self._random = net, np.random.default_rng(6)

    def weights(self, *shape: int) -> str:
        return self.net.constant(self._random.normal(size=shape) / np.sqrt(np.prod(shape[1:])))

    def conv(self, x: str, inputs: int, outputs: int, kernel: int = 3, **at: object) -> str:
        pads = [kernel // 2] * 4
        shape = (outputs, inputs // int(str(at.get("group", 1))), kernel, kernel)
        return self.net.op("Conv", x, self.weights(*shape), self.weights(outputs), **{"pads": pads, **at})

    def batch_norm(self, x: str, channels: int) -> str:
        parts = [self.weights(channels) for _ in range(3)]
        variance = self.net.constant(self._random.uniform(0.5, 2.0, channels))
        return self.net.op("BatchNormalization", x, *parts, variance)

    def relu(self, x: str) -> str:
        return self.net.op("Relu", x)

    def dense(self, x: str, inputs: int, outputs: int = 5) -> str:
        pooled = self.net.op("Flatten", self.net.op("GlobalAveragePool", x))
        return self.net.op("Gemm", pooled, self.weights(inputs, outputs), self.weights(outputs))

    def spatial_size(self, x: str) -> str:
        return self.net.op("Shape", x, start=2)

    def resized_like(self, x: str, like: str, **at: object) -> str:
        """Resized to the height and width of another tensor."""
        kept = self.net.op("Shape", x, end=2)
        sizes = self.net.op("Concat", kept, self.spatial_size(like), axis=0)
        return self.net.op("Resize", x, "", "", sizes, **at)


def _residual(layers: _Layers, x: str) -> str:
    """Convolutions with BatchNorm behind, strided, max pooling, a residual addition, a depthwise layer."""
    net = layers.net
    x = layers.relu(layers.batch_norm(layers.conv(x, 3, 6, strides=[2, 2]), 6))
    x = net.op("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    inner = layers.relu(layers.batch_norm(layers.conv(x, 6, 6, group=6), 6))
    x = layers.relu(net.op("Add", layers.batch_norm(layers.conv(inner, 6, 6, kernel=1), 6), x))
    return layers.dense(x, 6)


def _pre_activation(layers: _Layers, x: str) -> str:
    """BatchNorm in front of padded convolutions, dense connections, average pooling that leaves a rest."""
    net = layers.net
    for channels in (3, 5):
        inner = layers.conv(layers.relu(layers.batch_norm(x, channels)), channels, 2)
        x = net.op("Concat", x, inner, axis=1)
    x = layers.conv(layers.batch_norm(x, 7), 7, 4)
    x = net.op("AveragePool", x, kernel_shape=[2, 3], strides=[2, 2], pads=[1, 1, 0, 0], ceil_mode=1)
    return layers.dense(layers.relu(x), 4)


def _pyramid(layers: _Layers, x: str) -> str:
    """Down and up again: interpolation to the size of an earlier map, transposed convolution cut to its size."""
    net = layers.net
    high = layers.relu(layers.conv(x, 3, 4))
    low = layers.relu(layers.conv(high, 4, 4, strides=[2, 2]))
    lowest = net.op("AveragePool", low, kernel_shape=[2, 2], strides=[2, 2])
    nearest = layers.resized_like(lowest, low, mode="nearest", nearest_mode="floor")
    low = net.op("Add", low, nearest)
    up = net.op("ConvTranspose", low, layers.weights(4, 4, 3, 3), layers.weights(4), strides=[2, 2])
    ends = layers.spatial_size(high)
    up = net.op("Slice", up, net.constant([0, 0]), ends, net.constant([2, 3]))
    linear = layers.resized_like(low, high, mode="linear", coordinate_transformation_mode="align_corners")
    return layers.dense(net.op("Concat", up, linear, high, axis=1), 12)


def _gated(layers: _Layers, x: str) -> str:
    """Squeeze and excite, HardSwish, statistics, padding by reflection and by itself, a doubled size."""
    net = layers.net
    x = net.op("Pad", x, net.constant([0, 0, 1, 2, 0, 0, 2, 1]), mode="reflect")
    x = layers.conv(x, 3, 4, pads=None, auto_pad="SAME_UPPER", strides=[2, 2])
    x = net.op("HardSwish", net.op("InstanceNormalization", x, layers.weights(4), layers.weights(4)))
    squeezed = net.op("ReduceMean", x, net.constant([2, 3]))
    gate = net.op("HardSigmoid", layers.conv(layers.relu(layers.conv(squeezed, 4, 2, 1)), 2, 4, 1))
    x = net.op("Mul", x, gate)
    x = net.op("Resize", x, "", net.op("Constant", value_floats=[1.0, 1.0, 2.0, 2.0]), mode="linear")
    x = net.op("DepthToSpace", layers.conv(x, 4, 8, 1), blocksize=2)
    return layers.dense(x, 2)


NETWORKS: Mapping[str, Callable[[_Layers, str], str]] = {
    "residual": _residual,
    "pre-activation": _pre_activation,
    "pyramid": _pyramid,
    "gated": _gated,
}


def converted(name: str, dims: tuple[Dim, ...], rules: str, dtype: type = np.float64) -> object:
    net = Net(dtype)
    y = NETWORKS[name](_Layers(net), net.input("x", dims))
    return onnxlrp.convert(net.model(y, ranks=[2]), rules=rules, target=2)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("rules", RULES)
@pytest.mark.parametrize("name", NETWORKS)
def test_in_float64(name: str, rules: str, size: tuple[int, ...]) -> None:
    x = distinct(*size, seed=2)
    known = reference(to_float64(converted(name, size, rules)))({"x": x})["x_relevance"]
    free = reference(to_float64(converted(name, ("n", 3, "h", "w"), rules)))({"x": x})["x_relevance"]
    assert np.abs(known).max() > 0
    assert relative_l2(free, known) < 1e-9


@pytest.mark.parametrize("name", NETWORKS)
def test_in_onnxruntime_at_several_sizes(name: str) -> None:
    """One file, asked for images of different sizes."""
    model = converted(name, ("n", 3, "h", "w"), "epsilon-plus", np.float32)
    exact = reference(to_float64(model))
    for size in SIZES:
        x = distinct(*size, seed=2).astype(np.float32)
        expected = exact({"x": x.astype(np.float64)})["x_relevance"]
        assert relative_l2(run_onnxruntime(model, {"x": x})["x_relevance"], expected) < 1e-3
