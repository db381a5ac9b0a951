"""Which cells of two images make them similar: the pairs of `pairs` for a grid laid over each, and their picture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from onnxlrp.explain.colours import Scale
from onnxlrp.explain.embedding import Pool, pool_for, width_axis
from onnxlrp.explain.layout import ImageInput
from onnxlrp.explain.page import BAR_TEXT, BAR_WIDTH, MARGIN, SMALL, Caption, colour_bar, label, leading, outline, page
from onnxlrp.explain.pairs import Way, pairs_of_parts
from onnxlrp.explain.picture import PANEL, in_gray, panel_size
from onnxlrp.explain.preprocess import Prepared
from onnxlrp.explain.session import Explainer

#: Cells along each side of an image, fewer where it has fewer pixels.
CELLS = 8
#: How many pairs, the largest ones, get a line in the picture.
DRAWN = 40

_BETWEEN, _SHARP = 120, 3


@dataclass(frozen=True)
class CellPairs:
    """What each pair of cells adds to a cosine: [rows, columns] of the image by [rows, columns] of its partner."""

    partner: Prepared
    values: np.ndarray


@dataclass(frozen=True)
class Seen:
    """An image and the output with its embedding, where it is the first of a batch as large as the model asks for.

    `feeds` are all inputs of that batch.
    """

    photo: Prepared
    feeds: Mapping[str, np.ndarray]
    explained: np.ndarray


@dataclass(frozen=True)
class Pairing:
    """What shares cosines to one image among pairs of cells.

    Attributes:
        seeded: the model with a seed on its output.
        taken: its image input.
        partner: the image that others are compared with.
        numbers: how many numbers of the embeddings are explained; 0 for all.
    """

    seeded: Explainer
    taken: ImageInput
    pooling: str | None
    partner: Seen
    numbers: int

    def pool(self, seen: Seen) -> Pool:
        """How the embedding of an image comes out of its output."""
        return pool_for(self.pooling, seen.explained.shape, axis=width_axis(self.taken.layout))

    def of(self, image: Seen) -> CellPairs:
        """The cosine of an image to the partner, shared among the pairs of their cells."""
        both = (image, self.partner)
        vectors = [self.pool(seen).vectors(seen.explained)[0] for seen in both]
        first, other = (self._way(seen) for seen in both)
        found = pairs_of_parts((first, other), vectors, self.numbers)
        grids = [in_cells(np.zeros((1, *self.taken.over_channels(seen.photo.array).shape))).shape[1:] for seen in both]
        return CellPairs(self.partner.photo, found.reshape(*grids[0], *grids[1]))

    def _way(self, seen: Seen) -> Way:
        pool = self.pool(seen)

        def parts(relevance: np.ndarray) -> np.ndarray:
            cells = in_cells(np.stack([self.taken.over_channels(one) for one in relevance]))
            return cells.reshape(len(cells), -1)

        def seed(direction: np.ndarray) -> np.ndarray:
            return pool.seeds(seen.explained.shape, direction[None])

        return Way(self.seeded, seen.feeds, self.taken.name, parts, seed)


def in_cells(maps: np.ndarray) -> np.ndarray:
    """[maps, height, width] summed over the cells of a grid: [maps, rows, columns], at most CELLS by CELLS."""
    for axis in (1, 2):
        size = maps.shape[axis]
        starts = np.linspace(0, size, min(CELLS, size), endpoint=False).astype(np.int64)
        maps = np.add.reduceat(maps, starts, axis=axis)
    return maps


def strongest(values: np.ndarray, count: int) -> list[tuple[int, ...]]:
    """The indices of the pairs with the largest sizes, largest first; pairs that are zero are left out."""
    order = np.argsort(-np.abs(values), axis=None, kind="stable")[:count]
    indices = (tuple(int(i) for i in np.unravel_index(place, values.shape)) for place in order)
    return [index for index in indices if values[index]]


def pairs_picture(image: Prepared, found: CellPairs, caption: Caption) -> Image.Image:
    """Both photos in gray, with a line for each of the strongest pairs: red for the cosine, blue against it."""
    sizes = [panel_size(*photo.frame.size) for photo in (image, found.partner)]
    height, width = max(h for h, _ in sizes), sum(w for _, w in sizes) + _BETWEEN
    inner = max(width + BAR_WIDTH + BAR_TEXT, 2 * PANEL)
    drawn = strongest(found.values, DRAWN)
    largest = max((abs(float(found.values[index])) for index in drawn), default=0.0)
    scale = Scale(largest or 1.0, 0.0, empty=not drawn)
    made, top = page(caption, _notes(found.values, drawn), inner, height)
    draw = ImageDraw.Draw(made)
    board = Image.new("RGB", (width, height), (255, 255, 255))
    left, corners = 0, []
    for photo, name, (h, w) in zip(
        (image, found.partner), ("image", found.partner.photo.path.name), sizes, strict=True
    ):
        board.paste(in_gray(photo.view(h, w)), (left, 0))
        label(draw, MARGIN + left, top - leading(SMALL) - 3, name)
        corners.append(left)
        left += w + _BETWEEN
    made.paste(_with_lines(board, found.values, drawn, scale, corners, sizes), (MARGIN, top))
    for corner, (h, w) in zip(corners, sizes, strict=True):
        outline(draw, MARGIN + corner, top, w, h)
    colour_bar(made, MARGIN + width + 24, top, height, scale)
    return made


def _notes(values: np.ndarray, drawn: list[tuple[int, ...]]) -> tuple[str, ...]:
    rows, columns, other_rows, other_columns = values.shape
    whole = float(np.abs(values).sum())
    share = 100.0 * sum(abs(float(values[index])) for index in drawn) / whole if whole else 0.0
    return (
        f"lines are the {len(drawn)} largest of {values.size} pairs of cells ({rows} x {columns} by {other_rows} x "
        f"{other_columns}), {share:.0f} % of all |relevance|; red adds to the cosine, blue takes from it",
    )


def _with_lines(
    board: Image.Image,
    values: np.ndarray,
    drawn: list[tuple[int, ...]],
    scale: Scale,
    corners: list[int],
    sizes: list[tuple[int, int]],
) -> Image.Image:
    """The weakest line first, drawn larger and then made small, so that edges are smooth."""
    width, height = board.size
    large = board.resize((width * _SHARP, height * _SHARP), Image.Resampling.NEAREST)
    draw = ImageDraw.Draw(large)
    rows, columns, other_rows, other_columns = values.shape
    for index in reversed(drawn):
        share = abs(float(values[index])) / scale.limit
        colour = tuple(
            int(c)
            for c in scale.colours(np.array([[np.sign(values[index]) * (0.3 + 0.7 * share)]]) * scale.limit)[0, 0]
        )
        ends = []
        for (y, x), corner, (h, w), (down, across) in zip(
            (index[:2], index[2:]), corners, sizes, ((rows, columns), (other_rows, other_columns)), strict=True
        ):
            ends.append(((corner + (x + 0.5) * w / across) * _SHARP, (y + 0.5) * h / down * _SHARP))
        thick = round(_SHARP * (1.0 + 4.0 * share))
        draw.line([*ends[0], *ends[1]], fill=colour, width=thick)
        for px, py in ends:
            draw.ellipse((px - 1.2 * thick, py - 1.2 * thick, px + 1.2 * thick, py + 1.2 * thick), fill=colour)
    return large.resize(board.size, Image.Resampling.LANCZOS)
