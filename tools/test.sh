#!/usr/bin/env bash
# Runs the tests. `fast`: those that need no lab. `all`: all tests of CI. `more`: the long tests that CI does not run.
# Tests that do not disturb each other run in parallel lanes: the lab starts while the unit tests run, and the later chapters'
# components are fetched and built while the first live tests run.
{ # bash reads this block as a whole, so a change of this file does not affect a run that has started
set -uo pipefail
cd "$(dirname "$0")/.."
bin=.venv/bin
mode="${1:-all}" # fast, all, more: the long tests that CI does not run, or vm: Kubernetes on virtual machines
began=$SECONDS
ticks() { # of all processors since this host started: idle and in all, in hundredths of a second
  local user nice system idle iowait irq softirq steal _
  read -r _ user nice system idle iowait irq softirq steal _ </proc/stat
  echo "$((idle + iowait)) $((user + nice + system + idle + iowait + irq + softirq + steal))"
}
read -r -a last <<<"$(ticks)"
say() { # title: prints it, when it was, and how idle the processors were since the title before
  local now all
  read -r -a now <<<"$(ticks)"
  all=$((now[1] - last[1]))
  printf '\n== %s (%d s; processors %d %% idle since the line before)\n' "$*" "$((SECONDS - began))" \
    "$((all ? 100 * (now[0] - last[0]) / all : 0))"
  last=("${now[@]}")
}

types() { # what mypy has found out about a file holds in every copy of it, so it is kept
  local cache="${XDG_CACHE_HOME:-$HOME/.cache}/stackbook-mypy"
  $bin/mypy --cache-dir "$cache/lib" && $bin/mypy --cache-dir "$cache/tests" --config-file tests/mypy.ini tests/live/*.py
}

say "style"
$bin/ruff check . || exit 1
$bin/ruff format --check -q lib tests || { echo "run: .venv/bin/ruff format lib tests"; exit 1; }

if [ "$mode" = fast ]; then
  say "types, unit tests, notebook shape; without tests that are slow or compile Go"
  types >"${TMPDIR:-/tmp}/stackbook-types.$$" 2>&1 &
  checking=$!
  trap 'rm -f "${TMPDIR:-/tmp}/stackbook-types.$$"' EXIT
  # All tests of a file run in one worker, so that its fixtures are created once. nbval takes seconds to import, and the tests that need it
  # start it themselves. There are three workers on two processors, because many tests wait for processes that they have started.
  $bin/python -m pytest tests/unit tests/notebooks -q -n 3 --dist loadfile -p no:nbval -m "not slow and not toolchain"
  status=$?
  wait "$checking" || status=1
  cat "${TMPDIR:-/tmp}/stackbook-types.$$"
  say "done"
  exit "$status"
fi

if [ "$(id -u)" -eq 0 ]; then sudo=(); else sudo=(sudo -E env "PATH=$PATH" "HOME=$HOME"); fi
logs="${STACKBOOK_DIAGNOSTICS:-$(mktemp -d "${TMPDIR:-/tmp}/stackbook-test.XXXXXX")}"
export STACKBOOK_TEST_LOGS="$logs" STACKBOOK_FIRST_RUN="$logs/lab.log"
STACKBOOK_LAB_WAS_THERE="$("${sudo[@]}" $bin/python -c '
from stackbook.core import paths
from stackbook.config.profile import Profile
print(int((paths.state(Profile.load().lab) / "instance").exists()))')" || exit 1
export STACKBOOK_LAB_WAS_THERE
status=0
declare -A lanes=() # the process groups in the background, by name; finish() ends them

beside() { # name of the lane, command: starts it in the background; its output goes to a file
  local name="$1"
  shift
  set -m # a process group of its own
  "$@" >"$logs/$name.log" 2>&1 &
  lanes[$name]=$!
  set +m
}
ended() { # name of the lane: waits until it ends, and returns its status
  local pid="${lanes[$1]}"
  wait "$pid"
  local result=$?
  unset "lanes[$1]"
  [ "$result" = 0 ] || status=1
  return "$result"
}
meanwhile() { # name of the lane, title: waits until it ends, and prints its output
  say "meanwhile: $2"
  ended "$1"
  cat "$logs/$1.log"
}
reached() { touch "$logs/reached-$1"; }
wait_for() { # what `reached` says, the process that will say it
  say "waiting for the other lane: $1"
  while [ ! -e "$logs/reached-$1" ] && kill -0 "$2" 2>/dev/null; do sleep 1; done
}
finish() {
  local pid
  for pid in "${lanes[@]}"; do
    # First the lane itself, so that it starts nothing more; then what it runs, which removes what it has made.
    { kill "$pid"; kill -INT -- "-$pid"; wait "$pid"; } 2>/dev/null
    for _ in {1..600}; do
      kill -0 -- "-$pid" 2>/dev/null || break
      sleep 0.5
    done
  done
  if [ "$STACKBOOK_LAB_WAS_THERE" = 0 ] && [ -e "$STACKBOOK_FIRST_RUN" ] && [ ! -e "$logs/reset" ]; then
    say "removing the lab"
    "${sudo[@]}" $bin/stackbook reset || status=1
  fi
  "${sudo[@]}" $bin/python tests/live/strangers.py remove
  [ -n "${STACKBOOK_DIAGNOSTICS:-}" ] || rm -rf "$logs"
}
trap finish EXIT
trap 'exit 130' INT TERM

tests() { # files and options
  "${sudo[@]}" $bin/python -m pytest "$@" --durations=0 --durations-min=10 -p no:cacheprovider
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
  # Drone is no default: its licence must be accepted.
  [ "${STACKBOOK_ACCEPT_DRONE_LICENCE:-}" != true ] || "${sudo[@]}" $bin/stackbook fetch drone pipeline-rootfs
}
book=(tests/notebooks/test_book.py tests/browser/test_book_page.py)
unit() { tests -q -m "not toolchain" -p no:nbval -n 3 --dist loadfile --ignore "${book[0]}" tests/unit tests/notebooks; }
without_a_lab() { # beside a lab that starts there is time for all of it; if the lab runs already, the tests run later
  local failed=0 checking
  renice -n 19 -p "$BASHPID" >/dev/null
  types &
  checking=$!
  [ "$STACKBOOK_LAB_WAS_THERE" = 1 ] || unit || failed=1
  wait "$checking" || failed=1
  return "$failed"
}

if [ "$mode" = vm ]; then
  STACKBOOK_TEST_VM=1 live "Kubernetes on virtual machines" tests/live/test_vm_kubernetes.py
  exit "$status"
fi

if [ "$mode" = more ]; then
  # PARTS names some of them, for a host on which all take too long: lab (on the lab), own (labs of their own), elsewhere (other hosts).
  parts=" ${PARTS:-lab own elsewhere} "
  for part in $parts; do
    case "$part" in lab | own | elsewhere) ;; *) echo "unknown part '$part' — PARTS has some of: lab own elsewhere" >&2; exit 2 ;; esac
  done
  wanted() { [[ "$parts" == *" $1 "* ]]; }
  "${sudo[@]}" $bin/python tests/live/strangers.py plant || exit 1
  say "all components" # alone: from an empty cache, they take twice as long beside labs, and the labs' deadlines pass
  components=(vm-rootfs log-follower)
  [ "${STACKBOOK_ACCEPT_DRONE_LICENCE:-}" != true ] || components+=(drone pipeline-rootfs)
  { "${sudo[@]}" $bin/stackbook fetch && "${sudo[@]}" $bin/stackbook fetch "${components[@]}"; } || exit 1
  say "the lab, chapters 00 to 05"
  "${sudo[@]}" $bin/stackbook run --to 05 2>&1 | tee "$logs/lab.log"
  echo "${PIPESTATUS[0]}" >"$logs/lab.log.status"
  [ "$(cat "$logs/lab.log.status")" = 0 ] || { echo "the lab did not start, so no other test can run"; exit 1; }
  # Those that make labs of their own. The first need the lab beside them, or compare this host as if no other lab came and went.
  # The last are in network namespaces of their own: they can run beside one of the others, but this host's inotify instances
  # are not enough for three labs.
  first=() others=() elsewhere=()
  for name in own_lab class ssh_lab registry; do first+=("tests/live/test_$name.py"); done
  for name in cluster_target life vm by_hand faults_table diagnose; do others+=("tests/live/test_$name.py"); done
  for name in hosts airgap proxy; do elsewhere+=("tests/live/test_$name.py"); done
  releases=tests/live/test_releases.py # alone, because its podman and this host's do not list each other's labs
  own_labs() {
    local failed=0
    tests -v -m more "${first[@]}" || failed=1
    reached the-end-of-the-first
    tests -v -m more "${others[@]}" || failed=1
    return "$failed"
  }
  ! wanted own || beside own-labs own_labs
  ! wanted lab || live "long tests on the lab: chapters and challenges, incidents, and the checks, each of which must fail on a broken lab" \
    -m more tests/live tests/browser "${first[@]/#/--ignore=}" "${others[@]/#/--ignore=}" "${elsewhere[@]/#/--ignore=}" --ignore="$releases"
  ! wanted own || wait_for the-end-of-the-first "${lanes[own-labs]}"
  [ "$STACKBOOK_LAB_WAS_THERE" = 1 ] || "${sudo[@]}" $bin/stackbook stop || status=1
  ! wanted elsewhere || live "other hosts, no network, a proxy" -m more "${elsewhere[@]}"
  ! wanted own || meanwhile own-labs "long tests with labs of their own: classes, a registry, SSH, an existing cluster, faults, planted causes, virtual machines"
  ! wanted elsewhere || live "other releases" -m more "$releases"
  exit "$status"
fi

"${sudo[@]}" $bin/python tests/live/strangers.py plant || exit 1 # objects that the lab must leave alone, created before it
say "the lab, chapters 00 to 05; meanwhile types, and on a new lab unit tests and notebook shape"
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

live "what the commands print, and what can go wrong" -m "not more" tests/live/test_a_lab.py tests/live/test_b_faults.py
meanwhile without-a-lab "types, and on a new lab unit tests and notebook shape" # they have deadlines, so they do not compete with the lanes
if [ "$(cat "$logs/lab.log.status")" != 0 ]; then
  echo "the lab did not start, so no other test can run"
  exit 1
fi
say "the components of the later chapters"
ended building || tail -n 20 "$logs/building.log"

# Lanes, first of the chapters, then of the tests that break things on purpose. In every lane, steps that need bookinfo, its rules or the
# tracing settings wait for their turn (stackbook.lab.turns). The chapters wait often enough to leave time for a third lane: tests that
# need no mesh, with a lower priority.
nbval=tests/live/test_c_nbval.py
alone=("${book[@]}" tests/browser/test_report_page.py tests/browser/test_gitea_page.py) # pages that need no lab
go=(tests/unit/test_grpc_go.py tests/unit/test_traffic_program.py tests/unit/test_shop_go.py) # by now, a new host has the toolchain, too
without=() # the pages that are not in the second lane
for page in tests/browser/test_{shop,prometheus,drone}_page.py tests/browser/test_jupyterlab.py "${alone[@]}"; do
  without+=("--ignore=$page")
done
before=$SECONDS
chapters_2() { tests -v -m "lane(number=2) and not more" "$nbval"; }
no_lab() {
  local failed=0
  renice -n 10 -p "$BASHPID" >/dev/null
  tests -v -m "lane(number=3) and not more" "$nbval" || failed=1
  tests -v -m "not more" tests/live/test_proxy.py tests/live/test_ssh.py tests/live/test_compose.py \
    tests/live/test_gitea_compose.py "${alone[@]}" "${go[@]}" tests/live/test_drone.py tests/browser/test_drone_page.py || failed=1
  [ "$STACKBOOK_LAB_WAS_THERE" = 0 ] || unit || failed=1
  return "$failed"
}
beside chapters-2 chapters_2
beside no-lab no_lab
live "every chapter compared with its committed outputs, in two lanes" -m "lane(number=1) and not more" "$nbval"
meanwhile chapters-2 "chapters of lane 2"
meanwhile no-lab "a proxy, SSH, compose, pages without a lab, Go, Drone; unit tests and notebook shape, if the lab ran before"
say "all chapters were compared in $((SECONDS - before)) s"

# The two lanes wait for each other in two places. The lab from a registry is not beside test_jupyterlab: chapter 00 wants this host to
# have room for a lab. A challenge is not beside tests that change the mesh or run a chapter, which would end it.
second_lane() {
  local failed=0
  tests -v -m "not more" tests/live/test_grpc_mutations.py tests/browser/test_jupyterlab.py || failed=1
  reached the-end-of-jupyterlab
  tests -v -m "not more" "${without[@]}" tests/browser || failed=1
  wait_for the-end-of-rules "$$"
  tests -v -m "not more" tests/live/test_challenges.py tests/live/test_delivery_mutations.py || failed=1
  return "$failed"
}
beside second second_lane
live "rules, and the checks of traffic, metrics, traces, Prometheus, logs, Kafka and the bookshop, each of which must fail on a broken lab" \
  -m "not more" tests/live/test_traffic_live.py tests/live/test_traffic_mutations.py tests/live/test_metrics.py \
  tests/live/test_tracing.py tests/live/test_prometheus.py tests/browser/test_prometheus_page.py tests/live/test_logs.py \
  tests/live/test_kafka.py tests/live/test_shop.py tests/browser/test_shop_page.py
reached the-end-of-rules
wait_for the-end-of-jupyterlab "${lanes[second]}"
live "a lab from a registry" -m "not more" tests/live/test_registry.py
meanwhile second "gRPC, each check of which must fail on a broken lab; the browser; every challenge: unsolved, solved, and the lab restored; delivery"

touch "$logs/reset"
live "search for secrets in everything that is left; reset: the host as it was before" tests/live/test_z_reset.py
exit "$status"
}
