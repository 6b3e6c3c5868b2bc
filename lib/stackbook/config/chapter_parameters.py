"""The parameters of each chapter: names, types, bounds, defaults. The parameters cell of its notebook has the same names."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from stackbook.config.profile import ChapterParameters
from stackbook.config.values import Percent


def _sum_to_100(weights: dict[str, int]) -> dict[str, int]:
    if sum(weights.values()) != 100:
        raise ValueError(f"the weights {weights} sum to {sum(weights.values())}: change them to sum to 100")
    return weights


Weights = Annotated[dict[str, Annotated[int, Field(ge=0, le=100)]], AfterValidator(_sum_to_100)]
Alpha = Annotated[float, Field(gt=0, lt=0.5)]
Power = Annotated[float, Field(gt=0.5, lt=1)]
User = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[!-~]+$")]


def _text_keys(value: Any) -> Any:
    """YAML reads `{10: 9}` with a number as its key."""
    if not isinstance(value, dict):
        return value
    return {f"{key:g}" if isinstance(key, int | float) else key: number for key, number in value.items()}


Prediction = Annotated[dict[str, Annotated[float, Field(ge=0)]], BeforeValidator(_text_keys)]
"""A learner's predictions, by the name of what is measured; if empty, the theory's predictions are used."""


def _only(prediction: Prediction, names: Iterable[str], most: float = 100) -> None:
    """Refuse a prediction with a name that is not one of these, or with a value above `most`."""
    known = list(names)
    for name, value in prediction.items():
        if name not in known:
            raise ValueError(f"prediction: {name!r} is not measured: write one of {', '.join(known)}")
        if value > most:
            raise ValueError(f"prediction: {name} cannot be {value:g}: at most {most:g}")


class Flannel(ChapterParameters):
    """03: `transfer_seconds`: length of one throughput measurement; `pings`: packets of one latency measurement.

    `prediction`: throughput of a backend in percent of host-gw's.
    """

    prediction: Prediction = Field(default_factory=dict)
    transfer_seconds: Annotated[int, Field(ge=1, le=30)] = 2
    pings: Annotated[int, Field(ge=5, le=500)] = 50

    @model_validator(mode="after")
    def _measured(self) -> Self:
        _only(self.prediction, ("vxlan", "host-gw", "udp"), most=1000)
        return self


class Kubernetes(ChapterParameters):
    """04: `requests`: how many requests show the balance; `replicas`: pods behind the service."""

    requests: Annotated[int, Field(ge=50, le=2000)] = 200
    replicas: Annotated[int, Field(ge=2, le=8)] = 2


class Istio(ChapterParameters):
    """05: `restart_requests_per_second`: load during the rolling restart."""

    restart_requests_per_second: Annotated[int, Field(ge=1, le=100)] = 20


class Traffic(ChapterParameters):
    """06: `weights`: percent of requests by version of reviews; `canary`: percentages of v3; `alpha`, `power`: of all checks together.

    `prediction`: percent of the other users' requests for a version.
    """

    prediction: Prediction = Field(default_factory=dict)
    user: User = "jason"
    weights: Weights = Field(default_factory=lambda: {"v1": 50, "v3": 50})
    canary: Annotated[list[Annotated[int, Field(ge=0, le=100)]], Field(min_length=2, max_length=6)] = Field(
        default_factory=lambda: [10, 50, 100]
    )
    rate: Annotated[int, Field(ge=20, le=1000)] = 400
    changes: Annotated[int, Field(ge=4, le=40)] = 12
    alpha: Alpha = 0.001
    power: Power = 0.99

    @model_validator(mode="after")
    def _measured(self) -> Self:
        _only(self.prediction, self.weights)
        return self


class Faults(ChapterParameters):
    """07: faults for `user`; `alpha`: chance that any check is a false alarm; `power`: of each check.

    `prediction`: percent of the user's calls that are `aborted` or `delayed`.
    """

    prediction: Prediction = Field(default_factory=dict)
    user: User = "jason"
    abort_percent: Percent = 30
    abort_status: Annotated[int, Field(ge=400, le=599)] = 500
    delay_percent: Percent = 30
    delay_seconds: Annotated[float, Field(ge=0.1, le=10)] = 5
    weights: Weights = Field(default_factory=lambda: {"v1": 50, "v3": 50})
    rate: Annotated[int, Field(ge=10, le=500)] = 240
    alpha: Alpha = 0.001
    power: Power = 0.99

    @model_validator(mode="after")
    def _measured(self) -> Self:
        _only(self.prediction, ("aborted", "delayed"))
        return self


class Grpc(ChapterParameters):
    """09: `mesh`: run the part that needs chapter 05; `weights` of the Greeter's versions; `abort_percent` of calls."""

    mesh: bool = True
    weights: Weights = Field(default_factory=lambda: {"v1": 80, "v2": 20})
    abort_percent: Annotated[int, Field(ge=20, le=80)] = 50
    alpha: Alpha = 0.001
    power: Power = 0.99


class Metrics(ChapterParameters):
    """10: `requests` in each batch, at `rate` per second; `scrape_seconds` between samples; `retention_hours` they are kept."""

    requests: Annotated[int, Field(ge=100, le=5000)] = 300
    rate: Annotated[int, Field(ge=5, le=100)] = 60
    scrape_seconds: Annotated[int, Field(ge=1, le=60)] = 3
    retention_hours: Annotated[int, Field(ge=1, le=720)] = 24


class Tracing(ChapterParameters):
    """11: `sampling`: percent of requests that the mesh traces afterwards; `rates`: percentages that are counted.

    `prediction`: percent of the requests that are traced, by the rate.
    """

    prediction: Prediction = Field(default_factory=dict)
    sampling: Annotated[float, Field(ge=0.01, le=100)] = 100
    rates: Annotated[list[Annotated[float, Field(ge=0.5, le=100)]], Field(min_length=1, max_length=6)] = Field(
        default_factory=lambda: [100.0, 10.0, 1.0]
    )
    retention_hours: Annotated[int, Field(ge=1, le=168)] = 24
    user: User = "jason"
    alpha: Alpha = 0.001
    power: Power = 0.99

    @model_validator(mode="after")
    def _measured(self) -> Self:
        _only(self.prediction, [f"{rate:g}" for rate in self.rates])
        return self


class Logs(ChapterParameters):
    """12: `retention_days`: how long lines are kept; `lines`: how many must not be lost; `witnessed`: requests compared.

    `prediction`: seconds until the `slowest` line is found.
    """

    prediction: Prediction = Field(default_factory=dict)
    retention_days: Annotated[int, Field(ge=1, le=90)] = 7
    lines: Annotated[int, Field(ge=2000, le=50_000)] = 20_000
    heap_mb: Annotated[int, Field(ge=400, le=2048)] = 512
    witnessed: Annotated[int, Field(ge=500, le=5000)] = 600

    @model_validator(mode="after")
    def _measured(self) -> Self:
        _only(self.prediction, ("slowest",), most=60)
        return self


class Delivery(ChapterParameters):
    """13: `accept_drone_licence`: start Drone itself; its licence limits commercial use."""

    accept_drone_licence: bool = False


class Ecosystem(ChapterParameters):
    """14: `messages`: how many are written to Kafka and counted; `orders`: how many the bookshop gets at least.

    `compose`: whether the bookshop also runs by Docker Compose.
    """

    messages: Annotated[int, Field(ge=100, le=20_000)] = 1000
    orders: Annotated[int, Field(ge=100, le=20_000)] = 240
    compose: bool = True


class Incident(ChapterParameters):
    """16: `level`: how many causes are possible, and how many are planted; `seed`: the same word plants the same incident."""

    level: Literal["easy", "normal", "hard"] = "easy"
    seed: Annotated[str, Field(min_length=1, max_length=40, pattern=r"^[a-z0-9-]+$")] = "friday"


CHAPTER_PARAMETERS: dict[str, type[ChapterParameters]] = {
    "03-flannel": Flannel,
    "04-kubernetes": Kubernetes,
    "05-istio": Istio,
    "06-traffic": Traffic,
    "07-faults": Faults,
    "09-grpc": Grpc,
    "10-metrics": Metrics,
    "11-tracing": Tracing,
    "12-logs": Logs,
    "13-delivery": Delivery,
    "14-ecosystem": Ecosystem,
    "16-incident": Incident,
}
