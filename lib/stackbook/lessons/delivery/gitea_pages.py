"""What a browser loads for a page of Gitea: its styles and scripts, which are built apart from the program."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from stackbook.core.errors import CheckFailed

if TYPE_CHECKING:
    from stackbook.lessons.delivery.gitea import Gitea

LOGIN = "/user/login"
_LOADED = re.compile(r'<(?:link|script)\b[^>]*\b(?:href|src)="(/assets/[^"?]+\.(css|js))["?]')
_TYPES = {"css": "text/css", "js": "text/javascript"}


def loaded(server: Gitea, path: str = LOGIN) -> list[dict[str, object]]:
    """The styles and scripts that a page names, each with the bytes that the server sends for it.

    Raises:
        CheckFailed: the page names no styles or no scripts, or the server does not have one of them.
    """
    client = server.client()
    page = client.get(path)
    page.raise_for_status()
    found = []
    for name, kind in dict.fromkeys(_LOADED.findall(page.text)):
        answer = client.get(name)
        content = answer.headers.get("content-type", "").partition(";")[0]
        if answer.status_code != 200 or content != _TYPES[kind]:
            raise CheckFailed(f"{path} needs {name}, and the server answers {answer.status_code} {content}".rstrip())
        file = re.sub(r"\.[\w-]{8}(?=\.(?:css|js)$)", "", name.rpartition("/")[2])
        found.append({"page": path, "kind": kind, "file": file, "kB": round(len(answer.content) / 1e3)})
    if missing := set(_TYPES) - {str(row["kind"]) for row in found}:
        raise CheckFailed(f"{path} names no {' and no '.join(sorted(missing))} file")
    return found
