"""Small random transformers of many families, with what they are run on."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import torch
import transformers
from torch import Tensor, nn
from transformers import activations
from transformers.models.whisper import modeling_whisper

#: Modules that are one function of one tensor, however they are written.
ACTIVATIONS: tuple[type[nn.Module], ...] = tuple(
    cls for cls in vars(activations).values() if isinstance(cls, type) and issubclass(cls, nn.Module)
)
_WIDTH, _HEADS, _LAYERS, _VOCABULARY = 16, 2, 2, 40


@dataclass(frozen=True)
class Family:
    """A family of models.

    Attributes:
        build: makes the model.
        output: what is explained, from what the model returns.
        image: side of the square image that it takes, None for token ids.
        sound: (bands, frames) of the spectrogram that it takes.
        with_decoder: whether ids of a decoder go with the explained ids of the encoder.
    """

    build: Callable[[], nn.Module]
    output: str = "last_hidden_state"
    image: int | None = None
    sound: tuple[int, int] | None = None
    with_decoder: bool = False


class Runner(nn.Module):
    """A model as a function of tensors alone."""

    def __init__(self, model: nn.Module, family: Family) -> None:
        super().__init__()
        self.model, self.family = model, family

    @property
    def explained(self) -> nn.Module:
        """The part whose token embeddings are explained."""
        return self.model.encoder if self.family.with_decoder else self.model

    def forward(self, x: Tensor, mask: Tensor | None = None, decoder: Tensor | None = None) -> Tensor:
        given: dict[str, Any]
        if self.family.image is not None or self.family.sound is not None:
            given = {"pixel_values" if self.family.image else "input_features": x}
        elif self.family.with_decoder:
            given = {"input_ids": x, "attention_mask": mask, "decoder_input_ids": decoder, "use_cache": False}
        else:
            given = {"input_ids": x, "attention_mask": mask}
        if self.family.output == "logits" and self.family.image is None:
            given["use_cache"] = False
        found: Tensor = getattr(self.model(**given, return_dict=True), self.family.output)
        return found


def _shake(model: nn.Module) -> nn.Module:
    """Weights that nothing vanishes with: biases, norms and embeddings away from their initial 0 and 1."""
    generator = torch.Generator().manual_seed(7)
    for parameter in model.parameters():
        parameter.data += torch.randn(parameter.shape, generator=generator) * 0.15
    return model.eval()


def _text(config: str, model: str, **more: Any) -> Callable[[], nn.Module]:
    usual = {
        "vocab_size": _VOCABULARY,
        "hidden_size": _WIDTH,
        "num_hidden_layers": _LAYERS,
        "num_attention_heads": _HEADS,
        "intermediate_size": 24,
        "max_position_embeddings": 24,
    }

    def build() -> nn.Module:
        torch.manual_seed(0)
        made = getattr(transformers, config)(**{**usual, **more}, attn_implementation="eager")
        return _shake(getattr(transformers, model)(made))

    return build


def _named(config: str, model: str, **numbers: Any) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        torch.manual_seed(0)
        return _shake(
            getattr(transformers, model)(getattr(transformers, config)(**numbers, attn_implementation="eager"))
        )

    return build


_GPT = {"vocab_size": _VOCABULARY, "n_embd": _WIDTH, "n_layer": _LAYERS, "n_head": _HEADS, "n_positions": 24}
_VISION = {
    "hidden_size": _WIDTH,
    "num_hidden_layers": _LAYERS,
    "num_attention_heads": _HEADS,
    "intermediate_size": 24,
    "image_size": 16,
    "patch_size": 8,
}
_RELATIVE = {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 4}
_SWIN = {"image_size": 32, "patch_size": 4, "embed_dim": 8, "depths": [2, 1], "num_heads": [2, 2], "window_size": 4}
_T5 = {
    "vocab_size": _VOCABULARY,
    "d_model": _WIDTH,
    "d_kv": 8,
    "d_ff": 24,
    "num_layers": _LAYERS,
    "num_heads": _HEADS,
    "feed_forward_proj": "gated-gelu",
}
_BART = {
    "vocab_size": _VOCABULARY,
    "d_model": _WIDTH,
    "encoder_layers": _LAYERS,
    "decoder_layers": 1,
    "encoder_attention_heads": _HEADS,
    "decoder_attention_heads": _HEADS,
    "encoder_ffn_dim": 24,
    "decoder_ffn_dim": 24,
    "max_position_embeddings": 24,
}
_GROUPED = {"num_key_value_heads": 1}


def _whisper() -> nn.Module:
    torch.manual_seed(0)
    config = transformers.WhisperConfig(
        num_mel_bins=8,
        d_model=_WIDTH,
        encoder_layers=_LAYERS,
        encoder_attention_heads=_HEADS,
        encoder_ffn_dim=24,
        max_source_positions=6,
        attn_implementation="eager",
    )
    return _shake(modeling_whisper.WhisperEncoder(config))


FAMILIES: Mapping[str, Family] = {
    "bert": Family(_text("BertConfig", "BertModel")),
    "roberta": Family(_text("RobertaConfig", "RobertaModel", pad_token_id=1)),
    "electra": Family(_text("ElectraConfig", "ElectraModel", embedding_size=12)),
    "albert": Family(_text("AlbertConfig", "AlbertModel", embedding_size=12)),
    "distilbert": Family(
        _named(
            "DistilBertConfig",
            "DistilBertModel",
            vocab_size=_VOCABULARY,
            dim=_WIDTH,
            n_layers=_LAYERS,
            n_heads=_HEADS,
            hidden_dim=24,
            max_position_embeddings=24,
        )
    ),
    "deberta-v2": Family(
        _text(
            "DebertaV2Config",
            "DebertaV2Model",
            relative_attention=True,
            pos_att_type=["p2c", "c2p"],
            position_buckets=4,
        )
    ),
    "gpt2": Family(_named("GPT2Config", "GPT2LMHeadModel", **_GPT), "logits"),
    "opt": Family(_text("OPTConfig", "OPTForCausalLM", ffn_dim=24, word_embed_proj_dim=_WIDTH), "logits"),
    "llama": Family(_text("LlamaConfig", "LlamaForCausalLM", **_GROUPED), "logits"),
    "mistral": Family(_text("MistralConfig", "MistralForCausalLM", **_GROUPED, sliding_window=4), "logits"),
    "qwen2": Family(_text("Qwen2Config", "Qwen2ForCausalLM", **_GROUPED), "logits"),
    "qwen3": Family(_text("Qwen3Config", "Qwen3ForCausalLM", **_GROUPED, head_dim=8), "logits"),
    "gemma": Family(_text("GemmaConfig", "GemmaForCausalLM", **_GROUPED, head_dim=8), "logits"),
    "phi": Family(_text("PhiConfig", "PhiForCausalLM", pad_token_id=0), "logits"),
    "t5-encoder": Family(_named("T5Config", "T5EncoderModel", **_T5)),
    "t5": Family(_named("T5Config", "T5Model", **_T5), with_decoder=True),
    "bart": Family(_named("BartConfig", "BartModel", **_BART), with_decoder=True),
    "whisper-encoder": Family(_whisper, sound=(8, 12)),
    "clip-text": Family(_text("CLIPTextConfig", "CLIPTextModel", eos_token_id=2)),
    "clip-vision": Family(_named("CLIPVisionConfig", "CLIPVisionModel", **_VISION), image=16),
    "vit": Family(_named("ViTConfig", "ViTModel", **_VISION), image=16),
    "deit": Family(_named("DeiTConfig", "DeiTModel", **_VISION), image=16),
    "swin": Family(_named("SwinConfig", "SwinModel", **_SWIN), image=32),
}


@dataclass(frozen=True)
class Case:
    """A model, its input and the arguments of its export."""

    runner: Runner
    inputs: tuple[Tensor, ...]
    names: tuple[str, ...]

    def feeds(self, model: onnx.ModelProto) -> dict[str, Any]:
        """Arrays for those of its inputs that the exporter kept."""
        kept = {value.name for value in model.graph.input}
        return {n: x.numpy() for n, x in zip(self.names, self.inputs, strict=True) if n in kept}

    def double(self) -> Runner:
        return copy.deepcopy(self.runner).double().requires_grad_(False)


def case(name: str) -> Case:
    family = FAMILIES[name]
    runner = Runner(family.build(), family).eval()
    generator = torch.Generator().manual_seed(3)
    if family.image is not None:
        side = family.image
        return Case(runner, (torch.randn(2, 3, side, side, generator=generator),), ("image",))
    if family.sound is not None:
        return Case(runner, (torch.randn(2, *family.sound, generator=generator),), ("sound",))
    ids = torch.randint(3, _VOCABULARY, (2, 7), generator=generator)
    mask = torch.ones(2, 7, dtype=torch.long)
    if family.output != "logits":
        mask[1, 5:] = 0
    if family.with_decoder:
        decoder = torch.randint(3, _VOCABULARY, (2, 7), generator=generator)
        return Case(runner, (ids, mask, decoder), ("ids", "mask", "decoder"))
    return Case(runner, (ids, mask), ("ids", "mask"))


def export(given: Case, path: Path, dynamo: bool) -> onnx.ModelProto:
    """As an exporter of torch writes it, with open batch and sequence."""
    tokens = len(given.inputs) > 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if dynamo:
            axes = ({0: "batch", 1: "sequence"},) * len(given.inputs) if tokens else ({0: "batch"},)
            torch.onnx.export(
                given.runner,
                given.inputs,
                str(path),
                input_names=list(given.names),
                output_names=["y"],
                dynamo=True,
                dynamic_shapes=axes,
                verbose=False,
            )
        else:
            open_axes = {n: {0: "batch", 1: "sequence"} if tokens else {0: "batch"} for n in given.names}
            torch.onnx.export(
                given.runner,
                given.inputs,
                str(path),
                input_names=list(given.names),
                output_names=["y"],
                dynamo=False,
                dynamic_axes=open_axes,
                opset_version=17,
            )
    given.runner.eval()
    return onnx.load(path)
