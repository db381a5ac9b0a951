"""Masks on hidden tensors as users give them, made into arrays for the inputs of a converted model."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Set
from typing import Any

import numpy as np

from onnxlrp.errors import UsageError
from onnxlrp.tables.names import did_you_mean

Array = np.ndarray[Any, Any]
#: An array [batch, channels] or [channels], or a set or range of the channels to keep.
MaskValue = Array | Collection[int] | Collection[float]
#: Masks by tensor, `NAME` or `NAME:AXIS`.
Masks = Mapping[str, MaskValue]


def tensor_of(key: str, masked: Collection[str]) -> str:
    """The masked tensor that a key `TENSOR` or `TENSOR:AXIS` names.

    Raises:
        UsageError: no mask was asked for there.
    """
    stem = key.rpartition(":")[0]
    if key in masked:
        return key
    if stem in masked:
        return stem
    if not masked:
        raise UsageError(f"a mask at {key!r} needs a conversion with mask_at=[{key!r}]")
    raise UsageError(f"the model takes no mask at {key!r}{did_you_mean(key, masked)} It does at {', '.join(masked)}.")


def mask_array(tensor: str, given: MaskValue | None, channels: int | None, batch: int, dtype: np.dtype[Any]) -> Array:
    """The mask [batch, channels].

    Args:
        given: an array [batch, channels] or [channels]; a set or range of channels to keep; None for all of them.
        channels: how many there are, None where the model does not say.

    Raises:
        UsageError: a shape that does not fit, or a channel that is not there.
    """
    if given is None:
        return np.ones((batch, channels or 1), dtype)
    try:
        array = np.asarray(_kept(tensor, given, channels) if isinstance(given, Set | range) else given, dtype)
    except (TypeError, ValueError) as error:
        raise UsageError(f"the mask at {tensor!r} must be an array of numbers: {error}") from error
    shape = array.shape
    if array.ndim == 1:
        array = np.tile(array[None], (batch, 1))
    if array.ndim != 2 or len(array) != batch or (channels is not None and array.shape[1] not in (1, channels)):
        raise UsageError(
            f"the mask at {tensor!r} has the shape {list(shape)}; it must be [{batch}, {channels or 'channels'}]"
            f" or [{channels or 'channels'}] for a batch of {batch}"
        )
    return array


def _kept(tensor: str, kept: Set[int] | range, channels: int | None) -> Array:
    if channels is None:
        raise UsageError(
            f"the model does not say how many channels {tensor!r} has, so that they cannot be counted; give the mask as"
            " an array [batch, channels]"
        )
    found = np.zeros(channels)
    for channel in kept:
        if not isinstance(channel, int | np.integer) or not 0 <= channel < channels:
            raise UsageError(f"the mask at {tensor!r} keeps channel {channel}; there are 0 to {channels - 1}")
        found[channel] = 1.0
    return found


def stated(tensor: str, given: MaskValue) -> str:
    """A mask in words."""
    if isinstance(given, Set | range):
        listed = sorted(given)
        which = ", ".join(map(str, listed)) if len(listed) < 10 else f"{listed[0]} to {listed[-1]} ({len(listed)})"
        return f"channels {which} of {tensor}"
    return f"a mask at {tensor}"
