"""Who calls whom, read from access logs that have other lines in them, too."""

import json

from stackbook.core.results import Result
from stackbook.lessons.traffic import ingress


def entry(cluster):
    return json.dumps({"path": "/", "upstream_cluster": cluster})


LOGS = {
    "productpage-v1": [
        entry("inbound|9080||"),
        entry("outbound|9080||details.default.svc.cluster.local"),
        entry("outbound|9080|v3|reviews.default.svc.cluster.local"),
    ],
    "reviews-v3": [
        "2026-11-23T04:38:02Z info Envoy proxy is ready",
        entry("outbound|9080||ratings.default.svc.cluster.local"),
    ],
    "reviews-v1": [entry(None), "[]", "{"],
}


class Kube:
    def kubectl(self, verb, *flags):
        assert verb == "logs"
        workload = next(flag for flag in flags if flag.startswith("deploy/")).removeprefix("deploy/")
        return Result((), 0, "\n".join(LOGS.get(workload, [])), "", 0.1)


def test_outbound_requests_tell_who_calls_whom():
    assert ingress.calls(Kube()) == ingress.CALLS
