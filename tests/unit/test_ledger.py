"""The ledger's parser refuses what is mangled with one line; coverage reads notebooks' metadata strictly."""

import csv
import io
import json
from importlib.resources import files

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stackbook.config import ledger
from stackbook.core.errors import InputError

TEXT = (files("stackbook.config.ledger") / "ledger.csv").read_text(encoding="utf-8")
ROWS = list(csv.reader(io.StringIO(TEXT)))


def as_csv(rows) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(rows)
    return out.getvalue()


def refused(text: str) -> str:
    with pytest.raises(InputError) as caught:
        ledger.parse(text)
    assert "\n" not in str(caught.value)
    assert caught.value.fix
    return caught.value.message


def test_the_ledger_is_whole():
    entries = ledger.load()
    kinds = [entry.kind for entry in entries.values()]
    assert [kinds.count(kind) for kind in ("command", "file", "claim")] == [84, 44, 183]
    assert all(entry.correction for entry in entries.values() if entry.needs_correction)


@pytest.mark.parametrize(
    ("column", "value", "says"),
    [
        (0, "X01", "not an id of a command"), (0, "K01", "not an id of a command"), (0, "C2", "not an id"),
        (0, "C0١", "not an id"), (1, "one", "chapter"), (2, "order", "kind"), (3, "", "text is empty"),
        (4, "maybe", "executable"), (5, "good", "verdict"), (6, " ", "correction is empty"), (7, "", "how_to_check"),
    ],
)  # fmt: skip
def test_a_bad_field_is_named(column, value, says):
    row = list(ROWS[1])
    row[column] = value
    with pytest.raises(InputError, match=says):
        ledger.parse(as_csv([ROWS[0], row]))


@pytest.mark.parametrize(
    "text",
    ["", "\n", ",".join(ROWS[0]), TEXT.replace("verdict", "judgement", 1), as_csv([*ROWS, ROWS[5]]), TEXT + '"open'],
)
def test_a_broken_ledger_is_refused(text):
    refused(text)


@pytest.mark.slow
@settings(max_examples=500, deadline=None)
@given(st.data())
def test_a_mangled_ledger_is_refused_or_still_a_ledger(data):
    """Cut, doubled, swapped or replaced anywhere: an InputError of one line, or entries that keep every rule."""
    small = as_csv(ROWS[: data.draw(st.integers(2, 12))])
    at = data.draw(st.integers(0, len(small)))
    end = data.draw(st.integers(at, min(len(small), at + 80)))
    put = data.draw(st.text(max_size=8) | st.just(small[at:end] * 2) | st.sampled_from(['"', ",", "\r", "\n", "\0"]))
    text = small[:at] + put + small[end:]
    try:
        entries = ledger.parse(text)
    except InputError as error:
        assert "\n" not in str(error)
        assert error.fix
    else:
        assert entries
        assert all(id == entry.id and entry.text and entry.how_to_check for id, entry in entries.items())
        assert all(entry.correction for entry in entries.values() if entry.needs_correction)


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(st.text(max_size=200) | st.binary(max_size=200).map(lambda raw: raw.decode("latin-1")))
def test_noise_is_no_ledger(text):
    refused(text)


def notebook(folder, *cells, name="01-machines.ipynb"):
    made = [
        {"cell_type": kind, "source": source, "metadata": {} if said is None else {"stackbook": said}}
        for kind, source, said in cells
    ]
    folder.joinpath(name).write_text(json.dumps({"cells": made, "nbformat": 4, "nbformat_minor": 5, "metadata": {}}))


def test_each_id_has_its_cell_and_the_strongest_proof_is_first(tmp_path):
    notebook(
        tmp_path,
        ("markdown", "# Machines\n\n## Swap\n", {"ids": ["C07", "K09"], "how": "shown"}),
        (
            "code",
            ["swapoff\n", "check"],
            [{"ids": ["C07"], "how": "live"}, {"ids": ["C24"], "how": "cannot", "why": "x"}],
        ),
    )
    found = ledger.coverage(tmp_path)
    first, second = found.proofs["C07"]
    assert (first.how, first.cell, first.section, second.how) == ("live", 2, "Swap", "shown")
    assert len(found.missing) == 311 - 3
    assert not found.complete
    said = json.loads(ledger.report(found, as_json=True))
    assert (said["total"], said["covered"], said["by"]["live"], len(said["missing"])) == (311, 3, 1, 308)
    assert "3 of 311 covered: 1 proved live" in ledger.report(found)


@pytest.mark.parametrize(
    "said",
    [
        "K01", {}, {"ids": ["K01"]}, {"ids": "K01", "how": "live"}, {"ids": [], "how": "live"},
        {"ids": ["K999"], "how": "live"}, {"ids": [1], "how": "live"}, {"ids": ["K01"], "how": "proved"},
        {"ids": ["K01"], "how": ["live"]}, {"ids": ["K01"], "how": "cannot"},
        {"ids": ["K01"], "how": "cannot", "why": " "},
        {"ids": ["K01"], "how": "live", "because": "x"}, [["K01"]], {"ids": ["K01"], "how": "cannot", "why": 3},
    ],
)  # fmt: skip
def test_metadata_of_another_form_is_refused_with_its_place(tmp_path, said):
    notebook(tmp_path, ("code", "1", said))
    with pytest.raises(InputError, match=r"01-machines\.ipynb, cell 1") as caught:
        ledger.coverage(tmp_path)
    assert caught.value.fix


def test_a_text_proves_nothing(tmp_path):
    notebook(tmp_path, ("markdown", "# It works", {"ids": ["K01"], "how": "live"}))
    with pytest.raises(InputError, match="a text cell cannot prove anything"):
        ledger.coverage(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"cells": 3}', '{"cells": [1]}', "[" * 100_000])
def test_what_is_no_notebook_is_named(tmp_path, text):
    tmp_path.joinpath("07-faults.ipynb").write_text(text)
    with pytest.raises(InputError, match=r"07-faults\.ipynb is not a notebook"):
        ledger.coverage(tmp_path)


def test_the_errata_page_has_what_does_not_hold_with_correction_and_proof(tmp_path):
    notebook(tmp_path, ("code", "1", {"ids": ["K100", "K98"], "how": "live"}), name="07-faults.ipynb")
    page = ledger.errata(ledger.coverage(tmp_path))
    assert "- **wrong**: 55 of 311" in page
    block = page.split("**K100** (wrong)")[1].split("**K")[0]
    assert ledger.load()["K100"].correction.split()[0] in block
    assert "- Proved live: [07-faults](../notebooks/07-faults.ipynb)" in block
    assert "**K98**" not in page, "what holds is no erratum"
    for entry in ledger.load().values():
        assert (f"**{entry.id}** (" in page) == (entry.verdict != "ok")
    order = [line[3:] for line in page.splitlines() if line.startswith("## ")]
    assert order == sorted(order, key=lambda chapter: [int(n) for n in chapter.split(".")])


def test_markup_in_the_ledger_stays_text():
    row = list(ROWS[1])
    row[0], row[2], row[3], row[6] = "K01", "claim", "a <b> | c", "use `*` and *that* [x]"
    entries = ledger.parse(as_csv([ROWS[0], row]))
    page = ledger.errata(ledger.Coverage(entries, {}))
    assert r"a \<b\> \| c" in page
    assert r"use `*` and \*that\* \[x\]" in page
