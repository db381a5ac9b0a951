"""Operators: one registry entry each, one file per family. Every module of this folder is read."""

from importlib import import_module
from pkgutil import iter_modules

from onnxlrp.operators.registry import OperatorEntry, entries, find

__all__ = ["OperatorEntry", "catalogue", "find"]

for _module in sorted(module.name for module in iter_modules(__path__)):
    import_module(f"{__name__}.{_module}")


def catalogue() -> tuple[OperatorEntry, ...]:
    """Every operator with how it is treated, by domain and name."""
    return entries()
