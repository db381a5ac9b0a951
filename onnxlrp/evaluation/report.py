"""An evaluation as one HTML page: the table, bars with intervals, curves, and example maps side by side. No scripts."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np

from onnxlrp.evaluation.batches import prepare
from onnxlrp.evaluation.case import Array
from onnxlrp.evaluation.evaluate import Evaluation
from onnxlrp.evaluation.plots import bar_chart, curve_chart
from onnxlrp.evaluation.sample import Layout, Sample, samples
from onnxlrp.evaluation.summary import Cell, short
from onnxlrp.explain.colours import Scale, scale_for
from onnxlrp.explain.files import png, write
from onnxlrp.explain.picture import heatmap_picture
from onnxlrp.explain.text_page import colour, is_dark
from onnxlrp.version import VERSION

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222; background: #fff; margin: 2rem auto; max-width: 76rem;
       padding: 0 1rem; }
h1 { font-size: 1.4rem; margin-bottom: .2rem; } h2 { font-size: 1.1rem; margin: 2.2rem 0 .4rem; }
h3 { font-size: .95rem; margin: 1.2rem 0 .2rem; font-weight: 600; }
p.about, figcaption { color: #666; font-size: .85rem; margin: .2rem 0; }
div.wide { overflow-x: auto; } div.plots { display: flex; flex-wrap: wrap; gap: 1.5rem; }
div.plots figure { margin: 0; flex: 1 1 26rem; max-width: 40rem; }
svg { width: 100%; height: auto; font: 12px system-ui, sans-serif; }
table { border-collapse: collapse; font-size: .9rem; } th, td { padding: .25rem .7rem; text-align: left; }
th { border-bottom: 1px solid #bbb; } td { border-bottom: 1px solid #eee; }
td.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
td.best { font-weight: 700; background: #eaf5ea; } td.level { background: #f6faf6; }
small { color: #666; font-weight: 400; }
div.maps { display: flex; flex-wrap: wrap; gap: .8rem; } div.maps figure { margin: 0; width: 11rem; }
div.maps img { width: 100%; border: 1px solid #ccc; image-rendering: pixelated; }
p.text { line-height: 2; margin: .1rem 0; } p.text span { border-radius: .2rem; padding: .1rem .2rem; }
table.features td { font-size: .8rem; }
"""
#: Rows of numbers longer than this are shown as a picture.
_CELLS = 32


@dataclass(frozen=True)
class Example:
    """One sample with the map of each method, [height, width] for pictures, else in the input's shape."""

    sample: Sample
    values: Array
    target: str
    maps: Sequence[tuple[str, Array]]


def write_report(path: Path, found: Evaluation, examples: int) -> None:
    """Writes the page; the maps of the first `examples` samples are computed for it.

    Raises:
        UsageError: the file cannot be written.
    """
    write(path, "\n".join(_page(found, list(example_maps(found, examples)))).encode())


def example_maps(found: Evaluation, count: int) -> Iterator[Example]:
    """The maps of the first samples by every method."""
    plan = found.plan
    names = plan.data.class_names
    for place, sample in enumerate(samples(plan.data, min(count, len(plan)))):
        ready = prepare([sample], [place], plan.engine, plan.setting, plan.data.shared)
        layout = ready.frame.layout
        maps = []
        for method in plan.methods:
            one = method.bind(ready.frame)(ready.subject).maps(ready.values, ready.targets, np.zeros(1, np.int64))[0]
            maps.append((method.name, layout.picture(one) if layout.is_picture else one))
        target = int(ready.targets[0])
        said = f"class {target}" if names is None or target >= len(names) else f"{names[target]} ({target})"
        yield Example(sample, ready.values[0], said, maps)


def _page(found: Evaluation, examples: Sequence[Example]) -> Iterator[str]:
    title = f"Explanations of {found.model}"
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    yield "<!DOCTYPE html>"
    yield '<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
    yield f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
    yield f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>"
    yield f"<h1>{escape(title)}</h1>"
    yield f'<p class="about">{escape(_about(found))}</p>'
    for note in found.notes:
        yield f'<p class="about">Note: {escape(note)}</p>'
    yield from _table(found)
    if found.curves:
        yield '<h2>Curves</h2><div class="plots">'
        for curve in found.curves:
            chart = curve_chart(curve.means, found.methods, "taken away", f"{curve.metric}: {curve.part}")
            yield f"<figure>{chart}<figcaption>mean of {curve.count} samples</figcaption></figure>"
        yield "</div>"
    yield '<h2>Means and intervals</h2><div class="plots">'
    for line in found.lines:
        yield f"<figure><h3>{escape(line.title)} {line.arrow}</h3>{bar_chart(line, found.methods)}</figure>"
    yield "</div>"
    yield from _examples(examples, found.plan.setting.layout)
    yield "</body></html>"


def _about(found: Evaluation) -> str:
    setting = found.plan.setting
    unit = f", units of {setting.unit} x {setting.unit} pixels" if setting.layout.is_picture else ""
    return (
        f"{found.outcome.samples} samples of {found.data}; explained class: {setting.target}; what is taken away "
        f"becomes: {setting.fill}{unit}; seed {setting.seed}; onnxlrp {VERSION}"
    )


def _table(found: Evaluation) -> Iterator[str]:
    yield '<h2>Results</h2><div class="wide"><table><tr><th>method</th>'
    yield "".join(f"<th>{escape(line.title)} {line.arrow}</th>" for line in found.lines) + "</tr>"
    for place, name in enumerate(found.methods):
        cells = "".join(_cell(line.cells[place]) for line in found.lines)
        yield f"<tr><td>{escape(name)}</td>{cells}</tr>"
    yield "</table></div>"
    yield (
        '<p class="about">Means over the samples with their 95 % intervals; &uarr; higher is better, &darr; lower. '
        "Bold: the best mean. Shaded: the difference to it, sample by sample, may be chance.</p>"
    )


def _cell(cell: Cell) -> str:
    if not cell.count:
        return '<td class="number">-</td>'
    kind = " best" if cell.best else " level" if cell.level else ""
    spread = f" <small>[{short(cell.low)}, {short(cell.high)}]</small>" if cell.count > 1 else ""
    return f'<td class="number{kind}">{short(cell.mean)}{spread}</td>'


def _examples(examples: Sequence[Example], layout: Layout) -> Iterator[str]:
    if not examples:
        return
    yield "<h2>Examples</h2>"
    yield '<p class="about">Red speaks for the explained class, blue against it; each map has a scale of its own.</p>'
    for one in examples:
        yield f"<h3>{escape(one.sample.name)}: {escape(one.target)}</h3>"
        if one.sample.words:
            yield from _texts(one)
        elif one.values.ndim == 1 and one.values.size <= _CELLS:
            yield from _features(one)
        else:
            yield from _pictures(one, layout)


def _pictures(one: Example, layout: Layout) -> Iterator[str]:
    yield '<div class="maps">'
    if one.sample.photo is not None:
        photo = _source(png(one.sample.photo))
        yield f'<figure><img alt="the sample" src="{photo}"><figcaption>sample</figcaption></figure>'
    for name, values in one.maps:
        grid = values if layout.is_picture else np.atleast_2d(values.reshape(-1, values.shape[-1]))
        picture = heatmap_picture(grid, scale_for(grid))
        label = escape(name, quote=True)
        yield f'<figure><img alt="{label}" src="{_source(png(picture))}"><figcaption>{label}</figcaption></figure>'
    yield "</div>"


def _texts(one: Example) -> Iterator[str]:
    yield "<table>"
    for name, values in one.maps:
        row = values[: len(one.sample.words)]
        scale = _row_scale(row)
        spans = " ".join(
            f'<span {_style(float(v), scale)} title="{v:+.4g}">{escape(word)}</span>'
            for word, v in zip(one.sample.words, row, strict=True)
        )
        yield f'<tr><td>{escape(name)}</td><td><p class="text">{spans}</p></td></tr>'
    yield "</table>"


def _features(one: Example) -> Iterator[str]:
    yield '<table class="features"><tr><th>value</th>'
    yield "".join(f'<td class="number">{value:.4g}</td>' for value in one.values.tolist()) + "</tr>"
    for name, values in one.maps:
        scale = _row_scale(values)
        cells = "".join(f'<td class="number" {_style(v, scale)}>{v:+.3g}</td>' for v in values.tolist())
        yield f"<tr><th>{escape(name)}</th>{cells}</tr>"
    yield "</table>"


def _row_scale(values: Array) -> Scale:
    largest = float(np.abs(values).max(initial=0.0))
    return Scale(largest or 1.0, 0.0, empty=not largest)


def _style(value: float, scale: Scale) -> str:
    red, green, blue = ground = colour(value, scale)
    ink = "#fff" if is_dark(ground) else "#222"
    return f'style="background:rgb({red},{green},{blue});color:{ink}"'


def _source(content: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"
