#!/usr/bin/env bash
# The tests, in the order in which a failure is cheapest. `fast` stops before the lab; `all` goes on with it.
set -uo pipefail
cd "$(dirname "$0")/.."
bin=.venv/bin
mode="${1:-all}"
began=$SECONDS
say() { printf '\n== %s (%d s)\n' "$*" "$((SECONDS - began))"; }

say "lint and types"
$bin/ruff check . || exit 1
$bin/ruff format --check -q lib tests || { echo "run: .venv/bin/ruff format lib tests"; exit 1; }
$bin/mypy || exit 1

if [ "$mode" = fast ]; then
  say "unit tests and notebook shape"
  exec $bin/python -m pytest tests/unit tests/notebooks -q
fi

# Components are fetched and built while the unit tests run: the early chapters are ready for the lab that much sooner.
$bin/stackbook fetch >"${STACKBOOK_DIAGNOSTICS:-${TMPDIR:-/tmp}}/fetch.log" 2>&1 &
fetching=$!
trap 'kill "$fetching" 2>/dev/null; wait "$fetching" 2>/dev/null' EXIT

if [ "$(id -u)" -eq 0 ]; then sudo=(); else sudo=(sudo -E env "PATH=$PATH" "HOME=$HOME"); fi
status=0

say "unit tests, notebook shape, the browser"
"${sudo[@]}" $bin/python -m pytest tests/unit tests/notebooks tests/browser -q --durations=10 -p no:cacheprovider || status=1

say "the live lab"
"${sudo[@]}" $bin/python -m pytest tests/live -v --durations=15 -p no:cacheprovider || status=1
say "done"
exit "$status"
