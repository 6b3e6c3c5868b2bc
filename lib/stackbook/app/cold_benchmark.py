"""`make bench-cold`: measure a whole `make lab` from a fresh clone with an empty cache, and publish it in the README.

All files of the run are in one folder, which is removed afterwards: the clone with its `.venv`, stackbook's cache, the caches
of pip and uv, and the lab's state. The lab has its own name and subnet, so another lab can exist; but to publish figures,
nothing else should run on the host.

The floor is the processor time of the work, spread over all processors: no order of the work can be faster. The work of the
machines and their pods is included, so the time is that of the whole host.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from stackbook.app import program, readme_figures
from stackbook.core import paths
from stackbook.core.errors import CheckFailed
from stackbook.lab.step import Record, now

FOLDER = paths.checkout() / "bench"
BUDGET = {"machines run": 120.0, "chapter 05 done": 900.0, "everything": 1800.0}
HOST = "the whole host"
"""Whose processor time a measurement has. Older ones have only the time of `make lab` itself, without the machines."""
_LIMIT = 5400.0
_PROFILE = {
    "target": "embedded",
    "lab": "sbcold",
    "nodes": [{"name": "k8s-master", "address": "192.168.95.3"}, {"name": "k8s-node1", "address": "192.168.95.4"}],
    "subnet": "192.168.95.0/24",
    "gateway": "192.168.95.2",
}


def main(say: Callable[[str], None] = print) -> int:
    """Measure, write bench/<time>-cold.json, and put the figures into the README; returns the exit status."""
    data = measure(say)
    FOLDER.mkdir(exist_ok=True)
    path = FOLDER / f"{data['time']}-cold.json"
    path.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    publish(data)
    say(f"{block(data)}\n{path}")
    return 0


def measure(say: Callable[[str], None]) -> dict[str, Any]:
    """Run `make lab` from nothing.

    Raises:
        CheckFailed: it failed; the error names the file with its output.
    """
    folder = Path(tempfile.mkdtemp(prefix="stackbook-cold-", dir="/var/tmp"))
    log = Path(tempfile.gettempdir()) / f"{folder.name}.log"
    clone = folder / "stackbook"
    subprocess.run(["git", "clone", "-q", str(paths.checkout()), str(clone)], check=True, timeout=120)
    profile = folder / "cold.yaml"
    profile.write_text(yaml.safe_dump(_PROFILE), encoding="utf-8")
    env = {**os.environ, "STACKBOOK_CACHE": str(folder / "cache"), "STACKBOOK_STATE": str(folder / "state"),
           "STACKBOOK_RUNS": str(folder / "runs"), "UV_CACHE_DIR": str(folder / "uv"), "PIP_CACHE_DIR": str(folder / "pip")}  # fmt: skip
    say(f"make lab from an empty cache; its output goes to {log}")
    began, used = time.time(), busy_seconds()
    try:
        with log.open("w", encoding="utf-8") as sink:
            status = subprocess.run(["make", "lab", f"PROFILE={profile}"], cwd=clone, env=env, stdout=sink, stderr=sink,
                                    timeout=_LIMIT, check=False).returncode  # fmt: skip
        wall, cpu = time.time() - began, busy_seconds() - used
        if status:
            raise CheckFailed(f"make lab failed with status {status} after {wall:.0f} s", fix=f"see {log}")
        run = (folder / "runs" / "latest").resolve()
        record = json.loads((run / "run.json").read_text(encoding="utf-8"))
        return {
            "time": now(),
            "marks": marks(record, Record(run / "events.jsonl").events(), began, wall),
            "processor_seconds": round(cpu),
            "floor": round(cpu / (os.cpu_count() or 1)),
            "of": HOST,
            "waited_for_components": waits(record),
            "cache_bytes": sum(f.stat().st_size for f in (folder / "cache").rglob("*") if f.is_file() and not f.is_symlink()),
            "chapters": {c["chapter"]: c["seconds"] for c in record["chapters"]},
            "machine": {"processors": os.cpu_count(), "system": platform.freedesktop_os_release().get("PRETTY_NAME", ""),
                        "kernel": platform.release().split("-")[0]},
        }  # fmt: skip
    finally:
        say("removing the lab")
        reset = [str(clone / ".venv/bin/stackbook"), "reset", "--profile", str(profile)]
        with suppress(OSError, subprocess.SubprocessError):
            subprocess.run(reset, cwd=clone, env=env, timeout=300, check=False, stdout=subprocess.DEVNULL)
        _writable(folder)
        shutil.rmtree(folder, ignore_errors=True)


def busy_seconds(stat: Path = Path("/proc/stat")) -> float:
    """How many seconds the host's processors have been busy since its start, all together (proc_stat(5))."""
    user, nice, system, _, _, irq, softirq, *_ = map(
        int, stat.read_text(encoding="ascii").split("\n", 1)[0].split()[1:]
    )
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def marks(
    record: Mapping[str, Any], events: Sequence[Mapping[str, Any]], began: float, wall: float
) -> dict[str, float]:  # fmt: skip
    """Seconds from the command's start to each mark.

    Raises:
        CheckFailed: a chapter did not pass.
    """
    if not record.get("passed"):
        raise CheckFailed("a chapter did not pass, so there are no figures")
    ends = {}
    for event in events:
        if event["event"] == "step-end":
            ends[str(event["chapter"])] = float(event["time"]) - began
    return {
        "machines run": round(ends["01-machines"]),
        "kubeadm done": round(ends["02-kubeadm"]),
        "chapter 05 done": round(ends["05-istio"]),
        "everything": round(wall),
    }


def waits(record: Mapping[str, Any]) -> dict[str, float]:
    """How many seconds chapters waited for components, by chapter and component."""
    found: dict[str, float] = {}
    for chapter in record["chapters"]:
        for step in chapter["steps"]:
            for name, seconds in step.get("evidence", {}).get("waited_for_components", {}).items():
                found[f"{chapter['chapter']}: {name}"] = seconds
    return found


def block(data: Mapping[str, Any]) -> str:
    """The README's figures."""
    lines = ["| `make lab` from nothing, empty cache | measured | promised |", "|---|---|---|"]
    for name, seconds in data["marks"].items():
        promised = f"{BUDGET[name] / 60:.0f} min" if name in BUDGET else "–"
        lines.append(f"| {name} | {seconds // 60:.0f} min {seconds % 60:02.0f} s | {promised} |")
    machine = data["machine"]
    included = "with all that runs on the machines" if data.get("of") == HOST else "without what runs on the machines"
    busy, least, count = data["processor_seconds"] / 60, data["floor"] / 60, machine["processors"]
    lines += ["", f"Its work takes {busy:.0f} min of processor time, {included}, so at least {least:.0f} min on "
              f"{count} processors. The cache takes {data['cache_bytes'] / 1e9:.1f} GB at the end "
              f"({machine['system']}, kernel {machine['kernel']}; measured {_date(data['time'])})."]  # fmt: skip
    return "\n".join(lines)


def publish(data: Mapping[str, Any]) -> None:
    """Put the figures into the README."""
    readme_figures.put("cold", block(data))


def _date(stamp: str) -> str:
    return f"{stamp[:4]}-{stamp[4:6]}-{stamp[6:8]}"


def _writable(folder: Path) -> None:
    """Make Go's read-only module folders writable, and remove the folder."""
    for top, _, _ in os.walk(folder):
        with suppress(OSError):
            Path(top).chmod(0o755)


if __name__ == "__main__":
    program.end_with(main)
