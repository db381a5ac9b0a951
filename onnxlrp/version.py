"""The version of onnxlrp, as pyproject.toml states it."""

from importlib.metadata import PackageNotFoundError, version

try:
    VERSION = version("onnxlrp")
except PackageNotFoundError:  # run from a source tree that is not installed
    VERSION = "0.1.0"
