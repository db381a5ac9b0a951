"""The errors that onnxlrp raises on purpose; each carries the exit code that the command line returns.

A message names the thing (file, node, operator, line of the rule table), the reason and what to do.
"""

from __future__ import annotations


class OnnxLrpError(Exception):
    """Base class: everything a caller may want to catch."""

    exit_code: int = 1


class UsageError(OnnxLrpError):
    """An option, rule table, tensor name or target that does not fit the model (exit code 2)."""

    exit_code = 2


class ModelReadError(OnnxLrpError):
    """The model file or its data cannot be read (exit code 3)."""

    exit_code = 3


class ConversionError(OnnxLrpError):
    """The model was read but cannot be converted; lists every node in the way (exit code 4)."""

    exit_code = 4


class VerificationError(OnnxLrpError):
    """A promise did not hold on this model and input (exit code 5)."""

    exit_code = 5
