#!/usr/bin/env bash
# The one gate: formatting, lints, types, tests. Uses the tools of the Python environment given as its only argument.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=$(cd "$1/bin" && pwd)
"$bin/ruff" format --check .
"$bin/ruff" check .
"$bin/pyright" --pythonpath "$bin/python"
exec "$bin/python" -m pytest -q -n 2 --dist worksteal
