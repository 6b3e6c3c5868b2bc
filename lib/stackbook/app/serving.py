"""JupyterLab on loopback with its token: it runs as the user who called sudo, not as root."""

from __future__ import annotations

import os
import pwd
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from stackbook.app import jupyter_access, terminals
from stackbook.app.jupyter_access import Access
from stackbook.app.kernel_helper import SOCKET, Helper, specification
from stackbook.config.profile import Profile
from stackbook.core import ownership, paths, temp_dirs
from stackbook.core.child_processes import end
from stackbook.core.names import profile_path
from stackbook.core.ownership import User

EDITIONS = {"en": "notebooks", "zh": "notebooks/zh"}


def serve(root: Path, port: int, profile: str = "embedded", *, language: str = "en") -> int:
    """Serve the notebooks until JupyterLab ends; returns its exit status.

    Args:
        root: the folder that contains notebooks/.
        port: the first loopback port to try.
        profile: name or path of the profile; terminals and kernels find the programs of its lab.
        language: the edition that opens first: en, or zh, which is in notebooks/zh.

    Raises:
        InputError: no port is free.
    """
    loaded, file = Profile.load(profile), profile_path(profile).resolve()
    access = jupyter_access.prepare(port)
    argv = [sys.executable, "-m", "jupyterlab", *access.arguments, "--no-browser"]
    argv += [f"--ServerApp.root_dir={root}", f"--LabApp.default_url=/lab/tree/{EDITIONS[language]}"]
    print(access.line(terminal=sys.stdout.isatty()), flush=True)
    user = ownership.user()
    if user is None:
        argv += ["--allow-root"] if os.geteuid() == 0 else []
        tools = terminals.prepare(
            loaded, file, temp_dirs.of_this_process("terminals"), terminals.cached(loaded), root=root
        )
        os.execve(sys.executable, [*argv, tools.argument], tools.environment(access.environment))
    _hand_over(access, user)
    with temp_dirs.folder("notebooks") as folder:
        folder.chmod(0o755)
        tools = terminals.prepare(loaded, file, folder, terminals.cached(loaded), root=root)
        os.environ.update(tools.environment(os.environ))  # the root kernels
        helper = Helper(folder / "kernels.sock", user.uid)
        with helper.serving():
            variables = {**users(user, tools.environment(access.environment)), SOCKET: str(helper.path)}
            own = str(specification(folder / "jupyter"))
            variables["JUPYTER_PATH"] = os.pathsep.join([own, *filter(None, [variables.get("JUPYTER_PATH")])])
            return _as_user([*argv, tools.argument], user, variables)


def users(user: User, environment: Mapping[str, str]) -> dict[str, str]:
    """The user's environment, even if sudo changed HOME and the user's variables."""
    entry = pwd.getpwuid(user.uid)
    of_root = {name for name, value in environment.items() if value.startswith(str(paths.programs()))}
    kept = {name: value for name, value in environment.items() if not name.startswith("SUDO_") and name not in of_root}
    return {**kept, "HOME": entry.pw_dir, "USER": entry.pw_name, "LOGNAME": entry.pw_name, "SHELL": entry.pw_shell}


def _hand_over(access: Access, user: User) -> None:
    """Give the files with the token and the address to the user, and to nobody else."""
    for path in (access.file, access.file.parent / "token", access.file.parent):
        os.chown(path, user.uid, user.gid)


def _as_user(argv: list[str], user: User, environment: Mapping[str, str]) -> int:
    name = pwd.getpwuid(user.uid).pw_name
    groups = os.getgrouplist(name, user.gid)
    before = signal.signal(signal.SIGINT, lambda *_: None)  # after Ctrl-C, JupyterLab asks for confirmation
    process = subprocess.Popen(argv, env=dict(environment), user=user.uid, group=user.gid, extra_groups=groups)
    try:
        return process.wait()
    finally:
        signal.signal(signal.SIGINT, before)
        end(process)
