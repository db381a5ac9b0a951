"""Concept relevance on whole networks against zennit with masks as zennit-crp puts them: on the gradient of a layer."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import onnxlrp
from tests.oracle.networks import canonizers, images, network
from tests.oracle.test_zennit import COMPOSITES, logits_of_winners, model
from tests.support.evaluate import relative_l2, run_reference, to_float64


def by_zennit(name: str, table: str, x: Tensor, place: int, mask: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """(relevance of the input, relevance of the layer behind the mask) with one activation's relevance masked."""
    double = network(name).double()
    activation = [m for m in double.modules() if isinstance(m, nn.ReLU)][place]
    x = x.double().requires_grad_()
    kept: list[Tensor] = []

    def masked(gradient: Tensor) -> Tensor:
        kept.append(gradient * mask)
        return kept[-1]

    with COMPOSITES[table](canonizers(name)).context(double) as modified:
        handle = activation.register_forward_hook(lambda _m, _i, y: y.register_hook(masked) and None)
        y = modified(x)
        (relevance,) = torch.autograd.grad(y, x, logits_of_winners(y.detach()))
        handle.remove()
    return relevance.numpy(), kept[-1].numpy()


@pytest.mark.parametrize("table", ["epsilon", "epsilon-plus", "epsilon-alpha2-beta1"])
@pytest.mark.parametrize("place", [1, 4])
def test_a_conditional_map_is_that_of_zennit(table: str, place: int) -> None:
    name, x = "vgg11_bn", images(2)
    hidden = [n.output[0] for n in model(name).graph.node if n.op_type == "Relu"][place]
    emitted = onnxlrp.convert(model(name), rules=table, mask_at=[hidden], relevance_of=[hidden])
    channels = (
        next(i for i in emitted.graph.input if i.name == f"{hidden}_mask").type.tensor_type.shape.dim[1].dim_value
    )
    mask = np.random.default_rng(3).integers(0, 2, size=(2, channels)).astype(np.float64)
    expected, at_layer = by_zennit(name, table, x, place, torch.tensor(mask)[:, :, None, None])
    found = run_reference(to_float64(emitted), {"x": x.double().numpy(), f"{hidden}_mask": mask})
    assert relative_l2(found["x_relevance"], expected) < 1e-6
    assert relative_l2(found[f"{hidden}_relevance"], at_layer) < 1e-6
