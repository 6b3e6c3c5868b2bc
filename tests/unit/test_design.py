"""Chapter 15: words, duties, calls and submodules, on small made-up cases and on real git."""

from __future__ import annotations

import doctest
import shutil

import pytest
from stackbook.design import contexts, shop, submodules
from stackbook.golang import ToolFailed

CALLS = [("page", "reviews"), ("reviews", "ratings"), ("page", "details")]


@pytest.mark.parametrize("module", [contexts, shop])
def test_examples(module: object) -> None:
    assert doctest.testmod(module).failed == 0  # type: ignore[arg-type]


def test_the_source_of_the_bookshop_says_four_ways() -> None:
    assert shop.relays("bookinfo") == [
        ("productpage", "details"), ("productpage", "ratings"), ("productpage", "reviews"), ("reviews", "ratings"),
    ]  # fmt: skip


def test_words_are_the_names_of_fields_and_not_the_data() -> None:
    answer = {"id": 1, "ratings": {"Reviewer1": 5}, "ISBN-10": "x", "list": [{"text": "y"}]}
    assert shop.words(answer) == {"id", "ratings", "ISBN-10", "list", "text"}


def test_a_duty_in_a_neighbours_words_is_found() -> None:
    words = {"a": {"id", "stars"}, "b": {"id", "author"}}
    assert contexts.foreign("keeps the stars: id, author.", "a", words) == ["author"]
    assert contexts.foreign("keeps the stars by id", "a", words) == []


def test_who_depends_on_whom() -> None:
    assert contexts.reached(CALLS, "ratings") == {"reviews", "page"}
    assert contexts.reached(CALLS, "page") == set()
    assert contexts.reached(CALLS, "nobody") == set()


def test_pairs_that_must_talk() -> None:
    rows = contexts.talks(CALLS, ["page", "details", "reviews", "ratings"])
    assert [(r["one"], r["other"]) for r in rows if r["a call between them"]] == [
        ("page", "details"), ("page", "reviews"), ("reviews", "ratings"),
    ]  # fmt: skip


def test_the_figure_has_every_service() -> None:
    figure = contexts.figure([("productpage", "details")], {"productpage": {"a"}, "details": {"a", "b"}})
    texts = {text.get_text() for text in figure.axes[0].texts}
    assert {"productpage\n0 words of its own", "details\n1 word of its own"} <= texts


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_a_submodule_is_pinned_to_its_commit() -> None:
    with submodules.trial() as git:
        first = git.repository("protos", {"a": "1"}, "one")
        git.repository("shop", {"b": "2"}, "begin")
        with pytest.raises(ToolFailed, match="transport 'file' not allowed"):
            git.git("shop", "submodule", "add", f"{git.root}/protos", "protos")
        git.git("shop", "submodule", "--quiet", "add", f"{git.root}/protos", "protos", files=True)
        git.git("shop", "commit", "--quiet", "--message=add")
        second = git.repository("protos", {"a": "2"}, "two")
        assert first != second
        assert git.pinned("shop", "protos") == first == git.head("shop/protos")
        assert git.pinned("shop", "b") == ""
    assert not git.root.exists()
