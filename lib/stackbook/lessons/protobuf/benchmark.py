"""Size and speed of protobuf and JSON for a mesh's access log, in Python and Go, measured on this machine in this run."""

from __future__ import annotations

import gzip
import json
import random
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from stackbook.artifacts import protoc
from stackbook.artifacts.go_toolchain import call

SEED = 2020_09_24  # the guide's date
_ROUNDS = 5  # the best round counts, as Python's timeit recommends
_PATHS = ("/productpage", "/api/v1/products", "/api/v1/products/0/reviews", "/reviews/0", "/ratings/0", "/details/0")
_AGENTS = (
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36",
    "python-httpx/0.28.1",
    "curl/8.14.1",
)
_PODS = tuple(f"{name}-{4096 + 7919 * i:x}-{chr(98 + i)}x{i}zq" for i, name in enumerate(
    ("productpage-v1", "reviews-v1", "reviews-v2", "reviews-v3", "ratings-v1", "details-v1")))  # fmt: skip
_START = 1_600_905_600_000_000_000  # 2020-09-24, in nanoseconds


def records(count: int, *, seed: int = SEED) -> list[dict[str, Any]]:
    """Access logs as dicts; the same seed gives the same logs.

    They resemble a mesh's: times increase, most answers are 200, latencies are log-normal around 12 ms, few requests have
    a user or a flag, and each has up to three upstream calls.
    """
    choose = random.Random(seed)
    out, now = [], _START
    for _ in range(count):
        now += int(choose.expovariate(1 / 2_000_000))
        status = choose.choices((200, 404, 500, 503), (94, 3, 2, 1))[0]
        pod = choose.choice(_PODS)
        duration = int(choose.lognormvariate(9.4, 0.7))
        record: dict[str, Any] = {
            "time_unix_nano": now,
            "trace_id": choose.randbytes(16),
            "pod": pod,
            "version": pod.split("-")[1],
            "method": "METHOD_GET" if choose.random() < 0.95 else "METHOD_POST",
            "path": choose.choice(_PATHS),
            "status": status,
            "duration_us": duration,
            "bytes_sent": choose.choice((0, 379, 295, 4183, 5290)),
            "user_agent": choose.choices(_AGENTS, (6, 3, 1))[0],
        }
        if choose.random() < 0.1:
            record["end_user"] = choose.choice(("jason", "mary"))
        if status >= 500:
            record["response_flags"] = choose.choice(("FI", "DI", "UF", "UH"))
        if calls := choose.randrange(4):
            record["upstream_us"] = [choose.randrange(200, max(duration, 201)) for _ in range(calls)]
        out.append(record)
    return out


def messages(rows: Sequence[dict[str, Any]]) -> Any:
    """Convert the records to one lessons.v1.AccessLogs."""
    module: Any = protoc.load("lessons.v1.access_log_pb2", proto="lessons/v1/access_log.proto", include=protoc.protos())
    return module.AccessLogs(logs=[module.AccessLog(**row) for row in rows])


def as_json(row: dict[str, Any]) -> dict[str, Any]:
    """A record in the form of a JSON API: bytes as hexadecimal text, the enum by name."""
    return {**row, "trace_id": row["trace_id"].hex()}


def sizes(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The size of all records in bytes, each encoded separately and joined, plain and with gzip's fastest level."""
    kinds: dict[str, list[bytes]] = {
        "JSON": [json.dumps(as_json(row), separators=(",", ":")).encode() for row in rows],
        "protobuf": [log.SerializeToString(deterministic=True) for log in messages(rows).logs],
    }
    out = []
    for name, encoded in kinds.items():
        joined = b"".join(encoded)
        packed = len(gzip.compress(joined, compresslevel=1, mtime=0))
        out += [{"format": name, "bytes": len(joined), "bytes per record": len(joined) / len(rows), "gzip": packed}]
    return out


def python_speed(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Seconds of processor time to encode and to decode all records one by one; the best of several rounds.

    It measures processor time and alternates the formats: other programs then do not count, and a slow moment affects
    both formats.
    """
    logs = messages(rows).logs
    kind = type(logs[0])
    plain = [as_json(row) for row in rows]

    def parse(data: bytes) -> Any:
        log = kind.FromString(data)
        return log.path, log.status, log.duration_us  # read every field: only then do fields become Python objects

    def loads(data: bytes) -> Any:
        log = json.loads(data)
        return log["path"], log["status"], log["duration_us"]

    formats: dict[str, tuple[Callable[[int], bytes], Callable[[bytes], Any]]] = {
        "protobuf": (lambda i: logs[i].SerializeToString(), parse),
        "json": (lambda i: json.dumps(plain[i], separators=(",", ":")).encode(), loads),
    }
    best = {name: {"encode_seconds": float("inf"), "decode_seconds": float("inf")} for name in formats}
    sizes = dict.fromkeys(formats, 0)
    for _ in range(_ROUNDS):
        for name, (encode, decode) in formats.items():
            encoded, seconds = _processor_time(encode, range(len(rows)))
            best[name]["encode_seconds"] = min(best[name]["encode_seconds"], seconds)
            _, seconds = _processor_time(decode, encoded)
            best[name]["decode_seconds"] = min(best[name]["decode_seconds"], seconds)
            sizes[name] = sum(map(len, encoded))
    return [{"format": name, "bytes": sizes[name], "records": len(rows), **best[name]} for name in formats]


def _processor_time(work: Callable[[Any], Any], items: Iterable[Any]) -> tuple[list[Any], float]:
    """The results of `work` for each item, and the seconds of this thread's processor time that it took."""
    started = time.thread_time()
    found = [work(item) for item in items]
    return found, time.thread_time() - started


def go_speed(rows: Sequence[dict[str, Any]], program: Path) -> list[dict[str, Any]]:
    """The same in Go, with the program lessons/wire, which reads the records from a file."""
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "access_logs.pb"
        file.write_bytes(messages(rows).SerializeToString())
        return [dict(row) for row in json.loads(call([str(program), "bench", str(file)]).stdout)]


def ratios(speeds: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """How many times faster and smaller protobuf is than JSON, by language.

    Args:
        speeds: rows of `python_speed` and `go_speed` by the language's name.
    """
    out = []
    for language, rows in speeds.items():
        by = {row["format"]: row for row in rows}
        json_row, pb = by["json"], by["protobuf"]
        out.append(
            {
                "language": language,
                "encode": json_row["encode_seconds"] / pb["encode_seconds"],
                "decode": json_row["decode_seconds"] / pb["decode_seconds"],
                "size": json_row["bytes"] / pb["bytes"],
            }
        )
    return out
