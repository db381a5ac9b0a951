"""Texts on the command line: the options of `onnxlrp explain` that go with them, and what is printed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from onnxlrp.cli.explain_options import Callback, gathered
from onnxlrp.cli.output import on_terminal, print_facts, print_warnings

if TYPE_CHECKING:
    from onnxlrp.explain.answer import TopClass
    from onnxlrp.explain.similar import SimilarTo
    from onnxlrp.explain.text_results import TextMap, TextResult
    from onnxlrp.explain.text_tokens import WordRelevance


def parse_feed(_ctx: click.Context, _parameter: click.Parameter, pairs: tuple[str, ...]) -> dict[str, str]:
    """`NAME=ROLE` pairs as a dict."""
    found: dict[str, str] = {}
    for pair in pairs:
        name, sign, role = pair.rpartition("=")
        if not sign or not name or not role:
            raise click.BadParameter(f"{pair!r} names no input; write NAME=ids, mask, types or positions")
        if name in found:
            raise click.BadParameter(f"input {name!r} is given twice")
        found[name] = role
    return found


_TEXT = (
    click.option(
        "--text",
        "texts",
        multiple=True,
        metavar="TEXT",
        help="Explain the model on this text in place of DATA; may be repeated. Needs --tokenizer.",
    ),
    click.option("--tokenizer", metavar="FILE", help="Text: the tokenizer.json that belongs to the model."),
    click.option(
        "--text-pair",
        "pairs",
        multiple=True,
        metavar="TEXT",
        help="Text: the second text, for models of two; as often as --text.",
    ),
    click.option(
        "--feed",
        multiple=True,
        callback=parse_feed,
        metavar="NAME=ROLE",
        help="Text: the input NAME takes ids, mask, types or positions; pair-ids ... those of the second text where it "
        "has inputs of its own.  [default: by the usual names]",
    ),
    click.option(
        "--token",
        metavar="TOKEN",
        help="Text: explain the score of this token, as --target does that of an id: ' Paris', or as the vocabulary "
        "writes it.",
    ),
    click.option("--rather-than-token", metavar="TOKEN", help="Text: explain why the target rather than this token."),
    click.option(
        "--generate",
        type=click.IntRange(min=1),
        metavar="N",
        help="Text: let a language model go on by up to N tokens, and explain each by all that came before it.",
    ),
)


def text_options(command: Callback) -> Callback:
    """The options for texts; the command receives them as `text`: `texts` and the fields of TextOptions."""
    return gathered(command, _TEXT, "text")


def explain_text(
    model: str, text: dict[str, Any], similar_to: SimilarTo | None = None, **asked: Any
) -> Sequence[TextResult]:
    """Explain `model` on the texts that were given. Raises a usage error where they have no tokenizer."""
    if not text["tokenizer"]:
        raise click.UsageError("--text needs the model's --tokenizer, a tokenizer.json file.")
    from onnxlrp.explain.text import TextOptions, explain_texts

    options = {name: value for name, value in text.items() if name != "texts" and value is not None}
    return explain_texts(model, text["texts"], options=TextOptions(**options, similar_to=similar_to), **asked)


def print_text(result: TextResult, top: int) -> None:
    """Classes, what was explained, the words with their relevance, and the files of one text."""
    print_warnings(result.notes)
    facts: dict[str, str | Sequence[str]] = {"text": result.text}
    if result.pair is not None:
        facts["pair"] = result.pair
    if result.generated is not None:
        facts["generated"] = result.generated
    elif result.top:
        facts["classes"] = [_class_line(found, result.score_kind) for found in result.top]
    print_facts(facts)
    for one in result.maps:
        click.echo()
        print_facts({"explained": f"{one.target}  {one.detail}".rstrip()})
        _print_words(one)
        print_facts({"most": [f"{word.relevance:+.4g}  {word.text}" for word in one.largest(top)]})
    click.echo()
    print_facts({"written": [str(file) for file in result.files]})


def _class_line(found: TopClass, kind: str) -> str:
    score = f"{found.score:7.2%}" if kind else f"{found.score:9.4g}"
    return f"{score}  {found.index:>4}  {found.label or ''}".rstrip()


def _print_words(one: TextMap) -> None:
    """A paragraph of words on their colours; where nobody sees colours, each word with its number."""
    lines = [[word for word in one.words if word.sequence == k] for k in sorted({w.sequence for w in one.words})]
    if not on_terminal():
        for line in lines:
            click.echo(" ".join(f"{word.text}({word.relevance:+.2g})" for word in line))
        return
    from rich.console import Console
    from rich.text import Text

    from onnxlrp.explain.text_page import colour, is_dark, scale_of

    scale = scale_of(one.words)
    console = Console(highlight=False)
    for line in lines:
        shown = Text()
        for word in line:
            ground = colour(word.relevance, scale)
            ink = "white" if is_dark(ground) else "black"
            shown.append(_printable(word), style=f"{ink} on rgb({','.join(map(str, ground))})").append(" ")
        console.print(shown)


def _printable(word: WordRelevance) -> str:
    """Without the control characters that would change a terminal."""
    return "".join(_visible(word.text))


def _visible(text: str) -> Iterator[str]:
    for character in text:
        yield character if character.isprintable() else " "
