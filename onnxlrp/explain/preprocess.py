"""From a photo to the numbers that a model expects: resize, centre crop, colour order, normalisation."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from PIL import Image

from onnxlrp.errors import UsageError
from onnxlrp.explain.layout import ImageInput
from onnxlrp.explain.load import Photo, on_white
from onnxlrp.explain.presets import PRESETS, Preset, default_preset

_RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
_LARGEST_UNIT_MEAN = 2.0


@dataclass(frozen=True)
class ImageOptions:
    """How images are prepared; None leaves a choice to the preset or the model.

    Attributes:
        preset: name of an entry of PRESETS; None: by the number of channels, or `unit` where numbers are given.
        mean: per channel or one for all, subtracted after `scale`.
        std: per channel or one for all, divided by.
        scale: factor on pixels in 0..255 (1 leaves them, 1/255 brings them to 0..1).
        resize: length of the shorter side, or exact (height, width).
        crop: centre crop: side of a square, or (height, width).
        layout: "auto", "nchw" or "nhwc".
        order: colour order of three channels, "rgb" or "bgr".
    """

    preset: str | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    scale: float | None = None
    resize: int | tuple[int, int] | None = None
    crop: int | tuple[int, int] | None = None
    layout: Literal["auto", "nchw", "nhwc"] = "auto"
    order: Literal["rgb", "bgr"] | None = None


@dataclass(frozen=True)
class Frame:
    """The part of a photo that the model sees.

    Sizes are (height, width) in pixels; `top` and `left` cut the resized photo.
    """

    source: tuple[int, int]
    resized: tuple[int, int]
    size: tuple[int, int]
    top: int
    left: int

    @property
    def box(self) -> tuple[float, float, float, float]:
        """The seen part in the photo's own pixels: left, top, right, bottom."""
        down, right = self.source[0] / self.resized[0], self.source[1] / self.resized[1]
        return (
            self.left * right,
            self.top * down,
            min((self.left + self.size[1]) * right, self.source[1]),
            min((self.top + self.size[0]) * down, self.source[0]),
        )


@dataclass(frozen=True)
class Prepared:
    """A photo ready for a model.

    `array` is one sample without batch axis, `frame` the part of the photo in it.
    """

    photo: Photo
    array: np.ndarray
    frame: Frame

    def view(self, height: int, width: int) -> Image.Image:
        """The seen part of the photo as RGB at the asked size, as sharp as the file allows."""
        image = on_white(self.photo.image)
        if image.mode == "F":
            image = Image.fromarray(np.rint(np.asarray(image)).astype(np.uint8))
        box = self.frame.box
        enlarging = width > 2 * (box[2] - box[0])
        method = Image.Resampling.NEAREST if enlarging else Image.Resampling.LANCZOS
        return image.convert("RGB").resize((width, height), method, box=box)


@dataclass(frozen=True)
class Recipe:
    """Everything about the preparation that does not depend on the single photo."""

    image_input: ImageInput
    preset: Preset
    resize: int | tuple[int, int] | None
    crop: int | tuple[int, int] | None

    def describe(self) -> str:
        """One line for people: what happens to the pixels."""
        used = self.preset
        channels = self.image_input.channels
        colour = {1: "gray", 3: used.order.upper(), 4: "RGBA"}[channels]
        return (
            f"{used.name}: {colour}, {self.image_input.layout.upper()}, "
            f"(x * {used.scale:.6g} - {_numbers(used.mean)}) / {_numbers(used.std)}"
        )

    def prepare(self, photo: Photo) -> Prepared:
        """Resize, crop and normalise one photo."""
        frame = self._frame(photo)
        pixels = _pixels(photo.image, frame, self.image_input.channels, self.preset)
        if self.preset.order == "bgr":
            pixels = pixels[:, :, ::-1]
        mean, std = (np.asarray(values, dtype=np.float64) for values in (self.preset.mean, self.preset.std))
        return Prepared(photo, self.image_input.arrange((pixels * self.preset.scale - mean) / std), frame)

    def _frame(self, photo: Photo) -> Frame:
        width, height = photo.image.size
        wanted = self._size()
        resized = self._resized(photo, wanted)
        size = (wanted[0] or resized[0], wanted[1] or resized[1])
        if size[0] > resized[0] or size[1] > resized[1]:
            raise UsageError(
                f"{photo.path}: resized to {resized[0]} x {resized[1]} (height x width) it is smaller than "
                f"the crop of {size[0]} x {size[1]}; ask for a larger --resize"
            )
        top, left = (round((whole - part) / 2) for whole, part in zip(resized, size, strict=True))
        return Frame((height, width), resized, size, top, left)

    def _size(self) -> tuple[int | None, int | None]:
        """Height and width of the tensor as far as they are known without the photo."""
        fixed = (self.image_input.height, self.image_input.width)
        if self.crop is not None:
            crop = (self.crop, self.crop) if isinstance(self.crop, int) else self.crop
            if any(have is not None and have != want for have, want in zip(fixed, crop, strict=True)):
                raise UsageError(
                    f"--crop {crop[0]} x {crop[1]} does not fit the model: input {self.image_input.name!r} "
                    f"is {_side(fixed[0])} x {_side(fixed[1])} (height x width); leave --crop out"
                )
            return crop
        if fixed == (None, None) and self.resize is None and self.preset.size is not None:
            return (self.preset.size, self.preset.size)
        return fixed

    def _resized(self, photo: Photo, wanted: tuple[int | None, int | None]) -> tuple[int, int]:
        width, height = photo.image.size
        if isinstance(self.resize, tuple):
            return self.resize
        if self.resize is not None:
            by_height = height <= width
            side = self.resize
        elif wanted == (None, None):
            return (height, width)
        else:
            by_height = wanted[1] is None or (wanted[0] is not None and wanted[0] * width >= wanted[1] * height)
            whole = None in wanted
            side = round(((wanted[0] if by_height else wanted[1]) or 0) / (1.0 if whole else self.preset.crop_fraction))
        if by_height:
            return (side, max(side * width // height, wanted[1] or 1))
        return (max(side * height // width, wanted[0] or 1), side)


def recipe_for(options: ImageOptions, image_input: ImageInput) -> Recipe:
    """Settle the options for a model's image input.

    Raises UsageError for options that do not fit it or each other.
    """
    channels = image_input.channels
    numbers = {name: value for name in ("mean", "std", "scale") if (value := getattr(options, name)) is not None}
    if options.preset is None:
        preset = PRESETS["unit"] if numbers else default_preset(channels)
    elif options.preset in PRESETS:
        preset = PRESETS[options.preset]
    else:
        raise UsageError(f"unknown preset {options.preset!r}; there are: {', '.join(PRESETS)}")
    if numbers:
        preset = replace(preset, name="custom" if options.preset is None else f"{preset.name}, changed", **numbers)
    if options.order is not None:
        preset = replace(preset, order=options.order)
    if channels != 3:
        preset = replace(preset, order="rgb")
    _check(preset, options, channels)
    return Recipe(image_input, preset, options.resize, options.crop)


def _check(preset: Preset, options: ImageOptions, channels: int) -> None:
    for name, values in (("mean", preset.mean), ("std", preset.std)):
        if len(values) not in (1, channels):
            raise UsageError(
                f"{preset.name}: {name} has {len(values)} numbers, the model's image input {channels} "
                "channel(s); give one number, one per channel, or another --preprocess"
            )
    if not np.isfinite([*preset.mean, *preset.std, preset.scale]).all() or 0.0 in (*preset.std, preset.scale):
        raise UsageError("--mean, --std and --scale must be finite numbers, --std and --scale not 0")
    if options.scale is None and preset.scale < 1 and options.mean and max(map(abs, options.mean)) > _LARGEST_UNIT_MEAN:
        raise UsageError(
            f"--mean {_numbers(options.mean)} reads like pixels in 0..255, but pixels are multiplied by "
            f"{preset.scale:.6g} first; add --scale 1"
        )
    for name in ("resize", "crop"):
        value = getattr(options, name)
        sides = (value,) if isinstance(value, int) else value or (1,)
        if min(sides) < 1:
            raise UsageError(f"--{name} must be at least 1 pixel")


def _pixels(image: Image.Image, frame: Frame, channels: int, preset: Preset) -> np.ndarray:
    """[height, width, channels] of the seen part, float64 in 0..255, in the order RGB(A)."""
    if image.mode != "F":
        flat = image if channels == 4 else on_white(image)
        image = flat.convert({1: "L", 3: "RGB", 4: "RGBA"}[channels])
    if frame.resized != frame.source:
        image = image.resize((frame.resized[1], frame.resized[0]), _RESAMPLING[preset.resampling])
    height, width = frame.size
    values = np.asarray(image.crop((frame.left, frame.top, frame.left + width, frame.top + height)), dtype=np.float64)
    if values.ndim == 3:
        return values
    spread = np.repeat(values[:, :, None], channels, axis=2)
    if channels == 4:
        spread[:, :, 3] = 255.0
    return spread


def _numbers(values: tuple[float, ...]) -> str:
    return f"{values[0]:.6g}" if len(values) == 1 else "(" + ", ".join(f"{value:.6g}" for value in values) + ")"


def _side(length: int | None) -> str:
    return "?" if length is None else str(length)
