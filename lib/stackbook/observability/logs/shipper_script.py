"""The script that keeps a machine's shipper running (see `rsyslog_config` for what it ships)."""

from __future__ import annotations

SCRIPT = r"""#!/bin/sh
# Keeps rsyslogd running, and sees to it that each line is sent at least once; Elasticsearch takes each once, by its id.
# Whatever ended it, rsyslogd goes on from a place of which is known that all before it has arrived: what it had in hand, be it
# in good order or not, comes once more.
cd "$SHIPPER_FOLDER" || exit 1
umask 077
say() { echo "$(date -u +%Y-%m-%dT%H:%M:%SZ) shipper: $*"; }
# Where a message began that was not complete yet: nothing is held then, so what was held is read again. Of one longer than the
# configuration allows, the part after the cut begins somewhere in a line of the runtime, which has at most 16 KiB.
rewind() {
  for file in imfile-state:*; do
    [ -f "$file" ] || continue
    LC_ALL=C awk 'function number(name) {
      if (!match($0, "\"" name "\": *[0-9]+")) exit
      text = substr($0, RSTART, RLENGTH); sub(/.*: */, "", text); return text + 0
    }
    {
      at = number("strt_offs"); held = number("curr_offs") - at
      if (match($0, /"prev_msg_segment": ".*"/)) {
        text = substr($0, RSTART + 21, RLENGTH - 22)
        gsub(/\\\\/, "x", text); gsub(/\\u..../, "x", text); gsub(/\\./, "x", text); gsub(/\342\220\236/, "x", text) # as in the file
        if (length(text) > held) at -= 20000
      }
      if (at < 0) at = 0
      printf "{ \"filename\": \"\", \"prev_was_nl\": 0, \"curr_offs\": %d, \"strt_offs\": %d }\n", at, at
    }' "$file" > new.state
    if [ -s new.state ]; then mv new.state "$file"; else rm -f "$file"; fi
  done
}
# Places in the files, copied while both queues were empty. That they are empty again later shows that all has arrived; "later" is
# what rsyslogd has counted since then, as one that stands still says nothing new.
empty() { [ "$(tail -n 40 stats.json 2>/dev/null | grep -E '"name": "(pods|refused)"' | tail -n 2 | grep -c '"size": 0,')" = 2 ]; }
keep() {
  [ ! -d kept ] || [ stats.json -nt kept ] || return
  empty || return
  if [ -d kept ]; then rm -rf older; mv kept older; fi
  mkdir kept && cp imfile-state:* kept/ 2>/dev/null
}
# imfile lets go of deleted files one by one, 6 s each, and sees only then that one behind them was rotated: its new lines might wait
# for minutes, or be deleted with their pod. So where a file is not open at two looks, though rsyslogd has nothing else to do, it is
# started anew. `stuck` is the file then.
look() {
  stuck=""
  if [ -e unseen ] && ! [ stats.json -nt unseen ]; then return; fi
  stat -L -c %d:%i "/proc/$child/fd/"* > open.inodes 2>/dev/null
  stat -c '%d:%i %n' "$SHIPPER_PODS"/*/*/*.log 2>/dev/null |
    awk 'NR == FNR { open[$1]; next } !($1 in open) { print $2 }' open.inodes - > unseen.new
  if [ -e unseen ] && empty; then stuck=$(grep -Fxf unseen unseen.new | head -n 1); fi
  mv unseen.new unseen
}
# Files that were compressed since a place before which all has arrived, or since the beginning, may hold lines that were never
# read. What had arrived of them is refused by its id. A copy is kept for an hour.
unpack() {
  mkdir -p packed
  since=older
  [ -d older ] || since=begun
  find "$SHIPPER_PODS" -name '*.log.*.gz' -newer "$since" | while read -r file; do
    copy="packed/${file#"$SHIPPER_PODS"/}"
    copy="${copy%.gz}"
    [ ! -e "$copy" ] && mkdir -p "${copy%/*}" && gzip -dc "$file" > "$copy.new" && mv "$copy.new" "$copy"
    say "compressed while nobody read it: $file"
  done
  find packed -type f -mmin +60 -exec rm -f {} +
}
stop() {
  kill -TERM "$child" 2>/dev/null
  wait "$child"
  say "stopped"
  exit 0
}
trap stop TERM INT
[ -e begun ] || : > begun
while :; do
  if [ -s refused.json ]; then mv refused.json refused.last; fi
  rm -rf imfile-state:* kept unseen
  cp older/imfile-state:* . 2>/dev/null
  rewind
  unpack
  rsyslogd -n -i NONE -f "$SHIPPER_CONFIG" &
  child=$!
  seconds=0
  stuck=""
  while kill -0 "$child" 2>/dev/null && [ ! -s refused.json ] && [ ! "$stuck" ]; do
    if [ -f stats.json ] && [ "$(wc -c < stats.json)" -gt 1000000 ]; then : > stats.json; fi
    seconds=$((seconds + 1))
    [ $((seconds % 5)) != 0 ] || keep
    [ $((seconds % 5)) != 0 ] || [ "$seconds" -lt 20 ] || look
    sleep 1 &
    wait $!
  done
  if [ -s refused.json ]; then
    reason=$(tail -c 3000 refused.json | grep -o '"reason": *"[^"]*"' | tail -n 1)
    say "Elasticsearch refuses what is sent: ${reason:-no reason given}; tried again in 2 s"
    kill -TERM "$child"
    wait "$child"
    sleep 2 &
    wait $!
  elif [ "$stuck" ]; then
    say "rsyslogd is started anew, as it does not see $stuck"
    kill -TERM "$child"
    wait "$child"
  else
    wait "$child"
    say "rsyslogd has ended with status $?"
    exit 1
  fi
done
"""
