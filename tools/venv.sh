# Sourced by demo.sh and test.sh: makes .venv and puts onnxlrp into it.
# Afterwards $venv_python is its interpreter. The caller stands in the repository's root.

say() { printf '\n== %s\n' "$*"; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

# find_python: print the first Python >= 3.11; $PYTHON goes first.
find_python() {
  local candidate
  for candidate in ${PYTHON:+"$PYTHON"} python3 python3.13 python3.12 python3.11 python; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      printf '%s\n' "$candidate"
      return
    fi
  done
  die "Python 3.11 or newer is needed; found: $(python3 --version 2>&1 || true). Install one, or name it: PYTHON=/path/to/python3.11 $0"
}

# venv_interpreter: print the path of .venv's interpreter (Windows keeps it elsewhere).
venv_interpreter() {
  local path
  for path in .venv/bin/python .venv/Scripts/python.exe; do
    if [ -x "$path" ]; then printf '%s\n' "$PWD/$path"; return; fi
  done
  return 1
}

# requirements EXTRA: print what the extra needs, without onnxruntime where onnxruntime-gpu is installed:
# both own the same folder, so the one would break the other.
requirements() {
  "$venv_python" - "$1" <<'PY'
import re, sys, tomllib
from importlib import metadata

with open("pyproject.toml", "rb") as file:
    wanted = tomllib.load(file)["project"]["optional-dependencies"][sys.argv[1]]
try:
    metadata.version("onnxruntime-gpu")
    wanted = [line for line in wanted if re.match(r"[\w.-]+", line)[0] != "onnxruntime"]
except metadata.PackageNotFoundError:
    pass
print(*wanted, sep="\n")
PY
}

# prepare_venv EXTRA MODULE...: install the package (editable) with the requirements of an extra. A venv that was
# prepared from the same pyproject.toml is used as it is; without a registry in reach, one that has the modules.
prepare_venv() {
  local extra="$1" stamp python state line wanted=()
  shift
  if ! venv_python=$(venv_interpreter); then
    python=$(find_python)
    say "making .venv with $("$python" --version)"
    if ! "$python" -m venv .venv; then
      rm -rf .venv
      die "Python's venv module does not work here (on Debian and Ubuntu: apt install python3-venv)"
    fi
    venv_python=$(venv_interpreter)
  fi
  stamp=".venv/onnxlrp-$extra"
  state=$("$venv_python" -c 'import hashlib, os; print(hashlib.sha256(open("pyproject.toml", "rb").read()).hexdigest(), os.getcwd())')
  if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$state" ] && has_modules "$@"; then
    say "using .venv"
    return
  fi
  while IFS= read -r line; do wanted+=("$line"); done < <(requirements "$extra")
  say "installing onnxlrp with its $extra requirements into .venv"
  if "$venv_python" -m pip install --quiet --disable-pip-version-check --editable . "${wanted[@]}"; then
    printf '%s\n' "$state" > "$stamp"
  elif has_modules "$@"; then
    say "pip could not install; going on with what .venv already has"
  else
    die "pip could not install the requirements (see above) and .venv lacks them; is a package registry in reach?"
  fi
}

# has_modules NAME...: whether .venv has them all. onnxlrp itself needs no install: `python -m` finds it here.
has_modules() {
  "$venv_python" - "$@" <<'PY'
import sys
from importlib.util import find_spec

sys.exit(any(find_spec(name) is None for name in sys.argv[1:]))
PY
}
