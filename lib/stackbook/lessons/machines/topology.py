"""Drawings of the lab, with the layout of a graph library."""

from __future__ import annotations

from typing import Any

from stackbook.analysis.display import PALETTE
from stackbook.config.profile import Profile


def machines(profile: Profile) -> Any:
    """A matplotlib figure: the machines on their network."""
    import matplotlib.pyplot as plt
    import networkx as nx

    graph = nx.Graph()
    hub = f"bridge\n{profile.subnet}"
    gateway = f"gateway, DNS\n{profile.gateway}"
    graph.add_edge(gateway, hub)
    for node in profile.nodes:
        graph.add_edge(hub, f"{node.name}\n{node.address}")
    place = nx.bfs_layout(graph, gateway, align="horizontal")
    place = {k: (x, -y) for k, (x, y) in place.items()}
    fig, axes = plt.subplots(figsize=(10, 4))
    nx.draw_networkx_edges(graph, place, ax=axes, width=2, edge_color="#666666")
    for name, (x, y) in place.items():
        colour = PALETTE[4] if name == gateway else PALETTE[5] if name == hub else PALETTE[2]
        box = {"boxstyle": "round,pad=0.6", "facecolor": f"{colour}55", "edgecolor": colour}
        axes.text(x, y, name, ha="center", va="center", fontsize=12, bbox={**box, "facecolor": "white"})
        axes.text(x, y, name, ha="center", va="center", fontsize=12, bbox=box)
    axes.set_title(f"The machines of the lab {profile.lab!r}")
    axes.margins(0.2, 0.25)
    axes.axis("off")
    return fig


def machines_text(profile: Profile) -> str:
    """The drawing in words."""
    names = ", ".join(f"{n.name} at {n.address}" for n in profile.nodes)
    return (
        f"Drawing: {names}, each connected to the bridge {profile.subnet}, which the gateway {profile.gateway} is on."
    )
