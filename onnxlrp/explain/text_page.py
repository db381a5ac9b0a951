"""An explained text as one HTML page: coloured words, numbers, a matrix for a generated text. No scripts, no links."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from onnxlrp.explain.colours import Scale, ticks
from onnxlrp.explain.job import Job

if TYPE_CHECKING:
    from onnxlrp.explain.text_results import TextMap, TextResult
    from onnxlrp.explain.text_tokens import TokenRelevance, WordRelevance

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222; background: #fff; margin: 2rem auto; max-width: 60rem;
       padding: 0 1rem; }
h1 { font-size: 1.3rem; margin-bottom: .2rem; } h2 { font-size: 1.05rem; margin: 2rem 0 .3rem; }
p.about, p.detail, figcaption { color: #666; font-size: .85rem; margin: .2rem 0; }
p.text { font-size: 1.1rem; line-height: 2.1; border: 1px solid #ddd; border-radius: .4rem; padding: .6rem .8rem; }
p.text span { border-radius: .25rem; padding: .15rem .25rem; white-space: pre-wrap; }
p.text span.special { font-size: .75rem; border: 1px dotted #aaa; }
table { border-collapse: collapse; font-size: .9rem; } th, td { padding: .15rem .6rem; text-align: left; }
td.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
div.wide { overflow-x: auto; } table.matrix th { font-weight: normal; white-space: pre; }
table.matrix td { text-align: right; font-size: .75rem; min-width: 3rem; border: 1px solid #fff; }
div.scale { width: 20rem; height: .7rem; border: 1px solid #ccc; }
div.ticks { width: 20rem; display: flex; justify-content: space-between; font-size: .75rem; color: #666; }
details { margin: .6rem 0; } summary { cursor: pointer; color: #444; }
"""
_LISTED = 20


def page(result: TextResult, job: Job) -> bytes:
    """The page, UTF-8."""
    return "\n".join(_page(result, job)).encode()


def _page(result: TextResult, job: Job) -> Iterator[str]:
    title = result.maps[0].target if len(result.maps) == 1 else "Relevance of a text"
    yield "<!DOCTYPE html>"
    yield '<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    yield f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
    yield f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>"
    yield f"<h1>{escape(title)}</h1>"
    yield f'<p class="about">model {escape(job.model)} &middot; rules {escape(job.rules)}</p>'
    yield '<p class="about">Red speaks for what is explained, blue against it.</p>'
    if result.top and result.generated is None:
        yield from _classes(result)
    if result.generated is not None:
        yield f"<h2>Generated</h2><p>{escape(result.generated)}</p>"
        yield from _matrix(result.maps)
    if result.pairs:
        yield from _pairs(result)
    for one in result.maps:
        yield from _map(one, len(result.maps) > 1)
    for note in result.notes:
        yield f'<p class="about">Note: {escape(note)}</p>'
    yield "</body></html>"


def _classes(result: TextResult) -> Iterator[str]:
    yield "<h2>Most likely</h2><table>"
    for found in result.top:
        score = f"{found.score:.2%}" if result.score_kind else f"{found.score:.4g}"
        name = escape(found.label or f"class {found.index}")
        yield f'<tr><td class="number">{score}</td><td>{found.index}</td><td>{name}</td></tr>'
    yield "</table>"


def _map(one: TextMap, titled: bool) -> Iterator[str]:
    if titled:
        yield f"<h2>{escape(one.target)}</h2>"
    if one.detail:
        yield f'<p class="detail">{escape(one.detail)}</p>'
    scale = scale_of(one.words)
    for sequence in sorted({word.sequence for word in one.words}):
        words = [word for word in one.words if word.sequence == sequence]
        yield f'<p class="text">{" ".join(_word(word, scale) for word in words)}</p>'
    yield from _legend(scale)
    yield f'<p class="detail">sum over all tokens {one.total:+.4g}{escape(_others(one))}</p>'
    yield "<details><summary>Most relevant words</summary><table>"
    for found in one.largest(_LISTED):
        yield f'<tr><td class="number">{found.relevance:+.4g}</td><td>{escape(found.text)}</td></tr>'
    yield "</table></details><details><summary>All tokens</summary><table>"
    for token in one.tokens:
        yield f'<tr><td class="number">{token.relevance:+.4g}</td><td>{escape(token.text)}</td></tr>'
    yield "</table></details>"


def _others(one: TextMap) -> str:
    return "".join(f"; {name} {total:+.4g}" for name, total in one.other_inputs.items())


def _word(word: WordRelevance, scale: Scale) -> str:
    kind = ' class="special"' if word.special else ""
    return f'<span{kind} {_style(word.relevance, scale)} title="{word.relevance:+.4g}">{escape(word.text)}</span>'


def scale_of(entries: Sequence[TokenRelevance | WordRelevance]) -> Scale:
    """A colour scale up to the largest size: words are few, and each is read by itself."""
    largest = max((abs(entry.relevance) for entry in entries), default=0.0)
    return Scale(largest or 1.0, 0.0, empty=not largest)


def is_dark(colour: tuple[int, int, int]) -> bool:
    """Whether white letters are read better on it than black ones."""
    red, green, blue = colour
    return 0.3 * red + 0.59 * green + 0.11 * blue < 120


def _style(value: float, scale: Scale) -> str:
    red, green, blue = ground = colour(value, scale)
    ink = "#fff" if is_dark(ground) else "#222"
    return f'style="background:rgb({red},{green},{blue});color:{ink}"'


def colour(value: float, scale: Scale) -> tuple[int, int, int]:
    """The colour of one number: red, green, blue from 0 to 255."""
    red, green, blue = scale.colours(np.array([[value]]))[0, 0].tolist()
    return red, green, blue


def _legend(scale: Scale) -> Iterator[str]:
    stops = np.linspace(-scale.limit, scale.limit, 9).tolist()
    colours = ", ".join("rgb({},{},{})".format(*colour(stop, scale)) for stop in stops)
    yield f'<div class="scale" style="background:linear-gradient(to right, {colours})"></div>'
    yield f'<div class="ticks">{"".join(f"<span>{text}</span>" for _, text in ticks(scale.limit))}</div>'


def _matrix(maps: Sequence[TextMap]) -> Iterator[str]:
    """One column for each generated token, one row for each token that came before it."""
    longest = max(maps, key=lambda one: len(one.tokens))
    scales = [scale_of(one.tokens) for one in maps]
    yield '<figure><div class="wide"><table class="matrix"><tr><th></th>'
    yield "".join(f"<th>{escape(one.target)}</th>" for one in maps) + "</tr>"
    for row, token in enumerate(longest.tokens):
        cells = "".join(_cell(one.tokens[row : row + 1], scale) for one, scale in zip(maps, scales, strict=True))
        yield f"<tr><th>{escape(token.text)}</th>{cells}</tr>"
    yield "</table></div>"
    yield "<figcaption>Each column shows what one generated token rests on, on its own scale.</figcaption></figure>"


def _pairs(result: TextResult) -> Iterator[str]:
    """One row for each token of the first text, one column for each token of the second."""
    first, second = (one.tokens for one in result.maps)
    largest = max((abs(value) for row in result.pairs for value in row), default=0.0)
    scale = Scale(largest or 1.0, 0.0, empty=not largest)
    yield '<h2>Pairs of tokens</h2><figure><div class="wide"><table class="matrix"><tr><th></th>'
    yield "".join(f"<th>{escape(token.text)}</th>" for token in second) + "</tr>"
    for token, row in zip(first, result.pairs, strict=True):
        cells = "".join(f"<td {_style(value, scale)}>{value:+.2g}</td>" for value in row)
        yield f"<tr><th>{escape(token.text)}</th>{cells}</tr>"
    yield "</table></div>"
    yield "<figcaption>What each pair of a token of the first and of the second text adds to the cosine.</figcaption>"
    yield "</figure>"


def _cell(tokens: Sequence[TokenRelevance], scale: Scale) -> str:
    return "".join(f"<td {_style(t.relevance, scale)}>{t.relevance:+.2g}</td>" for t in tokens) or "<td></td>"
