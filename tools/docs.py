#!/usr/bin/env python3
"""Write docs/OPERATORS.md, docs/RULES.md and docs/METRICS.md from what the package knows about itself.

    python tools/docs.py            write them
    python tools/docs.py --check    write nothing; exit with 1 and name the files that are out of date

Needs onnxlrp and its dependencies (.venv has them).
"""

from __future__ import annotations

import argparse
import inspect
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from onnxlrp.evaluation.registry import Metric, metrics  # noqa: E402
from onnxlrp.operators import OperatorEntry, catalogue  # noqa: E402
from onnxlrp.rules.spec import ALIASES, KINDS, RULES, Parameter, RuleSpec  # noqa: E402
from onnxlrp.tables import load_table, preset_names, preset_text  # noqa: E402
from onnxlrp.tables.declare import KEYS  # noqa: E402

#: What a rule computes. Its name, parameters and source stand in onnxlrp/rules/spec.py.
FORMULAS: Mapping[str, Sequence[str]] = {
    "z": ("R_i = x_i sum_j w_ij R_j / z_j",),
    "epsilon": ("R_i = x_i sum_j w_ij R_j / st(z_j)",),
    "norm": ("R_i = x_i sum_j w_ij R_j / st(z_j)",),
    "z-plus": (
        "p_ij = max(x_i, 0) max(w_ij, 0) + min(x_i, 0) min(w_ij, 0)",
        "R_i = sum_j p_ij R_j / st(sum_k p_kj + max(b_j, 0))",
    ),
    "alpha-beta": (
        "p_ij, n_ij = max(x_i w_ij, 0), min(x_i w_ij, 0)",
        "P_j, N_j = sum_k p_kj + max(b_j, 0), sum_k n_kj + min(b_j, 0)",
        "R_i = sum_j (alpha p_ij / st(P_j) - beta n_ij / st(N_j)) R_j",
    ),
    "gamma": (
        "p_ij, n_ij, P_j, N_j as for alpha-beta",
        "R_i = sum over j with z_j > 0 of (x_i w_ij + gamma p_ij) R_j / st(z_j + gamma P_j)",
        "    + sum over j with z_j < 0 of (x_i w_ij + gamma n_ij) R_j / st(z_j + gamma N_j)",
    ),
    "z-box": (
        "q_ij = x_i w_ij - low_i max(w_ij, 0) - high_i min(w_ij, 0)",
        "R_i = sum_j q_ij R_j / st(sum_k q_kj)",
    ),
    "w-square": ("R_i = sum_j w_ij^2 R_j / st(sum_k w_kj^2 + b_j^2)",),
    "flat": ("R_i = sum_j R_j / st(n_j)    n_j: the number of inputs that reach output j",),
    "excitation": ("R_i = sum_j max(x_i, 0) max(w_ij, 0) R_j / st(sum_k max(x_k, 0) max(w_kj, 0))",),
    "absolute-magnitude": (
        "s = R / (|h| + epsilon)    h, h_abs: the step, and the step of absolute weights run on |x|",
        "R_x = x d<(h + h_abs) / 2, s> / dx",
        "    = sum_j max(x_i w_ij, 0) R_j / (|z_j| + epsilon)        for layers, sums, averages",
        "    = (x f'(x) + |x| f'(|x|)) / 2 R / (|f(x)| + epsilon)    for functions, f' with constant statistics",
        "    = sum over b of max(a b, 0) R / (|z| + epsilon)         for products z of a and b, and likewise for b",
        "    = R x / (|x| + epsilon) at the winner                   for maxima of x >= 0",
        "    = R                                                     for movement and constant factors",
        "form = intline: R_x = x f'(x) [f(x) > 0] R / (|f(x)| + epsilon) for functions",
    ),
    "relative": ("m_i = x_i sum_j w_ij R_j    R_i = m_i sum_j |R_j| / sum_k |m_k|, the sums over a whole sample",),
    "pass": ("R_x = R_y",),
    "gradient": ("m_x = f'(x) m_y    R_x = x m_x",),
    "deconvnet": ("m_x = max(m_y, 0)",),
    "guided-backprop": ("m_x = f'(x) max(m_y, 0)",),
    "signal": ("y = signal * gate: R_signal = R_y, R_gate = 0    y = a / b: R_a = R_y, R_b = 0",),
    "half": ("y = a * b: R_a = R_b = R_y / 2", "y = sum a b: R_a = a sum b R_y / st(2 y)"),
    "proportional": (
        "y = a * b: R_a = a R_y / st(a + b)    signed",
        "y = a * b: R_a = |a| R_y / st(|a| + |b|)    absolute",
    ),
    "dpa": ("y = a * b: R_a = w_a R_y, R_b = w_b R_y, in multipliers    w: the weight of the path",),
    "res-lrp": (
        "u_k = (1 + gamma [sgn c_k = sgn z]) c_k    c_k: the terms, z = sum_k c_k",
        "R_k = u_k R / st(sum_l u_l)",
    ),
    "rescaled": (
        "a_k = c_k R / st(sum_l c_l)    S_k: the sum of a_k over a sample",
        "R_k = a_k sgn(S_k) sum(R) / sum_l |S_l|",
    ),
    "absolute-ratio": ("R_k = |c_k| R / st(sum_l |c_l|)",),
    "equal": ("R_k = R / n",),
    "winner": ("R_x = the sum of R_y over the windows in which x is the first of the largest",),
    "path": ("R_i = sum over splits on x_i along the path of (E[y | next node] - E[y | node]) m",),
    "move": ("R_x = the sum of R_y over all places that x was moved to",),
}

_NOTATION = """\
`x` inputs of a step, `w` weights, `b` bias, `z_j = sum_i x_i w_ij + b_j` the output, `R` relevance (of outputs on the
right side, of inputs on the left), `m` the multiplier with `R = x m`, `f` the step as a function, `st` the stabilised
denominator."""


def operators_page(entries: Iterable[OperatorEntry]) -> str:
    """docs/OPERATORS.md: every operator, grouped by kind."""
    by_kind: dict[str, list[OperatorEntry]] = {}
    for entry in entries:
        by_kind.setdefault(entry.kind, []).append(entry)
    kinds = {
        **KINDS,
        "control": "subgraphs: each step inside gets its own rule",
        "composite": "operators taken apart into simpler ones for the relevance pass; each part gets its own rule",
        "stop": "relevance ends here, for the stated reason",
    }
    count = sum(map(len, by_kind.values()))
    parts = [
        "# Operators",
        _generated("onnxlrp/operators/"),
        f"How relevance passes through each of {count} operators; `onnxlrp ops` prints the same. The *kind* is what an "
        "entry of a rule table matches with `kind = ...`, the *derivative* what the rule `gradient` uses. An operator "
        "that is not listed here stops a conversion where it lies between the target and an explained input.",
    ]
    for kind in sorted(by_kind, key=list(kinds).index):
        rows = [(_operator(entry), entry.treatment, entry.derivative) for entry in by_kind[kind]]
        parts += [f"## {kind}", _sentence(kinds[kind]), _table(("operator", "relevance", "derivative"), rows)]
    return "\n\n".join(parts) + "\n"


def rules_page() -> str:
    """docs/RULES.md: every rule with formula, parameters and source, then every preset."""
    kinds = _table(("kind", "steps"), [(f"`{kind}`", text) for kind, text in KINDS.items()])
    parts = [
        "# Rules and rule tables",
        _generated("onnxlrp/rules/spec.py, onnxlrp/tables/presets/ and the formulas in tools/docs.py"),
        "A rule table gives each step of a model its rule; docs/GUIDE.md shows how to write one. Steps are told apart "
        "by kind:",
        kinds,
        "# Rules",
        _NOTATION,
        "Parameters that several rules have:",
        _parameters(_shared()),
        *(_rule_section(spec) for spec in RULES.values()),
        "# Operators of other domains",
        "An operator that is not in docs/OPERATORS.md is declared in an `[[operator]]` entry of a rule table, with "
        "these keys:",
        _table(("key", "meaning"), [(f"`{key}`", text) for key, text in KEYS.items()]),
        "A declaration goes before what the package knows of an operator. One that does not fit a node stops the "
        "conversion; one whose operator the model does not have is a warning.",
        "# Presets",
        "`onnxlrp rules NAME` prints one, to be copied and edited.",
        *(_preset_section(name) for name in preset_names()),
    ]
    return "\n\n".join(parts) + "\n"


#: What a metric may need, for people.
NEEDS: Mapping[str, str] = {
    "marked": "boxes or masks",
    "labels": "labels",
    "gradients": "gradients",
    "continuous": "an input of real numbers",
    "image": "images",
    "layers": "weighted layers",
}


def metrics_page(table: Mapping[str, Metric]) -> str:
    """docs/METRICS.md: one table of all metrics, then what each does with its settings."""
    rows = [
        (f"`{name}`", metric.summary, ", ".join(_parts(metric)), _needs(metric), metric.source)
        for name, metric in table.items()
    ]
    parts = [
        "# Metrics of `onnxlrp evaluate`",
        _generated("onnxlrp/evaluation/metrics/"),
        "A metric gives one number per sample for each of its parts; an arrow says whether a better explanation has a "
        "higher or a lower one. A *unit* is what is taken away at once: all channels of a pixel, a patch, a token. Its "
        "relevance is the sum of the map over it. What is taken away becomes the *baseline*: an empty picture or a "
        "padding token, say. A sample that a metric cannot judge has no number (NaN) and is left out of means.",
        "Sections say where quantus, a Python package of such metrics, differs. In general, its baseline is the "
        "smallest value of each sample, and most of its metrics first divide maps by the largest value of the batch.",
        _table(("metric", "question", "parts", "needs", "source"), rows),
        *(_metric_section(metric) for metric in table.values()),
    ]
    return "\n\n".join(parts) + "\n"


def _parts(metric: Metric) -> list[str]:
    return [f"{name} {'↑' if better == 'higher' else '↓'}" for name, better in metric.better.items()]


def _needs(metric: Metric) -> str:
    together = [f"{metric.group} samples at a time"] if metric.group > 1 else []
    return ", ".join([NEEDS[need] for need in metric.needs] + together)


def _metric_section(metric: Metric) -> str:
    """What the measuring function's docstring says, without what concerns Python alone."""
    text = inspect.getdoc(metric.measure) or ""
    body, *rest = re.split(r"\n\n(?=Args:|Returns:|Raises:)", text)
    sections = {name: " ".join(lines.split()) for name, _, lines in (part.partition(":\n") for part in rest)}
    paragraphs = [" ".join(paragraph.split()) for paragraph in body.split("\n\n")]
    if "Returns" in sections:
        paragraphs.append(f"Parts: {sections['Returns']}")
    if metric.settings:
        defaults = ", ".join(f"`{name} = {value:g}`" for name, value in metric.settings.items())
        described = re.search(r"settings: (.*)", sections.get("Args", ""))
        paragraphs.append(f"Settings: {defaults}." + (f" {_sentence(described[1])}" if described else ""))
    return "\n\n".join([f"## {metric.name}", *paragraphs])


def _rule_section(spec: RuleSpec) -> str:
    aliases = [f"`{alias}`" for alias, name in ALIASES.items() if name == spec.name]
    lines = [_sentence(spec.summary), f"Source: {spec.source}."]
    everywhere = set(spec.kinds) == set(KINDS)
    lines.append(f"For steps of {'every kind' if everywhere else 'kind ' + ', '.join(f'`{k}`' for k in spec.kinds)}.")
    if aliases:
        lines.append(f"Also called {', '.join(aliases)}.")
    shared = _shared()
    named = [f"`{name}`" for name in spec.parameters if name in shared]
    own = {name: parameter for name, parameter in spec.parameters.items() if name not in shared}
    if named:
        what = f"parameter{'s' if len(named) > 1 else ''} {', '.join(named)}"
        lines.append(f"Has the {what} of the table above{', and:' if own else '.'}")
    parts = [f"## {spec.name}", "\n".join(["```text", *FORMULAS[spec.name], "```"]), " ".join(lines)]
    return "\n\n".join([*parts, _parameters(own)] if own else parts)


def _shared() -> dict[str, Parameter]:
    """The parameters that more than one rule has, the same in each."""
    all_of_them = [item for spec in RULES.values() for item in spec.parameters.items()]
    return {name: parameter for name, parameter in all_of_them if all_of_them.count((name, parameter)) > 1}


def _parameters(parameters: Mapping[str, Parameter]) -> str:
    rows = [(f"`{name}`", _default(parameter), _meaning(parameter)) for name, parameter in parameters.items()]
    return _table(("parameter", "default", "meaning"), rows)


def _preset_section(name: str) -> str:
    return f"## {name}\n\n{_sentence(load_table(name).description)}\n\n```toml\n{preset_text(name).rstrip()}\n```"


def _default(parameter: Parameter) -> str:
    return "must be stated" if parameter.required else f"`{parameter.default}`"


def _meaning(parameter: Parameter) -> str:
    bound = "; a number, a list with one number per channel, or the name of an initializer"
    return parameter.summary + (bound if parameter.kind == "bound" else "")


def _sentence(text: str) -> str:
    return _escaped(f"{text[0].upper()}{text[1:]}{'' if text.endswith('.') else '.'}")


def _escaped(text: str) -> str:
    """Text that is not code: a pair of asterisks would set what is between them in italics."""
    return text.replace("*", "\\*")


def _operator(entry: OperatorEntry) -> str:
    return f"{entry.domain}.{entry.op}" if entry.domain else entry.op


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; `|` in a cell would end it."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(_escaped(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


def _generated(source: str) -> str:
    return f"<!-- Written by tools/docs.py from {source}; change it there. -->"


def pages() -> dict[str, str]:
    """Every generated file: its path from the repository's root, and its text."""
    return {
        "docs/OPERATORS.md": operators_page(catalogue()),
        "docs/RULES.md": rules_page(),
        "docs/METRICS.md": metrics_page(metrics()),
    }


def stale(root: Path) -> list[str]:
    """The generated files that are missing or out of date below `root`."""
    return [name for name, text in pages().items() if _read(root / name) != text]


def _read(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.is_file() else None


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(description="Write docs/OPERATORS.md, docs/RULES.md and docs/METRICS.md.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if a file is out of date")
    chosen = parser.parse_args(arguments)
    old = stale(ROOT)
    if chosen.check:
        for name in old:
            print(f"{name} is out of date: run python tools/docs.py", file=sys.stderr)
        return 1 if old else 0
    for name in old:
        path = ROOT / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(pages()[name], encoding="utf-8")
        print(f"wrote {name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
