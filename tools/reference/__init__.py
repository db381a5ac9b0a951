"""Running models without the code under test: in float64 by `onnx.reference` with better operators, and in onnxruntime.

Shared by the tests and by tools/coverage.py.
"""
