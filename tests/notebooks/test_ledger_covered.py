"""The ledger is covered by the committed chapters, and the published page is the one that they give."""

import pytest
from stackbook.config import chapters, ledger
from stackbook.core import paths


@pytest.fixture(scope="module")
def covered():
    return ledger.coverage(paths.notebooks())


def written(covered):
    """The entries of the guide's sections whose chapters are written."""
    sections = {section for chapter in chapters.available() for section in chapter.guide}
    return [e for e in covered.entries.values() if any(f"{e.chapter}.".startswith(f"{s}.") for s in sections)]


def test_every_entry_of_a_written_chapter_has_its_cell(covered):
    assert len(covered.entries) == 311
    concerned = written(covered)
    assert len(concerned) >= 250
    assert not [e.id for e in concerned if not covered.proofs.get(e.id)], "`stackbook coverage` lists all"


def test_each_of_the_311_entries_has_its_cell(covered):
    assert not covered.missing


def test_what_is_wrong_or_outdated_has_its_correction_and_its_proof(covered):
    concerned = [entry for entry in written(covered) if entry.needs_correction]
    bare = [entry.id for entry in concerned if not entry.correction or not covered.proofs.get(entry.id)]
    assert not bare


def test_the_errata_page_is_in_step(covered):
    page = paths.checkout() / "docs" / "errata.md"
    assert page.read_text(encoding="utf-8") == ledger.errata(covered), f"run: {ledger.ERRATA_COMMAND}"
