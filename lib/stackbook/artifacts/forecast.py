"""Forecast what a run will fetch and build: how much, how long, and from where. A run prints it before it starts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stackbook.artifacts.sources import Build

if TYPE_CHECKING:
    from stackbook.artifacts.resolver import Resolver


@dataclass(frozen=True)
class Forecast:
    """The components that are missing.

    Attributes:
        components: how many files and folders.
        size: the bytes that they will take in the cache.
        seconds: how long it will probably take, from this host's history, otherwise from the catalogue.
        origins: how many components come from each kind of source, in words.
    """

    components: int
    size: int
    seconds: float
    origins: dict[str, int]

    def __str__(self) -> str:
        if not self.components:
            return "every component is in the cache: nothing is fetched or built"
        where = ", ".join(f"{count} {words}" for words, count in self.origins.items())
        return (
            f"{self.components} components are not in the cache ({self.size / 1e9:.1f} GB, {duration(self.seconds)} of fetching "
            f"and building, beside the chapters): {where}"
        )


def duration(seconds: float) -> str:
    """A duration in words.

    >>> duration(40), duration(100), duration(5400)
    ('about 40 s', 'about 2 min', 'about 1 h 30 min')
    """
    if seconds < 90:
        return f"about {seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"about {minutes} min" if minutes < 60 else f"about {minutes // 60} h {minutes % 60} min"


def forecast(resolver: Resolver, names: Iterable[str]) -> Forecast:
    """Forecast what is missing of these components, bundles and images."""
    catalogue, maker = resolver.catalogue, resolver.maker
    missing = [
        catalogue.artifact(file) for file in catalogue.parts(names) if maker.cached(catalogue.artifact(file)) is None
    ]
    origins: Counter[str] = Counter()
    jobs: dict[str, float] = {}
    for artifact in missing:
        source = (maker.usable(artifact) or maker.recipes(artifact))[0][0]
        origins[source.origin] += 1
        job = f"go:{source.group}" if isinstance(source, Build) else artifact.name
        jobs[job] = maker.estimate(artifact.name)
    return Forecast(len(missing), sum(a.size for a in missing), sum(jobs.values()), dict(origins.most_common()))
