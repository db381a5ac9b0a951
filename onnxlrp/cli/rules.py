"""`onnxlrp rules`: list the rule tables and the rules, or print one."""

from __future__ import annotations

from typing import Any

import click

from onnxlrp.cli.options import json_option
from onnxlrp.cli.output import print_facts, print_json, print_table
from onnxlrp.errors import UsageError
from onnxlrp.plugins import load_installed
from onnxlrp.rules.spec import ALIASES, KINDS, RULES, Parameter, RuleSpec
from onnxlrp.tables import RuleTable, load_table, preset_names
from onnxlrp.tables.names import did_you_mean

_ALL = "all"


@click.command(short_help="List the rule tables and rules, or print one.")
@click.argument("name", required=False, metavar="[NAME]")
@click.option(
    "--rule",
    metavar="RULE",
    help="Describe a rule that tables can use, with its parameters and its source; 'all' lists them.",
)
@json_option
def rules(name: str | None, rule: str | None, as_json: bool) -> None:
    """List the rule tables, or print one as TOML.

    NAME is a preset or the path of a .toml file, which is checked. For your own table, copy one and edit it:

    \b
      onnxlrp rules epsilon-plus > mine.toml
      onnxlrp rules mine.toml
      onnxlrp convert model.onnx --rules mine.toml
    """
    load_installed()
    if name is not None and rule is not None:
        raise click.UsageError("name a rule table or a rule, not both")
    if rule is not None:
        _show_rules(rule, as_json)
    elif name is not None:
        _show_table(load_table(name), as_json)
    else:
        _list_tables(as_json)


def _list_tables(as_json: bool) -> None:
    tables = [load_table(name) for name in preset_names()]
    if as_json:
        print_json([{"name": table.name, "description": table.description} for table in tables])
    else:
        print_table(
            ("rule table", "description"),
            ((table.name, table.description) for table in tables),
            fixed=("rule table",),
        )


def _show_table(table: RuleTable, as_json: bool) -> None:
    if as_json:
        print_json(table)
    else:
        click.echo(table.text, nl=not table.text.endswith("\n"))


def _show_rules(name: str, as_json: bool) -> None:
    if name == _ALL:
        if as_json:
            print_json([_described(spec) for spec in RULES.values()])
            return
        rows = (
            (spec.name, spec.summary, ", ".join(spec.parameters), ", ".join(_kinds(spec)), spec.source)
            for spec in RULES.values()
        )
        print_table(("rule", "what it does", "parameters", "kinds of step", "source"), rows, fixed=("rule",))
        return
    spec = RULES.get(ALIASES.get(name, name))
    if spec is None:
        raise UsageError(f"unknown rule {name!r}{did_you_mean(name, [*RULES, *ALIASES])} Rules: {', '.join(RULES)}.")
    if as_json:
        print_json(_described(spec))
        return
    print_facts(
        {
            "rule": spec.name,
            "also called": ", ".join(_aliases(spec)) or [],
            "what it does": spec.summary,
            "source": spec.source,
            "kinds of step": [f"{kind}: {KINDS[kind]}" for kind in spec.kinds],
            "parameters": [_parameter_line(name, parameter) for name, parameter in spec.parameters.items()],
        }
    )


def _kinds(spec: RuleSpec) -> tuple[str, ...]:
    return ("all",) if set(spec.kinds) == set(KINDS) else spec.kinds


def _aliases(spec: RuleSpec) -> tuple[str, ...]:
    return tuple(alias for alias, name in ALIASES.items() if name == spec.name)


def _parameter_line(name: str, parameter: Parameter) -> str:
    default = "must be stated" if parameter.required else f"default {parameter.default}"
    return f"{name} ({default}): {parameter.summary}"


def _described(spec: RuleSpec) -> dict[str, Any]:
    """A rule for JSON; a parameter without an upper limit has null there."""
    return {
        "name": spec.name,
        "aliases": _aliases(spec),
        "summary": spec.summary,
        "source": spec.source,
        "kinds": spec.kinds,
        "parameters": spec.parameters,
    }
