"""The ledger is covered by the committed chapters, and the published page is the one that they give."""

import pytest
from stackbook import ledger, paths


@pytest.fixture(scope="module")
def covered():
    return ledger.coverage(paths.notebooks())


def test_each_of_the_311_entries_has_its_cell(covered):
    assert len(covered.entries) == 311
    assert not covered.missing, "no cell shows or proves these; `stackbook coverage` lists all"


def test_what_is_wrong_or_outdated_has_its_correction_and_its_proof(covered):
    concerned = [entry for entry in covered.entries.values() if entry.needs_correction]
    bare = [entry.id for entry in concerned if not entry.correction or not covered.proofs.get(entry.id)]
    assert not bare


def test_the_errata_page_is_in_step(covered):
    page = paths.checkout() / "docs" / "errata.md"
    assert page.read_text(encoding="utf-8") == ledger.errata(covered), f"run: {ledger.ERRATA_COMMAND}"
