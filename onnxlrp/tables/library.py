"""The rule tables that come with the package, one TOML file each."""

from __future__ import annotations

from importlib import resources

from onnxlrp.errors import UsageError
from onnxlrp.tables.names import did_you_mean


def preset_names() -> tuple[str, ...]:
    """The names of the presets, in alphabetical order."""
    files = (file.name for file in (resources.files("onnxlrp.tables") / "presets").iterdir())
    return tuple(sorted(name.removesuffix(".toml") for name in files if name.endswith(".toml")))


def preset_text(name: str) -> str:
    """The TOML of a preset. Raises UsageError, which lists the presets, for a name that is none."""
    if name not in preset_names():
        raise UsageError(
            f"unknown rule table {name!r}{did_you_mean(name, preset_names())} "
            f"Presets: {', '.join(preset_names())}. Your own is named by the path of its .toml file."
        )
    return (resources.files("onnxlrp.tables") / "presets" / f"{name}.toml").read_text(encoding="utf-8")
