"""What something is similar to: a text, an image or an embedding that exists already, and how each becomes a vector."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from onnxlrp.errors import UsageError
from onnxlrp.explain import load
from onnxlrp.explain.embedding import POOLINGS, Embedding, pool_for, read_embedding, width_axis
from onnxlrp.explain.feeds import ARRAY_SUFFIXES, arrays_for
from onnxlrp.explain.layout import Layout, find_image_input
from onnxlrp.explain.preprocess import ImageOptions, Prepared
from onnxlrp.explain.session import Asked, Model
from onnxlrp.explain.text_inputs import fill, find_text_inputs
from onnxlrp.explain.text_tokens import TextTokenizer
from onnxlrp.run.forward import ForwardModel

Array = np.ndarray
Kind = Literal["embedding", "image", "text"]


@dataclass(frozen=True)
class SimilarTo:
    """What is to be similar, and what turns it into an embedding.

    Attributes:
        what: an embedding, its file (.npy or .npz), the file of an image, or a text.
        model: the model that embeds it, where that is another one than the model that is explained.
        output: the embedding among the outputs of that model; None: the only one made of floats.
        tokenizer: for a text: the tokenizer.json of that model; `feed` its inputs, as in `TextOptions`.
        images: how the file of an image becomes numbers for the model that embeds it.
        pairs: the cosine is shared among pairs of tokens, or of cells of both images, as well, with one pass for each
            of so many numbers of the embeddings, those with the largest products; 0 for all of them, None for no pairs.
        pooling: how the explained output becomes an embedding: mean, first, last or none; None goes by the shape.
    """

    what: str | Path | Array
    model: Model | None = None
    output: str | None = None
    tokenizer: str | Path | None = None
    feed: Mapping[str, str] = field(default_factory=dict)
    images: ImageOptions = field(default_factory=ImageOptions)
    pairs: int | None = None
    pooling: str | None = None

    @property
    def kind(self) -> Kind:
        """Texts are what does not end like the name of a file, or has spaces in it."""
        if isinstance(self.what, np.ndarray):
            return "embedding"
        if isinstance(self.what, str) and any(map(str.isspace, self.what)) and not Path(self.what).exists():
            return "text"
        suffix = Path(self.what).suffix.lower()
        if suffix in ARRAY_SUFFIXES:
            return "embedding"
        return "image" if suffix in load.SUFFIXES or isinstance(self.what, Path) else "text"

    @property
    def path(self) -> Path | None:
        """The file, if it is one."""
        return None if self.kind == "text" or isinstance(self.what, np.ndarray) else Path(self.what)

    @property
    def name(self) -> str:
        """What it is called where people read of it."""
        if self.path is not None:
            return self.path.name
        return "the given embedding" if isinstance(self.what, np.ndarray) else repr(self.what)

    @property
    def is_own_text(self) -> bool:
        """Whether it is a text that goes through the model that is explained."""
        return self.model is None and self.kind == "text"

    @property
    def settled(self) -> bool:
        """Whether its embedding needs nothing of the model that is explained."""
        return self.model is not None or self.kind == "embedding"


@dataclass(frozen=True)
class Likeness:
    """The cosine to an embedding as what is explained of images; an `Aim`."""

    other: Embedding
    pooling: str | None = None

    @property
    def tag(self) -> str:
        """The part of file names that tells what the images are compared with."""
        return f"cosine-{Path(self.other.name).stem}"

    @property
    def has_classes(self) -> bool:
        """An embedding has none."""
        return False

    def words(self, labels: Sequence[str] | None) -> str:
        """What is explained."""
        return f"cosine to {self.other.name}"

    def seeds(self, explained: Array, photos: Sequence[Prepared], layout: Layout) -> Array:
        """The other embedding over both norms, on the elements that make the embedding of each sample."""
        pool = pool_for(self.pooling, explained.shape, axis=width_axis(layout))
        return pool.seeds(explained.shape, self.other.directions(pool.vectors(explained)))

    def details(self, explained: Array, layout: Layout) -> list[str]:
        """The cosine of each sample."""
        vectors = pool_for(self.pooling, explained.shape, axis=width_axis(layout)).vectors(explained)
        return [f"cosine {cosine:.4f}" for cosine in self.other.cosine(vectors)]


def check_similar(similar: SimilarTo, asked: Asked, explained: Kind) -> None:
    """Raises UsageError where more than the cosine is asked for, and for options that do not go with what is given."""
    if any(asked.get(name) is not None for name in ("target", "position", "rather_than", "axis")):
        raise UsageError("what is explained is the cosine: leave target, axis, position and rather-than out")
    if similar.kind == "embedding" and similar.model is not None:
        raise UsageError(f"{similar.name} is an embedding already: leave the other model out")
    if similar.model is None and similar.output is not None:
        raise UsageError("the other output is one of the other model: name that model too")
    if similar.pairs is not None and (similar.settled or similar.kind != explained):
        raise UsageError(f"pairs are those of two {explained}s that one model embeds; {similar.name} is none")
    if similar.pooling not in (None, *POOLINGS):
        raise UsageError(f"pooling is one of {', '.join(POOLINGS)}, not {similar.pooling!r}")


def embed_elsewhere(similar: SimilarTo, asked: Asked) -> Embedding:
    """The embedding of what needs nothing of the explained model.

    Raises UsageError for files and texts that the other model does not take.
    """
    if isinstance(similar.what, np.ndarray):
        return Embedding(similar.name, np.squeeze(similar.what).astype(np.float64))
    if similar.kind == "embedding":
        return read_embedding(Path(similar.what))
    if similar.model is None:
        raise UsageError(f"{similar.name} needs another model that embeds it")
    model = ForwardModel(similar.model, asked.get("providers"))
    axis, count = 1, None
    if similar.kind == "image":
        taken = find_image_input(model.input_names, model.input_shapes, model.input_types, similar.images.layout)
        feeds = arrays_for(model, {taken.name: Path(similar.what)}, similar.images)
        axis = width_axis(taken.layout)
    else:
        if similar.tokenizer is None:
            raise UsageError(f"the text {similar.name} needs the tokenizer.json of the model that embeds it")
        tokenizer = TextTokenizer(similar.tokenizer)
        encoded = tokenizer.encode(str(similar.what))
        feeds, _ = fill(find_text_inputs(model, similar.feed, ()), model, (encoded,), tokenizer.pad_id)
        count = len(encoded.ids)
    output = model.run(feeds, similar.output)
    return Embedding(similar.name, pool_for(None, output.shape, count, axis).vectors(output)[0])
