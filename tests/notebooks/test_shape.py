"""Every chapter has the shape of a chapter; and each rule catches what it is there for."""

import copy
import json
import re
from itertools import pairwise

import notebook_rules as rules
import pytest
from notebook_rules import Notebook
from stackbook.config.chapter_parameters import CHAPTER_PARAMETERS
from stackbook.core import paths

BOOKS = sorted(paths.notebooks().glob("*.ipynb"))


@pytest.mark.parametrize("path", BOOKS, ids=lambda path: path.stem)
@pytest.mark.parametrize("rule", rules.RULES, ids=lambda rule: rule.__name__)
def test_chapter(path, rule):
    problems = list(rule(Notebook(path)))
    assert not problems, "\n".join(problems)


def test_nine_of_ten_cells_with_output_are_compared():
    counts = {path.stem: rules.compared(Notebook(path)) for path in BOOKS}
    done, total = (sum(column) for column in zip(*counts.values(), strict=True)) if counts else (0, 0)
    assert done >= 0.9 * total, f"{done} of {total}; by chapter: {counts}"


def test_nine_of_ten_steps_have_claims():
    counts = {path.stem: rules.with_claims(Notebook(path)) for path in BOOKS}
    done, total = (sum(column) for column in zip(*counts.values(), strict=True))
    assert done >= 0.9 * total, f"{done} of {total}; by chapter: {counts}"


def test_each_chapter_leads_to_the_one_that_follows():
    for path, following in pairwise(BOOKS):
        last = [source for _, source, _ in Notebook(path).of("markdown")][-1]
        assert re.findall(r"\*\*Next:\*\* \[[^]]+\]\(([^)]+)\)", last) == [following.name], path.name


# The rules themselves


def picture(alt):
    return {"output_type": "display_data", "data": {"image/png": "aGk="}, "metadata": {"image/png": {"alt": alt}}}


def stream(text, name="stdout"):
    return {"output_type": "stream", "name": name, "text": [text]}


def code(count, source, *outputs, tags=(), **metadata):
    metadata = {"tags": list(tags), **metadata}
    return {
        "cell_type": "code",
        "execution_count": count,
        "source": source,
        "outputs": list(outputs),
        "metadata": metadata,
    }


def text(source):
    return {"cell_type": "markdown", "source": source, "metadata": {}}


TITLE = """\
# A title

**Time** 5 s · **needs** nothing · **leaves** nothing

After this chapter you can:

- do one thing,
  and say why;
- do another;
- do a third.
"""
CLAIMS = """\
if there:
    with lab.claims("one") as claims:
        rows = sorted(found)
        for row in rows:
            claims.check(row > 0, "each row is positive", seen=row)
        claims.proved(hypotheses.prove(checks))"""
QUESTIONS = "## Questions\n\n" + "\n\n".join(
    f"<details><summary>{n}. Why?</summary>\n\nBecause it is so, and not otherwise.\n\n</details>" for n in range(1, 6)
)


def good_cells():
    names = {"prediction": {}, "transfer_seconds": 2, "pings": 50}
    assert CHAPTER_PARAMETERS["03-flannel"]().model_dump() == names
    passed = ", ".join(f"{name}={name}" for name in names)
    return [
        text(TITLE),
        code(
            1,
            'profile = "embedded"  # a name\n' + "\n".join(f"{k} = {v}  # what it is" for k, v in names.items()),
            tags=["parameters"],
        ),
        code(2, f'from stackbook.lab.lab import bind\nlab = bind("03-flannel", profile, {passed})', stream("target")),
        code(3, "lab.preconditions()", stream("✓")),
        text("## A section\n\n```\n# no heading\n```\n\n![a plot](https://example.org/plot.png)"),
        code(4, 'with lab.step("one", "does one thing"):\n    pass', stream("✓ one"), picture("a bar chart")),
        code(5, CLAIMS, stream("✓ one: 2 claims hold"), tags=["hide-input"], jupyter={"source_hidden": True}),
        code(6, "lab.postconditions()", stream("✓")),
        text(QUESTIONS),
        text("Next: [this one](03-flannel.ipynb)"),
    ]


def check(folder, cells, name="03-flannel"):
    path = folder / f"{name}.ipynb"
    path.write_text(json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))
    return {rule.__name__: list(rule(Notebook(path))) for rule in rules.RULES}


def test_a_good_notebook_breaks_no_rule(tmp_path):
    assert not any(check(tmp_path, good_cells()).values())


def replaced(number, **change):
    def breaks(cells):
        cells[number] |= change

    return breaks


def with_output(output):
    return lambda cells: cells[5]["outputs"].append(output)


def step(body):
    return replaced(5, source=f'with lab.step("one", "does one thing") as step:\n    {body}')


TOKEN = "abcdef" + ".0123456789abcdef"

BROKEN = {
    "headings: none": (rules.headings, replaced(0, source="A title")),
    "headings: two": (rules.headings, replaced(4, source="# Another")),
    "headings: no subtitle": (rules.headings, replaced(0, source="# A title\n")),
    "objectives: no line of time": (rules.objectives, replaced(0, source=TITLE.replace("**needs**", "needs"))),
    "objectives: two": (rules.objectives, replaced(0, source=TITLE.replace("- do a third.\n", ""))),
    "questions: none": (rules.questions, replaced(8, source="## More")),
    "questions: four": (rules.questions, replaced(8, source=QUESTIONS.replace("<summary>5.", "<summary>6."))),
    "questions: no answer": (
        rules.questions,
        replaced(8, source=QUESTIONS.replace("Because it is so, and", "It is", 1)),
    ),
    "parameters: no comment": (
        rules.commented_parameters,
        replaced(1, source='profile = "embedded"  # a name\npings = 50'),
    ),
    "headings: skipped": (rules.headings, replaced(4, source="### Too deep")),
    "parameters: no tag": (rules.parameters_cell, replaced(1, metadata={})),
    "parameters: not in the schema": (rules.parameters_cell, replaced(1, source='profile = "embedded"\nping = 50')),
    "parameters: another default": (
        rules.parameters_cell,
        replaced(1, source='profile = "embedded"\ntransfer_seconds = 2\npings = 5'),
    ),
    "parameters: computed": (rules.parameters_cell, replaced(1, source="import os\nprofile = os.name")),
    "skeleton: no bind": (rules.skeleton, replaced(2, source="lab = None")),
    "skeleton: another chapter": (rules.skeleton, replaced(2, source='lab = bind("02-kubeadm", profile)')),
    "skeleton: a parameter not passed": (
        rules.skeleton,
        replaced(2, source='lab = bind("03-flannel", profile, pings=pings)'),
    ),
    "skeleton: no preconditions": (rules.skeleton, replaced(3, source="pass")),
    "skeleton: no postconditions": (rules.skeleton, replaced(7, source="pass")),
    "skeleton: order": (rules.skeleton, lambda cells: cells.insert(3, cells.pop(5))),
    "skeleton: step twice": (rules.skeleton, lambda cells: cells.insert(5, copy.deepcopy(cells[5]))),
    "links: no next": (rules.links, replaced(9, source="The end.")),
    "links: dead": (rules.links, replaced(9, source="Next: [more](04-nowhere.ipynb)")),
    "shell": (rules.no_shell_escapes, replaced(5, source="!kubectl get pods")),
    "shell: assigned": (rules.no_shell_escapes, replaced(5, source="pods = !kubectl get pods")),
    "magic": (rules.no_shell_escapes, replaced(5, source="%matplotlib inline")),
    "not Python": (rules.no_shell_escapes, replaced(5, source="kubectl get pods")),
    "long": (rules.short_cells, replaced(5, source="pass\n" * 21)),
    "alt: output": (rules.alt_texts, with_output(picture(" "))),
    "alt: output without metadata": (rules.alt_texts, with_output(picture("x") | {"metadata": {}})),
    "alt: markdown": (rules.alt_texts, replaced(4, source="## A\n![](plot.png)")),
    "alt: tag": (rules.alt_texts, replaced(4, source='## A\n<img src="plot.png">')),
    "alt: html": (
        rules.alt_texts,
        with_output({"output_type": "display_data", "metadata": {}, "data": {"text/html": ['<img src="a.png">']}}),
    ),
    "not run": (rules.outputs_committed, replaced(5, execution_count=None)),
    "run out of order": (rules.outputs_committed, replaced(5, execution_count=2)),
    "no output at all": (
        rules.outputs_committed,
        lambda cells: [cell.update(outputs=[]) for cell in cells if "outputs" in cell],
    ),
    "secret: token": (rules.no_secrets, with_output(stream(f"--token {TOKEN}"))),
    "secret: in the source": (rules.no_secrets, replaced(5, source=f'token = "{TOKEN}"')),
    "secret: password": (rules.no_secrets, with_output(stream("password: hunter2hunter2"))),
    "secret: key": (rules.no_secrets, replaced(4, source="-----BEGIN RSA PRIVATE KEY-----")),
    "error": (rules.no_errors, with_output({"output_type": "error", "ename": "E", "evalue": "", "traceback": ["x"]})),
    "traceback": (rules.no_errors, with_output(stream("Traceback (most recent call last):"))),
    "stderr": (rules.no_errors, with_output(stream("a warning", "stderr"))),
    "folded: more than claims": (rules.folded_claims, replaced(6, source=CLAIMS + "\nlab.show(rows)")),
    "folded: more within the block": (rules.folded_claims, replaced(6, source=CLAIMS + "\n        lab.kube.nodes()")),
    "folded: a step": (rules.folded_claims, replaced(6, source='with lab.step("two", "x"):\n    x = 1')),
    "folded: no claim": (rules.folded_claims, replaced(6, source="x = 1")),
    "folded: not in the book": (rules.folded_claims, replaced(6, metadata={"jupyter": {"source_hidden": True}})),
    "folded: not in JupyterLab": (rules.folded_claims, replaced(6, metadata={"tags": ["hide-input"]})),
    "asserted: claims not folded": (rules.asserted_apart, replaced(6, metadata={"tags": []})),
    "asserted: a proof in a step": (rules.asserted_apart, step("hypotheses.prove(checks)")),
    "asserted: a demand in a step": (rules.asserted_apart, step("whole.demand_right()")),
    "asserted: a check at the end": (
        rules.asserted_apart,
        step("x = lab.nodes()\n    step.check(x, 'there are nodes')"),
    ),
    "asserted: only a note follows": (
        rules.asserted_apart,
        step("step.check(x, 'there are nodes')\n    step.note(x=x)"),
    ),
    "asserted: only a value follows": (rules.asserted_apart, step("step.check(x, 'there are nodes')\n    y = x")),
    "asserted: an assert": (rules.asserted_apart, replaced(5, source="assert x")),
    "claims: before their step": (rules.claims_follow, lambda cells: cells.insert(5, cells.pop(6))),
    "claims: of no step": (rules.claims_follow, replaced(6, source=CLAIMS.replace('"one"', '"two"'))),
    "claims: twice": (rules.claims_follow, lambda cells: cells.insert(7, copy.deepcopy(cells[6]))),
    "a path": (rules.nothing_of_this_machine, with_output(stream("kubeconfig at /home/me/.kube/config"))),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_notebook_is_caught_by_its_rule(tmp_path, name):
    rule, breaks = BROKEN[name]
    cells = good_cells()
    breaks(cells)
    assert check(tmp_path, cells)[rule.__name__]


def test_a_check_before_an_action_may_stand_in_a_step(tmp_path):
    cells = good_cells()
    step("step.check(healthy, 'the mesh is healthy')\n    bench = Testbed.prepare(lab)")(cells)
    assert not any(check(tmp_path, cells).values())
    assert rules.with_claims(Notebook(tmp_path / "03-flannel.ipynb")) == (1, 1)


def test_the_guides_own_token_may_be_quoted(tmp_path):
    cells = good_cells()
    cells[4]["source"] = f"## What the guide shows\n\n`kubeadm join --token {rules.GUIDES_OWN_TOKEN}`"
    assert not any(check(tmp_path, cells).values())


def test_a_cell_is_compared_where_nbval_compares_its_text(tmp_path):
    cells = good_cells()
    check(tmp_path, cells)
    assert rules.compared(Notebook(tmp_path / "03-flannel.ipynb")) == (5, 5)
    cells[3]["metadata"]["tags"] = [rules.IGNORED]
    cells[5]["outputs"] = [picture("only a plot")]
    check(tmp_path, cells)
    assert rules.compared(Notebook(tmp_path / "03-flannel.ipynb")) == (3, 5)
