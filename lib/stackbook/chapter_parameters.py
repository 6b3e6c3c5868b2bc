"""The parameters of each chapter: names, types, bounds, defaults. The parameters cell of its notebook has the same names."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from stackbook.parameters import ChapterParameters


class Flannel(ChapterParameters):
    """03: `transfer_seconds`: length of one throughput measurement; `pings`: packets of one latency measurement."""

    transfer_seconds: Annotated[int, Field(ge=1, le=30)] = 2
    pings: Annotated[int, Field(ge=5, le=500)] = 50


class Kubernetes(ChapterParameters):
    """04: `requests`: how many requests show the balance; `replicas`: pods behind the service."""

    requests: Annotated[int, Field(ge=50, le=2000)] = 200
    replicas: Annotated[int, Field(ge=2, le=8)] = 2


class Istio(ChapterParameters):
    """05: `restart_requests_per_second`: load during the rolling restart."""

    restart_requests_per_second: Annotated[int, Field(ge=1, le=100)] = 20


CHAPTER_PARAMETERS: dict[str, type[ChapterParameters]] = {
    "03-flannel": Flannel,
    "04-kubernetes": Kubernetes,
    "05-istio": Istio,
}
