"""The cases of `onnx.backend.test`, converted, run and compared with finite differences; see tools/coverage.py."""
