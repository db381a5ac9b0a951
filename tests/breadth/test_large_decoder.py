"""A decoder of 2.7 GB, its weights in a file beside it: converted with little memory, in little time, and run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

_WIDTH, _HIDDEN, _HEADS, _LAYERS, _VOCABULARY = 2048, 5632, 16, 12, 32000
#: What running it takes: weights, and copies of them in the runtime's own layout.
_MEMORY = 9 * 2**30

_CONVERT = """
import json, sys, time
import onnxlrp.api, onnxlrp.compile
path, out = sys.argv[1:]
begun = time.process_time()
done = onnxlrp.api.convert_file(path, out, rules="attnlrp", position="last")
used = time.process_time() - begun
peak = [line for line in open("/proc/self/status") if line.startswith("VmHWM:")][0]
print(json.dumps({"seconds": used, "peak": int(peak.split()[1]) * 1024, "grown": done.grown_bytes}))
"""
_RUN = """
import sys
import numpy as np
import onnxruntime as ort
options = ort.SessionOptions()
options.intra_op_num_threads = 1
options.log_severity_level = 3
session = ort.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
found = session.run(["ids_relevance"], {"ids": np.array([[5, 6, 7]])})[0]
assert found.shape == (1, 3) and np.isfinite(found).all(), found
"""


class _Decoder:
    """The graph of a decoder with weights that stand one behind the other in one file."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[TensorProto] = []
        self.offset = 0

    def op(self, op_type: str, *inputs: str, **attributes: object) -> str:
        name = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(op_type, list(inputs), [name], name=name, **attributes))
        return name

    def number(self, value: object) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def weight(self, *shape: int) -> str:
        """A weight in the file of weights."""
        tensor = TensorProto(name=f"w{len(self.constants)}", data_type=TensorProto.FLOAT, dims=shape)
        size = 4 * int(np.prod(shape))
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", "weights.bin"), ("offset", self.offset), ("length", size)):
            tensor.external_data.add(key=key, value=str(value))
        self.offset += size
        self.constants.append(tensor)
        return tensor.name

    def norm(self, x: str) -> str:
        square = self.op("ReduceMean", self.op("Mul", x, x), self.number([-1]))
        root = self.op("Sqrt", self.op("Add", square, self.number(np.float32(1e-6))))
        return self.op("Mul", self.op("Div", x, root), self.number(np.ones(_WIDTH, np.float32)))

    def heads(self, x: str) -> str:
        split = self.number([0, 0, _HEADS, _WIDTH // _HEADS])
        y = self.op("Reshape", self.op("MatMul", x, self.weight(_WIDTH, _WIDTH)), split)
        return self.op("Transpose", y, perm=[0, 2, 1, 3])

    def layer(self, x: str) -> str:
        normed = self.norm(x)
        q, k, v = (self.heads(normed) for _ in range(3))
        scale = self.number(np.float32((_WIDTH // _HEADS) ** -0.5))
        scores = self.op("Mul", self.op("MatMul", q, self.op("Transpose", k, perm=[0, 1, 3, 2])), scale)
        mixed = self.op("Transpose", self.op("MatMul", self.op("Softmax", scores, axis=-1), v), perm=[0, 2, 1, 3])
        joined = self.op("Reshape", mixed, self.number([0, 0, _WIDTH]))
        x = self.op("Add", x, self.op("MatMul", joined, self.weight(_WIDTH, _WIDTH)))
        normed = self.norm(x)
        gate, up = (self.op("MatMul", normed, self.weight(_WIDTH, _HIDDEN)) for _ in range(2))
        gated = self.op("Mul", self.op("Mul", gate, self.op("Sigmoid", gate)), up)
        return self.op("Add", x, self.op("MatMul", gated, self.weight(_HIDDEN, _WIDTH)))


def _write(folder: Path) -> Path:
    """The model and its weights, a file of which little more than the embeddings is really on the disk."""
    net = _Decoder()
    table = net.weight(_VOCABULARY, _WIDTH)
    x = net.op("Gather", table, "ids", axis=0)
    for _ in range(_LAYERS):
        x = net.layer(x)
    net.op("MatMul", net.norm(x), net.op("Transpose", table, perm=[1, 0]))
    net.nodes[-1].output[0] = "logits"
    ids = helper.make_tensor_value_info("ids", TensorProto.INT64, ["batch", "sequence"])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", "sequence", _VOCABULARY])
    graph = helper.make_graph(net.nodes, "decoder", [ids], [logits], net.constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    path = folder / "decoder.onnx"
    path.write_bytes(model.SerializeToString())
    with (folder / "weights.bin").open("wb") as file:
        # Rows of the first tokens, so that logits are not all the same; the rest is a hole.
        file.write(np.random.default_rng(0).standard_normal((16, _WIDTH), np.float32).tobytes())
        file.truncate(net.offset)
    return path


def _python(code: str, *arguments: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout


def _available_memory() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 0


@pytest.mark.skipif(not Path("/proc/meminfo").exists(), reason="memory is measured as Linux tells it")
def test_a_large_decoder_converts_in_little_memory_and_runs(tmp_path: Path) -> None:
    if _available_memory() < _MEMORY:
        pytest.skip("too little memory to run a decoder of 2.7 GB")
    path, out = _write(tmp_path), tmp_path / "decoder.lrp.onnx"
    size = sum(f.stat().st_size for f in tmp_path.iterdir())
    assert size > 2.7e9
    done = json.loads(_python(_CONVERT, path, out))
    grown = sum(f.stat().st_size for f in tmp_path.iterdir()) - size
    assert done["peak"] < 2**30
    assert done["seconds"] < 30
    assert grown < 0.02 * size
    _python(_RUN, out)
