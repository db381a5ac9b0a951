"""Class names from the usual kinds of files."""

from __future__ import annotations

import pytest

from onnxlrp.errors import UsageError
from onnxlrp.explain.labels import labels_for, read_labels


@pytest.mark.parametrize(
    "text",
    [
        "cat\ndog\nbird, small\n",
        "\ufeffcat\r\ndog\r\nbird, small",
        "0: cat\n1: dog\n2: bird, small\n",
        "2: bird, small\n0: cat\n1: dog\n",
        "n02124075 cat\nn02084071 dog\nn01503061 bird, small\n",
        '["cat", "dog", "bird, small"]',
        '{"0": "cat", "2": "bird, small", "1": "dog"}',
        '{"0": ["n02124075", "cat"], "1": ["n02084071", "dog"], "2": ["n01503061", "bird, small"]}',
    ],
)
def test_every_usual_form_is_read(tmp_path, text):
    (tmp_path / "labels").write_text(text, encoding="utf-8", newline="")
    assert read_labels(tmp_path / "labels") == ("cat", "dog", "bird, small")


def test_a_sequence_of_names_is_taken_as_it_is():
    assert read_labels(["a", "b"]) == ("a", "b")


def test_imagenet_is_built_in():
    names = read_labels("imagenet")
    assert len(names) == 1000
    assert (names[0], names[285], names[967], names[999]) == (
        "tench",
        "Egyptian cat",
        "espresso",
        "toilet tissue",
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        ("0: cat\n2: dog\n", "no name for class 1"),
        ('{"a": "cat"}', "neither|not a list"),
        ("[1, 2]", "not a list of names"),
        ('["cat"', "not a list of names"),
    ],
)
def test_other_files_are_refused_by_name(tmp_path, text, message):
    (tmp_path / "names.txt").write_text(text)
    with pytest.raises(UsageError, match=rf"names\.txt.*({message})"):
        read_labels(tmp_path / "names.txt")


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"none\.txt.*cannot be read"):
        read_labels(tmp_path / "none.txt")


def test_the_number_of_labels_must_fit():
    assert labels_for(2, ("a", "b")) == ("a", "b")
    with pytest.raises(UsageError, match="3 labels were given, but the explained output has 2 classes"):
        labels_for(2, ("a", "b", "c"))


def test_tensorflows_background_class_goes_before_imagenet():
    fitted = labels_for(1001, read_labels("imagenet"))
    assert (len(fitted), fitted[0], fitted[286]) == (1001, "background", "Egyptian cat")
