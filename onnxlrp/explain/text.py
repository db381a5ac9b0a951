"""Explain a model on texts: classifiers, pairs of texts, language models and similarities; tokens, words, one page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Unpack

from onnxlrp.check import metadata
from onnxlrp.errors import UsageError
from onnxlrp.explain.feeds import Value
from onnxlrp.explain.job import Job
from onnxlrp.explain.naming import refuse_overwriting
from onnxlrp.explain.session import Asked, Model, open_model
from onnxlrp.explain.similar import SimilarTo, check_similar, embed_elsewhere
from onnxlrp.explain.text_cosine import Embedder
from onnxlrp.explain.text_generate import generate
from onnxlrp.explain.text_inputs import parse_roles
from onnxlrp.explain.text_model import TextModel
from onnxlrp.explain.text_results import Found, TextResult, planned_files, write_text
from onnxlrp.explain.text_tokens import TextTokenizer
from onnxlrp.read.load import load

#: Called with the number of texts done and of all texts; first with 0.
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class TextOptions:
    """How texts go into a model, and what is asked of it that only texts have.

    Attributes:
        tokenizer: a tokenizer.json file.
        pairs: for models of two texts: the second text for each first one.
        feed: what an input without a usual name takes: ids, mask, types or positions, `pair-` before it for the second
            of two texts that go through inputs of their own.
        token: the token whose score is explained, as in the vocabulary or as a text; `rather_than_token` another one
            that it is preferred to.
        generate: how many tokens a language model is to generate, each with a map of its own.
        similar_to: explained is the cosine between the embeddings of the text and of this one: another text, the file
            of an embedding, or what another model embeds.
    """

    tokenizer: str | Path
    pairs: Sequence[str] = ()
    feed: Mapping[str, str] = field(default_factory=dict)
    token: str | None = None
    rather_than_token: str | None = None
    generate: int = 0
    similar_to: SimilarTo | None = None


def explain_texts(
    model: Model,
    texts: Sequence[str],
    *,
    options: TextOptions,
    data: Mapping[str, Value] | None = None,
    out_dir: str | Path = ".",
    labels: str | Path | Sequence[str] | None = None,
    top: int = 5,
    progress: Progress | None = None,
    **asked: Unpack[Asked],
) -> list[TextResult]:
    """Explain `model` on texts. `data` fills inputs that no text goes into: arrays, numbers or files by name.

    For the first text and the rule table `default` there will be `text.default.html` and `text.default.npz`, for the
    next `text-2.default.html` ... Inputs are found by their usual names (`input_ids`, `attention_mask`,
    `token_type_ids`, `position_ids`); caches of keys and values (`past_...`) are fed empty.

    Raises UsageError for files, texts and options that do not fit, before anything is written where that can be known.
    """
    _check(texts, options, asked)
    tokenizer = TextTokenizer(options.tokenizer)
    asked = _with_tokens(asked, options, tokenizer)
    explain, job = _opened(model, asked, options, data or {}, labels, top, tokenizer)
    prefixes = [Path(out_dir) / f"{'text' if k == 0 else f'text-{k + 1}'}.{job.tag}" for k in range(len(texts))]
    named = [Path(str(value)) for value in (data or {}).values() if isinstance(value, str | Path)]
    refuse_overwriting(
        (file for prefix in prefixes for file in planned_files(prefix)), [Path(options.tokenizer), *named]
    )
    results: list[TextResult] = []
    pairs = [*options.pairs, *[None] * (len(texts) - len(options.pairs))]
    for text, pair, prefix in zip(texts, pairs, prefixes, strict=True):
        if progress:
            progress(len(results), len(texts))
        results.append(write_text(prefix, explain(text, pair), job))
    if progress:
        progress(len(results), len(texts))
    return results


def _check(texts: Sequence[str], options: TextOptions, asked: Asked) -> None:
    parse_roles(options.feed)
    if not all(texts):
        raise UsageError("a text is empty, so there is nothing to explain")
    if options.pairs and len(options.pairs) != len(texts):
        raise UsageError(f"{len(texts)} texts and {len(options.pairs)} texts to pair them with: give as many")
    stated = [asked.get("target"), asked.get("position"), asked.get("rather_than")]
    stated += [options.token, options.rather_than_token]
    targeted = any(value is not None for value in stated)
    if options.similar_to is not None and (options.pairs or options.generate or targeted):
        raise UsageError(
            "what is explained of two similar texts is their cosine: leave pairs, targets, positions and generate out"
        )
    if options.similar_to is not None:
        check_similar(options.similar_to, asked, "text")
    if options.generate and targeted:
        raise UsageError("a generated text explains each of its tokens: leave target, token and position out")


def _with_tokens(asked: Asked, options: TextOptions, tokenizer: TextTokenizer) -> Asked:
    """Tokens as targets: their ids."""
    found = asked.copy()
    if options.token is not None:
        if asked.get("target") is not None:
            raise UsageError("a token is the target: give one of the two")
        found["target"] = tokenizer.token_id(options.token)
    if options.rather_than_token is not None:
        if asked.get("rather_than") is not None:
            raise UsageError("what the target is preferred to is given twice, as an index and as a token")
        found["rather_than"] = tokenizer.token_id(options.rather_than_token)
    return found


def _opened(
    model: Model,
    asked: Asked,
    options: TextOptions,
    data: Mapping[str, Value],
    labels: str | Path | Sequence[str] | None,
    top: int,
    tokenizer: TextTokenizer,
) -> tuple[Callable[[str, str | None], Found], Job]:
    """What explains one text, or a pair, and what all of them share."""
    similar = options.similar_to
    if similar is not None:
        embedder = Embedder(model, asked, top, tokenizer, options.feed, data)
        if similar.is_own_text:
            other, towers = str(similar.what), embedder.towers(similar.pooling, similar.pairs)
            return lambda text, _: towers.explain(text, other), towers.job
        lone = embedder.lone(similar.pooling, embed_elsewhere(similar, asked))
        return lambda text, _: lone.explain(text), lone.job
    opened = _open(model, asked, options, data, labels, top, tokenizer)
    job = replace(opened.job, part="generated") if options.generate else opened.job
    return lambda text, pair: _explain(opened, text, pair, options.generate), job


def _open(
    model: Model,
    asked: Asked,
    options: TextOptions,
    data: Mapping[str, Value],
    labels: str | Path | Sequence[str] | None,
    top: int,
    tokenizer: TextTokenizer,
) -> TextModel:
    asked, place = _position(model, asked, "last" if options.generate else asked.get("position"))
    explainer, job = open_model(model, asked, labels, top, gives_position=True)
    return TextModel.of(explainer, job, tokenizer, options.feed, data, place)


def _position(model: Model, asked: Asked, wanted: str | int | None) -> tuple[Asked, int | None]:
    """How the wanted position is told to the model, and what it is told with every run.

    A model whose texts are filled up to a fixed length takes the position with every run, because its last position is
    not that of the last token.
    """
    source = load(model).model
    converted = metadata.read(source)
    if converted is not None:
        return asked, -1 if converted.settings.get("position") == "input" else None
    changed = asked.copy()
    changed["position"] = wanted
    if wanted == "input":
        return changed, -1
    shapes = (value.type.tensor_type.shape.dim for value in source.graph.input)
    fixed = any(len(dims) == 2 and dims[1].HasField("dim_value") for dims in shapes)
    if not fixed or not (wanted == "last" or (isinstance(wanted, int) and wanted < 0)):
        return changed, None
    changed["position"] = "input"
    return changed, -1 if wanted == "last" else int(wanted)


def _explain(model: TextModel, text: str, pair: str | None, count: int) -> Found:
    texts = model.encode(text, pair)
    if count:
        return generate(model, text, pair, texts, count)
    found, notes = model.run(texts)
    answer, reading = model.read(found)
    passes = model.passes(found, texts, reading, (text, pair or ""))
    if answer.explained is not None and answer.explained.ndim == 2 and "position" not in found.target:
        notes = (*notes, f"the output has scores for each of {len(answer.explained)} positions; a position names one")
    arrays = {f"output/{name}": value for name, value in found.outputs.items()}
    arrays |= {f"relevance/{name}": value for name, value in found.relevance.items()}
    return Found(text, pair, tuple(passes), reading.top, reading.score_kind, arrays=arrays, notes=notes)
