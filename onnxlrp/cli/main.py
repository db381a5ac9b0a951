"""The entry point `onnxlrp`."""

from __future__ import annotations

from importlib import metadata

import click

from onnxlrp.cli.convert import convert
from onnxlrp.cli.evaluate import evaluate
from onnxlrp.cli.explain import explain
from onnxlrp.cli.ops import ops
from onnxlrp.cli.plan import plan
from onnxlrp.cli.program import Program
from onnxlrp.cli.rules import rules
from onnxlrp.cli.tune import tune
from onnxlrp.cli.verify import verify
from onnxlrp.plugins import load


def _show_version(ctx: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        try:
            version = metadata.version("onnxlrp")
        except metadata.PackageNotFoundError:
            version = "(not installed)"
        click.echo(f"onnxlrp {version}")
        ctx.exit()


@click.group(
    cls=Program,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.option(
    "--version",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_show_version,
    help="Show the version and exit.",
)
@click.option(
    "--plugin",
    "plugins",
    multiple=True,
    metavar="FILE|MODULE",
    help="Python code that registers rules or operators, to be loaded first; may be repeated.",
)
@click.option("--debug", is_flag=True, help="When a command fails, also show where.")
@click.pass_context
def cli(ctx: click.Context, plugins: tuple[str, ...], debug: bool) -> None:
    """Layer-wise relevance propagation inside ONNX models.

    Start with `onnxlrp convert model.onnx`; the file beside it, model.lrp.onnx, returns the prediction and a
    relevance map for each explained input, in any onnxruntime.

    \b
    Exit codes:
      0  done                          3  the model cannot be read
      1  anything else                 4  the model cannot be converted
      2  wrong usage                   5  verification failed
    """
    for ref in plugins:
        load(ref)
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


for _command in (convert, plan, explain, verify, evaluate, tune, rules, ops):
    cli.add_command(_command)


def main() -> None:
    """Run the command line and exit the process."""
    cli(prog_name="onnxlrp")


if __name__ == "__main__":
    main()
