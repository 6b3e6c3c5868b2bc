"""The service graph, as Kiali draws it: who calls whom, how often, and which share of the calls fails."""

from __future__ import annotations

from typing import Any

import networkx as nx
import pandas as pd

from stackbook.analysis.display import PALETTE
from stackbook.observability.metrics.client import Prometheus
from stackbook.observability.metrics.dialects import Vocabulary, edge_names

COLUMNS = ["source", "destination", "requests", "errors"]


def edges(prometheus: Prometheus, words: Vocabulary, *, window: float, at: float | None = None) -> pd.DataFrame:
    """Who called whom in the last `window` seconds: source, destination, requests (per second), errors (share of 5xx).

    If a proxy retries a request, each try counts: the graph shows failures that the user does not see.
    """
    answers = [prometheus.query(words.fill(query, window=window), at=at) for query in words.between]
    names = edge_names(words)
    parts = []
    for answer in answers:
        if answer.empty:
            continue
        found = words.plain(answer) if words.name == "envoy" else answer
        back = {new: old for old, new in words.names.items()}
        parts.append(found.rename(columns=back).rename(columns=names))
    if not parts:
        return pd.DataFrame(columns=COLUMNS)
    table = pd.concat(parts, ignore_index=True)
    table = table[(table["destination"] != "") & (table["value"] > 0.5)]
    table["failed"] = table["value"].where(pd.to_numeric(table["status"], errors="coerce") >= 500, 0.0)
    sums = table.groupby(["source", "destination"], as_index=False)[["value", "failed"]].sum()
    return pd.DataFrame({
        "source": sums["source"], "destination": sums["destination"], "requests": sums["value"] / window,
        "errors": sums["failed"] / sums["value"],
    })  # fmt: skip


def service_graph(table: pd.DataFrame) -> nx.DiGraph:
    """A directed graph of `edges`, with requests and errors as attributes of its edges."""
    graph = nx.DiGraph()
    for row in table.to_dict("records"):
        graph.add_edge(row["source"], row["destination"], requests=row["requests"], errors=row["errors"])
    return graph


def layout(graph: nx.DiGraph) -> dict[str, tuple[float, float]]:
    """Positions from left to right, by distance from where requests enter."""
    roots = [node for node in graph if graph.in_degree(node) == 0] or list(graph)[:1]
    depth = dict.fromkeys(graph, 0)
    for root in roots:
        for node, distance in nx.single_source_shortest_path_length(graph, root).items():
            depth[node] = max(depth[node], distance)
    nx.set_node_attributes(graph, depth, "depth")
    return {name: (float(x), float(y)) for name, (x, y) in nx.multipartite_layout(graph, subset_key="depth").items()}


def draw(graph: nx.DiGraph, *, title: str) -> Any:
    """The graph as a figure: requests per second on each edge, and the share of errors if there are any."""
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(figsize=(12, 5.5))
    places = layout(graph)
    failing = {edge: graph.edges[edge]["errors"] >= 0.001 for edge in graph.edges}
    widths = [1.5 + min(graph.edges[edge]["requests"], 60) / 12 for edge in graph.edges]
    colours = [PALETTE[1] if failing[edge] else PALETTE[0] for edge in graph.edges]
    styles = ["dashed" if failing[edge] else "solid" for edge in graph.edges]
    common: dict[str, Any] = {"ax": axes, "node_size": 6500, "node_shape": "o"}
    nx.draw_networkx_nodes(graph, places, node_color="#f4f4f4", edgecolors=PALETTE[6], linewidths=1.5, **common)
    nx.draw_networkx_edges(
        graph,
        places,
        edge_color=colours,
        width=widths,
        style=styles,
        arrowsize=22,
        connectionstyle="arc3,rad=0.06",
        **common,
    )
    nx.draw_networkx_labels(graph, places, {n: n.replace("istio-", "").replace("gateway", "\ngateway") for n in graph},
                            font_size=12, ax=axes)  # fmt: skip
    texts = {}
    for edge in graph.edges:
        share = graph.edges[edge]["errors"]
        texts[edge] = f"{graph.edges[edge]['requests']:.0f}/s" + (f"\n{share:.0%} errors" if failing[edge] else "")
    nx.draw_networkx_edge_labels(graph, places, texts, font_size=12, ax=axes, rotate=False, label_pos=0.45)
    axes.set(title=title)
    axes.margins(0.15)
    axes.axis("off")
    return fig
