"""One file per family of metrics; importing this package fills the registry."""

from onnxlrp.evaluation.metrics import gae as gae
