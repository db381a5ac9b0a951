"""Image and text towers in two files: the cosine of their embeddings against one modified gradient for each."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import torch
from PIL import Image

from onnxlrp.explain.images import explain_images
from onnxlrp.explain.preprocess import ImageOptions
from onnxlrp.explain.similar import SimilarTo
from onnxlrp.explain.text import TextOptions, explain_texts
from tests.oracle.modified_gradient import input_relevance, token_relevance
from tests.oracle.transformer_models import ACTIVATIONS, case, export
from tests.support.evaluate import relative_l2
from tests.support.texts import word_pieces

TEXT, IDS = "the weather is fine", [[2, 8, 9, 10, 11, 3]]


def test_the_cosine_between_a_photo_and_a_text(tmp_path: Path) -> None:
    """CLIP's encoders; the vectors of patches and tokens are averaged."""
    image_tower, text_tower = case("clip-vision"), case("clip-text")
    for given, name in ((image_tower, "image.onnx"), (text_tower, "text.onnx")):
        onnx.save(export(given, tmp_path / "exported.onnx", dynamo=False), tmp_path / name)
    pixels = np.random.default_rng(5).integers(0, 255, (16, 16, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    tokenizer, images = word_pieces(tmp_path), ImageOptions(preset="clip")

    (seen,) = explain_images(
        tmp_path / "image.onnx",
        [tmp_path / "photo.png"],
        options=images,
        similar_to=SimilarTo(TEXT, tmp_path / "text.onnx", tokenizer=tokenizer),
        rules="attnlrp",
        out_dir=tmp_path,
    )
    (read,) = explain_texts(
        tmp_path / "text.onnx",
        [TEXT],
        options=TextOptions(
            tokenizer, similar_to=SimilarTo(tmp_path / "photo.png", tmp_path / "image.onnx", images=images)
        ),
        rules="attnlrp",
        out_dir=tmp_path,
    )
    with np.load(seen.files[-1]) as saved:
        photo, found = torch.from_numpy(saved["input"][None]).double(), saved["relevance"]

    ids = torch.tensor(IDS)
    see, tell = image_tower.double(), text_tower.double()
    with torch.no_grad():
        rows = [see(photo), tell(ids, torch.ones_like(ids))]
    u, v = (r.mean(1)[0] for r in rows)
    norms = u.norm() * v.norm()
    seeds = [(other / norms / r.shape[1]).expand_as(r) for other, r in zip((v, u), rows, strict=True)]
    expected = input_relevance(see, see.model, photo, seeds[0], activations=ACTIVATIONS)
    assert relative_l2(found, expected.numpy()[0]) < 1e-4
    words = token_relevance(
        tell.explained, tell.model, lambda: tell(ids, torch.ones_like(ids)), seeds[1], activations=ACTIVATIONS
    )
    assert relative_l2(np.array([t.relevance for t in read.maps[0].tokens]), words.numpy()[0]) < 1e-4
    assert read.maps[0].detail == f"cosine {float(u @ v / norms):.4f}"
