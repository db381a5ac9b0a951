"""Code of users that registers rules and operators: named by them, or installed beside onnxlrp."""

from __future__ import annotations

import sys
from functools import cache
from importlib import import_module, metadata, util
from pathlib import Path

from onnxlrp.errors import OnnxLrpError, UsageError

GROUP = "onnxlrp.plugins"


def load(ref: str) -> None:
    """Runs a Python file, or imports a module, which registers what it brings.

    Raises:
        UsageError: it is not there, or fails.
    """
    path = Path(ref)
    if ref.endswith(".py") or path.is_file():
        _load_file(path)
        return
    try:
        import_module(ref)
    except Exception as error:
        raise _failed(f"plugin {ref}", error) from error


@cache
def load_installed() -> None:
    """Loads the entry points of the group `onnxlrp.plugins`, once: modules, or functions without arguments.

    Raises:
        UsageError: one of them fails.
    """
    for entry in metadata.entry_points(group=GROUP):
        try:
            found = entry.load()
            if callable(found):
                found()
        except Exception as error:
            raise _failed(f"the installed plugin {entry.name} ({entry.value})", error) from error


def _load_file(path: Path) -> None:
    name = f"onnxlrp_plugin_{path.stem}"
    spec = util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise UsageError(f"plugin {path}: no such file")
    module = util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise _failed(f"plugin {path}", error) from error


def _failed(what: str, error: Exception) -> UsageError:
    if isinstance(error, OnnxLrpError):
        return UsageError(f"{what}: {error}")
    missing = isinstance(error, ModuleNotFoundError)
    advice = "; name a module that can be imported, or a .py file" if missing else ""
    return UsageError(f"{what} cannot be loaded: {type(error).__name__}: {error}{advice}")
