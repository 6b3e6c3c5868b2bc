"""The script that keeps a machine's shipper running (`rsyslog_config` says what it ships)."""

from __future__ import annotations

SCRIPT = r"""#!/bin/sh
# Keeps rsyslogd running, and ensures that each line is sent at least once; Elasticsearch accepts each only once, by its id.
# However rsyslogd ended, it resumes from a position before which everything has arrived, and sends again what it had not
# finished.
cd "$SHIPPER_FOLDER" || exit 1
umask 077
say() { echo "$(date -u +%Y-%m-%dT%H:%M:%SZ) shipper: $*"; }
# Goes back to the start of a message that was not complete yet, so that it is read again as a whole. If a message is longer than
# the configuration allows, the part after the cut starts within a line of the runtime, which has at most 16 KiB.
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
# Saves the positions in the files while both queues are empty. If they are empty again later, everything before has arrived;
# "later" means with newer statistics of rsyslogd, because one that hangs reports nothing new.
empty() { [ "$(tail -n 40 stats.json 2>/dev/null | grep -E '"name": "(pods|refused)"' | tail -n 2 | grep -c '"size": 0,')" = 2 ]; }
keep() {
  [ ! -d kept ] || [ stats.json -nt kept ] || return
  empty || return
  if [ -d kept ]; then rm -rf older; mv kept older; fi
  mkdir kept && cp imfile-state:* kept/ 2>/dev/null
}
# imfile closes deleted files one by one, 6 s each, and notices only then that a later file was rotated: its new lines could wait
# for minutes, or be deleted with their pod. So if a file is not open at two checks, although rsyslogd is idle, rsyslogd is
# restarted. `stuck` is then the file.
look() {
  stuck=""
  if [ -e unseen ] && ! [ stats.json -nt unseen ]; then return; fi
  stat -L -c %d:%i "/proc/$child/fd/"* > open.inodes 2>/dev/null
  stat -c '%d:%i %n' "$SHIPPER_PODS"/*/*/*.log 2>/dev/null |
    awk 'NR == FNR { open[$1]; next } !($1 in open) { print $2 }' open.inodes - > unseen.new
  if [ -e unseen ] && empty; then stuck=$(grep -Fxf unseen unseen.new | head -n 1); fi
  mv unseen.new unseen
}
# Files compressed since the last position before which everything has arrived (or since the start) can hold lines that were never
# read. Elasticsearch refuses those that it already has, by their id. A copy is kept for an hour.
unpack() {
  mkdir -p packed
  since=older
  [ -d older ] || since=begun
  find "$SHIPPER_PODS" -name '*.log.*.gz' -newer "$since" | while read -r file; do
    copy="packed/${file#"$SHIPPER_PODS"/}"
    copy="${copy%.gz}"
    [ ! -e "$copy" ] && mkdir -p "${copy%/*}" && gzip -dc "$file" > "$copy.new" && mv "$copy.new" "$copy"
    say "the kubelet compressed a file that was not read to its end: $file"
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
    say "Elasticsearch refuses what is sent: ${reason:-no reason given}; next try in 2 s"
    kill -TERM "$child"
    wait "$child"
    sleep 2 &
    wait $!
  elif [ "$stuck" ]; then
    say "rsyslogd does not see $stuck: it is restarted"
    kill -TERM "$child"
    wait "$child"
  else
    wait "$child"
    say "rsyslogd exited with status $?"
    exit 1
  fi
done
"""
