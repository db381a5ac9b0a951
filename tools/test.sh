#!/usr/bin/env bash
# Makes .venv, installs onnxlrp with what its tests need, and runs them; arguments go to pytest.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=tools/venv.sh
source tools/venv.sh

prepare_venv test click hypothesis numpy onnx onnx_graphsurgeon onnxruntime PIL pytest rich soundfile soxr tokenizers xdist

say "python -m pytest -n 2 $*"
exec "$venv_python" -m pytest -n 2 "$@"
