"""Words in any script are drawn with letters, or with what comes nearest, never with empty boxes."""

from __future__ import annotations

import pytest

from onnxlrp.explain import fonts


@pytest.fixture
def bare(monkeypatch):
    """A system without fonts of its own."""
    monkeypatch.setattr(fonts, "_SYSTEM", ())
    fonts._typeface.cache_clear()
    yield
    fonts._typeface.cache_clear()


def test_plain_words_stay_as_they_are(bare):
    assert fonts.drawable("Egyptian cat 94.1 % (a-b), |x|") == "Egyptian cat 94.1 % (a-b), |x|"


def test_the_separator_of_captions_can_be_drawn(bare):
    assert fonts.drawable("a  \u00b7  b") == "a  \u00b7  b"


def test_without_a_fitting_font_accents_go_and_unknown_letters_show_as_such(bare):
    assert fonts.drawable("\u00c4gyptische Katze \u732b") == "Agyptische Katze ?"


def test_a_system_font_that_does_not_exist_is_passed_over(monkeypatch):
    monkeypatch.setattr(fonts, "_SYSTEM", ("no-such-font.ttf",))
    fonts._typeface.cache_clear()
    assert fonts.drawable("\u732b") == "?"
    fonts._typeface.cache_clear()
