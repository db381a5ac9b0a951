"""A language model goes on with a text, likeliest token by likeliest token; each is explained by what came before."""

from __future__ import annotations

import numpy as np

from onnxlrp.errors import UsageError
from onnxlrp.explain.text_model import TextModel
from onnxlrp.explain.text_results import Found, Pass
from onnxlrp.explain.text_tokens import Encoded


def generate(model: TextModel, text: str, pair: str | None, texts: tuple[Encoded, ...], count: int) -> Found:
    """The continuation by up to `count` tokens, with one pass of the whole text so far for each.

    It ends early at a special token, which is the last one explained. Raises UsageError for a model that takes two
    texts in inputs of their own, or has no score for every token.
    """
    if len(texts) != 1:
        raise UsageError("a text can be continued by a model with one input of token ids only")
    tokenizer, encoded = model.tokenizer, texts[0]
    passes: list[Pass] = []
    notes: tuple[str, ...] = ()
    if encoded.pieces and encoded.pieces[-1].is_special:
        notes = (f"the tokenizer ends the text with {encoded.pieces[-1].text}, which is continued",)
    while len(passes) < count:
        found, said = model.run((encoded,))
        notes = (*notes, *said)
        _, reading = model.read(found)
        passes += model.passes(found, (encoded,), reading, (text, pair or ""))
        token = _likeliest(found.explained_output)
        if token >= tokenizer.size:
            raise UsageError(f"the model's likeliest score has number {token}, which is no token of the tokenizer")
        encoded = tokenizer.continued(encoded, token)
        if tokenizer.is_special(token):
            notes = (*notes, f"the model ended the text with {encoded.pieces[-1].text}")
            break
    added = encoded.ids[len(texts[0].ids) :]
    return Found(text, pair, tuple(passes), generated=tokenizer.decode(added), notes=notes)


def _likeliest(scores: np.ndarray | None) -> int:
    if scores is None or scores.ndim != 2:
        raise UsageError(
            "a text is continued by the scores [batch, sequence, tokens] of one position; the explained output has none"
        )
    return int(scores[0].argmax())
