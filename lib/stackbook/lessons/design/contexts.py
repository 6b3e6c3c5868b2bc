"""Bounded contexts, found as in the guide's quotation: collect words, see who uses them, draw the circle, state the duty."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import combinations
from typing import Any

import networkx as nx

from stackbook.analysis.display import PALETTE
from stackbook.artifacts import go_toolchain
from stackbook.lessons.design.shop import Edge

# One sentence each: the context's purpose, in its own words; `foreign` finds words of other contexts.
DUTIES = {
    "productpage": "shows a product by its title",
    "details": "knows what a book is: author, year, publisher, pages",
    "reviews": "keeps what each reviewer wrote: a text about a product",
    "ratings": "keeps the ratings of a product",
}


def shared(words: Mapping[str, set[str]]) -> dict[str, list[str]]:
    """The words that more than one service uses, each with those services.

    >>> shared({"a": {"id", "x"}, "b": {"id"}})
    {'id': ['a', 'b']}
    """
    every = sorted(set().union(*words.values()))
    users = {word: [name for name, own in words.items() if word in own] for word in every}
    return {word: names for word, names in users.items() if len(names) > 1}


def foreign(duty: str, owner: str, words: Mapping[str, set[str]]) -> list[str]:
    """The words of a duty that other services use and this one does not: they make the duty's owner unclear.

    >>> foreign("keeps the stars of a text", "a", {"a": {"stars"}, "b": {"text"}})
    ['text']
    """
    said = {word.strip(":,.") for word in duty.split()}
    others = set().union(*(own for name, own in words.items() if name != owner))
    return sorted(said & (others - words[owner]))


def graph(edges: Iterable[Edge]) -> nx.DiGraph:
    """A directed graph of calls."""
    made: nx.DiGraph = nx.DiGraph()
    made.add_edges_from(sorted(edges))
    return made


def talks(edges: Iterable[Edge], names: Iterable[str]) -> list[dict[str, Any]]:
    """Each pair of services, and whether one calls the other: then the teams behind them must talk."""
    pairs = {frozenset(edge) for edge in edges}
    return [
        {"one": a, "other": b, "a call between them": frozenset((a, b)) in pairs} for a, b in combinations(names, 2)
    ]


def reached(edges: Iterable[Edge], service: str) -> set[str]:
    """Who depends on a service, directly or indirectly."""
    calls = graph(edges)
    return set(nx.ancestors(calls, service)) if service in calls else set()


def shared_packages() -> dict[str, list[str]]:
    """The packages of the lab's Go module that programs import, each with those programs, by `go list`."""
    form = '{{.ImportPath}} {{join .Imports " "}}'
    output = go_toolchain.toolchain().run("list", "-f", form, "./cmd/...")
    found: dict[str, list[str]] = {}
    for line in output.text.splitlines():
        program, *imports = line.split()
        for package in imports:
            if package.startswith("stackbook.dev/apps/internal/"):
                name = package.removeprefix("stackbook.dev/apps/")
                found.setdefault(name, []).append(program.rpartition("/")[2])
    return {name: sorted(programs) for name, programs in sorted(found.items())}


def figure(edges: Iterable[Edge], words: Mapping[str, set[str]]) -> Any:
    """The calls as arrows, with the number of words that only one service uses."""
    import matplotlib.pyplot as plt

    calls = graph(edges)
    depth = {
        node: max((len(path) - 1 for path in nx.all_simple_paths(calls, "productpage", node)), default=0)
        for node in calls
    }
    nx.set_node_attributes(calls, depth, "depth")
    places = nx.multipartite_layout(calls, subset_key="depth")
    common = set(shared(words))
    fig, axes = plt.subplots(figsize=(9, 3.6))
    own = {node: len(words[node] - common) for node in calls}
    labels = {node: f"{node}\n{count} word{'s' if count != 1 else ''} of its own" for node, count in own.items()}
    nx.draw_networkx_edges(calls, places, ax=axes, arrowsize=22, width=2, node_size=17000, edge_color=PALETTE[0],
                           connectionstyle="arc3,rad=0.12")  # fmt: skip
    box = {"boxstyle": "round,pad=0.5", "facecolor": "white", "edgecolor": PALETTE[1], "linewidth": 2}
    nx.draw_networkx_labels(calls, places, labels, ax=axes, font_size=12, bbox=box)
    axes.set_title("Who calls whom, counted on each connection")
    axes.margins(0.25)
    axes.axis("off")
    return fig
