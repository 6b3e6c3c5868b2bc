"""The guide's Go programs, compiled as printed, in a temporary module with their imports."""

from __future__ import annotations

import contextlib
import re
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from stackbook.artifacts import go_toolchain, protoc
from stackbook.artifacts.go_toolchain import Output
from stackbook.core import observed
from stackbook.core.errors import WaitTimeout
from stackbook.core.waiting import pause

PORT = 50051
PROGRAMS = ("greeter_server", "greeter_client", "greeter_client_today")
_EXAMPLES = "google.golang.org/grpc/examples"


def sources() -> Path:
    """The folder of the guide's programs."""
    return go_toolchain.modules() / "lessons" / "testdata" / "guide"


def pairs() -> dict[str, tuple[str, str]]:
    """The guide's files of section 2.5.2: as printed, and as they are today. The server still compiles as it is."""
    proto = (go_toolchain.modules() / "proto" / "guide" / "helloworld.proto").read_text(encoding="utf-8")
    mine = (go_toolchain.modules() / "proto" / "helloworld" / "helloworld.proto").read_text(encoding="utf-8")
    programs = {name: (sources() / name / "main.go").read_text(encoding="utf-8") for name in PROGRAMS}
    return {
        "helloworld.proto": (proto, mine),
        "greeter_server/main.go": (programs["greeter_server"], programs["greeter_server"]),
        "greeter_client/main.go": (programs["greeter_client"], programs["greeter_client_today"]),
    }


def free_port() -> int:
    """The guide's port, or another one if that is in use."""
    for wanted in (PORT, 0):
        with contextlib.suppress(OSError), socket.create_server(("", wanted)) as taken:
            return int(taken.getsockname()[1])
    raise AssertionError("port 0 is always free")


@contextlib.contextmanager
def scratch_module(name: str) -> Iterator[Path]:
    """A temporary Go module `name` with the versions that lib/apps pins."""
    with tempfile.TemporaryDirectory(prefix="stackbook-go-") as folder:
        root = Path(folder)
        for file in ("go.mod", "go.sum"):
            shutil.copyfile(go_toolchain.modules() / file, root / file)
        pinned = (root / "go.mod").read_text("utf-8")
        (root / "go.mod").write_text(re.sub(r"^module .*", f"module {name}", pinned), "utf-8")
        yield root


@dataclass
class Trial:
    """The guide's three programs, compiled.

    Attributes:
        programs: by name.
        port: the port that they use: the guide's, unless it was in use.
        generated: the code that protoc generated from the guide's proto, by path.
        without_embed: the compiler's error if the server embeds no UnimplementedGreeterServer.
    """

    programs: Mapping[str, Path]
    port: int
    generated: Mapping[str, str]
    without_embed: str
    _waiting: dict[str, tuple[subprocess.Popen[str], float]] = field(default_factory=dict)
    _keep: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    @property
    def missing(self) -> str:
        """The end of `without_embed`: what the server lacks."""
        return self.without_embed.rpartition(": ")[2]

    def run(self, name: str, *args: str) -> Output:
        """Run a client to its end; returns its output without the log's times."""
        done = go_toolchain.call([str(self.programs[name]), *args], shown=(name, *args), check=False, timeout=20)
        text = re.sub(r"^\d{4}/\d\d/\d\d \d\d:\d\d:\d\d ", "", done.stderr, flags=re.MULTILINE)
        return Output(done.argv, done.rc, done.stdout, text)

    def greetings(self) -> list[str]:
        """The output of the guide's client and of today's, without a name and with one, with a running server."""
        clients = ("greeter_client", "greeter_client_today")
        return [self.run(name, *args).stderr.strip() for name in clients for args in ((), ("Ada",))]

    @contextlib.contextmanager
    def server(self) -> Iterator[None]:
        """Run the guide's server while the block runs."""
        process = subprocess.Popen(
            go_toolchain.guarded([str(self.programs["greeter_server"])]), stderr=subprocess.DEVNULL
        )
        observed.tell(["greeter_server"], background=True)
        try:
            end = time.monotonic() + 5
            while True:
                with contextlib.suppress(OSError), socket.create_connection(("localhost", self.port), 1):
                    break
                if time.monotonic() > end:
                    raise WaitTimeout(f"the guide's server to listen on port {self.port}", 5)
                pause(0.02)
            yield
        finally:
            process.kill()
            process.wait(5)

    def start(self, name: str) -> None:
        """Start a client in the background; `outcome` returns its result."""
        process = subprocess.Popen(go_toolchain.guarded([str(self.programs[name])]), stderr=subprocess.PIPE, text=True)
        observed.tell([name], background=True)
        self._waiting[name] = (process, time.monotonic())

    def outcome(self, name: str, *, limit: float = 5.0) -> str:
        """How a started client ended within `limit` seconds of its start, or that it is still blocked."""
        process, started = self._waiting.pop(name)
        try:
            _, said = process.communicate(timeout=max(0.05, limit - (time.monotonic() - started)))
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            return f"still blocked after {limit:g} s"
        found = re.search(r"code = (\w+)", said)
        return f"failed with {found[1]}" if found else said.strip()

    @classmethod
    def make(cls) -> Trial:
        """Compile the guide's programs; `close` removes them again.

        Raises:
            ToolFailed: one does not compile.
        """
        keep = contextlib.ExitStack()
        found = keep.enter_context(trial())
        found._keep = keep
        return found

    def close(self) -> None:
        """Remove the programs, and stop the clients that still wait."""
        self._keep.close()


@contextlib.contextmanager
def trial() -> Iterator[Trial]:
    """Compile the guide's programs as printed; the code that they import is generated from the guide's own proto.

    Raises:
        ToolFailed: one does not compile.
    """
    go, port = go_toolchain.toolchain(), free_port()
    made = protoc.go_code("helloworld.proto", include=protoc.protos() / "guide", module=_EXAMPLES, grpc=True)
    with scratch_module("stackbook.dev/guide") as root:
        for path, text in made.files.items():
            file = root / "examples" / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, "utf-8")
        pinned = (root / "go.mod").read_text("utf-8")
        (root / "examples" / "go.mod").write_text(re.sub(r"^module .*", f"module {_EXAMPLES}", pinned), "utf-8")
        replace = f"\nrequire {_EXAMPLES} v0.0.0\nreplace {_EXAMPLES} => ./examples\n"
        (root / "go.mod").write_text(pinned_for_guide(pinned) + replace, "utf-8")
        for name in (*PROGRAMS, "no_embed"):
            (root / name).mkdir()
            original = sources() / ("greeter_server" if name == "no_embed" else name) / "main.go"
            text = original.read_text("utf-8").replace(f":{PORT}", f":{port}")
            if name == "no_embed":
                text = text.replace("\tpb.UnimplementedGreeterServer\n", "")
            (root / name / "main.go").write_text(text, "utf-8")
        programs = go.build(*(f"./{name}" for name in PROGRAMS), cwd=root, into=root / "bin")
        refused = go.run("build", "-o", "/dev/null", "./no_embed", cwd=root, check=False)
        error = next((line for line in refused.stderr.splitlines() if "missing method" in line), "")
        trial = Trial(dict(zip(PROGRAMS, programs, strict=True)), port, made.files, error.strip().lstrip("\t"))
        try:
            yield trial
        finally:
            for process, _ in trial._waiting.values():
                process.kill()
                process.communicate()


def pinned_for_guide(text: str) -> str:
    """A go.mod without its `tool` lines, which name programs that the temporary module does not need."""
    return re.sub(r"^tool \(.*?^\)\n", "", text, flags=re.MULTILINE | re.DOTALL)


DEPRECATED = (
    ("grpc.Dial", "google.golang.org/grpc.Dial", "grpc.NewClient(address, …)"),
    ("grpc.WithInsecure()", "google.golang.org/grpc.WithInsecure",
     "grpc.WithTransportCredentials(insecure.NewCredentials())"),
    ("grpc.WithBlock()", "google.golang.org/grpc.WithBlock", "nothing: the first call connects, under its deadline"),
    ("ioutil.ReadFile", "io/ioutil.ReadFile", "os.ReadFile"),
)  # fmt: skip


def deprecations() -> list[dict[str, str]]:
    """Each old form, what its own documentation says about it, and its replacement."""
    go = go_toolchain.toolchain()
    rows = []
    for old, name, new in DEPRECATED:
        text = " ".join(go.doc(name).split())
        said = re.search(r"Deprecated: (.*)", text)
        rows.append({"old": old, "its documentation": said[1][:110] if said else "", "today": new})
    return rows
