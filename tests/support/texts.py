"""Tokenizers of a few words, and models of text whose relevance can be told by hand.

Every model adds up rows of a table and multiplies by a matrix, without biases: a token's relevance for a class is then
the product of its own row with the column of that class.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper, parser
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

Array = np.ndarray

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
PIECES = [*SPECIAL, "ignore", "all", "rule", "##s", "the", "weather", "is", "fine", ",", "<", ">"]
_RNG = np.random.default_rng(8)
VOCABULARY = 40
TABLE, SECOND, TYPES = (_RNG.normal(size=(rows, 4)) for rows in (VOCABULARY, VOCABULARY, 2))
HEAD = _RNG.normal(size=(4, VOCABULARY))


def word_pieces(folder: Path, max_length: int | None = None, padded: bool = False) -> Path:
    """A tokenizer as BERT has it: lower case, pieces, [CLS] and [SEP] around one text or two."""
    tokenizer = Tokenizer(models.WordPiece({p: k for k, p in enumerate(PIECES)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens(SPECIAL)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    if max_length is not None:
        tokenizer.enable_truncation(max_length)
    if padded:
        tokenizer.enable_padding(length=32, pad_id=0, pad_token="[PAD]")
    return _saved(tokenizer, folder / "tokenizer.json")


def byte_level(folder: Path) -> Path:
    """A tokenizer as GPT-2 has it: pieces carry the space before them, nothing is put around a text."""
    vocabulary = ["<end>", "The", "\u0120cat", "\u0120sat", "\u0120on", "\u0120mat", "s", "\u0120Paris", "\u0120London"]
    letters = sorted({letter for word in vocabulary[1:] for letter in word})
    known = {p: k for k, p in enumerate(dict.fromkeys([*vocabulary, *letters]))}
    tokenizer = Tokenizer(models.BPE(vocab=known, merges=[], ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken("<end>", special=True)])
    return _saved(tokenizer, folder / "tokenizer.json")


def _saved(tokenizer: Tokenizer, path: Path) -> Path:
    tokenizer.save(str(path))
    return path


def written(nodes: str, inputs: str, outputs: str, **more: Array) -> onnx.ModelProto:
    """A model of nodes that may read the tables."""
    text = f'<ir_version: 10, opset_import: ["" : 21]> g ({inputs}) => ({outputs}) {{ {nodes} }}'
    model = parser.parse_model(text)
    tables = {"table": TABLE, "types": TYPES, "second": SECOND, "head": HEAD}
    for name, value in {**tables, "one": np.array(1), "axis": np.array([1]), **more}.items():
        kept = value.astype(np.float32) if value.dtype == np.float64 else value
        model.graph.initializer.append(numpy_helper.from_array(kept, name))
    return model


CLASSIFIER = """
  f = Cast <to = 1> (attention_mask) m = Unsqueeze(f, minus) e = Gather(table, input_ids) k = Mul(e, m)
  s = ReduceSum <keepdims = 0> (k, axis) logits = MatMul(s, classes)
"""
MINUS = {"minus": np.array([-1]), "classes": HEAD[:, :3]}


def classifier(sequence: str | int = "S") -> onnx.ModelProto:
    """Three classes of a bag of words."""
    size = f"int64[N,{sequence}]"
    return written(CLASSIFIER, f"{size} input_ids, {size} attention_mask", "float[N,3] logits", **MINUS)


LANGUAGE = "e = Gather(table, input_ids) s = CumSum(e, one) logits = MatMul(s, head)"


def language_model(sequence: str | int = "S", scores: int = VOCABULARY) -> onnx.ModelProto:
    """Scores for the next token, from the sum of all so far."""
    size, logits = f"int64[N,{sequence}] input_ids", f"float[N,{sequence},{scores}] logits"
    return written(LANGUAGE, size, logits, head=HEAD[:, :scores])


def encoder() -> onnx.ModelProto:
    """A vector for each token."""
    return written("vectors = Gather(table, input_ids)", "int64[N,S] input_ids", "float[N,S,4] vectors")
