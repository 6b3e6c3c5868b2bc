"""JupyterLab as `stackbook notebooks` starts it, pages as `stackbook open` shows them, and Debian's chromium for both."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, sync_playwright
from stackbook.core import paths
from stackbook.core.child_processes import end
from stackbook.core.waiting import until
from stackbook.lab.lab import Lab

INSTALL = "STACKBOOK_BROWSER=1 tools/setup.sh (or: apt-get install chromium)"
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]  # fmt: skip
# Every cell stays in the page, also those far below, and nothing is asked of the network.
SETTINGS = {
    "@jupyterlab/notebook-extension/tracker": {"windowingMode": "none"},
    "@jupyterlab/apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}


def chromium() -> str:
    """The browser's path, or an empty string."""
    return os.environ.get("STACKBOOK_CHROMIUM") or shutil.which("chromium") or ""


def demand_chromium() -> None:
    """Without it nothing can be said: CI fails, elsewhere the tests are skipped with the reason."""
    if chromium():
        return
    reason = f"chromium is not installed: {INSTALL}"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def demand_lab(chapter: str) -> Lab:
    """The standing lab as a chapter sees it: without one, CI fails, elsewhere the tests are skipped with the reason."""
    found = Lab.open(chapter)
    if not found.kubeconfig.exists():
        reason = "the lab does not run: stackbook run --to 05"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    return found


@dataclass(frozen=True)
class Server:
    """A running JupyterLab: its address and its token, the folder that it serves, its log."""

    url: str
    token: str
    root: Path
    log: Path

    def saved(self, name: str) -> dict[str, Any]:
        """A notebook as it lies on disk."""
        book: dict[str, Any] = json.loads((self.root / "notebooks" / name).read_text(encoding="utf-8"))
        return book


@contextlib.contextmanager
def served(folder: Path, *, state: Path | None = None) -> Iterator[Server]:
    """Serve a copy of the committed notebooks, with settings, records and (without `state`) the labs' state below `folder`."""
    root = folder / "root"
    shutil.copytree(paths.notebooks(), root / "notebooks", ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
    for name, values in SETTINGS.items():
        file = folder / "settings" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(values), encoding="utf-8")
    places = {"JUPYTERLAB_SETTINGS_DIR": "settings", "JUPYTERLAB_WORKSPACES_DIR": "workspaces", "IPYTHONDIR": "ipython",
              "JUPYTER_CONFIG_DIR": "config", "JUPYTER_RUNTIME_DIR": "runtime", "STACKBOOK_STATE": "state",
              "STACKBOOK_RUNS": "runs"}  # fmt: skip
    env = {**os.environ, **{name: str(folder / place) for name, place in places.items()}}
    env.pop("STACKBOOK_RUN", None)
    if state:
        env["STACKBOOK_STATE"] = str(state)
    log = folder / "jupyterlab.log"
    command = [sys.executable, "-m", "stackbook", "notebooks", "--port", str(free_port()), "--root", str(root)]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=env, start_new_session=True
        )
    try:
        found = until(lambda: _address(process, log), what="JupyterLab prints its address", timeout=60, every=0.2)
        yield Server(found[1], found[2], root, log)
    finally:
        _end(process)


def _address(process: subprocess.Popen[bytes], log: Path) -> re.Match[str] | None:
    text = log.read_text(encoding="utf-8", errors="replace")
    if process.poll() is not None:
        raise AssertionError(f"JupyterLab ended with status {process.returncode}: {text[-800:]}")
    if not (told := re.search(r"JupyterLab: its address with the token is in (\S+)", text)):
        return None
    if "is running at" not in text:
        return None
    return re.fullmatch(r"(http://127\.0\.0\.1:\d+)/lab\?token=([0-9a-f]+)", Path(told[1]).read_text(encoding="utf-8"))


def _end(process: subprocess.Popen[bytes]) -> None:
    """JupyterLab ends its kernels when it is asked to end; what does not, is ended."""
    for number, patience in ((signal.SIGTERM, 20), (signal.SIGKILL, 5)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience)
            return


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextlib.contextmanager
def opened(name: str, log: Path) -> Iterator[str]:
    """The address that `stackbook open NAME` prints, as long as the block runs; Ctrl-C ends the command."""
    command = [sys.executable, "-m", "stackbook", "open", name]
    with log.open("wb") as errors:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, text=True)
    try:
        assert process.stdout is not None
        lines = iter(process.stdout.readline, "")
        address = next((line.strip() for line in lines if line.startswith("http://127.0.0.1:")), "")
        assert address, log.read_text()
        yield address
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0, log.read_text()
    finally:
        end(process)
        if process.stdout:
            process.stdout.close()


@contextlib.contextmanager
def browser(folder: Path) -> Iterator[Page]:
    """A page of a fresh chromium; it may ask 127.0.0.1 only."""
    with sync_playwright() as driver:
        context = driver.chromium.launch_persistent_context(
            str(folder / "profile"), executable_path=chromium(), args=FLAGS, viewport={"width": 1280, "height": 900}
        )
        try:
            yield context.pages[0] if context.pages else context.new_page()
        finally:
            context.close()


_FRAMES = """boxes => boxes.forEach((box, at) => {
    const frame = document.createElement('div'), number = document.createElement('div');
    frame.className = 'stackbook-mark';
    frame.style.cssText = `position:fixed;z-index:2147483647;pointer-events:none;box-sizing:border-box;border:3px solid #c2185b;
        border-radius:6px;left:${box.x - 6}px;top:${box.y - 6}px;width:${box.width + 12}px;height:${box.height + 12}px`;
    number.textContent = at + 1;
    const place = `left:${Math.max(-21, 5 - box.x)}px;top:${Math.max(-21, 5 - box.y)}px`;  // not outside of the window
    number.style.cssText = `position:absolute;${place};width:22px;height:22px;border-radius:11px;background:#c2185b;color:#fff;
        font:bold 14px/22px sans-serif;text-align:center`;
    frame.append(number);
    document.body.append(frame);
})"""


def picture(page: Page, path: Path, *marks: Locator) -> None:
    """A screenshot of the window with a numbered frame around each of these elements; `tools/screenshots.py` puts it into a chapter."""
    boxes = [mark.first.bounding_box() for mark in marks]
    assert None not in boxes, f"{path.name}: mark {boxes.index(None) + 1} is not on the page"
    page.evaluate(_FRAMES, boxes)
    page.screenshot(path=str(path))
    page.evaluate("() => document.querySelectorAll('.stackbook-mark').forEach(mark => mark.remove())")


@dataclass(frozen=True)
class Chapter:
    """A notebook in the browser."""

    page: Page
    server: Server
    name: str

    def open(self) -> Chapter:
        """Open it, and wait for its kernel."""
        self.page.goto(f"{self.server.url}/lab/tree/notebooks/{self.name}?reset&token={self.server.token}")
        self.page.wait_for_selector(".jp-Notebook .jp-CodeCell", timeout=90_000)
        self._until_idle(60)
        return self

    def run_all(self, timeout: float) -> Chapter:
        """Run > Restart Kernel and Run All Cells, wait until all are done, and save.

        A cell that raises stops the run, so cells without a number mean an error.
        """
        return self.start_all().wait_all(timeout)

    def start_all(self) -> Chapter:
        """Run > Restart Kernel and Run All Cells; returns when cells wait for their turn."""
        self._menu("Run", "Restart Kernel and Run All Cells…")
        self.page.locator(".jp-Dialog button.jp-mod-accept").click()
        # The prompts of the run before stay until the kernel is there again.
        waits = f"{self.name}: cells wait for their turn"
        until(lambda: "[*]:" in self._prompts(), what=waits, timeout=60, every=0.05, last=self._seen)
        return self

    def wait_all(self, timeout: float) -> Chapter:
        """Wait until all cells are done, and save."""
        until(self._ended, what=f"{self.name}: all cells are done", timeout=timeout, last=self._seen)
        self._until_idle(60)
        self._save()
        return self

    def set_parameter(self, line: str) -> Chapter:
        """Type a line into the parameters cell, in place of all that it says."""
        cell = self.page.locator(".jp-CodeCell").first.locator(".cm-content")
        cell.click()
        self.page.keyboard.press("Control+A")
        self.page.keyboard.insert_text(line)
        return self

    def type_and_run(self, source: str) -> None:
        """Type source into the last cell, and press Shift+Enter, which adds a cell below it."""
        self.page.locator(".jp-CodeCell").last.locator(".cm-content").click()
        self.page.keyboard.insert_text(source)
        self.page.keyboard.press("Shift+Enter")

    def texts(self) -> str:
        """All that the outputs say."""
        return "\n".join(self.page.locator(".jp-Notebook .jp-OutputArea-output").all_inner_texts())

    def count(self, selector: str) -> int:
        """How many outputs hold something."""
        return self.page.locator(f".jp-Notebook .jp-OutputArea-output {selector}").count()

    def errors(self) -> list[str]:
        """Every output that is an exception or came by stderr; JupyterLab shows the two alike."""
        selector = ".jp-Notebook .jp-OutputArea-output[data-mime-type='application/vnd.jupyter.stderr']"
        return self.page.locator(selector).all_inner_texts()

    def screenshot(self, path: Path, *, of: str = "") -> None:
        """The window, or the cell with an output that matches a selector."""
        if of:
            self.page.locator(f".jp-Notebook .jp-OutputArea-output {of}").first.scroll_into_view_if_needed()
        self.page.screenshot(path=str(path))

    def _menu(self, menu: str, item: str) -> None:
        self.page.get_by_role("menuitem", name=menu, exact=True).click()
        self.page.get_by_role("menuitem", name=item, exact=True).click()

    def _save(self) -> None:
        path = self.server.root / "notebooks" / self.name
        before = path.stat().st_mtime_ns
        self.page.get_by_role("menuitem", name="File", exact=True).click()
        self.page.get_by_role("menuitem", name=re.compile("^Save Notebook")).first.click()
        until(lambda: path.stat().st_mtime_ns != before, what=f"{self.name} is saved", timeout=20, every=0.1)

    def _prompts(self) -> list[str]:
        """The prompts of the cells whose text is there; a folded cell has neither, and a cell that is not follows it."""
        script = """cells => cells.filter(c => c.querySelector('.cm-content')?.innerText.trim())
            .map(c => c.querySelector('.jp-InputPrompt').innerText.trim())"""
        found: list[str] = self.page.locator(".jp-Notebook .jp-CodeCell").evaluate_all(script)
        return found

    def _ended(self) -> bool:
        prompts = self._prompts()
        done = all(re.fullmatch(r"\[\d+\]:", prompt) for prompt in prompts)
        return bool(prompts) and (done or ("[*]:" not in prompts and bool(self.errors())))

    def _seen(self) -> str:
        return f"prompts {' '.join(self._prompts())}; errors {self.errors()}"

    def _until_idle(self, timeout: float) -> None:
        """The kernel is there (the name is "No Kernel" until it is) and has nothing to do."""
        panel = ".jp-NotebookPanel:not(.lm-mod-hidden)"
        name = self.page.locator(f"{panel} .jp-Toolbar-kernelName")
        status = self.page.locator(f"{panel} .jp-Notebook-ExecutionIndicator")

        def seen() -> str:
            if not name.count() or not status.count():
                return "no notebook"
            return f"{name.first.inner_text()}, {status.first.get_attribute('data-status')}"

        idle = f"the kernel of {self.name} is idle"
        until(lambda: re.fullmatch(r"Python 3.*, idle", seen()), what=idle, timeout=timeout, every=0.2, last=seen)
