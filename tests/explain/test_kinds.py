"""Data goes by the ends of file names, one kind at a time."""

from __future__ import annotations

import pytest

from onnxlrp.errors import UsageError
from onnxlrp.explain.kinds import kind_of


@pytest.mark.parametrize(
    ("paths", "kind"),
    [
        (["a.png", "folder", "b.JPG"], "images"),
        (["a.unknown"], "images"),
        (["a.wav", "b.FLAC", "c.mp3"], "sounds"),
        (["a.csv", "b.tsv"], "tables"),
        (["a.npz", "b.npy"], "arrays"),
        ([], "arrays"),
    ],
)
def test_the_kind_of_data(paths, kind):
    assert kind_of(paths) == kind


def test_a_mixture_is_refused_with_one_of_each():
    with pytest.raises(UsageError, match=r"a\.png \(images\), c\.wav \(sounds\); fill inputs with --data"):
        kind_of(["a.png", "b.png", "c.wav"])
