"""One question in three languages: KQL and ES|QL are written from the Query DSL, and what is not known is refused."""

from __future__ import annotations

from typing import Any

import pytest
from stackbook.core.errors import InputError
from stackbook.observability.logs import queries
from stackbook.observability.logs.query_languages import esql, kql, rows

FAILED = queries.both([queries.term("service", "reviews"), {"range": {"access.status": {"gte": 500, "lt": 600}}}])
BOTH = queries.both([{"terms": {"service": ["details", "ratings"]}}, {"exists": {"field": "access.status"}}])


def test_conditions_values_and_limits_are_the_same_in_each() -> None:
    assert kql(FAILED) == 'service: "reviews" and access.status >= 500 and access.status < 600'
    assert esql(FAILED) == (
        'FROM logstash-* | WHERE service == "reviews" AND access.status >= 500 AND access.status < 600 '
        "| SORT @timestamp DESC | LIMIT 10"
    )
    assert kql(BOTH) == 'service: ("details" or "ratings") and access.status: *'
    assert 'WHERE service IN ("details", "ratings") AND access.status IS NOT NULL |' in esql(BOTH)


def test_a_value_with_quotes_stays_one_value() -> None:
    said = queries.term("message", 'a "b" \\ c')
    assert kql(said) == 'message: "a \\"b\\" \\\\ c"'


def test_the_table_has_the_query_itself() -> None:
    (row,) = rows({"what did reviews log?": queries.term("service", "reviews")})
    assert list(row) == ["question", "Query DSL", "KQL, in Kibana", "ES|QL"]
    assert row["Query DSL"] == '{"term": {"service": "reviews"}}'


@pytest.mark.parametrize(
    "query",
    [{}, {"match": {"message": "a"}}, {"bool": {"must": []}}, {"bool": {"filter": [], "must_not": []}},
     {"term": {"a": 1, "b": 2}}, {"term": {"a": 1}, "exists": {"field": "b"}, "bool": {}}],
)  # fmt: skip
def test_another_form_is_refused_and_not_guessed(query: dict[str, Any]) -> None:
    for ask in (kql, esql):
        with pytest.raises(InputError, match="is not known here"):
            ask(query)
