"""`make bench`: the lab compared with its floor, the same steps by bare commands; writes bench/<time>.json.

The floor is what an expert would type who knows every flag and starts each command at the first possible moment: no
notebooks, no checks, no record. Both end at the same two marks: nodes Ready with DNS answering, and six bookinfo pods 2/2.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stackbook.app import life_benchmark, readme_figures, reset
from stackbook.cluster import kubeadm
from stackbook.cluster.kubeconfig import write_kubeconfig
from stackbook.config.profile import Profile
from stackbook.core import paths
from stackbook.core.errors import InputError, StackbookError
from stackbook.core.waiting import pause
from stackbook.lab.lab import Lab
from stackbook.lab.step import Record, now
from stackbook.lessons.flannel import backend_comparison
from stackbook.machines.providers.podman import Embedded
from stackbook.machines.transports import LocalHost, Text
from stackbook.mesh import bookinfo, install, istio
from stackbook.traffic import sharing
from stackbook.traffic.load_client import Group, Plan, send
from stackbook.traffic.testbed import REVIEWS, Testbed

FOLDER = paths.checkout() / "bench"
# The promises of the README, in seconds, on a warm cache with two processors.
TARGETS = {"nodes Ready, DNS answers": 60.0, "bookinfo 2/2": 120.0, "chapters 00-05": 240.0}


class Floor:
    """The bare commands; `phases` has the seconds of each phase."""

    def __init__(self, profile: str) -> None:
        self.lab = Lab.open("05-istio", profile)
        self.provider = Embedded(self.lab.profile)
        self.phases: dict[str, float] = {}
        self.start = time.monotonic()

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Measure a phase."""
        begin = time.monotonic()
        yield
        self.phases[name] = round(time.monotonic() - begin, 2)

    def _sh(
        self, *argv: str, stdin: Text | None = None, env: dict[str, str] | None = None, secret: bool = False
    ) -> str:
        return LocalHost().run(argv, stdin=stdin, timeout=300, env=env, secret=secret).reveal()

    def _in(self, node: str, *argv: str, stdin: Text | None = None, secret: bool = False) -> str:
        inside = [*self.provider.podman, "exec", *(["-i"] if stdin is not None else []), self.provider.container(node)]
        return self._sh(*inside, *argv, stdin=stdin, secret=secret)

    def _kubectl(self, *argv: str, stdin: str | None = None) -> str:
        return self._sh(str(self.lab.artifacts.path("kubectl")), *argv, stdin=stdin,
                        env={"KUBECONFIG": str(self.lab.state / "kubeconfig")})  # fmt: skip

    def run(self) -> dict[str, float]:
        """Run every step; returns the seconds from the start to the two marks."""
        nodes = [n.name for n in self.lab.profile.nodes]
        with self.phase("machines"):
            self._machines()
        with self.phase("prepare"):
            self._prepare(nodes)
        with self.phase("images"):
            self._images(nodes)
        with self.phase("init"):
            self._init(nodes[0])
        with self.phase("join"):
            self._join(nodes)
        with self.phase("flannel, Ready, DNS"):
            self._flannel(nodes)
        marks = {"nodes Ready, DNS answers": round(time.monotonic() - self.start, 2)}
        with self.phase("istio"):
            self._istio(nodes)
        with self.phase("bookinfo"):
            self._bookinfo()
        marks["bookinfo 2/2"] = round(time.monotonic() - self.start, 2)
        return marks

    def _machines(self) -> None:
        from stackbook.artifacts.resolver import Resolver

        profile, podman = self.lab.profile, self.provider.podman
        tag = f"localhost/stackbook/machine:{Resolver.open().digest('machine-rootfs')[:16]}"
        label = f"stackbook.lab={profile.lab}"
        self._sh(*podman, "network", "create", "--label", label, "--subnet", profile.subnet, "--gateway",
                 profile.gateway, self.provider.network)  # fmt: skip
        for node in profile.nodes:
            self._sh(*podman, "run", "-d", *self.provider.run_flags(node), tag, "/sbin/init")

    def _prepare(self, nodes: list[str]) -> None:
        self._until(lambda: all(self._booted(n) for n in nodes), "machines have booted")
        pause_image = self.lab.artifacts.image_reference("pause")
        for number, node in enumerate(nodes):
            programs = kubeadm.BINARIES if number == 0 else kubeadm.BINARIES[:2]
            for name in programs:
                inside = self.lab.artifacts.path(name).resolve().relative_to(paths.cache().resolve())
                self._in(node, "install", "-m", "755", f"/opt/stackbook/{inside}", f"/usr/bin/{name}")
            self._write(node, "/etc/containerd/config.toml", kubeadm.containerd_config(pause_image, contained=True))
            self._write(node, "/usr/lib/systemd/system/kubelet.service", kubeadm.KUBELET_UNIT)
            self._write(node, "/usr/lib/systemd/system/kubelet.service.d/10-kubeadm.conf", kubeadm.KUBEADM_DROP_IN)
            self._in(node, "sysctl", "-w", "net.ipv4.ip_forward=1")
            self._write(node, "/etc/systemd/resolved.conf.d/lab.conf", f"[Resolve]\nDNS={self.lab.profile.gateway}\n")
            self._in(node, "systemctl", "restart", "systemd-resolved")
            self._in(
                node, "sh", "-c", "systemctl daemon-reload && systemctl enable kubelet && systemctl restart containerd"
            )

    def _booted(self, node: str) -> bool:
        answer = subprocess.run([*self.provider.podman, "exec", self.provider.container(node), "systemctl",
                                 "is-system-running"], capture_output=True, text=True, check=False)  # fmt: skip
        return answer.stdout.strip() in ("running", "degraded")

    def _write(self, node: str, path: str, text: str) -> None:
        self._in(node, "sh", "-c", 'mkdir -p "$(dirname "$1")" && cat > "$1"', "w", path, stdin=text)

    def _import(self, bundle: str, nodes: list[str]) -> None:
        archive = self.lab.artifacts.bundle(bundle).archive.resolve().relative_to(paths.cache().resolve())
        for node in nodes:
            self._in(node, "ctr", "-n", "k8s.io", "images", "import", f"/opt/stackbook/{archive}")

    def _images(self, nodes: list[str]) -> None:
        self._import("control-plane", nodes[:1])
        self._import("worker", nodes[1:])
        self._import("node", nodes)

    def _init(self, node: str) -> None:
        config = kubeadm.init_config(
            self.lab.profile, self.lab.images.kubeadm, cgroup_v1=self._v1(node), contained=True
        )
        self._write(node, "/etc/stackbook/patches/corednsdeployment+strategic.yaml", kubeadm.DNS_PATCH)
        self._write(node, kubeadm.CONFIG, config)
        self._in(node, "kubeadm", "init", "--config", kubeadm.CONFIG, "--skip-token-print")
        text = self._in(node, "cat", "/etc/kubernetes/admin.conf", secret=True)
        write_kubeconfig(text, self.lab.state / "kubeconfig")

    def _v1(self, node: str) -> bool:
        return self._in(node, "stat", "-fc", "%T", "/sys/fs/cgroup").strip() != "cgroup2fs"

    def _join(self, nodes: list[str]) -> None:
        said = self._in(nodes[0], "kubeadm", "token", "create", "--print-join-command", secret=True)
        token, digest = kubeadm.parsed(said)
        for node in nodes[1:]:
            config = kubeadm.join_config(
                node, token, digest, self.lab.profile, self.lab.images.kubeadm, cgroup_v1=self._v1(node)
            )
            self._in(
                node, "sh", "-c", f"umask 077; mkdir -p {Path(kubeadm.JOIN).parent}; cat > {kubeadm.JOIN}", stdin=config
            )
            try:
                self._in(node, "kubeadm", "join", "--config", kubeadm.JOIN)
            finally:
                self._in(node, "rm", "-f", kubeadm.JOIN)

    def _flannel(self, nodes: list[str]) -> None:
        self._kubectl("apply", "-f", "-", stdin=backend_comparison.manifest(self.lab, self.lab.profile.flannel_backend))
        self._kubectl("wait", "--for=condition=Ready", "nodes", "--all", "--timeout=180s")
        ask = ["busybox", "nslookup", "kubernetes.default.svc.cluster.local", self.lab.profile.dns_address]
        self._until(lambda: self.lab.profile.service_address in self._try(nodes[-1], *ask), "DNS answers")

    def _try(self, node: str, *argv: str) -> str:
        return subprocess.run([*self.provider.podman, "exec", self.provider.container(node), *argv],
                              capture_output=True, text=True, timeout=30, check=False).stdout  # fmt: skip

    def _istio(self, nodes: list[str]) -> None:
        self._import("istio", nodes)
        path = self.lab.state / "floor-operator.yaml"
        path.write_text(istio.operator(self.lab.profile.istio_profile, install.source(self.lab)), encoding="utf-8")
        self._sh(str(self.lab.artifacts.path("istioctl")), "install", "-f", str(path), "-y",
                 env={"KUBECONFIG": str(self.lab.state / "kubeconfig")})  # fmt: skip
        self._kubectl(
            "-n", istio.NAMESPACE, "wait", "--for=condition=Available", "deployment", "--all", "--timeout=180s"
        )

    def _bookinfo(self) -> None:
        self._import("apps", [n.name for n in self.lab.profile.nodes])
        self._kubectl("label", "namespace", "default", "istio-injection=enabled", "--overwrite")
        self._kubectl("apply", "-f", "-", stdin=bookinfo.manifest(self.lab))
        self._kubectl("wait", "--for=condition=Available", "deployment", "--all", "--timeout=180s")
        self._kubectl("wait", "--for=condition=Ready", "pod", "-l", bookinfo.SELECTOR, "--timeout=180s")

    def _until(self, check: Callable[[], bool], what: str) -> None:
        for _ in range(600):
            if check():
                return
            pause(0.2)
        raise StackbookError(f"the floor timed out waiting until {what}")


def measured(profile: str) -> dict[str, Any]:
    """Run `stackbook run --to 05` once on a host without a lab; returns the marks, and the seconds of every step."""
    begin = time.time()
    done = subprocess.run([sys.executable, "-m", "stackbook", "run", "--profile", profile, "--to", "05"],
                          capture_output=True, text=True, check=False, timeout=2400)  # fmt: skip
    end = time.time()
    if done.returncode:
        raise StackbookError(f"stackbook run failed:\n{done.stdout[-3000:]}")
    events = Record((paths.runs() / "latest").resolve() / "events.jsonl").events()
    ends = {(e["chapter"], e["step"]): e for e in events if e["event"] == "step-end"}
    marks = {
        "nodes Ready, DNS answers": round(ends["03-flannel", "ready"]["time"] - begin, 2),
        "bookinfo 2/2": round(ends["05-istio", "bookinfo"]["time"] - begin, 2),
        "chapters 00-05": round(end - begin, 2),
    }
    # The experiments of chapters 03 and 04 lie between the two marks: count only the steps towards bookinfo.
    path = marks["nodes Ready, DNS answers"] + sum(
        float(ends["05-istio", s]["seconds"]) for s in ("istioctl", "install", "bookinfo")
    )
    return {
        "marks": marks,
        "same_steps": round(path, 2),
        "steps": {f"{c}/{s}": e["seconds"] for (c, s), e in ends.items()},
    }


RATE = 500
"""The rate in requests per second at which the load program is asked to send."""


def pace(testbed: Testbed, side: str) -> float:
    """How many requests per second the load program starts when asked for `RATE`.

    Args:
        testbed: the test bed.
        side: "inside" the mesh, or "host": from this host through the ingress gateway.

    Raises:
        StackbookError: the answer to a request was not 200.
    """
    source, url = {"inside": (testbed.inside, REVIEWS), "host": (testbed.host, f"{testbed.ingress}/api/v1/products")}[
        side
    ]
    frame = send(source, Plan([Group("all", url)], count=5 * RATE, rate=RATE, warmup=300, concurrency=64))
    if wrong := testbed.failures(frame):
        raise StackbookError(f"requests from {side} failed: {'; '.join(wrong)}")
    return round(float(frame.attrs["rate"]), 1)


def paces(profile: str) -> dict[str, float]:
    """`pace` of each side, on the running lab."""
    lab = Lab.open("06-traffic", profile)
    with sharing.used(lab) as testbed:
        return {side: pace(testbed, side) for side in ("inside", "host")}


def _no_lab(profile: Profile) -> None:
    if Embedded(profile).containers():
        raise InputError(f"the lab {profile.lab!r} exists, but a benchmark starts without a lab", fix="stackbook reset")


def main(argv: list[str] | None = None) -> int:
    """Measure floor and lab alternately; writes bench/<time>.json and bench/<time>.png."""
    import argparse

    parser = argparse.ArgumentParser(prog="make bench", description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "rounds", nargs="?", type=int, choices=range(1, 21), default=3, metavar="ROUNDS", help="1 to 20"
    )
    rounds = int(parser.parse_args(argv).rounds)
    profile = "embedded"
    loaded = Profile.load(profile)
    _no_lab(loaded)
    Lab.open("05-istio", profile).artifacts.ensure(["machine-rootfs", "control-plane", "worker", "node", "apps", "istio",
                                                    "kubelet", "kubeadm", "kubectl", "istioctl", "app-load"])  # fmt: skip
    floors, labs, reached, lives = [], [], [], []
    whole = False
    try:
        for number in range(rounds):
            print(f"round {number + 1} of {rounds}: floor", flush=True)
            reset.remember(loaded)
            floor = Floor(profile)
            marks = floor.run()
            floors.append({"marks": marks, "phases": floor.phases})
            reset.reset(loaded, say=lambda text: None)
            print(f"  {marks}\nround {number + 1} of {rounds}: stackbook", flush=True)
            labs.append(measured(profile))
            reached.append(paces(profile))
            lives.append(life_benchmark.measure(profile))
            print(f"  {labs[-1]['marks']}, of {RATE} requests/s {reached[-1]}, {lives[-1]}", flush=True)
            reset.reset(loaded, say=lambda text: None)
        whole = True
    except KeyboardInterrupt:
        print("interrupted: no figures were saved", flush=True)
        return 130
    finally:
        if not whole:  # there was no lab before, so this one is the benchmark's own
            reset.reset(loaded, say=lambda text: None)
    write(floors, labs, reached)
    life_benchmark.publish(lives)
    return 0


def _median(values: list[float]) -> float:
    import statistics

    return round(statistics.median(values), 2)


def write(floors: list[dict[str, Any]], labs: list[dict[str, Any]], reached: list[dict[str, float]]) -> Path:
    """Save the figures: medians over the rounds, every round, versions and the machine."""
    from stackbook.artifacts.catalogue_loader import load
    from stackbook.machines.facts import MEMORY, OS_RELEASE

    host = LocalHost()
    floor_seconds = _median([f["marks"]["bookinfo 2/2"] for f in floors])
    stackbook_seconds = _median([r["same_steps"] for r in labs])
    ratios = [r["same_steps"] / f["marks"]["bookinfo 2/2"] for f, r in zip(floors, labs, strict=True)]
    data = {
        "time": now(),
        "floor_seconds": floor_seconds,
        "stackbook_seconds": stackbook_seconds,
        "ratio": _median(ratios),
        "marks": {name: _median([r["marks"][name] for r in labs]) for name in labs[0]["marks"]},
        "floor_marks": {name: _median([f["marks"][name] for f in floors]) for name in floors[0]["marks"]},
        "targets": TARGETS,
        "requests_a_second": {side: _median([r[side] for r in reached]) for side in reached[0]},
        "floor_phases": [f["phases"] for f in floors],
        "stackbook_steps": [r["steps"] for r in labs],
        "versions": dict(load().versions),
        "machine": {"processors": os.cpu_count(), "memory_gib": round(MEMORY.read(host)["MemTotal"] / 2**30, 1),
                    "system": OS_RELEASE.read(host).get("PRETTY_NAME", ""), "kernel": platform.release()},
    }  # fmt: skip
    FOLDER.mkdir(exist_ok=True)
    path = FOLDER / f"{data['time']}.json"
    path.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    _plot(data, path.with_suffix(".png"))
    publish(data, path.with_suffix(".png"))
    print(f"floor {floor_seconds} s, stackbook {stackbook_seconds} s, ratio {data['ratio']}: {path}")
    return path


def rows(data: dict[str, Any]) -> list[tuple[str, float, float | None, float]]:
    """The comparison: name, seconds of stackbook, seconds of the bare commands (None: they have no such part), promise.

    Between the two marks, chapters 03 and 04 run their experiments, which the bare commands do not. So the second row
    counts only the steps towards bookinfo.
    """
    marks, floor, promised = data["marks"], data["floor_marks"], data["targets"]
    ready, bookinfo, everything = list(marks)
    return [
        (ready, marks[ready], floor[ready], promised[ready]),
        ("then Istio, and bookinfo 2/2", data["stackbook_seconds"] - marks[ready], data["floor_seconds"] - floor[ready],
         promised[bookinfo] - promised[ready]),
        (f"{everything}, with all experiments", marks[everything], None, promised[everything]),
    ]  # fmt: skip


def block(data: dict[str, Any]) -> str:
    """The README's figures, from one file of bench/."""
    machine = data["machine"]
    lines = ["| from nothing, warm cache | stackbook | bare commands | promised |", "|---|---|---|---|"]
    for name, seconds, floor, promised in rows(data):
        bare = f"{floor:.0f} s" if floor else "–"
        lines.append(f"| {name} | {seconds:.0f} s | {bare} | {promised:.0f} s |")
    lines.append("")
    lines.append(
        f"The same steps take stackbook {data['stackbook_seconds']:.0f} s and bare commands {data['floor_seconds']:.0f} s: "
        f"a ratio of {data['ratio']:.2f} (medians of {len(data['floor_phases'])} rounds; {machine['processors']} processors, "
        f"{machine['memory_gib']:.0f} GiB, {machine['system']}, kernel {machine['kernel'].split('-')[0]}; "
        f"measured {data['time'][:4]}-{data['time'][4:6]}-{data['time'][6:8]})."
    )
    if reached := data.get("requests_a_second"):
        lines.append("")
        lines.append(
            f"On the running lab, the load program, asked for {RATE} requests/s, starts {reached['inside']:.0f} inside the mesh "
            f"and {reached['host']:.0f} through the ingress gateway."
        )
    return "\n".join(lines)


def publish(data: dict[str, Any], picture: Path) -> None:
    """Put the figures and the plot into the README."""
    import shutil

    readme_figures.put("bench", block(data))
    shutil.copyfile(picture, paths.checkout() / "docs" / "bench.png")


def _plot(data: dict[str, Any], path: Path) -> None:
    import matplotlib.pyplot as plt

    from stackbook.analysis.display import PALETTE, style_plots

    style_plots()
    fig, axes = plt.subplots(figsize=(9, 3.2))
    shown = rows(data)[::-1]
    names = [name for name, *_ in shown]
    axes.barh(names, [seconds for _, seconds, *_ in shown], color=PALETTE[0], height=0.5, label="stackbook")
    known = [(name, floor) for name, _, floor, _ in shown if floor]
    axes.plot(
        [floor for _, floor in known],
        [name for name, _ in known],
        "o",
        color=PALETTE[1],
        markersize=10,
        label="bare commands",
    )
    axes.plot([row[3] for row in shown], names, "|", color=PALETTE[6], markersize=26, label="promised")
    axes.set(title=f"From nothing, warm cache, {data['machine']['processors']} processors", xlabel="seconds")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.25), ncol=3)
    fig.savefig(path)
    plt.close(fig)
