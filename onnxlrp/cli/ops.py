"""`onnxlrp ops`: list every operator with how it is treated."""

from __future__ import annotations

import click

from onnxlrp.cli.options import json_option
from onnxlrp.cli.output import print_json, print_table


@click.command(short_help="List the operators and how each is treated.")
@json_option
def ops(as_json: bool) -> None:
    """List every operator with how relevance passes through it.

    The kind is what a rule table's `kind` refers to; the derivative is what the rule `gradient` uses.
    """
    from onnxlrp.operators import catalogue
    from onnxlrp.plugins import load_installed

    load_installed()
    entries = [
        {
            "op": entry.op,
            "domain": entry.domain or "ai.onnx",
            "kind": entry.kind,
            "treatment": entry.treatment,
            "derivative": entry.derivative,
        }
        for entry in catalogue()
    ]
    if as_json:
        print_json(entries)
        return
    several = len({entry["domain"] for entry in entries}) > 1
    columns = ("op", *(("domain",) if several else ()), "kind", "treatment", "derivative")
    rows = ([entry[column] for column in columns] for entry in entries)
    print_table(columns, rows, fixed=("op", "domain", "kind"))
    click.echo(f"\n{len(entries)} operators")
