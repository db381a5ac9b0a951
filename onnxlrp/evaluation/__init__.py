"""How good is an explanation? Metrics, baselines and data for `onnxlrp evaluate` and `onnxlrp tune`."""
