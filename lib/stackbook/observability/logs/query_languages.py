"""One question in three languages: Elasticsearch's Query DSL, Kibana's KQL, and ES|QL.

KQL and ES|QL are written from the query in Query DSL, so they ask the same.
https://www.elastic.co/docs/explore-analyze/query-filter/languages/kql, .../languages/esql
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stackbook.core.errors import InputError
from stackbook.observability.logs.client import INDICES

_COMPARED = {"gt": ">", "gte": ">=", "lt": "<", "lte": "<="}


@dataclass(frozen=True)
class _Language:
    """How a language writes a query: its words for all of several, for one of several values, and for a field's value."""

    all_of: str
    one_of: str
    exists: str
    term: str
    terms: str


_KQL = _Language(" and ", " or ", "{}: *", "{}: {}", "{}: ({})")
_ESQL = _Language(" AND ", ", ", "{} IS NOT NULL", "{} == {}", "{} IN ({})")


def rows(questions: Mapping[str, Mapping[str, Any]]) -> list[dict[str, str]]:
    """A table of questions, each in the three languages; `questions` is question → query in Query DSL."""
    return [
        {"question": text, "Query DSL": json.dumps(query), "KQL, in Kibana": kql(query), "ES|QL": esql(query)}
        for text, query in questions.items()
    ]


def kql(query: Mapping[str, Any]) -> str:
    """A query in KQL. Kibana asks for the time span beside it.

    >>> kql({"bool": {"filter": [{"term": {"service": "reviews"}}, {"range": {"access.status": {"gte": 500}}}]}})
    'service: "reviews" and access.status >= 500'
    >>> kql({"terms": {"service": ["details", "ratings"]}}), kql({"exists": {"field": "access.status"}})
    ('service: ("details" or "ratings")', 'access.status: *')

    Raises:
        InputError: the query has a form that is not known here.
    """
    return _said(query, _KQL)


def esql(query: Mapping[str, Any], *, count: int = 10) -> str:
    """A query in ES|QL for the newest documents that match.

    >>> esql({"terms": {"service": ["details", "ratings"]}}, count=5)
    'FROM logstash-* | WHERE service IN ("details", "ratings") | SORT @timestamp DESC | LIMIT 5'

    Raises:
        InputError: the query has a form that is not known here.
    """
    return f"FROM {INDICES} | WHERE {_said(query, _ESQL)} | SORT @timestamp DESC | LIMIT {count}"


def _said(query: Mapping[str, Any], words: _Language) -> str:
    match query if len(query) == 1 else {}:
        case {"bool": {"filter": [*parts], **others}} if not others:
            return words.all_of.join(_said(part, words) for part in parts)
        case {"exists": {"field": field}}:
            return words.exists.format(field)
        case {"term": one} if len(one) == 1:
            ((field, value),) = one.items()
            return words.term.format(field, json.dumps(value))
        case {"terms": one} if len(one) == 1:
            ((field, values),) = one.items()
            return words.terms.format(field, words.one_of.join(map(json.dumps, values)))
        case {"range": one} if len(one) == 1:
            ((field, limits),) = one.items()
            return words.all_of.join(f"{field} {_COMPARED[name]} {json.dumps(limit)}" for name, limit in limits.items())
    raise InputError(
        f"the query {json.dumps(query)[:200]} is not known here",
        fix="use bool with filter, exists, term, terms or range",
    )
