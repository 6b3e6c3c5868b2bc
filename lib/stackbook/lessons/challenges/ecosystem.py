"""Chapter 14: a description that lies, an error that is not described, a consumer that lags."""

from __future__ import annotations

import copy
import functools
import json
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from stackbook.core.errors import CheckFailed
from stackbook.lab.attempt import Attempt
from stackbook.lab.challenge import Challenge, Claim, Typed, require
from stackbook.lessons.ecosystem import consumer_trial, openapi

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
_READS = '''"""A member of a group: it prints each order when it has handled it. SIGTERM ends it."""

import os
import signal
import time

from confluent_kafka import Consumer

running = True


def stop(*_):
    global running
    running = False


signal.signal(signal.SIGTERM, stop)
consumer = Consumer({{
    "bootstrap.servers": os.environ["KAFKA"],
    "group.id": os.environ["GROUP"],
    "auto.offset.reset": "{reset}",  # for a group without an offset
    "enable.auto.commit": False,
}})
consumer.subscribe([os.environ["TOPIC"]])
while running:
    messages = consumer.consume(num_messages={batch}, timeout=0.3)
    for message in messages:
        print(message.value().decode(), flush=True)
    if messages:
        time.sleep(0.02)  # the work: one call of a database for the whole batch
        {commit}
consumer.close()
'''
_RIGHT = {"reset": "earliest", "batch": "500", "commit": "consumer.commit(asynchronous=False)"}
_SLIPS = {
    "slow": {**_RIGHT, "batch": "1"},
    "twice": {**_RIGHT, "commit": "consumer.position(consumer.assignment())"},
    "past": {**_RIGHT, "reset": "latest"},
}
_MOST = 300
"""The greatest lag of a consumer that keeps up: the messages of one and a half seconds."""


def _behind(attempt: Attempt) -> None:
    attempt.write(_CONSUMER, _READS.format(**_SLIPS[attempt.draw("slip", sorted(_SLIPS))]))


def _behind_claims(attempt: Attempt) -> Sequence[Claim]:
    @functools.cache
    def trial() -> consumer_trial.Trial:
        attempt.read(_CONSUMER)
        return consumer_trial.run(attempt.lab, attempt.folder / _CONSUMER)

    def keeps_up() -> str:
        most = trial().lag
        require(most <= _MOST, f"while {consumer_trial.RATE:g} messages came in a second, it was {most} behind")
        return "its lag stays below what comes in one and a half seconds"

    def whole() -> str:
        found = trial()
        missing = set(found.written) - set(found.handled)
        require(not missing, f"{len(missing)} of {len(found.written)} messages were not handled")
        return "no message is missing"

    def once() -> str:
        found = trial()
        require(found.handled, "no message was handled")
        twice = [text for text, count in Counter(found.handled).items() if count > 1]
        require(
            not twice, f"{len(twice)} messages were handled more than once, for example {twice[0] if twice else ''}"
        )
        return "each once"

    def place() -> str:
        behind = trial().behind
        require(behind == 0, f"in the end, the committed offset of its group is {behind} messages behind")
        return "at the end of the log"

    return [
        Claim("the consumer keeps up with the producer", keeps_up),
        Claim("it handles every message, also those that were there before it", whole),
        Claim("it handles no message twice, also after a restart", once),
        Claim("Kafka knows its place: the offset of its group is at the end of the log", place),
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
        situation="consumer.py is a member of a group on the lab's Kafka. The verification writes 100 orders, starts it, writes 200 "
        "a second, stops it, and starts it once more. Its group falls behind, or it handles an order never or twice.",
        goal="The consumer keeps up, handles each order once, and its group's offset is at the end of the log.",
        hints=(
            "Lag is the end of the log minus the offset that the group has committed. Which of the three grows, and which does not?",
            "Look at three things: how many messages it takes at a time, when it commits, and where a group without an offset begins.",
            "Take up to 500 messages at a time, commit synchronously after they are handled, and set auto.offset.reset to earliest.",
        ),
        begin=_behind,
        claims=_behind_claims,
        solution=lambda _: [Typed(f"cat > {_CONSUMER} <<'END'\n{_READS.format(**_RIGHT)}END")],
        needs=("14-ecosystem/kafka",),
    ),
)
