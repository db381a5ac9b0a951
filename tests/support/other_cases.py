"""All operators beside the weighted linear ones."""

from __future__ import annotations

from collections.abc import Mapping

from tests.support.case import Case
from tests.support.elementwise_cases import ACTIVATIONS, GATES, PRODUCTS, QUOTIENTS, SCALINGS, SQUEEZE_EXCITE
from tests.support.moving_cases import MOVEMENTS, WINNERS
from tests.support.proportional_cases import AVERAGES, NORMALIZATIONS, SIGNED_AVERAGES, SUMS

ALL: Mapping[str, Case] = {
    **SUMS,
    **AVERAGES,
    **SIGNED_AVERAGES,
    **MOVEMENTS,
    **WINNERS,
    **ACTIVATIONS,
    **SCALINGS,
    **GATES,
    **PRODUCTS,
    **QUOTIENTS,
    **NORMALIZATIONS,
    **SQUEEZE_EXCITE,
}
