"""Which input takes what: by the usual names of exporters, by what the user says, and by what is left."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from onnxlrp.errors import UsageError
from onnxlrp.explain.text_inputs import TextInputs, fill, find_text_inputs
from onnxlrp.explain.text_tokens import Encoded, Piece

TEXT = Encoded(tuple(Piece(token, str(token), 0) for token in (7, 8, 9)), (0, 0, 1))
INT = np.dtype(np.int64)


def model(**inputs: tuple[Any, ...]) -> Any:
    """Inputs by name: element type and sizes."""
    return SimpleNamespace(
        input_names=list(inputs),
        input_types={name: np.dtype(kind) for name, (kind, *_) in inputs.items()},
        input_shapes={name: tuple(shape) for name, (_, *shape) in inputs.items()},
    )


def found(explainer: Any, feed: dict[str, str] | None = None, filled: tuple[str, ...] = ()) -> TextInputs:
    return find_text_inputs(explainer, feed or {}, filled)


@pytest.mark.parametrize(
    ("names", "roles"),
    [
        (("input_ids", "attention_mask", "token_type_ids", "position_ids"), ("ids", "mask", "types", "positions")),
        (("input_ids", "input_mask", "segment_ids"), ("ids", "mask", "types")),
        (("serving_default_input_word_ids:0", "input_type_ids"), ("ids", "types")),
        (("tokens", "mask"), ("ids", "mask")),
        (("x",), ("ids",)),
    ],
)
def test_usual_names(names: tuple[str, ...], roles: tuple[str, ...]) -> None:
    explainer = model(**dict.fromkeys(names, (INT, "N", "S")))
    assert found(explainer).groups == (dict(zip(roles, names, strict=True)),)


@pytest.mark.parametrize(
    ("first", "second"), [("input_ids", "decoder_input_ids"), ("query_input_ids", "doc_input_ids"), ("ids_a", "ids_b")]
)
def test_inputs_of_two_texts_belong_together_by_the_rest_of_their_names(first: str, second: str) -> None:
    names = [name.replace("input_ids", "attention_mask").replace("ids_", "mask_") for name in (first, second)]
    explainer = model(**dict.fromkeys((first, *names, second), (INT, "N", "S")))
    assert found(explainer).groups == ({"ids": first, "mask": names[0]}, {"ids": second, "mask": names[1]})


def test_what_the_user_says_goes_first() -> None:
    explainer = model(mask=(INT, "N", "S"), other=(INT, "N", "D"), y=(INT, "N", "D"))
    feed = {"mask": "ids", "other": "pair-ids", "y": "pair-mask"}
    assert found(explainer, feed).groups == ({"ids": "mask"}, {"ids": "other", "mask": "y"})


def test_values_for_each_role_and_padding() -> None:
    explainer = model(
        input_ids=(np.int32, "N", 5), attention_mask=(np.float32, "N", 5), token_type_ids=(INT, "N", 5),
        position_ids=(INT, "N", 5),
    )  # fmt: skip
    feeds, notes = fill(found(explainer), explainer, [TEXT], pad_id=1)
    assert {name: array.tolist() for name, array in feeds.items()} == {
        "input_ids": [[7, 8, 9, 1, 1]],
        "attention_mask": [[1, 1, 1, 0, 0]],
        "token_type_ids": [[0, 0, 1, 0, 0]],
        "position_ids": [[0, 1, 2, 3, 4]],
    }
    assert feeds["input_ids"].dtype == np.int32 and feeds["attention_mask"].dtype == np.float32
    assert notes == ()


def test_without_a_batch_axis_and_with_a_fixed_batch() -> None:
    flat = model(input_ids=(INT, "S"))
    assert fill(found(flat), flat, [TEXT], 0)[0]["input_ids"].tolist() == [7, 8, 9]
    three = model(input_ids=(INT, 3, "S"))
    assert fill(found(three), three, [TEXT], 0)[0]["input_ids"].tolist() == [[7, 8, 9]] * 3


def test_caches_are_empty_and_their_switch_is_off() -> None:
    caches = {f"past_key_values.0.{part}": (np.float16, "N", 2, "past", 8) for part in ("key", "value")}
    explainer = model(input_ids=(INT, "N", "S"), use_cache_branch=(bool, 1), **caches)
    fixed = found(explainer).fixed
    for name in caches:
        assert fixed[name].shape == (1, 2, 0, 8) and fixed[name].dtype == np.float16
    assert fixed["use_cache_branch"].tolist() == [False]


@pytest.mark.parametrize(
    ("explainer", "feed", "message"),
    [
        (model(pixels=(np.float32, "N", 3)), {}, r"input 'pixels' has no usual name; .*--feed pixels=ids\|mask"),
        (model(mask=(INT, "N", "S")), {}, "no input for token ids was found, besides mask; name it: --feed NAME=ids"),
        (model(ids=(INT, "N", "S"), tokens=(INT, "N", "S")), {}, "inputs 'ids' and 'tokens' both look like ids"),
        (model(ids=(INT, "N", "S")), {"x": "ids"}, "the model has no input 'x'; its inputs are ids"),
        (model(ids=(INT, "N", "S"), past=(np.float32, "N", "H", "P", 8)), {}, "'past' .* has 2 open axes besides"),
        (model(ids=(INT, "N", "S"), past=(np.float32, "N", 2, 16, 8)), {}, "'past' .* has 0 open axes besides"),
    ],
)
def test_what_is_not_known_is_asked_for(explainer: Any, feed: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        found(explainer, feed)


def test_inputs_that_are_filled_otherwise_are_left_alone() -> None:
    explainer = model(ids=(INT, "N", "S"), past=(np.float32, "N", "H", "P", 8), pixels=(np.float32, "N", 3))
    assert found(explainer, filled=("past", "pixels")) == TextInputs(({"ids": "ids"},), {})


def test_a_mask_of_more_axes_is_not_guessed() -> None:
    explainer = model(ids=(INT, "N", "S"), attention_mask=(INT, "N", 1, "S", "S"))
    with pytest.raises(UsageError, match="'attention_mask' has 4 axes and not"):
        fill(found(explainer), explainer, [TEXT], 0)
