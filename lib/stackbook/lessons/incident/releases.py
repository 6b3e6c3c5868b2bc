"""Bad releases: a program that ends as soon as it starts, and a new version of ratings with its own store.

The store is a small file system in memory (an emptyDir with a limit), so that it really fills up and the host's disk never does.
"""

from __future__ import annotations

from typing import Any

from stackbook.core.waiting import until
from stackbook.lab.attempt import Attempt
from stackbook.lessons.challenges import workloads

NAMESPACE = "default"
NEW = "ratings-v2"
SLOWLY = 0.4
"""Seconds that one query of the slow store takes."""
_BODY = '{"id":0,"ratings":{"Reviewer1":5,"Reviewer2":4}}'
_SERVER = """cat > /tmp/answer <<'END'
while read -r line && [ "${#line}" -gt 1 ]; do :; done
STORE
if [ $? = 0 ]; then status="200 OK"; body='BODY'; else status="500 Internal Server Error"; body='{"error":"cannot be stored"}'; fi
printf 'HTTP/1.1 %s\\r\\ncontent-type: application/json\\r\\ncontent-length: %s\\r\\nconnection: close\\r\\n\\r\\n%s' \\
  "$status" "${#body}" "$body"
END
exec socat TCP-LISTEN:9080,reuseaddr,fork,backlog=128 EXEC:"/bin/sh /tmp/answer" """.replace("BODY", _BODY)
_LEDGER = "busybox dd if=/dev/zero of=/store/ledger bs=4096 count=1 oflag=append conv=notrunc status=none"
_QUERY = f"busybox sleep {SLOWLY:g} && echo 'slow query: ratings of product 0, {SLOWLY:g} s' >&2"
_FATAL = "FATAL: config.json: unexpected end of file"


def full_disk(attempt: Attempt, place: str) -> None:
    """Release a version of ratings that records each request in its store, which soon fills up."""
    _release(attempt, place, _LEDGER)


def slow_store(attempt: Attempt, place: str) -> None:
    """Release a version of ratings whose store takes long for each query."""
    _release(attempt, place, _QUERY)


def _release(attempt: Attempt, place: str, store: str) -> None:
    item = workloads.deployment(
        attempt, place, "tools", version="v2", port=9080, sidecar=True,
        command=["/bin/sh", "-c", _SERVER.replace("STORE", store)],
        volumeMounts=[{"name": "store", "mountPath": "/store"}],
    )  # fmt: skip
    spec = item["spec"]["template"]["spec"]
    spec["volumes"] = [{"name": "store", "emptyDir": {"medium": "Memory", "sizeLimit": "64Ki"}}]
    spec["serviceAccountName"] = f"bookinfo-{place}"
    item["metadata"]["namespace"] = NAMESPACE
    attempt.undo_kubectl("delete", "deployment", NEW, "-n", NAMESPACE, "--ignore-not-found")
    attempt.lab.kube.apply(item)
    attempt.lab.kube.wait_pods(NAMESPACE, f"app={place},version=v2", count=1, timeout=90)


def crashing(attempt: Attempt, place: str) -> None:
    """Replace the program of the service's only Deployment by one that prints a fatal error and ends."""

    def broken(item: dict[str, Any]) -> dict[str, Any]:
        item["spec"]["strategy"] = {"type": "Recreate"}  # otherwise the old pod would stay until the new one is Ready
        container = item["spec"]["template"]["spec"]["containers"][0]
        container["image"] = workloads.image(attempt, "tools")
        container["command"] = ["/bin/sh", "-c", f"echo '{_FATAL}' >&2; exit 1"]
        container.pop("args", None)
        return item

    attempt.change_object("deployment", f"{place}-v1", broken, namespace=NAMESPACE)
    kube = attempt.lab.kube

    def ended() -> bool:
        states = [s for pod in kube.pods(NAMESPACE, f"app={place}") for s in pod["status"].get("containerStatuses", ())]
        return any(s["name"] == place and s["restartCount"] > 0 for s in states)

    until(
        ended, what=f"the program of {place} to end", timeout=90, cause=lambda: kube.explain(NAMESPACE, f"app={place}")
    )


def wait_gone(attempt: Attempt, place: str) -> None:
    """Delete a service's pods, and wait until they are gone.

    Raises:
        WaitTimeout: one is still there after three minutes, as when containerd cannot remove its network; the error has its events.
    """
    kube = attempt.lab.kube

    def left() -> list[str]:
        items = kube.json("get", "pods", "-n", NAMESPACE, "-l", f"app={place}")["items"]
        return [str(item["metadata"]["name"]) for item in items]

    kube.kubectl("delete", "pods", "-n", NAMESPACE, "-l", f"app={place}", "--grace-period=1", "--wait=false")
    until(lambda: not left(), what=f"the pods of {place} to be gone", timeout=180, last=lambda: ", ".join(left()),
          cause=lambda: kube.explain(NAMESPACE, f"app={place}"))  # fmt: skip
