"""What the shipper does with a line, as a configuration of rsyslog 8.2302; `shipper_script` keeps it running.

From a line of the container runtime ("time stream tag text", tag P for a part and F for the last or only one) to a document:

1. imfile follows the files, also over the kubelet's rotation: a second input reads on where a file was renamed, as the
   runtime still writes to it for a moment. Lines that need what follows them are held back (`complete`), 1 s at most.
2. The ruleset `pods` puts parts together and keeps stack traces whole; mmkubernetes asks the API whose pod it is.
   imfile of this version drops what is deleted one by one, 6 s each, and sees only then that a file behind it was rotated
   (detect_updates): the script starts rsyslogd anew where it does not see a file (`look`).
3. omelasticsearch creates a document under an id made of pod, container, time in ns and stream. A line sent twice has the
   same id: Elasticsearch refuses the second (409), and so duplicates are told apart.

The kubelet compresses a file at its second rotation. Who was away that long finds its lines in *.gz only, which imfile does
not read: the script unpacks what was compressed since the place to go on from, for an input of its own (`packed`).

What Elasticsearch refuses for a reason of its own (a disk that is full) comes again, slowly. Where it refuses whole
requests (a wrong password) rsyslog gives them up: then the script starts it anew, from a place before the refusal.

https://www.rsyslog.com/doc/v8-stable/configuration/modules/imfile.html, …/omelasticsearch.html, …/mmkubernetes.html;
https://github.com/kubernetes/design-proposals-archive/blob/main/node/kubelet-cri-logging.md
"""

from __future__ import annotations

from collections.abc import Sequence

FOLDER = "/var/lib/shipper"
SEPARATOR = "\N{SYMBOL FOR RECORD SEPARATOR}"
BATCH, MESSAGE, REQUEST = 50, 512, 32
"""Messages that are sent in one request, the size of the largest in KiB, and that of a request in MiB.

A batch has to fit into one request. Where it does not, omelasticsearch sends the first part while the batch is still being
made, and of that part nothing is sent again if nobody answers: only what comes after it is (8.2302).
"""
_WORD = "A-Za-z0-9_$"
_HELD = ("Tra", "pan", "fat", "gor", "Cau", "Exc", "Dur", "The")
"""How lines begin that may be part of a stack trace: such a line waits for the next one."""
CONTINUES = r"^([[:space:]]|$|Caused by: |goroutine [0-9]+ \[|During handling of the above|The above exception was)"
"""A line that belongs to the one before it."""
FRAME = r"^[A-Za-z_][A-Za-z0-9_/]*\."
"""A frame of a trace of Go: main.main()."""


def unlike(beginnings: Sequence[str]) -> str:
    """An extended regular expression for a word that begins like none of these, and is not the first of a dotted name.

    POSIX has no negative look-ahead: the letters of the beginnings are followed one by one, and left at any other letter.

    >>> import re
    >>> [bool(re.match(unlike(["pan"]), line)) for line in ("panic: x", "pa", "picture: x", "java.io.Error: x", "e. g.")]
    [False, True, True, False, True]
    """
    end = rf"([^{_WORD}.]|\.[^A-Za-z_]|\.?$)"
    known = {word[:i] for word in beginnings for i in range(len(word))}
    branches = []
    for prefix in sorted(known, key=lambda p: (len(p), p)):
        following = {word[len(prefix)] for word in beginnings if word.startswith(prefix)}
        branches.append(f"{prefix}[{_others(following)}][{_WORD}]*{end}")
        if prefix:
            branches.append(f"{prefix}{end}")
    return f"({'|'.join(branches)})"


def _others(letters: set[str]) -> str:
    """The characters of words, without these letters, as the inside of a bracket expression."""
    found = []
    for low, high in ("az", "AZ", "09"):
        start = ord(low)
        for code in [*sorted(ord(c) for c in letters if low <= c <= high), ord(high) + 1]:
            if start < code:
                found.append(chr(start) if start == code - 1 else f"{chr(start)}-{chr(code - 1)}")
            start = code + 1
    return "".join(found) + "_$"


def complete() -> str:
    """A line of the runtime that needs none after it: no part, and nothing that a stack trace may begin or go on with."""
    return rf"^[^ ]+ (stdout|stderr) F ([^[:space:]A-Za-z_$]|{unlike(_HELD)})"


def render(
    *, server: str, port: int, folder: str = FOLDER, pods: str = "/var/log/pods", kubernetes: bool = True
) -> str:
    """The configuration.

    Args:
        server: name of Elasticsearch's service, as its certificate has it.
        port: its port.
        folder: where state, queue and refused requests are kept.
        pods: where the runtime's log files are.
        kubernetes: ask the API for labels; without it only what the file's path says is known.
    """
    values = {
        "@folder@": folder,
        "@pods@": pods,
        "@server@": server,
        "@port@": str(port),
        "@batch@": str(BATCH),
        "@message@": str(MESSAGE),
        "@request@": str(REQUEST),
        "@separator@": SEPARATOR,
        "@complete@": complete().replace("\\", "\\\\"),
        "@continues@": CONTINUES.replace("\\", "\\\\"),
        "@frame@": FRAME.replace("\\", "\\\\"),
        "@load-kubernetes@": _LOAD_KUBERNETES if kubernetes else "",
        "@kubernetes@": 'action(type="mmkubernetes")' if kubernetes else "",
    }
    text = _CONFIGURATION.replace("@target@", _TARGET)
    for name, value in values.items():
        text = text.replace(name, value)
    return text


# It knows one form of a file's name, that of the links in /var/log/containers: so it is given a name of this form.
_LOAD_KUBERNETES = """\
module(load="mmkubernetes" kubernetesurl="https://kubernetes.default.svc" busyretryinterval="5" cacheentryttl="600"
  tls.cacert="/var/run/secrets/kubernetes.io/serviceaccount/ca.crt" tokenfile="/var/run/secrets/kubernetes.io/serviceaccount/token"
  srcmetadatapath="$!source")"""

# indextimeout: a pod that is gone does not even say so. searchType="": Elasticsearch 8 has no types.
# create and not index: a line that is there already is refused with 409.
_TARGET = """\
server="@server@" serverport="@port@" usehttps="on" tls.cacert="/etc/shipper/tls/ca.crt" uid="shipper" pwd=`echo $SHIPPER_PASSWORD`
    searchType="" bulkmode="on" maxbytes="@request@m" indextimeout="8000" healthchecktimeout="3000" dynSearchIndex="on" dynBulkId="on"
    writeoperation="create" retryfailures="on" retryruleset="refused" ratelimit.interval="0" errorFile="@folder@/refused.json"
    action.resumeRetryCount="-1" action.resumeInterval="2\""""

_CONFIGURATION = r"""
global(workDirectory="@folder@" maxMessageSize="@message@k" parser.escapeControlCharactersOnReceive="off" net.enableDNS="off")
# Not inotify: its watch follows the file that is renamed, and ends with it, before the runtime writes its last lines there.
module(load="imfile" mode="polling" pollingInterval="1")
module(load="omelasticsearch")
module(load="impstats" interval="2" log.file="@folder@/stats.json" log.syslog="off" format="json")
@load-kubernetes@

template(name="escaped" type="list") { property(name="msg" format="json") }
template(name="document" type="subtree" subtree="$!doc")
template(name="index" type="string" string="logstash-%$.day%")
template(name="id" type="string" string="%$.id%")
template(name="complaint" type="string" string="shipper: Elasticsearch refuses what is sent: %$.omes!error!reason%\n")
template(name="again" type="subtree" subtree="$!")
template(name="again-index" type="string" string="%$.omes!_index%")
template(name="again-id" type="string" string="%$.omes!_id%")

# What rsyslog says of itself goes to its own log, which is read like any other.
ruleset(name="own") { action(type="omfile" file="/dev/stdout") }

ruleset(name="refused" queue.type="LinkedList" queue.filename="refused" queue.size="50000" queue.dequeueBatchSize="@batch@"
  queue.dequeueSlowdown="1000" queue.saveOnShutdown="on" queue.timeoutShutdown="2000") {
  # Every line of a request of which one was refused comes by here, also those that were taken.
  if $.omes!status == 200 or $.omes!status == 201 or $.omes!status == 409 then stop
  if $.omes!status == 400 then {
    action(type="omfile" file="@folder@/rejected.json" template="again")
    stop
  }
  action(type="omfile" file="/dev/stdout" template="complaint" action.execOnlyOnceEveryInterval="3")
  action(type="omelasticsearch" name="again" template="again" searchIndex="again-index" bulkid="again-id" @target@)
}

ruleset(name="emit") {
  set $.id = $.uid & "." & $.container & "." & $.time & "." & $.stream;
  set $.day = replace(field($.time, "T", 1), "-", ".");
  unset $!doc;
  set $!doc!@timestamp = $.time;
  set $!doc!message = $.text;
  set $!doc!stream = $.stream;
  set $!doc!lines = $.lines;
  set $!doc!node = `echo $NODE_NAME`;
  set $!doc!kubernetes!namespace = $.namespace;
  set $!doc!kubernetes!pod = $.pod;
  set $!doc!kubernetes!uid = $.uid;
  set $!doc!kubernetes!container = $.container;
  if $!kubernetes!labels!app != "" then { set $!doc!service = $!kubernetes!labels!app; }
  if $!kubernetes!labels!version != "" then { set $!doc!version = $!kubernetes!labels!version; }
  if $.text startswith "{" then {
    if parse_json($.text, "\$.json") == 0 then { call fields }
    unset $.json;
  }
  action(type="omelasticsearch" name="elasticsearch" template="document" searchIndex="index" bulkid="id" @target@)
}

# Lines in JSON are kept under their own names; the sidecars' access log gets fields that can be searched, and a short text.
ruleset(name="fields") {
  set $!doc!fields = $.json;
  if $.json!response_flags != "" then {
    set $!doc!message = $.json!method & " " & $.json!authority & $.json!path & " " & $.json!response_code;
    set $!doc!access!start = $.json!start_time;
    set $!doc!access!method = $.json!method;
    set $!doc!access!path = $.json!path;
    set $!doc!access!host = $.json!authority;
    set $!doc!access!status = $.json!response_code;
    set $!doc!access!flags = $.json!response_flags;
    set $!doc!access!details = $.json!response_code_details;
    set $!doc!access!milliseconds = $.json!duration;
    set $!doc!access!bytes = $.json!bytes_sent;
    set $!doc!access!cluster = $.json!upstream_cluster;
    set $!doc!access!client = $.json!downstream_remote_address;
    set $!doc!access!direction = "outbound";
    if $.json!upstream_cluster startswith "inbound" or $.json!upstream_cluster startswith "Inbound" then {
      set $!doc!access!direction = "inbound";
    }
    set $.request = $.json!request_id;
    if strlen($.request) == 36 then {
      set $!doc!request_id = substring($.request, 0, 14) & "4" & substring($.request, 15, 21);
    }
  }
}

# One worker: with more of them this version loses lines of requests that nobody answered.
ruleset(name="pods" queue.type="LinkedList" queue.filename="pods" queue.size="20000" queue.dequeueBatchSize="@batch@"
  queue.saveOnShutdown="on" queue.maxDiskSpace="1g" queue.timeoutShutdown="2000") {
  set $.path = replace(replace($!metadata!filename, "@pods@/", ""), "@folder@/packed/", "");
  set $.owner = field($.path, "/", 1);
  set $.namespace = field($.owner, "_", 1);
  set $.pod = field($.owner, "_", 2);
  set $.uid = field($.owner, "_", 3);
  set $.container = field($.path, "/", 2);
  set $!source = "/var/log/containers/" & $.pod & "_" & $.namespace & "_" & $.container & "-0.log";
  @kubernetes@
  set $.escaped = replace(exec_template("escaped"), "@separator@", '","');
  set $.ok = parse_json('{"lines":["' & $.escaped & '"]}', "\$.group");
  set $.open = 0;
  set $.part = 0;
  foreach ($.raw in $.group!lines) do {
    set $.t = field($.raw, 32, 1);
    set $.from = field($.raw, 32, 2);
    set $.tag = field($.raw, 32, 3);
    # Read from a place in the middle of a line, its rest may look like a line: but for the date at its beginning.
    if ($.from == "stdout" or $.from == "stderr") and ($.tag == "P" or $.tag == "F") and re_match($.t, '^[0-9-]{10}T') then {
      set $.rest = substring($.raw, strlen($.t) + strlen($.from) + strlen($.tag) + 3, strlen($.raw));
      if $.open == 1 and $.part == 1 and $.from == $.stream then {
        set $.text = $.text & $.rest;
        set $.lines = $.lines + 1;
      } else if $.open == 1 and $.from == $.stream and (re_match($.rest, '@continues@')
          or ($.text startswith "Traceback (" and $.last == 0) or ($.text startswith "panic: " and re_match($.rest, '@frame@'))) then {
        if not re_match($.rest, '^([[:space:]]|$)') then { set $.last = 1; }
        set $.text = $.text & "\n" & $.rest;
        set $.lines = $.lines + 1;
      } else {
        if $.open == 1 then { call emit }
        set $.open = 1;
        set $.last = 0;
        set $.lines = 1;
        set $.time = $.t;
        set $.stream = $.from;
        set $.text = $.rest;
      }
      if $.tag == "P" then { set $.part = 1; } else { set $.part = 0; }
    }
  }
  if $.open == 1 then { call emit }
}

input(type="imfile" file="@pods@/*/*/*.log" tag="pods" ruleset="pods" addMetadata="on" endmsg.regex="@complete@" readTimeout="1"
  escapeLF="on" escapeLF.replacement="@separator@" persistStateInterval="20")
# What was renamed: 0.log.20261123-081500, but not what the kubelet has compressed.
input(type="imfile" file="@pods@/*/*/*.log.*[0-9]" tag="pods" ruleset="pods" addMetadata="on" endmsg.regex="@complete@" readTimeout="1"
  escapeLF="on" escapeLF.replacement="@separator@" persistStateInterval="20")
# Copies of what the kubelet has compressed meanwhile: see the script.
input(type="imfile" file="@folder@/packed/*/*/*.log.*[0-9]" tag="pods" ruleset="pods" addMetadata="on" endmsg.regex="@complete@"
  readTimeout="1" escapeLF="on" escapeLF.replacement="@separator@" persistStateInterval="20")

*.* call own
"""
