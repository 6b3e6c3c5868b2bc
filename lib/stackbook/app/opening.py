"""The command `open`: the lab's web pages on this host's loopback interface, each for as long as the command runs."""

from __future__ import annotations

import argparse
import contextlib
import os
import socket
import subprocess
import webbrowser
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stackbook.app import open_drone
from stackbook.config.namespaces import MESH
from stackbook.core.columns import aligned
from stackbook.core.errors import ArtifactError, CheckFailed, CommandFailed, InputError, StackbookError
from stackbook.core.names import did_you_mean
from stackbook.core.progress import ConsoleReport
from stackbook.core.waiting import pause

if TYPE_CHECKING:
    from stackbook.lab.lab import Lab

LOOPBACK = "127.0.0.1"
_KIALI = "kiali"
_EVERY = 2.0
"""Seconds between two checks whether the connection is still there."""


@dataclass(frozen=True)
class Page:
    """A page of the lab.

    Attributes:
        name: the argument of `stackbook open`.
        chapter: the number of the chapter that installs it, or the system whose data it shows.
        service: the Service to reach, with its namespace before a slash; with `program`, that of the data.
        port: the port of the Service.
        path: the path of the page.
        look: what to look at there.
        image: the image whose pages these are, in the catalogue; empty if every lab has the page.
        api: a path of the program's API, for a build of the lab's own, which has no pages.
        pages: the component that is the pages of such a build; empty if they cannot be built.
        program: the component that shows the data of the Service as long as the command runs, where no pod has such a page.
    """

    name: str
    chapter: str
    service: str
    port: int
    path: str
    look: str
    image: str = ""
    api: str = ""
    pages: str = ""
    program: str = ""

    @property
    def namespace(self) -> str:
        """The namespace of the Service."""
        return self.service.split("/")[0]

    @property
    def target(self) -> str:
        """The Service as kubectl names it."""
        return f"svc/{self.service.split('/')[1]}"


_GATEWAY = "istio-ingressgateway"
_GRAPH = (
    "/console/graph/namespaces?namespaces=default&graphType=versionedApp&duration=60&refresh=15000&edges=trafficRate"
)
PAGES = (
    Page("bookinfo", "05", f"{MESH}/{_GATEWAY}", 80, "/productpage",
         "the sample application, through the ingress gateway: reload it, and the stars change"),
    Page("kiali", "10", "istio-system/prometheus", 9090, _GRAPH,
         "the service graph, which begins now: reload bookinfo for a minute, then click on an edge for its rates and errors",
         "kiali", pages="kiali-pages", program="kiali"),
    Page("grafana", "05", "istio-system/grafana", 3000, "/", "Istio's dashboards", "grafana"),
    Page("prometheus", "10", "istio-system/prometheus", 9090, "/query", "queries, targets and alerts", "prometheus",
         "/api/v1/query?query=up", "prometheus-pages"),
    Page("jaeger", "11", "istio-system/tracing", 80, "/jaeger/search", "traces: search for the service productpage.default",
         "jaeger", "/jaeger/api/services"),
    Page("traces", "11", "istio-system/tracing", 80, "/zipkin/",
         "Jaeger's traces in Zipkin: press Run Query, or put a trace's id into the field at the top", program="zipkin"),
    Page("logs", "12", "logging/elasticsearch", 9200, "/select/vmui/",
         "log lines of all machines in VictoriaLogs: search for a word, or for service:productpage",
         program="victoria-logs"),
    Page("shop", "14", "bookshop/orders", 80, "/docs/", "the bookshop's operations in Swagger UI: try one, or place an order"),
    Page("kibana", "12", "logging/kibana", 5601, "/app/discover", "log lines of all machines", "kibana"),
)  # fmt: skip


def pages(lab: Lab) -> tuple[Page, ...]:
    """The pages where this lab has them.

    On an existing cluster the ingress gateway, Prometheus, Jaeger and Elasticsearch are the learner's own, in their namespaces. Where
    Istio's addon has installed Kiali, that one is the page.
    """
    from stackbook.observability.metrics import kiali

    found = {page.name: page for page in PAGES}
    found["bookinfo"] = replace(found["bookinfo"], service=f"{lab.namespaces.gateways}/{_GATEWAY}")
    for name in ("prometheus", "jaeger", "traces"):
        found[name] = replace(found[name], service=f"{lab.namespaces.monitoring}/{found[name].service.split('/')[1]}")
    for name in ("logs", "kibana"):
        found[name] = replace(found[name], service=f"{lab.namespaces.logging}/{found[name].service.split('/')[1]}")
    if lab.profile.target != "cluster" and kiali.of_the_addon(lab.kube):
        whole = replace(found["kiali"], service="istio-system/kiali", port=kiali.PORT, path=f"{kiali.PATH}/")
        found["kiali"] = replace(whole, chapter="05", pages="", program="")
    return tuple(found.values())


def arguments(add: Callable[..., Any]) -> None:
    """Add the command and its argument.

    Args:
        add: adds a command: its name, its help text, its function.
    """
    sub = add("open", "open a web page of the lab on loopback, until Ctrl-C; without a name, list the pages", command)
    sub.add_argument("page", nargs="?", default="", metavar="NAME", help="for example bookinfo")
    sub.add_argument(open_drone.FLAG, action="store_true", help="for the page drone: its licence limits commercial use")


def command(options: argparse.Namespace) -> int:
    """List the pages, or serve one of them until the user ends the command."""
    from stackbook.lab.lab import Lab

    if options.page == open_drone.NAME:  # it needs no cluster
        return open_drone.command(options, browse)
    if options.page and options.page not in [page.name for page in PAGES]:
        fix = did_you_mean(options.page, [*(page.name for page in PAGES), open_drone.NAME], "pages")
        raise InputError(f"there is no page {options.page!r}", fix=fix)
    lab = Lab.open("00-preflight", options.profile)
    if not lab.kubeconfig.exists():
        raise InputError("there is no cluster yet", fix="stackbook run --to 05")
    if not lab.kube.ready():
        raise InputError("the API server does not answer", fix="stackbook start, or stackbook diagnose")
    if not options.page:
        for line in (*lines(lab), open_drone.LINE):
            print(line)
        return 0
    page = next(page for page in pages(lab) if page.name == options.page)
    if page.program == _KIALI:
        from stackbook.observability.metrics import kiali

        kiali.demand(lab)
    if not installed(lab, page):
        raise InputError(f"{page.name} is not installed", fix=how(lab, page))
    with contextlib.suppress(KeyboardInterrupt):  # how the user ends it
        (show if page.program else serve)(lab, page)
    return 0


def installed(lab: Lab, page: Page) -> bool:
    """Whether the cluster has the Service of a page, with a pod behind it."""
    name = page.service.split("/")[1]
    found = lab.kube.json("get", "endpointslices", "-n", page.namespace, "-l", f"kubernetes.io/service-name={name}")
    return any(
        endpoint.get("conditions", {}).get("ready")
        for item in found["items"]
        for endpoint in item.get("endpoints") or []
    )


def built_in(lab: Lab, page: Page) -> bool:
    """Whether the program has its pages in itself: the official image has, a build of the lab's own does not."""
    return not page.api or lab.images.sources.pulled(page.image)


def at_hand(lab: Lab, page: Page) -> bool:
    """Whether the page can be opened without building anything."""
    from stackbook.observability.metrics import pages

    if built_in(lab, page):
        return True
    return bool(page.pages) and (pages.there(lab) or lab.artifacts.at_hand(page.pages) is not None)


def parts(lab: Lab, page: Page) -> list[str]:
    """The components that a page with a program needs; none if its image is pulled."""
    if page.image and lab.images.sources.pulled(page.image):
        return []
    return [name for name in (page.program, page.pages) if name]


def provide(lab: Lab, page: Page, say: Callable[[str], None]) -> bool:
    """Put a program's pages into its pod, built first if necessary; returns whether they are there."""
    from stackbook.observability.metrics import pages

    if built_in(lab, page) or (page.pages and pages.there(lab)):
        return True
    if not page.pages:
        return False
    try:
        folder = lab.artifacts.at_hand(page.pages)
        pages.put(lab, folder or built(lab, page.pages, say))
    except (ArtifactError, CheckFailed, CommandFailed) as error:
        say(f"The pages of {page.name} cannot be shown: {error}")
        return False
    return True


def built(lab: Lab, component: str, say: Callable[[str], None]) -> Path:
    """The folder of a component that is built now, with its progress on the terminal."""
    from stackbook.artifacts.forecast import duration
    from stackbook.artifacts.resolver import Resolver

    profile = lab.profile
    resolver = Resolver.open(
        profile.source, ConsoleReport(), versions=profile.versions, strict=profile.strict
    )  # fmt: skip
    say(f"{component} is built first, once: {duration(resolver.maker.estimate(component))}. Ctrl-C ends it.")
    return resolver.path(component)


def how(lab: Lab, page: Page) -> str:
    """How to install a page, as the fix of an error."""
    if page.image and not page.api and lab.images.sources.of(page.image).kind == "none":
        return f"{page.name} exists only as a container image: use a host that reaches its registry, or a mirror (registry_mirrors)"
    return f"stackbook run --only {page.chapter}"


def lines(lab: Lab) -> Iterator[str]:
    """The pages as a table for a terminal."""
    table = [("page", "chapter", "state", "what to look at")]
    table += [(page.name, page.chapter, _state(lab, page), page.look) for page in pages(lab)]
    yield from aligned(table)
    yield "open one of them: stackbook open NAME"


def _state(lab: Lab, page: Page) -> str:
    if not installed(lab, page):
        return "not installed"
    if page.program:
        return "ready" if all(lab.artifacts.at_hand(name) for name in parts(lab, page)) else "not built"
    return "ready" if at_hand(lab, page) else "API only"


def serve(
    lab: Lab, page: Page, *, say: Callable[[str], None] | None = None, environment: Mapping[str, str] = os.environ
) -> None:
    """Forward a port of loopback to a page, and open it in a browser if there is a display; returns only with an error.

    If the pages cannot be had, an address of the program's API is shown instead.

    Raises:
        WaitTimeout: the port could not be forwarded.
        StackbookError: the pod of the page has gone.
    """
    say = say or partial(print, flush=True)
    whole = provide(lab, page, say)
    with lab.kube.port_forward(page.namespace, page.target, page.port) as port:
        address = f"http://{LOOPBACK}:{port}{page.path if whole else page.api}"
        say(f"{address}\n{page.look}\nCtrl-C ends it.")
        if not whole:
            say(f"This lab's {page.name} is built without its pages: this is an answer of its API.")
        browse(address, environment)
        while _listens(port):
            pause(_EVERY)
    raise StackbookError(
        f"the connection to {page.name} has ended: its pod was replaced or deleted", fix=f"stackbook open {page.name}"
    )


def show(
    lab: Lab, page: Page, *, say: Callable[[str], None] | None = None, environment: Mapping[str, str] = os.environ
) -> None:
    """Show data with a program that runs as long as this command, and open it in a browser if there is a display.

    It returns only with an error.

    Raises:
        ArtifactError: the program cannot be had.
        InputError: the program cannot run in this lab.
        StackbookError: the system whose data it shows does not answer, or no longer.
    """
    say = say or partial(print, flush=True)
    found = {name: lab.artifacts.at_hand(name) or built(lab, name, say) for name in parts(lab, page)}
    with _shown(lab, page, found) as (url, what, ended):
        address = f"{url}{page.path}"
        say(f"{address}\n{page.look}")
        say(f"{what}Until Ctrl-C ends it, every user of this host can read it.")
        browse(address, environment)
        while not (reason := ended()):
            pause(_EVERY)
    raise StackbookError(f"the page of {page.name} has ended: {reason}", fix=f"stackbook open {page.name}")


@contextlib.contextmanager
def _shown(lab: Lab, page: Page, found: Mapping[str, Path]) -> Iterator[tuple[str, str, Callable[[], str]]]:
    """A running program: its address, what it has in words, and a function that says why it has ended, or nothing.

    Args:
        lab: the lab.
        page: the page.
        found: the paths of the components of `parts`.
    """
    from stackbook.observability.logs import page as log_page
    from stackbook.observability.metrics import kiali
    from stackbook.observability.tracing import trace_page

    if page.program == kiali.IMAGE:
        with kiali.running(lab) as server:
            yield server.url, "", server.ended
        return
    traces = page.program == trace_page.IMAGE
    with trace_page.following(lab) if traces else log_page.following(lab.kube, found[page.program]) as copy:
        yield copy.url, f"It has {copy.copied} {copy.what}; new ones follow in seconds. ", copy.ended


def browse(address: str, environment: Mapping[str, str]) -> None:
    """Open an address in the user's browser if there is a display; never as root."""
    if not (environment.get("DISPLAY") or environment.get("WAYLAND_DISPLAY")):
        return
    if os.geteuid():
        webbrowser.open(address)
    elif user := environment.get("SUDO_USER"):
        with contextlib.suppress(OSError):
            subprocess.Popen(
                ["runuser", "-u", user, "--", "xdg-open", address],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(5)
        return probe.connect_ex((LOOPBACK, port)) == 0
