"""BiLRP on a transformer: pairs of tokens against one modified gradient for each number of the embeddings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from onnxlrp import Explainer
from onnxlrp.explain.pairs import Way, pairs_of_parts
from tests.oracle.modified_gradient import token_relevance
from tests.oracle.transformer_models import ACTIVATIONS, case, export
from tests.support.evaluate import relative_l2


def test_pairs_of_tokens_of_a_transformer(tmp_path: Path) -> None:
    """The embedding is the vector of the first token."""
    given = case("bert")
    model = export(given, tmp_path / "model.onnx", dynamo=False)
    explainer = Explainer(model, rules="attnlrp", target="seed", inputs=("ids",))
    texts = [np.array([[5, 6, 7, 8, 9]]), np.array([[30, 6, 31]])]
    runner = given.double()
    ways, vectors, rows = [], [], []
    for ids in texts:
        mask = np.ones_like(ids)

        def seed(direction: np.ndarray, count: int = ids.shape[1]) -> np.ndarray:
            made = np.zeros((1, count, direction.size))
            made[0, 0] = direction
            return made

        ways.append(Way(explainer, {"ids": ids, "mask": mask}, "ids", lambda relevance: relevance, seed))
        inputs = (torch.from_numpy(ids), torch.from_numpy(mask))
        with torch.no_grad():
            vectors.append(runner(*inputs)[0, 0].numpy())

        def run(inputs: tuple[torch.Tensor, torch.Tensor] = inputs) -> torch.Tensor:
            found: torch.Tensor = runner(*inputs)
            return found

        units = (torch.from_numpy(seed(unit)) for unit in np.eye(vectors[0].size))
        each = [token_relevance(runner.explained, runner.model, run, u, activations=ACTIVATIONS)[0] for u in units]
        rows.append(np.stack([r.numpy() for r in each]))
    norms = np.linalg.norm(vectors[0]) * np.linalg.norm(vectors[1])
    expected = np.einsum("mi,mj->ij", *rows) / norms
    assert relative_l2(pairs_of_parts((ways[0], ways[1]), vectors, 0), expected) < 1e-4
