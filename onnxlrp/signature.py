"""Checks of functions that users register."""

from __future__ import annotations

import inspect

from onnxlrp.errors import UsageError


def check_signature(what: str, function: object, count: int, arguments: str) -> None:
    """Refuses what cannot be called with `count` positional arguments.

    Raises:
        UsageError: naming what was to be registered.
    """
    if not callable(function):
        raise UsageError(f"{what} is {function!r}; it must be a function {arguments}")
    try:
        inspect.signature(function).bind(*range(count))
    except TypeError as error:
        raise UsageError(f"the function of {what} must take {arguments}: {error}") from None
    except ValueError:  # built-in functions do not say what they take
        return
