"""Which inputs of a model take token ids, masks, segments, positions and caches, and what each is fed."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from onnxlrp.errors import UsageError
from onnxlrp.explain.layout import dtype_of
from onnxlrp.explain.session import ModelInputs
from onnxlrp.explain.text_tokens import Encoded

ROLES = ("ids", "mask", "types", "positions")
#: The usual names, the more special ones first: `token_type_ids` ends like ids.
_NAMES = (
    ("types", re.compile(r"((token|input)_?type_?ids|segment_?ids|type_?ids|token_?types|segments)")),
    ("positions", re.compile(r"(position_?ids|cache_?position|positions)")),
    ("mask", re.compile(r"(attention_?mask|input_?mask|padding_?mask|mask)")),
    ("ids", re.compile(r"(input_?(word_?)?ids|token_?ids|input_?tokens|tokens|ids)")),
)
_PREFIX = re.compile(r"^(serving_default_|model_)|(:\d+)$")
_CACHE = re.compile(r"^(past|cache)")
_SWITCH = "use_cache_branch"
_PAIR = "pair-"


@dataclass(frozen=True)
class TextInputs:
    """The inputs that texts go into.

    Attributes:
        groups: for each text that the model takes, the name of the input by role; one, or two for two texts.
        fixed: arrays for inputs that every text is fed with: empty caches of keys and values, and what switches them.
    """

    groups: tuple[Mapping[str, str], ...]
    fixed: Mapping[str, np.ndarray]

    @property
    def ids(self) -> tuple[str, ...]:
        """The input of the token ids of each text."""
        return tuple(group["ids"] for group in self.groups)


def parse_roles(feed: Mapping[str, str]) -> None:
    """Raises UsageError for a role that does not exist."""
    for name, role in feed.items():
        if role.removeprefix(_PAIR) not in ROLES:
            possible = ", ".join((*ROLES, *(_PAIR + r for r in ROLES)))
            raise UsageError(f"input {name!r} cannot be fed with {role!r}; write one of {possible}")


def find_text_inputs(model: ModelInputs, feed: Mapping[str, str], filled: Sequence[str]) -> TextInputs:
    """By their names, and by `feed` where these do not tell; inputs in `filled` are filled otherwise.

    Raises UsageError for names that are no inputs, and for inputs that nothing is known of.
    """
    parse_roles(feed)
    unknown = next((name for name in (*feed, *filled) if name not in model.input_names), None)
    if unknown is not None:
        raise UsageError(f"the model has no input {unknown!r}; its inputs are {', '.join(model.input_names)}")
    groups: dict[str, dict[str, str]] = {}
    fixed: dict[str, np.ndarray] = {}
    left: list[str] = []
    for name in model.input_names:
        if name in filled:
            continue
        role, group = _role(name, feed)
        if role is not None and (name in feed or _is_whole(model, name)):
            taken = groups.setdefault(group, {}).setdefault(role, name)
            if taken != name:
                raise UsageError(
                    f"inputs {taken!r} and {name!r} both look like {role}; say which: --feed {name}={role}"
                )
        elif _CACHE.match(name):
            fixed[name] = _empty_cache(model, name)
        elif name == _SWITCH:
            fixed[name] = np.zeros(1, bool)
        else:
            left.append(name)
    if not any("ids" in group for group in groups.values()) and len(left) == 1 and _is_whole(model, left[0]):
        groups.setdefault("", {})["ids"] = left.pop()
    if left:
        raise UsageError(
            f"input {left[0]!r} has no usual name; say what it takes: --feed {left[0]}={'|'.join(ROLES)}, "
            f"or fill it: --data {left[0]}=FILE"
        )
    return TextInputs(_in_order(groups, model), fixed)


def _in_order(groups: dict[str, dict[str, str]], model: ModelInputs) -> tuple[Mapping[str, str], ...]:
    without = next((group for group in groups.values() if "ids" not in group), None)
    if without is not None or not groups:
        more = f", besides {', '.join(without.values())}" if without else ""
        raise UsageError(f"no input for token ids was found{more}; name it: --feed NAME=ids")
    order = sorted(groups, key=lambda group: model.input_names.index(groups[group]["ids"]))
    if _PAIR in groups:
        order = [*(group for group in order if group != _PAIR), _PAIR]
    return tuple(groups[group] for group in order)


def _role(name: str, feed: Mapping[str, str]) -> tuple[str | None, str]:
    """What an input takes, and what else is in its name, by which the inputs of one text belong together."""
    if name in feed:
        role = feed[name]
        return role.removeprefix(_PAIR), _PAIR if role.startswith(_PAIR) else ""
    plain = _PREFIX.sub("", name.lower())
    for role, pattern in _NAMES:
        if pattern.search(plain):
            return role, pattern.sub("", plain, count=1).strip("_.:/-")
    return None, ""


def _is_whole(model: ModelInputs, name: str) -> bool:
    """Whether an input is made of whole numbers; a mask may be of truth values or floats."""
    kind = dtype_of(model.input_types.get(name)).kind
    return kind in "iu" or (kind in "bf" and _role(name, {})[0] == "mask")


def _empty_cache(model: ModelInputs, name: str) -> np.ndarray:
    """A cache with nothing in it: length 0 along the one axis besides the batch that is open."""
    shape = model.input_shapes.get(name) or ()
    open_axes = [axis for axis, size in enumerate(shape) if axis > 0 and not isinstance(size, int)]
    if len(open_axes) != 1:
        raise UsageError(
            f"the cache {name!r} of shape {list(shape)} has {len(open_axes)} open axes besides the batch, so that it "
            f"cannot be made empty; fill it: --data {name}=FILE"
        )
    sizes = [0 if axis == open_axes[0] else size if isinstance(size, int) else 1 for axis, size in enumerate(shape)]
    return np.zeros(sizes, dtype_of(model.input_types.get(name)))


def fill(
    inputs: TextInputs, model: ModelInputs, texts: Sequence[Encoded], pad_id: int
) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """Arrays for one sample, one encoded text for each group; and what a reader should know of them.

    Raises UsageError for a text that is longer than the model takes.
    """
    feeds = dict(inputs.fixed)
    notes: list[str] = []
    for group, encoded in zip(inputs.groups, texts, strict=True):
        count = len(encoded.ids)
        length = _length(model, group["ids"], count)
        if length > count and "mask" not in group:
            notes.append(f"the model has no mask: it sees the {length - count} tokens that fill it up to {length}")
        values: dict[str, Any] = {
            "ids": [*encoded.ids, *[pad_id] * (length - count)],
            "mask": [1] * count + [0] * (length - count),
            "types": [*encoded.types, *[0] * (length - count)],
            "positions": range(length),
        }
        for role, name in group.items():
            feeds[name] = _row(model, name, np.asarray(values[role]))
    return feeds, tuple(notes)


def _length(model: ModelInputs, name: str, count: int) -> int:
    shape = model.input_shapes.get(name)
    size = shape[-1] if shape else None
    if not isinstance(size, int):
        return count
    if count > size:
        raise UsageError(f"the text has {count} tokens, but input {name!r} takes {size}; shorten the text")
    return size


def _row(model: ModelInputs, name: str, values: np.ndarray) -> np.ndarray:
    """One row as the input takes it: with or without a batch axis, in its element type."""
    shape = model.input_shapes.get(name)
    typed = values.astype(dtype_of(model.input_types.get(name)))
    if shape is not None and len(shape) == 1:
        return typed
    if shape is not None and len(shape) != 2:
        raise UsageError(f"input {name!r} has {len(shape)} axes and not [batch, sequence]; fill it: --data {name}=FILE")
    size = shape[0] if shape else None
    return np.repeat(typed[None], size if isinstance(size, int) else 1, axis=0)
