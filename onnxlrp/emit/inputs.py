"""Names of the inputs that a conversion may add to a model."""

from __future__ import annotations

TARGET_INPUT = "lrp_target"
SEED_INPUT = "lrp_seed"
EXPLAIN_INPUT = "lrp_explain"


def is_added_input(name: str) -> bool:
    """Whether an input was added by a conversion; with several explained outputs names carry a suffix."""
    return any(name == added or name.startswith(f"{added}_") for added in (TARGET_INPUT, SEED_INPUT, EXPLAIN_INPUT))
