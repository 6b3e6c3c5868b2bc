"""Chapter 14: descriptions held against answers, and the guide's empty headings."""

from __future__ import annotations

import doctest

import pytest
from stackbook.config import ledger
from stackbook.lessons.ecosystem import guide_outline, openapi

DESCRIPTION = {
    "definitions": {
        "Ratings": {
            "type": "object",
            "required": ["id"],
            "properties": {
                "id": {"type": "integer"},
                "stars": {"type": "object", "additionalProperties": {"type": "integer"}},
            },
        }
    },
    "responses": {"ratings": {"schema": {"$ref": "#/definitions/Ratings"}}},
}
SCHEMA = {"$ref": "#/definitions/Ratings"}


@pytest.mark.parametrize("module", [openapi, guide_outline])
def test_examples(module: object) -> None:
    assert doctest.testmod(module).failed == 0  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("value", "fits"),
    [
        ({"id": 1}, True),
        ({"id": 1, "stars": {"anybody": 5}}, True),
        ({"id": 1, "stars": {"anybody": "5"}}, False),
        ({"id": "1"}, False),
        ({"id": True}, False),
        ({}, False),
        ({"id": 1, "more": 1}, False),
        ([], False),
    ],
)
def test_an_answer_fits_or_does_not(value: object, fits: bool) -> None:
    assert openapi.fits(DESCRIPTION, SCHEMA, value) is fits


def test_references_are_followed() -> None:
    found = openapi.resolve(DESCRIPTION, {"$ref": "#/responses/ratings"})
    assert openapi.resolve(DESCRIPTION, found["schema"])["required"] == ["id"]


def test_two_headings_are_empty_and_a_filled_one_is_not() -> None:
    entries = ledger.load()
    assert [section.number for section in guide_outline.empty(entries, but="K153")] == ["3.2.1", "3.3.1"]
    less = {id: entry for id, entry in entries.items() if id != "K149"}
    assert "2.7" in [section.number for section in guide_outline.empty(less, but="K153")]


def test_every_entry_of_the_ledger_stands_under_a_heading() -> None:
    numbers = {section.number for section in guide_outline.sections()}
    assert {entry.chapter for entry in ledger.load().values()} <= numbers
