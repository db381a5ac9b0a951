"""Written files never replace one another or what was read."""

from __future__ import annotations

from pathlib import Path

import pytest

from onnxlrp.errors import UsageError
from onnxlrp.explain.naming import refuse_overwriting, safe, unique_stems


def test_equal_stems_are_numbered():
    files = [Path("a/cat.png"), Path("b/cat.png"), Path("b/CAT.jpg"), Path("dog.png")]
    assert unique_stems(files) == ("cat", "cat-2", "CAT-3", "dog")


def test_a_number_already_in_use_is_left_to_its_owner():
    assert unique_stems([Path("a/cat.png"), Path("b/cat.png"), Path("cat-2.png")]) == (
        "cat",
        "cat-3",
        "cat-2",
    )


def test_awkward_signs_leave_file_names():
    assert safe("my rules/v2:final") == "my-rules-v2-final"
    assert safe("///") == "custom"


def test_an_image_that_was_given_is_not_replaced(tmp_path):
    with pytest.raises(UsageError, match=r"cat\.default\.png.*another output folder"):
        refuse_overwriting([tmp_path / "x" / ".." / "cat.default.png"], [tmp_path / "cat.default.png"])
    refuse_overwriting([tmp_path / "out" / "cat.png"], [tmp_path / "cat.png"])
