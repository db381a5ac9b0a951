"""What the project promises: time as a multiple of the original model's own, growth of the file, memory."""

from __future__ import annotations

from collections.abc import Mapping

#: Limit on time with the relevance part switched off, as a multiple of the original model's.
ON_DEMAND_OFF = 1.1
#: Limit on peak memory of the rule tables that need one transposed pass and nothing more.
MEMORY = 2.0
#: Limit on the growth of the file: this share of the original's size, plus this many bytes.
GROWTH_SHARE, GROWTH_BYTES = 0.02, 64 * 1024
#: Model -> limit on the time of its conversion, in seconds.
CONVERSION = {"resnet50": 3.0}

_ONE_PASS = ("epsilon", "gradient-x-input")
_TWO_PASSES = ("epsilon-plus", "epsilon-plus-flat", "epsilon-gamma-box", "default")
_THREE_PASSES = ("epsilon-alpha2-beta1", "epsilon-alpha2-beta1-flat")

#: Rule table -> limit for networks of large dense convolutions, limit for networks of many small operators.
TIME: Mapping[str, tuple[float, float]] = {
    **dict.fromkeys(_ONE_PASS, (2.3, 3.0)),
    **dict.fromkeys(_TWO_PASSES, (3.4, 5.0)),
    **dict.fromkeys(_THREE_PASSES, (4.6, 6.5)),
}
_LARGE = ("vgg", "resnet")
_SMALL = ("mobilenet", "efficientnet", "densenet")
_TRANSFORMERS = ("bert-", "vit-", "gpt2-")
#: Rule table -> limit for transformers.
TRANSFORMER_TIME: Mapping[str, float] = {"attnlrp": 2.3}


def time_budget(model: str, rules: str) -> float | None:
    """The limit on converted / original time, or None where nothing is promised."""
    if model.startswith(_TRANSFORMERS):
        return TRANSFORMER_TIME.get(rules)
    limits = TIME.get(rules)
    if limits is None:
        return None
    if model.startswith(_LARGE):
        return limits[0]
    return limits[1] if model.startswith(_SMALL) else None


def memory_budget(rules: str) -> float | None:
    """The limit on converted / original peak memory, or None where nothing is promised."""
    return MEMORY if rules in (*_ONE_PASS, *TRANSFORMER_TIME) else None


def conversion_budget(model: str) -> float | None:
    """The limit on the seconds that a conversion takes, or None where nothing is promised."""
    return CONVERSION.get(model)


def growth_budget(original_bytes: int) -> int:
    """The limit on how many bytes the file may grow."""
    return int(GROWTH_SHARE * original_bytes) + GROWTH_BYTES
