"""What the shipper does with a line, as a configuration of rsyslog 8.2302; `shipper_script` keeps it running.

From a line of the container runtime ("time stream tag text", tag P for a part and F for the last or only one) to a document:

1. imfile follows the files, even when the kubelet rotates them: a second input reads a renamed file to its end, because the
      runtime still writes to it for a moment. A line that needs the next one waits for it (`complete`), for at most 1 s.
2. The ruleset `pods` joins parts and keeps stack traces whole; mmkubernetes asks the API which pod wrote the line. This
      version of imfile closes deleted files one by one, 6 s each, and notices only then that a later file was rotated
      (detect_updates): if it does not see a file, the script restarts rsyslogd (`look`).
3. omelasticsearch creates a document whose id consists of pod, container, time in ns and stream. A line sent twice has the
      same id: Elasticsearch refuses the second (409), so there are no duplicates.

The kubelet compresses a file at its second rotation. After a long absence, a shipper finds those lines only in *.gz, which
imfile does not read: the script unpacks what was compressed since the saved position, and a third input (`packed`) reads it.

If Elasticsearch refuses single lines (a full disk), rsyslog sends them again, slowly. If it refuses whole requests (a wrong
password), rsyslog drops them: then the script restarts it from a position before the refusal.

https://www.rsyslog.com/doc/v8-stable/configuration/modules/imfile.html, …/omelasticsearch.html, …/mmkubernetes.html;
https://github.com/kubernetes/design-proposals-archive/blob/main/node/kubelet-cri-logging.md
"""

from __future__ import annotations

from collections.abc import Sequence

FOLDER = "/var/lib/shipper"
SEPARATOR = "\N{SYMBOL FOR RECORD SEPARATOR}"
BATCH, MESSAGE, REQUEST = 50, 512, 32
"""The number of messages in one request, the maximum size of a message in KiB, and of a request in MiB.

A batch has to fit into one request. Otherwise omelasticsearch sends the first part while it still builds the batch, and if
Elasticsearch does not answer, it never sends that part again, only the rest (8.2302).
"""
_WORD = "A-Za-z0-9_$"
_HELD = ("Tra", "pan", "fat", "gor", "Cau", "Exc", "Dur", "The")
"""How lines begin that can be part of a stack trace: such a line waits for the next one."""
CONTINUES = r"^([[:space:]]|$|Caused by: |goroutine [0-9]+ \[|During handling of the above|The above exception was)"
"""A line that continues the one before it."""
FRAME = r"^[A-Za-z_][A-Za-z0-9_/]*\."
"""A frame of a Go stack trace: main.main()."""


def unlike(beginnings: Sequence[str]) -> str:
    """An extended regular expression for a word that starts with none of these, and is not the first part of a dotted name.

    POSIX has no negative look-ahead, so the expression follows the words letter by letter, and accepts at any other letter.

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
    """The characters of words without these letters, as the inside of a bracket expression."""
    found = []
    for low, high in ("az", "AZ", "09"):
        start = ord(low)
        for code in [*sorted(ord(c) for c in letters if low <= c <= high), ord(high) + 1]:
            if start < code:
                found.append(chr(start) if start == code - 1 else f"{chr(start)}-{chr(code - 1)}")
            start = code + 1
    return "".join(found) + "_$"


def complete() -> str:
    """A line of the runtime that need not wait for the next: not a part, and not the start or middle of a stack trace."""
    return rf"^[^ ]+ (stdout|stderr) F ([^[:space:]A-Za-z_$]|{unlike(_HELD)})"


def render(
    *, server: str, port: int, folder: str = FOLDER, pods: str = "/var/log/pods", kubernetes: bool = True
) -> str:
    """The configuration.

    Args:
        server: the name of Elasticsearch's service, as in its certificate.
        port: its port.
        folder: the folder for state, queue and refused requests.
        pods: the folder of the runtime's log files.
        kubernetes: ask the API for labels; without it, only the information in the file's path is known.
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


# mmkubernetes reads only file names like those of the links in /var/log/containers, so it gets a name of this form.
_LOAD_KUBERNETES = """\
module(load="mmkubernetes" kubernetesurl="https://kubernetes.default.svc" busyretryinterval="5" cacheentryttl="600"
  tls.cacert="/var/run/secrets/kubernetes.io/serviceaccount/ca.crt" tokenfile="/var/run/secrets/kubernetes.io/serviceaccount/token"
  srcmetadatapath="$!source")"""

# indextimeout: a deleted pod never answers. searchType="": Elasticsearch 8 has no types.
# create, not index: Elasticsearch refuses a line that it already has with 409.
_TARGET = """\
server="@server@" serverport="@port@" usehttps="on" tls.cacert="/etc/shipper/tls/ca.crt" uid="shipper" pwd=`echo $SHIPPER_PASSWORD`
    searchType="" bulkmode="on" maxbytes="@request@m" indextimeout="8000" healthchecktimeout="3000" dynSearchIndex="on" dynBulkId="on"
    writeoperation="create" retryfailures="on" retryruleset="refused" ratelimit.interval="0" errorFile="@folder@/refused.json"
    action.resumeRetryCount="-1" action.resumeInterval="2\""""

_CONFIGURATION = r"""
global(workDirectory="@folder@" maxMessageSize="@message@k" parser.escapeControlCharactersOnReceive="off" net.enableDNS="off")
# Not inotify: its watch follows a renamed file and ends before the runtime has written its last lines there.
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

# rsyslog's own messages go to its own log, which is read like any other.
ruleset(name="own") { action(type="omfile" file="/dev/stdout") }

ruleset(name="refused" queue.type="LinkedList" queue.filename="refused" queue.size="50000" queue.dequeueBatchSize="@batch@"
  queue.dequeueSlowdown="1000" queue.saveOnShutdown="on" queue.timeoutShutdown="2000") {
  # If one line of a request is refused, all its lines come here, including those that were accepted.
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

# Lines in JSON keep their own field names; the sidecars' access log gets searchable fields and a short text.
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

# One worker: with more, this version loses lines of requests that got no answer.
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
    # If reading starts in the middle of a line, its rest can look like a line, except for the date at the beginning.
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
# Renamed files, like 0.log.20261123-081500, but not those that the kubelet has compressed.
input(type="imfile" file="@pods@/*/*/*.log.*[0-9]" tag="pods" ruleset="pods" addMetadata="on" endmsg.regex="@complete@" readTimeout="1"
  escapeLF="on" escapeLF.replacement="@separator@" persistStateInterval="20")
# Copies of files that the kubelet has compressed meanwhile: see the script.
input(type="imfile" file="@folder@/packed/*/*/*.log.*[0-9]" tag="pods" ruleset="pods" addMetadata="on" endmsg.regex="@complete@"
  readTimeout="1" escapeLF="on" escapeLF.replacement="@separator@" persistStateInterval="20")

*.* call own
"""
