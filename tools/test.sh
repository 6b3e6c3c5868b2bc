#!/usr/bin/env bash
# The tests. `fast`: those without a lab. `all`: those with it, too; what does not disturb each other runs side by side, in lanes:
# the lab comes up beside the unit tests, the later chapters' components are fetched and built beside the first live tests. Beside the
# chapters runs nothing else: their time is one that a reader is promised.
{ # read as a whole before it begins: whoever changes this file does not change a run that is under way
set -uo pipefail
cd "$(dirname "$0")/.."
bin=.venv/bin
mode="${1:-all}" # fast, all, or more: what takes long and is not in CI
began=$SECONDS
say() { printf '\n== %s (%d s)\n' "$*" "$((SECONDS - began))"; }

say "style"
$bin/ruff check . || exit 1
$bin/ruff format --check -q lib tests || { echo "run: .venv/bin/ruff format lib tests"; exit 1; }

if [ "$mode" = fast ]; then
  say "types, unit tests, notebook shape; without what is slow or compiles Go"
  types() { $bin/mypy && $bin/mypy --config-file tests/mypy.ini tests/live/*.py; }
  types >"${TMPDIR:-/tmp}/stackbook-types.$$" 2>&1 &
  checking=$!
  trap 'rm -f "${TMPDIR:-/tmp}/stackbook-types.$$"' EXIT
  # A file stays with one worker, so that its fixtures are made once. nbval, which these tests start apart, takes seconds to import.
  # Three workers on two processors, as many tests wait for what they have started.
  $bin/python -m pytest tests/unit tests/notebooks -q -n 3 --dist loadfile -p no:nbval -m "not slow and not toolchain"
  status=$?
  wait "$checking" || status=1
  cat "${TMPDIR:-/tmp}/stackbook-types.$$"
  say "done"
  exit "$status"
fi

if [ "$(id -u)" -eq 0 ]; then sudo=(); else sudo=(sudo -E env "PATH=$PATH" "HOME=$HOME"); fi
if [ "$mode" = more ]; then
  say "what takes long: labs of their own: images from a registry, a proxy, no network, other hosts, faults, planted causes"
  exec "${sudo[@]}" $bin/python -m pytest -v -m more tests/live --durations=12 -p no:cacheprovider
fi
logs="${STACKBOOK_DIAGNOSTICS:-$(mktemp -d "${TMPDIR:-/tmp}/stackbook-test.XXXXXX")}"
export STACKBOOK_TEST_LOGS="$logs" STACKBOOK_FIRST_RUN="$logs/lab.log"
STACKBOOK_LAB_WAS_THERE="$("${sudo[@]}" $bin/python -c '
from stackbook.core import paths
from stackbook.config.profile import Profile
print(int((paths.state(Profile.load().lab) / "instance").exists()))')" || exit 1
export STACKBOOK_LAB_WAS_THERE
status=0
declare -A lanes=() # what runs in the background, by name: the process groups to end when this ends

beside() { # name of the lane, command; what it says goes to a file
  local name="$1"
  shift
  set -m # a process group of its own
  "$@" >"$logs/$name.log" 2>&1 &
  lanes[$name]=$!
  set +m
}
ended() { # name of the lane: waits for its end, and returns its status
  local pid="${lanes[$1]}"
  wait "$pid"
  local result=$?
  unset "lanes[$1]"
  [ "$result" = 0 ] || status=1
  return "$result"
}
meanwhile() { # name of the lane, title: its end, and what it said
  say "meanwhile: $2"
  ended "$1"
  cat "$logs/$1.log"
}
finish() {
  local pid
  for pid in "${lanes[@]}"; do
    { kill -INT -- "-$pid" || kill "$pid"; wait "$pid"; } 2>/dev/null
  done
  if [ "$STACKBOOK_LAB_WAS_THERE" = 0 ] && [ -e "$STACKBOOK_FIRST_RUN" ] && [ ! -e "$logs/reset" ]; then
    say "the lab is taken away"
    "${sudo[@]}" $bin/stackbook reset || status=1
  fi
  "${sudo[@]}" $bin/python tests/live/strangers.py remove
  [ -n "${STACKBOOK_DIAGNOSTICS:-}" ] || rm -rf "$logs"
}
trap finish EXIT
trap 'exit 130' INT TERM

tests() { # files and options
  "${sudo[@]}" $bin/python -m pytest "$@" --durations=12 -p no:cacheprovider
}
live() { # title, files and options
  say "$1"
  shift
  tests -v "$@" 2>&1 | tee -a "$logs/live.log" || status=1
}
building() {
  "${sudo[@]}" $bin/stackbook run --to 05 >"$logs/lab.log" 2>&1
  echo "$?" >"$logs/lab.log.status"
  "${sudo[@]}" $bin/stackbook fetch
}
types_and_shape() {
  local failed=0
  $bin/mypy && $bin/mypy --config-file tests/mypy.ini tests/live/*.py || failed=1
  tests -q tests/notebooks || failed=1
  return "$failed"
}
unit() { tests -q -m "not toolchain" -p no:nbval -n 2 tests/unit; } # at nice 19 beside a lab that comes up: the lab goes first
without_a_lab() { # beside a lab that comes up there is time for all of it; where the lab stands, for the unit tests later
  local failed=0
  renice -n 19 -p "$BASHPID" >/dev/null
  types_and_shape || failed=1
  [ "$STACKBOOK_LAB_WAS_THERE" = 1 ] || unit || failed=1
  return "$failed"
}

"${sudo[@]}" $bin/python tests/live/strangers.py plant || exit 1 # what the lab must leave alone, there before it
say "the lab, chapters 00 to 05; meanwhile types, notebook shape, and on a new lab unit tests"
beside building building
beside without-a-lab without_a_lab
shown=0
while :; do
  lines="$(wc -l <"$logs/lab.log" 2>/dev/null || echo 0)"
  [ "$lines" -gt "$shown" ] && sed -n "$((shown + 1)),${lines}p" "$logs/lab.log"
  shown=$lines
  [ -e "$logs/lab.log.status" ] && break
  kill -0 "${lanes[building]}" 2>/dev/null || { echo 1 >"$logs/lab.log.status"; break; }
  sleep 1
done

live "what the lab says of itself, and what can go wrong" tests/live/test_a_lab.py tests/live/test_b_faults.py
meanwhile without-a-lab "types, notebook shape, and on a new lab unit tests"
if [ "$(cat "$logs/lab.log.status")" != 0 ]; then
  echo "the lab did not come up: nothing else can be tried"
  exit 1
fi
say "the components of the later chapters"
ended building || tail -n 20 "$logs/building.log"

# Three lanes: first the chapters, and nothing beside them, then what breaks things on purpose. What needs bookinfo, its rules or
# what is traced waits for its turn (stackbook.lab.turns), in any lane.
nbval=tests/live/test_c_nbval.py
before=$SECONDS
for lane in 2 3; do beside "chapters-$lane" tests -v -m "lane(number=$lane)" "$nbval"; done
live "every chapter against what is committed, in three lanes" -m "lane(number=1)" "$nbval"
for lane in 2 3; do meanwhile "chapters-$lane" "chapters of lane $lane"; done
say "every chapter was compared within $((SECONDS - before)) s"

second_lane() { # gRPC's rules last: istiod's pushes for them are not to come between those that the first lane's tests of rules wait for
  tests -v -m "not more" tests/live/test_grpc_mutations.py tests/live/test_correlation_live.py tests/live/test_logs.py
}
third_lane() { # what stands beside the lab, and what has a turn of its own; where the lab stood, the unit tests
  local failed=0
  renice -n 5 -p "$BASHPID" >/dev/null # the other lanes are longer
  tests -v -m "not more" tests/live/test_prometheus.py tests/browser || failed=1
  [ "$STACKBOOK_LAB_WAS_THERE" = 0 ] || unit || failed=1
  return "$failed"
}
other_lane() { # beside the challenges: what changes nothing of the mesh, and begins no chapter, which would end a challenge
  tests -v -m "not more" tests/live/test_own_lab.py tests/live/test_registry.py tests/live/test_proxy.py tests/live/test_ssh.py \
    tests/live/test_delivery_mutations.py \
    tests/unit/test_grpc_go.py tests/unit/test_traffic_program.py # by now there is a toolchain on a new machine, too
}
beside second second_lane
beside third third_lane
live "rules, and the checks of traffic, metrics, traces, each seen to fail" -m "not more" \
  tests/live/test_traffic_live.py tests/live/test_traffic_mutations.py tests/live/test_metrics.py tests/live/test_tracing.py
meanwhile second "gRPC, witnesses, logs, each check seen to fail"
meanwhile third "Prometheus itself; the browser; on a lab that stood, unit tests"

beside other other_lane
live "every challenge: unsolved, solved, given back" -m "not more" tests/live/test_challenges.py
meanwhile other "a lab of its own; registry, proxy, SSH; delivery, each check seen to fail"

touch "$logs/reset"
live "secrets are searched for in all that was left; reset: the host as it was" tests/live/test_z_reset.py
exit "$status"
}
