"""The command line of the benchmark."""

from __future__ import annotations

import argparse

from stackbook.app import life_benchmark, reset
from stackbook.app.benchmark import figures
from stackbook.app.benchmark.floor import Floor
from stackbook.app.benchmark.measuring import RATE, measured, paces
from stackbook.config.profile import Profile
from stackbook.core.errors import InputError
from stackbook.lab.lab import Lab
from stackbook.machines.providers.podman import Embedded

_COMPONENTS = ("machine-rootfs", "control-plane", "worker", "node", "apps", "istio", "kubelet", "kubeadm", "kubectl", "istioctl",
               "app-load")  # fmt: skip


def _no_lab(profile: Profile) -> None:
    if Embedded(profile).containers():
        raise InputError(f"the lab {profile.lab!r} exists, but a benchmark starts without a lab", fix="stackbook reset")


def main(argv: list[str] | None = None) -> int:
    """Measure floor and lab alternately; writes bench/<time>.json and bench/<time>.png."""
    parser = argparse.ArgumentParser(
        prog="make bench", description="compare the lab with the same steps by bare commands"
    )
    parser.add_argument(
        "rounds", nargs="?", type=int, choices=range(1, 21), default=3, metavar="ROUNDS", help="1 to 20"
    )
    rounds = int(parser.parse_args(argv).rounds)
    profile = "embedded"
    loaded = Profile.load(profile)
    _no_lab(loaded)
    lab = Lab.open("05-istio", profile)
    lab.artifacts.ensure(lab.images.components(_COMPONENTS))
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
    figures.write(floors, labs, reached)
    life_benchmark.publish(lives)
    return 0
