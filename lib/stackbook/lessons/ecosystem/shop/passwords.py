"""The passwords of the bookshop: created once, kept in a Secret of the cluster, shown nowhere."""

from __future__ import annotations

import base64
import json
import secrets
from typing import TYPE_CHECKING

from stackbook.core.redact import Secret

if TYPE_CHECKING:
    from stackbook.cluster.kube import Kube

NAMESPACE = NAME = "bookshop"
PROGRAMS = ("orders", "stock", "mail", "counter")
"""The programs with a database; it has the program's name, and so has its user."""


def ensure(kube: Kube) -> int:
    """Create the Secret if there is none; returns 1 if it was created. The namespace must exist."""
    if kube.kubectl("get", "secret", NAME, "-n", NAMESPACE, check=False).ok:
        return 0
    chosen = {user: secrets.token_urlsafe(24) for user in (*PROGRAMS, "redis", "operator")}
    body = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": NAME, "namespace": NAMESPACE},
        "data": {name: base64.b64encode(text.encode()).decode() for name, text in contents(chosen).items()},
    }
    # Created and not applied: `apply` would keep a second copy in an annotation.
    kube.kubectl("create", "-f", "-", stdin=Secret(json.dumps(body), remember=False), secret=True)
    return 1


def contents(chosen: dict[str, str]) -> dict[str, str]:
    """The keys of the Secret: a password for each program and for Redis, and the files of MariaDB and Redis.

    MariaDB runs `init.sql` at each start, so a volume from an earlier deployment gets these passwords, too. `operator` can only
    log in in MariaDB's own pod; it reads all tables, and changes prices.
    """
    lines = []
    for program in PROGRAMS:
        lines += [
            f"CREATE DATABASE IF NOT EXISTS {program};",
            *_user(f"'{program}'@'%'", chosen[program]),
            f"GRANT ALL ON {program}.* TO '{program}'@'%';",
        ]
    lines += [
        *_user("'operator'@'localhost'", chosen["operator"]),
        "GRANT SELECT, UPDATE ON *.* TO 'operator'@'localhost';",
    ]
    return {
        **{user: chosen[user] for user in (*PROGRAMS, "redis")},
        "init.sql": "\n".join(lines) + "\n",
        "client.cnf": f"[client]\nuser=operator\npassword={chosen['operator']}\nsocket=/run/mariadb/mariadb.sock\n"
        "default-character-set=utf8mb4\n",
        "redis.conf": f'requirepass {chosen["redis"]}\nsave ""\nappendonly no\nmaxmemory 64mb\nmaxmemory-policy allkeys-lru\n'
        "dir /tmp\n",
    }


def _user(name: str, password: str) -> list[str]:
    return [f"CREATE USER IF NOT EXISTS {name};", f"ALTER USER {name} IDENTIFIED BY '{password}';"]
