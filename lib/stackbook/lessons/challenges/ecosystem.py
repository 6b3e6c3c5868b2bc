"""Chapter 14: a description that lies, an error that is not described, a consumer that lags."""

from __future__ import annotations

import copy
import functools
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from stackbook.core.errors import CheckFailed
from stackbook.lab.attempt import Attempt
from stackbook.lab.challenge import Challenge, Claim, Typed, require
from stackbook.lessons.ecosystem import openapi

_CHAPTER = "14-ecosystem"
_FILE, _PATH = "swagger.json", "/ratings/{id}"


def _described(attempt: Attempt) -> dict[str, Any]:
    """The learner's description.

    Raises:
        CheckFailed: it is not a JSON object.
    """
    try:
        found = json.loads(attempt.read(_FILE))
    except ValueError as error:
        raise CheckFailed(f"{_FILE} is not valid JSON: {error}") from error
    require(isinstance(found, dict), f"{_FILE} is not a JSON object")
    return dict(found)


def _generated(attempt: Attempt) -> dict[str, Any]:
    """The description that go-swagger generates from the program. It is kept, because generating takes some seconds."""
    if "right" not in attempt.drawn:
        attempt.note(right=openapi.generate(attempt.lab.artifacts.path("swagger")))
    found: dict[str, Any] = copy.deepcopy(attempt.drawn["right"])
    return found


Rows = Callable[[], list[dict[str, Any]]]


def _rows(attempt: Attempt) -> Rows:
    """A function that compares the program's answers with the description; it asks once for all claims of a verification."""

    @functools.cache
    def rows() -> list[dict[str, Any]]:
        described = _described(attempt)
        try:
            with openapi.serving() as url:
                return openapi.compare(described, url, _PATH)
        except (KeyError, TypeError, AttributeError) as error:
            said = f"the description does not have the expected form: {type(error).__name__}: {error}"
            raise CheckFailed(said) from error

    return rows


def _valid(attempt: Attempt) -> str:
    verdict = openapi.validate(attempt.lab.artifacts.path("swagger"), _described(attempt))
    require(verdict.valid, "; ".join(verdict.problems)[:250])
    return "go-swagger accepts it"


def _valid_claim(attempt: Attempt) -> Claim:
    return Claim("go-swagger accepts the description as valid", lambda: _valid(attempt))


def _truth(rows: Rows, status: int) -> str:
    row = next((row for row in rows() if row["status"] == status), None)
    if row is None:
        raise CheckFailed(f"the program did not answer with status {status}")
    require(row["described"], f"{row['asked']} answers {status}, which the description does not contain")
    require(row["as described"], f"{row['asked']} answers {status}, but not as described")
    return f"{status} as described"


def _commands(attempt: Attempt, description: dict[str, Any]) -> list[Typed]:
    return [Typed(f"cat > {_FILE} <<'END'\n{json.dumps(description, indent=1)}\nEND")]


# 14-a


def _lies(attempt: Attempt) -> None:
    lie = attempt.draw("lie", ["id", "ratings", "required"])
    wrong = _generated(attempt)
    model = wrong["definitions"]["Ratings"]
    if lie == "id":
        model["properties"]["id"] = {"type": "string"}
    elif lie == "ratings":
        model["properties"]["ratings"]["additionalProperties"] = {"type": "string"}
    else:
        model["properties"]["title"] = {"type": "string"}
        model["required"] = ["title", *model.get("required", [])]
    attempt.write(_FILE, json.dumps(wrong, indent=1))


def _lies_claims(attempt: Attempt) -> Sequence[Claim]:
    def complete() -> str:
        model = _described(attempt).get("definitions", {}).get("Ratings", {})
        missing = {"id", "ratings"} - set(model.get("properties", {}))
        require(not missing, f"Ratings does not describe {', '.join(sorted(missing))}")
        return "id and ratings"

    return [
        _valid_claim(attempt),
        Claim("the program's answers match the description", lambda: _truth(_rows(attempt), 200)),
        Claim("the description still has every field of the answer", complete),
    ]


# 14-b


def _unpromised(attempt: Attempt) -> None:
    how = attempt.draw("how", ["missing", "wrong"])
    wrong = _generated(attempt)
    responses = wrong["paths"][_PATH]["get"]["responses"]
    if how == "missing":
        del responses["400"]
        wrong.get("responses", {}).pop("problem", None)
        wrong["definitions"].pop("Problem", None)
    else:
        responses["400"] = responses["200"]
    wrong["info"]["version"] = "1.0.0"
    attempt.write(_FILE, json.dumps(wrong, indent=1))


def _unpromised_claims(attempt: Attempt) -> Sequence[Claim]:
    rows = _rows(attempt)

    def version() -> str:
        said = str(_described(attempt).get("info", {}).get("version", ""))
        parts = said.split(".")
        require(len(parts) == 3 and all(part.isdigit() for part in parts), f"the version {said!r} is not like 1.2.3")
        require([int(part) for part in parts] > [1, 0, 0], f"the version {said} is not above 1.0.0")
        return said

    return [
        _valid_claim(attempt),
        Claim("the answer to a bad value matches the description", lambda: _truth(rows, 400)),
        Claim("the answer to a good value matches it, too", lambda: _truth(rows, 200)),
        Claim("the version is above 1.0.0, so that readers see the change", version),
    ]


def _unpromised_solution(attempt: Attempt) -> Sequence[Typed]:
    right = _generated(attempt)
    right["info"]["version"] = "1.1.0"
    return _commands(attempt, right)


# 14-c

_CONSUMER = "consumer.py"
_LAGS = '''"""One poll of a consumer: what it reads of the log, and where it reads on next time.

The log is a list that only grows. `offset` is the consumer's own place in it, kept between the polls.
"""

BATCH = {batch}


def poll(log: list[str], offset: int) -> tuple[list[str], int]:
    messages = log[offset : offset + BATCH]
    return messages, {after}
'''
_SLIPS = {
    "slow": {"batch": "10", "after": "offset + len(messages)"},
    "twice": {"batch": "200", "after": "offset + max(0, len(messages) - 1)"},
    "past": {"batch": "200", "after": "offset + BATCH"},
}
_KEEPS_UP = {"batch": "200", "after": "offset + len(messages)"}
_DRIVE = """\
import importlib.util, json, sys
spec = importlib.util.spec_from_file_location("consumer", sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
log, offset, read, lag = [], 0, [], []
for step in range(40):
    log += [f"order {len(log) + n}" for n in range(25 if step < 30 else 0)]
    messages, offset = module.poll(list(log), offset)
    read += messages
    lag.append(len(log) - offset)
print(json.dumps({"written": len(log), "read": read, "lag": lag}))
"""


def _behind(attempt: Attempt) -> None:
    attempt.write(_CONSUMER, _LAGS.format(**_SLIPS[attempt.draw("slip", sorted(_SLIPS))]))


def _driven(attempt: Attempt) -> dict[str, Any]:
    """Run the consumer: a producer writes 25 messages before each of 30 polls, and nothing before the last ten."""
    attempt.read(_CONSUMER)
    try:
        done = subprocess.run(
            [sys.executable, "-c", _DRIVE, str(attempt.folder / _CONSUMER)], capture_output=True, text=True, timeout=20,
            check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except subprocess.TimeoutExpired as error:
        raise CheckFailed(f"{_CONSUMER} did not finish within 20 s") from error
    except (ValueError, IndexError) as error:
        raise CheckFailed(
            f"{_CONSUMER} fails: {(done.stderr.strip().splitlines() or ['no output'])[-1][:150]}"
        ) from error
    return found


def _behind_claims(attempt: Attempt) -> Sequence[Claim]:
    def keeps_up() -> str:
        lag = _driven(attempt)["lag"]
        worst = max(lag[5:30])
        require(worst <= 50, f"after 30 polls it is {lag[29]} messages behind")
        return f"at most {worst} messages behind"

    def whole() -> str:
        found = _driven(attempt)
        missing = found["written"] - len(set(found["read"]))
        require(missing == 0, f"{missing} of {found['written']} messages were never read")
        return "no message is missing"

    def once() -> str:
        twice = [text for text, count in Counter(_driven(attempt)["read"]).items() if count > 1]
        require(not twice, f"{len(twice)} messages were read more than once, for example {twice[:1]}")
        return "each once"

    def place() -> str:
        """An offset beyond the end would skip messages that are written later."""
        least = min(_driven(attempt)["lag"])
        require(least >= 0, f"its offset is {-least} beyond the end of the log")
        return "never beyond the end"

    return [
        Claim("the consumer keeps up with the producer", keeps_up),
        Claim("it reads every message", whole),
        Claim("it reads no message twice", once),
        Claim("its offset is never beyond the end of the log", place),
    ]


CHALLENGES = (
    Challenge(
        id="14-a",
        chapter=_CHAPTER,
        title="A description that lies",
        situation="swagger.json describes the program Ratings of this chapter. A client generated from it cannot read the answers.",
        goal="The description is valid and complete, and matches the program's answers.",
        hints=(
            'Compare the definition Ratings with what the program returns: {"id": 7, "ratings": {"Reviewer1": 5}}.',
            "Look at the types and at the required fields. One of them does not match the program.",
            "In the JSON, id and each rating are numbers, and there are no other fields. You can also generate the description again.",
        ),
        begin=_lies,
        claims=_lies_claims,
        solution=lambda attempt: _commands(attempt, _generated(attempt)),
    ),
    Challenge(
        id="14-b",
        chapter=_CHAPTER,
        title="An error that is not described",
        situation="Ratings refuses a request for /ratings/x with a status and a text. swagger.json, version 1.0.0, does not describe "
        "this answer, or describes it wrongly.",
        goal="The description matches the refusal, and its version is above 1.0.0.",
        hints=(
            "Which status and which fields does the answer to a bad value have? Which responses does the description list?",
            "The answer is 400, with an object that has one field: error, a string.",
            'Describe "400" with a schema: an object with the required field error, a string. Then raise info.version.',
        ),
        begin=_unpromised,
        claims=_unpromised_claims,
        solution=_unpromised_solution,
    ),
    Challenge(
        id="14-c",
        chapter=_CHAPTER,
        title="A consumer that lags",
        situation="consumer.py reads a log like a Kafka consumer: a batch at each poll, and its own offset. A producer writes 25 "
        "messages between two polls. (Kafka itself is not part of this lab.)",
        goal="The consumer keeps up, reads each message once, and its offset is never beyond the end of the log.",
        hints=(
            "Lag is the end of the log minus the offset. Does it grow? Is a message read twice, or never?",
            "How many messages does a poll read at most, and by how many does the offset move?",
            "Read at least 25 messages a poll, and move the offset by the number of messages that were read: offset + len(messages).",
        ),
        begin=_behind,
        claims=_behind_claims,
        solution=lambda _: [Typed(f"cat > {_CONSUMER} <<'END'\n{_LAGS.format(**_KEEPS_UP)}END")],
    ),
)
