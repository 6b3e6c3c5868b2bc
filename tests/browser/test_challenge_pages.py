"""Challenges as a learner solves them in JupyterLab: by typing into a terminal, and by typing into a cell. On the standing lab."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lab_page
import nbformat
import pytest
from stackbook.core import paths
from stackbook.core.waiting import until
from stackbook.lab.attempt import open_on
from stackbook.lab.lab import Lab

pytestmark = [pytest.mark.browser, pytest.mark.slow]
MINE = "mine.ipynb"


@pytest.fixture(scope="module")
def lab() -> Lab:
    return lab_page.demand_lab("04-kubernetes")


@pytest.fixture(scope="module")
def server(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    lab_page.demand_chromium()
    with lab_page.served(tmp_path_factory.mktemp("jupyterlab"), state=paths.states()) as found:
        kernel = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}
        book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("")], metadata={"kernelspec": kernel})
        nbformat.write(book, found.root / "notebooks" / MINE)
        yield found


@pytest.fixture(scope="module")
def page(server: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with lab_page.browser(tmp_path_factory.mktemp("chromium")) as found:
        yield found


@pytest.fixture(autouse=True)
def ended(lab: Lab) -> Iterator[None]:
    """No challenge is open before or after a test."""
    assert open_on(lab) == ""
    yield
    assert open_on(lab) == "", "the learner has ended the challenge"


class Terminal:
    """File > New > Terminal, with the keyboard; the output of each command goes to a file, as the page draws it on a canvas."""

    def __init__(self, page: Any, server: Any) -> None:
        self.page, self.folder, self.number = page, server.root, 0
        page.goto(f"{server.url}/lab?reset&token={server.token}")
        page.wait_for_selector(".jp-Launcher", timeout=90_000)
        page.locator('.jp-LauncherCard[title="Start a new terminal session"]').first.click()
        page.wait_for_selector(".jp-Terminal .xterm-helper-textarea", state="attached", timeout=30_000)
        page.locator(".jp-Terminal .xterm-screen").click()

    def types(self, command: str, timeout: float = 90) -> tuple[int, str]:
        """Type a command; returns its exit status and what it printed."""
        self.number += 1
        said, status = self.folder / f"said-{self.number}", self.folder / f"status-{self.number}"
        self.page.keyboard.type(f"{command} >{said} 2>&1; echo $? >{status}")
        self.page.keyboard.press("Enter")
        until(lambda: status.exists() and status.read_text().strip(), what=f"{command} to end", timeout=timeout, every=0.2,
              last=lambda: said.read_text()[-500:] if said.exists() else "the terminal has not begun it")  # fmt: skip
        return int(status.read_text()), said.read_text()


@pytest.mark.more
def test_a_fault_is_repaired_by_typing_kubectl_into_a_terminal(server: Any, page: Any, pictures: Path) -> None:
    terminal = Terminal(page, server)
    status, said = terminal.types("stackbook challenge start 04-a")
    assert status == 0 and "goal: " in said, said
    status, said = terminal.types("stackbook challenge verify")
    assert status == 1 and "the Service has the pods of shop as its endpoints" in said, said
    assert terminal.types("stackbook challenge hint")[0] == 0
    patch = '[{"op":"replace","path":"/spec/selector","value":{"app":"shop"}}]'
    status, said = terminal.types(f"kubectl -n challenge-04-a patch service shop --type=json -p '{patch}'")
    assert status == 0 and "patched" in said, said
    until(
        lambda: terminal.types("stackbook challenge verify")[0] == 0,
        what="the challenge to be solved",
        timeout=30,
        every=1,
    )
    page.screenshot(path=str(pictures / "challenge-terminal.png"))
    status, said = terminal.types("stackbook challenge end")
    assert status == 0, said


WORK = """\
from stackbook import bind
lab = bind("15-design", "embedded")
challenge = lab.challenge("15-a")
challenge.verify()
"""
MENDED = """\
import yaml
from stackbook.lessons.design import contexts
(challenge.folder / "duties.yaml").write_text(yaml.safe_dump(contexts.DUTIES))
solved = challenge.verify()
challenge.end()
print("solved:", solved)
"""


def test_a_file_is_corrected_from_a_cell(server: Any, page: Any, pictures: Path) -> None:
    chapter = lab_page.Chapter(page, server, MINE).open()
    chapter.type_and_run(WORK)
    until(lambda: "✗" in chapter.texts(), what="the challenge to be verified", timeout=60, last=chapter.texts)
    assert "15-a is solved" not in chapter.texts()
    chapter.type_and_run(MENDED)
    until(lambda: "solved: True" in chapter.texts(), what="the challenge to be solved", timeout=60, last=chapter.texts)
    assert chapter.errors() == []
    page.screenshot(path=str(pictures / "challenge-cell.png"))


def test_the_menu_lab_opens_a_shell_on_a_machine(server: Any, page: Any, lab: Lab, pictures: Path) -> None:
    page.goto(f"{server.url}/lab?reset&token={server.token}")
    page.wait_for_selector(".jp-Launcher", timeout=90_000)
    page.locator(".lm-MenuBar-itemLabel", has_text=re.compile("^Lab$")).click()
    page.locator(".lm-Menu-itemLabel", has_text=re.compile("^k8s-node1$")).click()
    page.screenshot(path=str(pictures / "menu-lab.png"))
    page.locator(".lm-Menu-itemLabel", has_text=re.compile("^Terminal$")).last.click()
    page.wait_for_selector(".jp-Terminal .xterm-helper-textarea", state="attached", timeout=30_000)
    page.locator(".jp-Terminal .xterm-screen").click()
    machine, said = lab.machines["k8s-node1"], "/tmp/stackbook-menu"

    def answered() -> bool:  # what is typed before the terminal is connected is lost
        page.keyboard.type(f"hostname >{said}")
        page.keyboard.press("Enter")
        return machine.run(["cat", said], check=False).stdout.strip() == "k8s-node1"

    try:
        until(answered, what="the machine's shell to answer", timeout=90, every=3)
        assert not Path(said).exists(), "it is a shell of this host"
    finally:
        machine.run(["rm", "-f", said])
