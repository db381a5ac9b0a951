"""Names of the inputs that a conversion may add to a model."""

from __future__ import annotations

TARGET_INPUT = "lrp_target"
SEED_INPUT = "lrp_seed"
EXPLAIN_INPUT = "lrp_explain"
POSITION_INPUT = "lrp_position"


def is_added_input(name: str) -> bool:
    """Whether an input was added by a conversion; with several explained outputs names carry a suffix."""
    added_names = (TARGET_INPUT, SEED_INPUT, EXPLAIN_INPUT, POSITION_INPUT)
    return any(name == added or name.startswith(f"{added}_") for added in added_names)
