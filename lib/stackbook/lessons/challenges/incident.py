"""Chapter 16: an incident at three levels. What is planted, and how a report is graded, is in `stackbook.lessons.incident`."""

from __future__ import annotations

from stackbook.lab.challenge import Challenge
from stackbook.lessons.incident import cases

_CHAPTER = "16-incident"
_NEEDS = ("05-istio/bookinfo", "05-istio/page", "10-metrics/scraped", "11-tracing/traced", "12-logs/current")
_FIRST = (
    "Are there errors or slow answers, and at which service? Compare each service with its state before the incident."
)


def _challenge(level: str, title: str, situation: str, goal: str, second: str) -> Challenge:
    return Challenge(
        id=cases.LEVELS[level],
        chapter=_CHAPTER,
        title=title,
        situation=situation,
        goal=goal,
        hints=(
            _FIRST,
            second,
            "The table of causes in chapter 16 says what tells a cause from its near misses. A report needs a row that shows this sign.",
        ),
        begin=cases.starts(level),
        claims=cases.claims,
        solution=cases.solution,
        needs=_NEEDS,
        recovered=cases.recovered,
    )


CHALLENGES = (
    _challenge(
        "easy",
        "An incident with few suspects",
        "Customers complain about the product page. Some causes are ruled out already, and the form says in which signal to look first.",
        "Report the cause and its place, with evidence that tells it from its near misses. Change nothing.",
        "Take one bad request, and find it in the spans and in the log lines by its request_id. Which proxy noticed it first?",
    ),
    _challenge(
        "normal",
        "An incident",
        "Customers complain about the product page. Nobody knows more.",
        "Report the cause and its place, with evidence of two signals that tells it from its near misses. Change nothing.",
        "Who answered? A flag says that a proxy did so by itself; a status without a flag comes from the program.",
    ),
    _challenge(
        "hard",
        "Two incidents at once",
        "Customers complain about the product page, and not all of them about the same thing: two things are wrong, at two services.",
        "Report both causes and their places, each with evidence that tells it from its near misses. Change nothing.",
        "Look at one service at a time. The second fault may show only rarely, because the first one keeps requests away from it.",
    ),
)
