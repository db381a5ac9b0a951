"""The group that holds all commands and answers every error with one message and an exit code."""

from __future__ import annotations

import contextlib
import functools
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any

import click

from onnxlrp.errors import OnnxLrpError

#: 128 plus the number of the signal, as a shell would report it.
_INTERRUPTED, _PIPE_CLOSED = 130, 141


class _PipeClosedError(Exception):
    """Standard output was closed by its reader; click would end the process itself on a BrokenPipeError."""


class Program(click.Group):
    """A group of commands whose errors are one message on standard error: `onnxlrp: ...`."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Run a command and exit; with `standalone_mode=False`, return its result and let errors through."""
        run = functools.partial(super().main, args, prog_name, complete_var, standalone_mode=False, **extra)
        if not standalone_mode:
            return run()
        for stream in (sys.stdout, sys.stderr):
            # A node name that the terminal cannot show must not end a run.
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="backslashreplace")
        sys.exit(_exit_code(run))

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands in the order in which they were added, which is that of working with them."""
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; with --debug, print where an error came from before it is reported."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise _PipeClosedError from error
        except (click.ClickException, click.Abort, click.exceptions.Exit):
            raise
        except Exception:
            if ctx.params.get("debug"):
                traceback.print_exc()
            raise


def _exit_code(run: Callable[[], Any]) -> int:
    """Run a command and say what went wrong, if anything did."""
    try:
        result = run()
        sys.stdout.flush()
    except OnnxLrpError as error:
        return _say(str(error), error.exit_code)
    except click.ClickException as error:
        return _say(_click_message(error), error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        return _say("interrupted", _INTERRUPTED)
    except (_PipeClosedError, BrokenPipeError):
        return _PIPE_CLOSED
    except MemoryError:
        return _say("out of memory", 1)
    except OSError as error:
        reason = error.strerror or str(error)
        return _say(f"{error.filename}: {reason}" if error.filename else reason, 1)
    except Exception as error:
        what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        return _say(f"an error in onnxlrp itself: {what} (onnxlrp --debug ... shows where; please report it)", 1)
    finally:
        _settle_output()
    return result if isinstance(result, int) else 0


def _say(message: str, exit_code: int) -> int:
    with contextlib.suppress(OSError):  # where nobody listens any more, the exit code still tells
        click.echo(f"onnxlrp: {message}", err=True)
    return exit_code


def _click_message(error: click.ClickException) -> str:
    message = error.format_message()
    if isinstance(error, click.UsageError) and error.ctx is not None:
        return f"{message.rstrip('.')} (see '{error.ctx.command_path} --help')"
    return message


def _settle_output() -> None:
    """Send what cannot be written to nowhere, or the interpreter complains about it when it ends."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
