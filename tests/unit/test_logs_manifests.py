"""The manifests of chapter 12 and the configuration of its shipper, as they are applied."""

import base64
import contextlib
import gzip
import json
import os
import re
import shutil
import subprocess
from types import SimpleNamespace

import pytest
import yaml
from stackbook.cluster import manifests
from stackbook.config import namespaces
from stackbook.config.chapter_parameters import Logs
from stackbook.config.namespaces import Namespaces
from stackbook.config.profile import validate
from stackbook.core.errors import InputError
from stackbook.core.waiting import until
from stackbook.observability.logs import access_control, credentials, deploy, learners, rsyslog_config, shipper_script


def documents(name, **values):
    return {(d["kind"], d["metadata"]["name"]): d for d in yaml.safe_load_all(manifests.render(name, **values))}


def elasticsearch():
    values = {"image_elasticsearch": "lab/es:8", "node": "k8s-node1", "heap_mb": "512", "limit_mb": "1536"}
    return documents("elasticsearch.yaml", fingerprint="f", **values)


def test_elasticsearch_asks_for_tls_and_a_password_and_keeps_its_data_on_one_machine():
    found = elasticsearch()
    settings = yaml.safe_load(found["ConfigMap", "elasticsearch"]["data"]["elasticsearch.yml"])
    assert settings["xpack.security.enabled"] is True
    assert settings["xpack.security.http.ssl.enabled"] is True
    assert settings["transport.host"] == "127.0.0.1"
    pod = found["StatefulSet", "elasticsearch"]["spec"]["template"]["spec"]
    assert pod["nodeSelector"] == {"kubernetes.io/hostname": "k8s-node1"}
    volumes = {v["name"]: v for v in pod["volumes"]}
    assert volumes["data"]["hostPath"]["path"].startswith("/var/lib/stackbook/")
    (container,) = pod["containers"]
    assert {m["name"] for m in container["volumeMounts"]} <= set(volumes)
    assert "-Xmx512m" in {e["name"]: e["value"] for e in container["env"]}["ES_JAVA_OPTS"]
    assert found["Namespace", "logging"]["metadata"]["labels"]["istio-injection"] == "disabled"


def test_no_password_goes_through_the_environment_or_a_command_line_of_elasticsearch():
    (container,) = elasticsearch()["StatefulSet", "elasticsearch"]["spec"]["template"]["spec"]["containers"]
    assert [e["name"] for e in container["env"]] == ["CLI_JAVA_OPTS", "ES_JAVA_OPTS"]
    assert "< /users/elastic" in container["command"][-1]


def test_the_shipper_may_only_add():
    roles = yaml.safe_load(elasticsearch()["ConfigMap", "elasticsearch"]["data"]["roles.yml"])
    assert roles["shipper"]["indices"] == [{"names": ["logstash-*"], "privileges": ["create_doc", "create_index"]}]


@pytest.mark.parametrize("name", ["rsyslog.yaml", "fluentd.yaml"])
def test_a_shipper_runs_on_every_machine_and_keeps_its_state_there(name):
    found = documents(name, image_shipper="lab/shipper:1", fingerprint="f")
    daemon = found["DaemonSet", "shipper"]["spec"]
    pod = daemon["template"]["spec"]
    assert pod["tolerations"] == [{"operator": "Exists"}]
    volumes = {v["name"]: v for v in pod["volumes"]}
    assert volumes["state"]["hostPath"]["path"] == "/var/lib/stackbook/shipper"
    (container,) = pod["containers"]
    mounts = {m["name"]: m for m in container["volumeMounts"]}
    assert set(mounts) == set(volumes)
    assert not mounts["state"].get("readOnly")
    assert mounts["tls"]["readOnly"]
    password = next(e for e in container["env"] if e["name"] == "SHIPPER_PASSWORD")
    assert password["valueFrom"]["secretKeyRef"] == {"name": "elasticsearch", "key": "shipper"}
    rules = found["ClusterRole", "stackbook-shipper"]["rules"]
    assert rules == [{"apiGroups": [""], "resources": ["pods", "namespaces"], "verbs": ["get", "list", "watch"]}]


def test_fluentd_has_the_same_fields_ids_and_indices_as_rsyslog():
    config = documents("fluentd.yaml", image_shipper="x", fingerprint="f")["ConfigMap", "fluentd"]["data"][
        "fluent.conf"
    ]
    assert len(re.findall(r"^\s*<(?!/)\w+", config, re.MULTILINE)) == len(
        re.findall(r"^\s*</\w+>", config, re.MULTILINE)
    )
    for part in ("use_partial_cri_logtag true", "id_key id", "write_operation create", "logstash_prefix logstash", "retry_forever true",
                 "scheme https", "ca_file /etc/shipper/tls/ca.crt", "@type kubernetes_metadata"):  # fmt: skip
        assert part in config
    wanted = {*deploy.MAPPINGS["properties"], *deploy.MAPPINGS["properties"]["access"]["properties"]}
    said = set(re.findall(r"\w+", config)) | {"@timestamp", "lines"}
    assert wanted <= said, wanted - said


def test_kibana_speaks_tls_and_gets_its_password_from_the_secret():
    found = documents("kibana.yaml", image_kibana="lab/kibana:8")
    (container,) = found["Deployment", "kibana"]["spec"]["template"]["spec"]["containers"]
    env = {e["name"]: e for e in container["env"]}
    assert env["ELASTICSEARCH_HOSTS"]["value"] == f"https://{credentials.server()}:9200"
    assert env["ELASTICSEARCH_PASSWORD"]["valueFrom"]["secretKeyRef"]["key"] == "kibana"


def test_the_job_of_retention_shows_no_password():
    found = documents("pulse.yaml", image_tools="lab/tools:1", retention_days="7")
    (container,) = found["CronJob", "retention"]["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    (script,) = container["args"]
    assert "-K -" in script and "$(cat /secrets/elastic)" in script
    assert {"name": "DAYS", "value": "7"} in container["env"]


# the configuration of rsyslog


def line(text, tag="F", stream="stdout"):
    return f"2026-11-23T08:00:00.000000001Z {stream} {tag} {text}"


COMPLETE = re.compile(rsyslog_config.complete().replace("[:space:]", r"\s"))


@pytest.mark.parametrize(
    "text",
    [
        "a word",
        "x",
        '{"json": 1}',
        "[2026] bracket",
        "42",
        "ValueError: bad",
        "INFO: x",
        "E1123 klog",
        "e. g. this",
        "Trip",
        "end.",
        "Tr",
        "key=1",
    ],
)
def test_ordinary_lines_wait_for_no_other(text):
    assert COMPLETE.search(line(text))


@pytest.mark.parametrize(
    "text",
    ["", " indented", "\tat a.b.C(C.java:1)", "Traceback (most recent call last):", "java.lang.Error: x", "Caused by: x", "panic: x",
     "goroutine 1 [running]:", "main.main()", 'Exception in thread "main" x', "During handling of the above"],
)  # fmt: skip
def test_lines_of_stack_traces_are_held_back(text):
    assert not COMPLETE.search(line(text))


def test_a_part_of_a_line_is_held_back_and_its_end_is_not():
    assert not COMPLETE.search(line("xxx", tag="P"))
    assert COMPLETE.search(line("xxx", tag="F", stream="stderr"))


def test_the_configuration_has_no_placeholder_left_and_no_password():
    text = rsyslog_config.render(server=credentials.server(), port=9200)
    assert not re.search(r"@[a-z-]+@", text)
    assert text.count("pwd=`echo $SHIPPER_PASSWORD`") == 2
    assert text.count('writeoperation="create"') == 2
    assert "mmkubernetes" not in rsyslog_config.render(server="x", port=1, kubernetes=False)


def test_a_batch_fits_into_one_request_and_a_request_into_what_elasticsearch_takes():
    """Of a batch in two requests the first is lost where nobody answers: seen as `131 of 300 lines missing: 1 … 131`, 4 MB."""
    text = rsyslog_config.render(server="x", port=1)
    batches = [int(size) for size in re.findall(r'queue\.dequeueBatchSize="(\d+)"', text)]
    (message,) = re.findall(r'maxMessageSize="(\d+)k"', text)
    requests = [int(size) for size in re.findall(r'maxbytes="(\d+)m"', text)]
    assert len(batches) == len(requests) == 2
    assert max(batches) * int(message) * 1024 < min(requests) * 2**20
    assert max(requests) < 400 / 10  # of the smallest heap: indexing_pressure.memory.limit


@pytest.mark.parametrize("start", ["3T17:55:25.5Z", "026-11-23T17:55:25.5Z", "5:25.5Z", "", "2026-11-2"])
def test_what_is_left_of_a_line_read_from_its_middle_is_no_line(start):
    """Else the end of a date would name an index of its own."""
    (date,) = re.findall(r"re_match\(\$\.t, '([^']+)'\)", rsyslog_config.render(server="x", port=1))
    assert not re.match(date, start)
    assert re.match(date, "2026-11-23T17:55:25.586927310Z")


# its script


@contextlib.contextmanager
def running(folder, *, second="0.1", rsyslogd="exec /bin/sleep 60"):
    """The script with a stand-in for rsyslogd, in `folder`/state, over the files of `folder`/pods; ended in good order.

    A second of its own clock is shorter here; each is noted in `folder`/state/looks.
    """
    (folder / "bin").mkdir(exist_ok=True)
    for name, body in (
        ("rsyslogd", f'echo started >> "$SHIPPER_FOLDER/starts"\n{rsyslogd}'),
        ("sleep", f'echo x >> "$SHIPPER_FOLDER/looks"\nexec /bin/sleep {second}'),
    ):
        stand_in = folder / "bin" / name
        stand_in.write_text(f"#!/bin/sh\n{body}\n")
        stand_in.chmod(0o755)
    state = folder / "state"
    state.mkdir(exist_ok=True)
    starts = state / "starts"
    before = starts.stat().st_size if starts.exists() else 0
    env = {"PATH": f"{folder / 'bin'}:/usr/bin:/bin", "SHIPPER_FOLDER": str(state), "SHIPPER_CONFIG": "none",
           "SHIPPER_PODS": str(folder / "pods")}  # fmt: skip
    process = subprocess.Popen(["sh", "-c", shipper_script.SCRIPT], env=env, stdout=subprocess.PIPE, text=True)
    try:
        until(lambda: starts.exists() and starts.stat().st_size > before, what="it has started", timeout=60, every=0.02)
        yield state
    finally:
        process.terminate()
        said, _ = process.communicate(timeout=60)
    assert process.returncode == 0 and "stopped" in said, said


def rotated(folder, number, text, *, packed):
    """A file of a pod's log that the kubelet has renamed, and compressed or not."""
    path = folder / "pods" / "shop_web_1" / "web" / f"0.log.2026112{number}-080000"
    path.parent.mkdir(parents=True, exist_ok=True)
    if packed:
        path = path.with_name(path.name + ".gz")
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text)
    return path


def test_what_was_compressed_while_nobody_read_is_read_from_a_copy(tmp_path):
    old = rotated(tmp_path, 1, "before the shipper came", packed=True)
    os.utime(old, (1, 1))
    with running(tmp_path) as state:
        assert not list((state / "packed").rglob("*.log.*"))
    rotated(tmp_path, 2, "while it was away\n", packed=True)
    rotated(tmp_path, 3, "can be read as it is\n", packed=False)
    with running(tmp_path) as state:
        (copy,) = (state / "packed").rglob("*.log.*")
        assert copy == state / "packed/shop_web_1/web/0.log.20261122-080000"
        assert copy.read_text() == "while it was away\n"
        os.utime(copy, (1, 1))
    with running(tmp_path):  # a copy that is over an hour old goes
        assert not copy.exists()


def test_the_place_to_go_on_from_says_what_was_compressed_since(tmp_path):
    (tmp_path / "state" / "older").mkdir(parents=True)
    path = rotated(tmp_path, 1, "x\n", packed=True)
    os.utime(path, (1, 1))
    with running(tmp_path) as state:
        assert not list((state / "packed").rglob("*.log.*"))
    os.utime(state / "older", (0, 0))
    with running(tmp_path) as state:
        assert len(list((state / "packed").rglob("*.log.*"))) == 1


def place(folder, at, **held):
    """A state of imfile: what it has read to, and where the message began of which it may hold a part."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {"filename": "x", "prev_was_nl": 0, "curr_offs": at, "strt_offs": at} | held
    (folder / "imfile-state:1").write_text(json.dumps(state, ensure_ascii=False))


def test_after_any_end_it_goes_back_to_a_place_before_which_all_has_arrived(tmp_path):
    """Also after one in good order: rsyslogd had up to a whole request in hand, however long its lines are."""
    with running(tmp_path) as state:
        place(state / "older", 3_000_000)
        place(state, 9_000_000)
    with running(tmp_path) as state:
        found = json.loads((state / "imfile-state:1").read_text())
        assert found["curr_offs"] == found["strt_offs"] == 3_000_000
        shutil.rmtree(state / "older")
    with running(tmp_path) as state:
        assert not (state / "imfile-state:1").exists()


@pytest.mark.parametrize(
    ("curr_offs", "segment", "at"),
    [
        (5100, 'panic: x "strt_offs": 7', 5000),
        (5000, "the rest of one that was too long", 0),
        (900_000, "y" * 900_000, 0),
        (905_000, "y" * 900_000, 5000),
        (5000 + 9 * 4, '\t"\\\u001b é\n\u241e' * 4, 5000),
        (5000 + 9 * 4 - 1, '\t"\\\u001b é\n\u241e' * 4, 0),
    ],
)
def test_a_message_of_which_a_part_is_held_is_read_again_from_its_beginning(tmp_path, curr_offs, segment, at):
    with running(tmp_path) as state:
        place(state / "older", curr_offs, strt_offs=5000, prev_msg_segment=segment)
    with running(tmp_path) as state:
        found = json.loads((state / "imfile-state:1").read_text())
    assert found == {"filename": "", "prev_was_nl": 0, "curr_offs": at, "strt_offs": at}


@pytest.mark.parametrize(("alive", "place_to_go_on_from"), [(True, 2000), (False, 1000)])
def test_a_place_holds_only_once_rsyslogd_has_counted_again(tmp_path, alive, place_to_go_on_from):
    """One that stands still says that its queues are empty as it did before, whatever it has in hand."""
    empty = "".join(f'{{"name": "{name}", "size": 0, "x": 1}}\n' for name in ("pods", "refused"))
    with running(tmp_path, second="0.02") as state:
        place(state / "older", 1000)
        place(state / "kept", 2000)
        place(state, 3000)
        os.utime(state / "kept", (1_000_000, 1_000_000))
        counted = state / "counted"
        counted.write_text(empty)
        counted_at = 1_000_002 if alive else 999_999
        os.utime(counted, (counted_at, counted_at))
        counted.rename(state / "stats.json")
        looked = state / "looks"
        until(
            lambda: looked.exists() and looked.stat().st_size > 2 * 12,
            what="it has looked again",
            timeout=60,
            every=0.02,
        )
        found = json.loads((state / "older" / "imfile-state:1").read_text())
    assert found["curr_offs"] == place_to_go_on_from


@pytest.mark.parametrize(
    ("size", "opened", "anew"), [(0, False, True), (0, True, False), (7, False, False)], ids=["unseen", "open", "busy"]
)
def test_a_file_that_rsyslogd_does_not_see_has_it_started_anew_unless_it_is_busy(tmp_path, size, opened, anew):
    log = tmp_path / "pods" / "shop_web_1" / "web" / "0.log"
    log.parent.mkdir(parents=True)
    log.write_text("new\n")
    counts = "".join(f'{{"name": "{name}", "size": {size}, "x": 1}}\\n' for name in ("pods", "refused"))
    counting = f"while :; do printf '{counts}' >> \"$SHIPPER_FOLDER/stats.json\"; /bin/sleep 0.02; done"
    with running(tmp_path, second="0.02", rsyslogd=f"exec 3< {log}\n{counting}" if opened else counting) as state:
        looks = state / "looks"
        once = len("started\n")
        if anew:
            until(lambda: (state / "starts").stat().st_size > once, what="it is restarted", timeout=60, every=0.05)
        else:
            until(
                lambda: looks.exists() and looks.stat().st_size > 2 * 45,
                what="it has looked often",
                timeout=60,
                every=0.05,
            )
            assert (state / "starts").stat().st_size == once


# the Secret


def test_a_password_is_hashed_as_elasticsearch_holds_it():
    found = credentials.hashed("correct horse", salt=b"s" * 32)
    method, salt, value = re.fullmatch(r"(\{PBKDF2\}10000)\$([^$]+)\$([^$]+)", found).groups()
    assert (method, base64.b64decode(salt), len(base64.b64decode(value))) == ("{PBKDF2}10000", b"s" * 32, 32)
    assert credentials.hashed("correct horse") != credentials.hashed("correct horse")
    assert "horse" not in found


class Kube:
    """A cluster without the Secret; remembers what was created, and whether it was kept out of the records."""

    def __init__(self):
        self.created = []

    def kubectl(self, *args, check=True, stdin=None, secret=False, timeout=60):
        from stackbook.core.results import Result

        assert args[0] in ("get", "create"), args
        if args[0] == "create":
            self.created.append((stdin, secret))
        return Result(args, int(args[0] == "get"), "", "NotFound", 0.0)


def test_the_secret_is_created_once_and_out_of_sight():
    kube = Kube()
    assert credentials.ensure(kube) == 1
    ((body, hidden),) = kube.created
    data = {k: base64.b64decode(v).decode() for k, v in yaml.safe_load(body.reveal())["data"].items()}
    assert hidden
    assert set(data) == {"tls.crt", "tls.key", "ca.crt", "elastic", "shipper", "kibana", "users"}
    assert len({data[user] for user in credentials.USERS}) == 3
    assert all(len(data[user]) >= 24 for user in credentials.USERS)
    assert data["shipper"] not in data["users"]


def test_without_a_secret_there_is_one_line_with_the_fix():
    with pytest.raises(Exception, match="stackbook run --only 12"):
        credentials.access(Kube())


def test_who_may_come_in_is_asked_in_each_way():
    assert set(access_control.WANTED.values()) == {"no answer", "not trusted", "401", "403", "200"}


# parameters


@pytest.mark.parametrize(
    "wrong",
    [
        {"retention_days": 0},
        {"retention_days": 91},
        {"lines": 10},
        {"lines": 10**6},
        {"heap_mb": 64},
        {"heap_mb": 10_000},
        {"line": 1},
    ],
)
def test_parameters_out_of_range_are_refused(wrong):
    with pytest.raises(InputError) as caught:
        validate(Logs, wrong, where="chapter 12-logs")
    assert caught.value.exit_status == 2
    assert "\n" not in str(caught.value)


# on an existing cluster


ADA = Namespaces("ada")


@pytest.mark.parametrize(
    ("name", "values"),
    [
        (
            "elasticsearch.yaml",
            {"fingerprint": "f", "image_elasticsearch": "e", "node": "", "heap_mb": "512", "limit_mb": "1536"},
        ),
        ("rsyslog.yaml", {"fingerprint": "f", "image_shipper": "s"}),
        ("pulse.yaml", {"image_tools": "t", "retention_days": "7"}),
        ("kibana.yaml", {"image_kibana": "k"}),
    ],
)
def test_a_learner_applies_nothing_outside_their_namespace_and_touches_no_machine(name, values):
    text = learners.manifest(manifests.render(name, **values), ADA, follower="f")
    found = list(yaml.safe_load_all(text))
    assert {item["metadata"]["namespace"] for item in found} == {"ada-logging"}
    assert {item["metadata"]["labels"]["stackbook.lab/chapter"] for item in found} == {"12"}
    assert not {item["kind"] for item in found} & {"Namespace", "ClusterRole", "ClusterRoleBinding", "DaemonSet"}
    made = [o for o in yaml.safe_load_all(manifests.render(name, **values)) if "initContainers" in str(o)]
    names = [one["name"] for o in made for one in o["spec"]["template"]["spec"]["initContainers"]]
    assert names in ([], ["folder"]), "another one would be left out, too"
    for words in (
        "hostPath",
        "initContainers",
        "nodeSelector",
        "tolerations",
        "hostNetwork",
        ".logging.svc",
        "namespace: logging",
    ):
        assert words not in text, words


def test_the_shipper_of_a_learner_reads_the_files_that_follow_writes():
    text = manifests.render("rsyslog.yaml", fingerprint="f", image_shipper="s")
    found = {item["kind"]: item for item in yaml.safe_load_all(learners.manifest(text, ADA, follower="lab/follow:1"))}
    spec = found["Deployment"]["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"}), "two would write the same files"
    rsyslog, follow = spec["template"]["spec"]["containers"]
    assert (follow["image"], follow["args"]) == ("lab/follow:1", ["ada", "ada-logging"])
    places = {m["name"]: m for m in rsyslog["volumeMounts"]}
    (written,) = follow["volumeMounts"]
    assert places[written["name"]]["mountPath"] == written["mountPath"] == "/var/log/pods"
    assert places[written["name"]]["readOnly"] and not written.get("readOnly")


def test_what_other_manifests_keep_is_the_same():
    text = manifests.render("pulse.yaml", image_tools="t", retention_days="7")
    whole, mine = (list(yaml.safe_load_all(one)) for one in (text, learners.manifest(text, ADA, follower="f")))
    (job,) = (item["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]["args"] for item in mine[1:])
    assert job == whole[1]["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]["args"]
    assert [len(item["spec"].get("template", {}).get("spec", {}).get("containers", [1])) for item in mine] == [1, 1]


def test_the_page_says_that_a_learners_shipper_reads_the_api():
    lab = SimpleNamespace(
        profile=SimpleNamespace(target="cluster"),
        images=SimpleNamespace(sources=SimpleNamespace(pulled=lambda name: True)),
    )
    namespaces.use(ADA)
    try:
        assert deploy.described(lab).startswith("rsyslog, one for all your pods")
        assert deploy.everywhere() == "deployment"
    finally:
        namespaces.use(Namespaces())
    lab.profile.target = "embedded"
    assert (deploy.described(lab), deploy.everywhere()) == ("fluentd", "daemonset")
