"""docs/scale.md: the figures as tables and pictures, and what grows how."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Row = Mapping[str, Any]
_ABOUT = {
    "seconds to 03": "s for chapters 00 to 03, with all experiments",
    "seconds to 05": "s for chapters 00 to 05, with all experiments",
    "seconds to Ready": "s until the added pods are Ready",
    "GiB": "memory (GiB)",
    "API median ms": "API request, median (ms)",
    "API p95 ms": "API request, 95 % (ms)",
    "API list ms": "list of all pods (ms)",
    "push s": "push of istiod, mean (s)",
    "proxy configuration MiB": "configuration of a proxy (MiB)",
}


def slope(rows: Sequence[Row], across: str, what: str) -> tuple[float, float]:
    """The least-squares line through the rows: what each unit adds, and what there is at none.

    >>> slope([{"n": 2, "y": 5}, {"n": 4, "y": 9}], "n", "y")
    (2.0, 1.0)
    """
    xs, ys = [float(row[across]) for row in rows], [float(row[what]) for row in rows]
    mean_x, mean_y = sum(xs) / len(xs), sum(ys) / len(ys)
    spread = sum((x - mean_x) ** 2 for x in xs)
    each = sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True)) / spread
    return each, mean_y - each * mean_x


def growth(rows: Sequence[Row], across: str, what: str) -> str:
    """How a figure grows between the first and the last row, compared with the number of machines or pods.

    >>> growth([{"n": 2, "y": 10}, {"n": 8, "y": 40}], "n", "y")
    'in proportion'
    >>> growth([{"n": 2, "y": 10}, {"n": 8, "y": 11}], "n", "y")
    'hardly'
    >>> growth([{"n": 2, "y": 10}, {"n": 8, "y": 90}], "n", "y")
    'faster than in proportion'
    """
    first, last = rows[0], rows[-1]
    if not float(first[what]):
        return "from nothing"
    times, factor = float(last[across]) / float(first[across]), float(last[what]) / float(first[what])
    if factor < 1 + 0.15 * (times - 1):
        return "hardly"
    if factor < 1 + 0.75 * (times - 1):
        return "less than in proportion"
    return "in proportion" if factor <= 1 + 1.25 * (times - 1) else "faster than in proportion"


def table(rows: Sequence[Row], across: str) -> list[str]:
    """A Markdown table with a column for each size, and a last one that says how the figure grows."""
    sizes = " | ".join(f"{row[across]}" for row in rows)
    lines = [f"| {across} | {sizes} | grows |", "|---|" + "---|" * (len(rows) + 1)]
    for name, about in _ABOUT.items():
        if name in rows[0]:
            values = " | ".join(f"{row[name]}" for row in rows)
            lines.append(f"| {about} | {values} | {growth(rows, across, name) if len(rows) > 1 else '–'} |")
    return lines


def text(data: Mapping[str, Any]) -> str:
    """The page."""
    host, machines, pods = data["host"], data["machines"], data["pods"]
    stamp = data["time"]
    each, _ = slope(machines, "machines", "GiB") if len(machines) > 1 else (0.0, 0.0)
    lines = [
        "# How large a lab on one host can be",
        "",
        f"`make bench-scale` measured this page on {stamp[:4]}-{stamp[4:6]}-{stamp[6:8]}: {host['system']}, kernel {host['kernel']}, "
        f"{host['processors']} processors, {host['memory GiB']} GiB of memory, a warm cache, and nothing else running.",
        "",
        "## Machines",
        "",
        "Each lab was built from nothing by `stackbook run --to 05`: a cluster with the mesh and bookinfo. After chapter 03, every machine "
        "is Ready and DNS answers.",
        "",
        *table(machines, "machines"),
        "",
        "![Seconds and memory against the number of machines](scale-machines.svg)",
        "",
        *([f"Each machine adds {each:.2f} GiB. "
           "The machines share the processors, so the time to build them grows with their number."] if each else []),
    ]  # fmt: skip
    if pods:
        pod, base = (
            slope(pods, "pods", "GiB") if len(pods) > 1 else (float(pods[0]["GiB"]) / float(pods[0]["pods"]), 0.0)
        )
        largest = machines[-1]["machines"]
        added = pods[-1]["pods"] - (pods[-2]["pods"] if len(pods) > 1 else 0)
        room = (float(machines[-1]["free GiB"]) - 2.0 - base) / pod if pod > 0 else 0.0
        lines += [
            "",
            "## Pods in the mesh",
            "",
            f"Small pods on the lab with {largest} machines: each has an application that does nothing, and a sidecar. "
            "Ten of them are a Deployment with a Service. Memory is what the pods add.",
            "",
            *table(pods, "pods"),
            "",
            "![Seconds, memory, pushes and configuration against the number of pods](scale-pods.svg)",
            "",
            f"A pod adds {pod * 1024:.0f} MiB: a small program and its sidecar. Every proxy knows every Service and endpoint, so the "
            "configuration of each one grows with the pods, and istiod sends each change to more proxies.",
            *([f"The measurement ended early: {data['ended']}."] if data["ended"] else []),
            "",
            "## When one host is the wrong place",
            "",
            f"- **Memory**: about {max(room, 0) // 10 * 10:.0f} pods fit beside {largest} machines on this host, with 2 GiB left for "
            "everything else.",
            f"- **Processors**: the last {added} pods took {pods[-1]['seconds to Ready']} s to become Ready, as all machines share "
            f"{host['processors']} processors. A real node starts its pods at the same time as the others.",
            "- **Kernel limits**: a kernel gives each user 128 inotify instances by default. A machine needs 14 of root's, and the control "
            "plane 16 more, which is enough for eight machines. A proxy needs three, and Istio runs all proxies as one user, which is "
            "enough for about 40 pods. This measurement gives every ten pods a user of their own (`runAsUser` of `istio-proxy`). "
            "`sysctl -w fs.inotify.max_user_instances=1024` raises the limit.",
            "",
            "For more than that, use machines of their own (`target: ssh`) or an existing cluster (`target: cluster`).",
        ]
    return "\n".join(lines) + "\n"


def draw(rows: Sequence[Row], across: str, names: Sequence[str], path: Path) -> None:
    """Save small plots side by side, one for each figure."""
    import matplotlib.pyplot as plt

    from stackbook.analysis.display import PALETTE, style_plots

    style_plots()
    fig, axes = plt.subplots(1, len(names), figsize=(3.6 * len(names), 3.0), squeeze=False)
    for number, (place, name) in enumerate(zip(axes[0], names, strict=True)):
        place.plot(
            [row[across] for row in rows], [row[name] for row in rows], "o-", color=PALETTE[number % len(PALETTE)]
        )
        place.set(title=_ABOUT[name], xlabel=across, xlim=(0, None), ylim=(0, None))
    fig.tight_layout()
    fig.savefig(path, metadata={"Date": None})
    plt.close(fig)
