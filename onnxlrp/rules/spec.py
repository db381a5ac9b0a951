"""What a rule table may name: every rule, its parameters and what it is for.

A rule is described here as data, so that rule tables can be checked and printed without building a graph.
How a rule propagates relevance stands in the sibling modules.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

ParameterKind = Literal["number", "choice", "bound"]

#: What a step can be, as far as rules are concerned (`kind` in a rule table).
KINDS: Mapping[str, str] = {
    "linear": "weighted linear layers: Conv, ConvTranspose, Gemm, MatMul or Einsum with a constant",
    "affine": "element-wise scale and shift: a BatchNormalization that could not be merged, Mul by a constant",
    "average": "linear without learned weights: average pooling, ReduceMean, ReduceSum, CumSum, interpolation (Resize,"
    " GridSample, RoiAlign), DFT, STFT",
    "sum": "sums of several tensors: Add, Sub, Sum, Mean",
    "activation": "element-wise functions of one tensor: Relu, Sigmoid, Gelu, ...",
    "normalization": "InstanceNormalization, GroupNormalization, LayerNormalization, LRN: statistics of the data",
    "product": "products and quotients of two tensors that both depend on the input: gates, attention",
    "max": "winner-takes-all: MaxPool, GlobalMaxPool, ReduceMax, Max, Min, TopK",
    "tree": "ensembles of decision trees",
    "movement": "values moved without change: Reshape, Concat, Slice, Pad, Gather, Scatter, ...",
}


@dataclass(frozen=True)
class Parameter:
    """One parameter of a rule.

    `number` is a finite float in [minimum, maximum]; `choice` one of `choices`; `bound` a number, a list with one
    number per channel, or the name of an initializer.
    """

    default: Any
    summary: str
    kind: ParameterKind = "number"
    minimum: float = 0.0
    maximum: float = float("inf")
    choices: tuple[str, ...] = ()
    required: bool = False


@dataclass(frozen=True)
class RuleSpec:
    """A rule's name, the kinds of step it can treat, its parameters and the source of its formula."""

    name: str
    kinds: tuple[str, ...]
    summary: str
    source: str
    parameters: Mapping[str, Parameter] = field(default_factory=dict)


_EPSILON = Parameter(1e-6, "size of the stabiliser added to a denominator, away from zero")
_STABILISER = Parameter(
    "sign",
    "sign: z + e*sgn(z); clip: sgn(z)*max(|z|, e);"
    " norm: like sign with e scaled by the root mean square of z per sample;"
    " plain: z + e whatever the sign of z, which may be zero where z is negative",
    kind="choice",
    choices=("sign", "clip", "norm", "plain"),
)
_BIAS = Parameter(
    "absorb",
    "absorb: the bias stands in the denominator and keeps its share of relevance; ignore: it is left out",
    kind="choice",
    choices=("absorb", "ignore"),
)
_DIVISION = {"epsilon": _EPSILON, "stabiliser": _STABILISER, "bias": _BIAS}
_DIVIDED = ("linear", "affine", "average", "sum", "normalization")

_RULES: dict[str, RuleSpec] = {
    spec.name: spec
    for spec in (
        RuleSpec(
            "z",
            _DIVIDED,
            "LRP-0: relevance in proportion to x*w; exact, no stabiliser",
            "Bach et al. 2015, eq. 56",
            {"bias": _BIAS},
        ),
        RuleSpec(
            "epsilon",
            _DIVIDED,
            "LRP-epsilon: x*w over the stabilised pre-activation",
            "Bach et al. 2015, eq. 58",
            _DIVISION,
        ),
        RuleSpec(
            "norm",
            _DIVIDED,
            "epsilon rule with the operator itself, for sums and averages (zennit's Norm)",
            "Anders et al. 2021 (zennit)",
            _DIVISION,
        ),
        RuleSpec(
            "z-plus",
            _DIVIDED,
            "positive contributions only: x+ w+ and x- w-",
            "Montavon et al. 2017, eq. 16",
            _DIVISION,
        ),
        RuleSpec(
            "alpha-beta",
            _DIVIDED,
            "positive contributions weighted by alpha, negative ones by beta = alpha - 1",
            "Bach et al. 2015, eq. 60",
            {
                "alpha": Parameter(2.0, "weight of positive contributions; alpha - beta = 1", minimum=1.0),
                "beta": Parameter(1.0, "weight of negative contributions; alpha - beta = 1"),
                **_DIVISION,
            },
        ),
        RuleSpec(
            "gamma",
            _DIVIDED,
            "favours positive contributions by gamma; generalised to inputs and outputs of either sign",
            "Montavon et al. 2019; Andeol et al. 2022 (generalised)",
            {"gamma": Parameter(0.25, "how much positive contributions are favoured"), **_DIVISION},
        ),
        RuleSpec(
            "z-box",
            ("linear",),
            "input layer whose values lie in [low, high]",
            "Montavon et al. 2017, eq. 18",
            {
                "low": Parameter(None, "smallest input value", kind="bound", required=True),
                "high": Parameter(None, "largest input value", kind="bound", required=True),
                "epsilon": _EPSILON,
                "stabiliser": _STABILISER,
            },
        ),
        RuleSpec(
            "w-square",
            ("linear",),
            "relevance in proportion to squared weights, whatever the input",
            "Montavon et al. 2017, eq. 14",
            _DIVISION,
        ),
        RuleSpec(
            "flat",
            ("linear",),
            "relevance spread evenly over the receptive field",
            "Lapuschkin et al. 2019",
            {"epsilon": _EPSILON, "stabiliser": _STABILISER},
        ),
        RuleSpec(
            "excitation",
            ("linear", "affine", "average", "sum"),
            "excitation backprop: positive weights and inputs, no bias",
            "Zhang et al. 2016, eq. 5",
            {"epsilon": _EPSILON},
        ),
        RuleSpec(
            "absolute-magnitude",
            tuple(kind for kind in KINDS if kind != "tree"),
            "absLRP: positive contributions over the absolute output, functions by their slopes at x and at |x|;"
            " goes with normalize in the table",
            "Vukadin et al. 2024 (released code)",
            {
                "epsilon": Parameter(1e-9, "added to the absolute value of each output before dividing by it"),
                "form": Parameter(
                    "magnitude",
                    "magnitude: what is not linear is run on |x| as well; intline: its absolute output stands for that",
                    kind="choice",
                    choices=("magnitude", "intline"),
                ),
                "outputs": Parameter(
                    "all",
                    "all; positive: outputs that are not positive lose their relevance (the sign filter)",
                    kind="choice",
                    choices=("all", "positive"),
                ),
                "shortcut": Parameter(
                    "own",
                    "of sums. own: each term gets its own share; derivative: a term that another one was made from also"
                    " gets what the derivative of that one says (the released code at residual additions)",
                    kind="choice",
                    choices=("own", "derivative"),
                ),
                "divide": Parameter(
                    "yes",
                    "yes: relevance is divided by the absolute output; no: it is not, so that larger inputs weigh more",
                    kind="choice",
                    choices=("yes", "no"),
                ),
            },
        ),
        RuleSpec(
            "relative",
            ("linear", "affine", "average"),
            "Relative LRP, reconstructed from the abstract of its paper: x*w*R with one factor for the whole layer",
            "after Nyiri and Gibaru 2025 (abstract only)",
        ),
        RuleSpec(
            "pass",
            ("activation", "affine", "normalization"),
            "relevance goes through unchanged",
            "Bach et al. 2015; Achtibat et al. 2024, eq. 9",
        ),
        RuleSpec(
            "gradient",
            tuple(KINDS),
            "the derivative applied to the multiplier: gradient x input",
            "Shrikumar et al. 2016",
        ),
        RuleSpec(
            "deconvnet",
            ("activation",),
            "negative relevance is cut, whether the unit was active or not",
            "Zeiler and Fergus 2014",
        ),
        RuleSpec(
            "guided-backprop",
            ("activation",),
            "gradient through active units, negative relevance cut",
            "Springenberg et al. 2015",
        ),
        RuleSpec(
            "signal",
            ("product",),
            "the gate receives nothing, the signal everything (signal-take-all)",
            "Arras et al. 2017",
            {
                "activated": Parameter(
                    "half",
                    "of products in which neither factor is bounded, what one gets that comes out of an activation such"
                    " as SiLU: half; gate: nothing, as a gate",
                    kind="choice",
                    choices=("half", "gate"),
                ),
            },
        ),
        RuleSpec(
            "half",
            ("product",),
            "half of the relevance to each factor",
            "Achtibat et al. 2024, prop. 3.2 and 3.3",
            {
                "epsilon": Parameter(0.0, "size of the stabiliser added to 2y; with 0 nothing is divided by"),
                "stabiliser": _STABILISER,
            },
        ),
        RuleSpec(
            "proportional",
            ("product",),
            "to each factor in proportion to its value: LRP-prop and LRP-abs of recurrent networks",
            "Arras et al. 2019 (Explaining and Interpreting LSTMs)",
            {
                "shares": Parameter(
                    "signed",
                    "signed: a / (a + b), which may be negative or large; absolute: |a| / (|a| + |b|)",
                    kind="choice",
                    choices=("signed", "absolute"),
                ),
                "epsilon": Parameter(1e-9, "size of the stabiliser added to the denominator"),
                "stabiliser": _STABILISER,
            },
        ),
        RuleSpec(
            "dpa",
            ("product",),
            "Dual Path Attribution: a weight of its own for each path through attention and gated layers",
            "Jantsch et al. 2026",
            {
                "query": Parameter(0.25, "weight of the path through the queries"),
                "key": Parameter(0.25, "weight of the path through the keys"),
                "value": Parameter(0.5, "weight of the path through the values"),
                "gate": Parameter(0.5, "weight of the path through the gate of a gated layer (control)"),
                "up": Parameter(0.5, "weight of the path through what is gated (content)"),
            },
        ),
        RuleSpec(
            "res-lrp",
            ("sum",),
            "residual additions: what agrees with the sum in sign counts 1 + gamma times, so that nothing blows up",
            "ResLRP 2026",
            {"gamma": Parameter(1.0, "how much more agreeing terms count; 0 is the epsilon rule"), **_DIVISION},
        ),
        RuleSpec(
            "absolute-ratio",
            ("sum",),
            "residual additions: in proportion to the absolute terms",
            "Otsuki et al. 2024",
            _DIVISION,
        ),
        RuleSpec(
            "rescaled",
            ("sum",),
            "residual additions: the epsilon rule, then each branch rescaled as a whole, so that branches which cancel"
            " element by element cannot blow up",
            "Chefer et al. 2021 (residual additions of the released code)",
            {key: value for key, value in _DIVISION.items() if key != "bias"},
        ),
        RuleSpec(
            "equal",
            ("sum",),
            "residual additions: the same share to each term, however large it is",
            "Otsuki et al. 2024 (symmetric)",
        ),
        RuleSpec("winner", ("max",), "all relevance to the largest element", "Bach et al. 2015"),
        RuleSpec(
            "path",
            ("tree",),
            "what the expected prediction changed by at each split on the path from root to leaf",
            "Palczewska et al. 2013; Saabas 2014",
        ),
        RuleSpec("move", ("movement",), "relevance follows each value to where it came from", "exact, no choice"),
    )
}

#: All rules by name, those that users registered included.
RULES: Mapping[str, RuleSpec] = MappingProxyType(_RULES)


def add(spec: RuleSpec) -> None:
    """Makes a rule known to rule tables."""
    _RULES[spec.name] = spec


def remove(name: str) -> None:
    """Forgets a rule that was added."""
    del _RULES[name]


#: Other names in use for the same rule.
ALIASES: Mapping[str, str] = {
    "lrp-0": "z",
    "zero": "z",
    "z+": "z-plus",
    "gradient-x-input": "gradient",
    "w2": "w-square",
    "zb": "z-box",
}
