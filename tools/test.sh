#!/usr/bin/env bash
# The tests, in the order in which a failure is cheapest. `fast` stops before the lab; `all` goes on with it.
# What does not disturb each other runs side by side: the lab comes up beside the unit tests, the later chapters'
# components are fetched and built beside the first live tests, and then the live tests run in two lanes.
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
  exec $bin/python -m pytest tests/unit tests/notebooks -q -n 2
fi

if [ "$(id -u)" -eq 0 ]; then sudo=(); else sudo=(sudo -E env "PATH=$PATH" "HOME=$HOME"); fi
logs="${STACKBOOK_DIAGNOSTICS:-$(mktemp -d "${TMPDIR:-/tmp}/stackbook-test.XXXXXX")}"
export STACKBOOK_FIRST_RUN="$logs/lab.log"
STACKBOOK_LAB_WAS_THERE="$("${sudo[@]}" $bin/python -c '
from stackbook import paths
from stackbook.parameters import Profile
print(int((paths.state(Profile.load().lab) / "instance").exists()))')" || exit 1
export STACKBOOK_LAB_WAS_THERE
status=0
background=

finish() {
  [ -n "$background" ] && { kill -INT -- "-$background" || kill "$background"; wait "$background"; } 2>/dev/null
  if [ "$STACKBOOK_LAB_WAS_THERE" = 0 ] && [ -e "$STACKBOOK_FIRST_RUN" ] && [ ! -e "$logs/reset" ]; then
    say "the lab is taken away"
    "${sudo[@]}" $bin/stackbook reset || status=1
  fi
  [ -n "${STACKBOOK_DIAGNOSTICS:-}" ] || rm -rf "$logs"
}
trap finish EXIT
trap 'exit 130' INT TERM

live() { # title, files and options
  say "$1"
  shift
  "${sudo[@]}" $bin/python -m pytest "$@" -v --durations=12 -p no:cacheprovider || status=1
}

set -m # the background job gets a process group of its own
(
  "${sudo[@]}" $bin/stackbook run --to 05 >"$logs/lab.log" 2>&1
  echo "$?" >"$logs/lab.log.status"
  "${sudo[@]}" $bin/stackbook fetch >"$logs/fetch.log" 2>&1
  echo "$?" >"$logs/fetch.log.status"
) &
background=$!
set +m

say "unit tests, notebook shape, the browser; meanwhile the lab comes up"
"${sudo[@]}" $bin/python -m pytest -m "not toolchain" tests/unit tests/notebooks tests/browser -q --durations=10 -p no:cacheprovider || status=1

say "the lab, chapters 00 to 05"
shown=0
while :; do
  lines="$(wc -l <"$logs/lab.log" 2>/dev/null || echo 0)"
  [ "$lines" -gt "$shown" ] && sed -n "$((shown + 1)),${lines}p" "$logs/lab.log"
  shown=$lines
  [ -e "$logs/lab.log.status" ] && break
  kill -0 "$background" 2>/dev/null || { echo 1 >"$logs/lab.log.status"; break; }
  sleep 1
done

live "what the lab says of itself, and what can go wrong" tests/live/test_a_lab.py tests/live/test_b_faults.py
if [ "$(cat "$logs/lab.log.status")" != 0 ]; then
  echo "the lab did not come up: nothing else can be tried"
  exit 1
fi

say "the components of the later chapters"
wait "$background"
background=
[ "$(cat "$logs/fetch.log.status" 2>/dev/null)" = 0 ] || { tail -n 20 "$logs/fetch.log"; status=1; }

# Two lanes. One sends through bookinfo, changes rules and what is traced, restarts what collects logs; the other does
# nothing of it. What breaks the collection of logs on purpose waits until the chapter about it has been compared.
nbval=tests/live/test_c_nbval.py
beside() { # files and options of the second lane, in a process group of its own
  set -m
  "${sudo[@]}" $bin/python -m pytest "$@" -v --durations=12 -p no:cacheprovider >"$logs/beside.log" 2>&1 &
  background=$!
  set +m
}
meanwhile() { # the end of the second lane, and what it said
  say "meanwhile: $1"
  wait "$background" || status=1
  background=
  cat "$logs/beside.log"
}

beside -m "beside or toolchain" "$nbval" tests/live/test_grpc_mutations.py tests/live/test_delivery_mutations.py tests/live/test_ssh.py \
  tests/unit/test_grpc_go.py tests/unit/test_traffic_program.py # by now there is a toolchain on a new machine, too
live "the chapters that use the mesh against what is committed; rules, witnesses; meanwhile the others, gRPC, delivery, SSH" \
  -m "not beside" "$nbval" tests/live/test_traffic_live.py tests/live/test_witnesses_live.py
meanwhile "the other chapters, gRPC, delivery, SSH"

beside tests/live/test_prometheus.py tests/live/test_logs.py # in this order: Prometheus is left alone when the first lane asks it
live "the checks, each seen to fail: traffic, metrics, traces; meanwhile Prometheus itself, and logs" \
  tests/live/test_traffic_mutations.py tests/live/test_metrics.py tests/live/test_tracing.py
meanwhile "Prometheus itself, logs"

touch "$logs/reset"
live "reset: the host as it was" tests/live/test_z_reset.py
say "done"
exit "$status"
