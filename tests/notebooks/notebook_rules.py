"""The shape of a chapter, as rules: each takes a notebook and yields what is wrong with it."""

from __future__ import annotations

import ast
import contextlib
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

from stackbook.config.chapter_parameters import CHAPTER_PARAMETERS
from stackbook.core.redact import MASK, redact

GUIDES_OWN_TOKEN = "61fwo7.13hldbyt1oyd6qra"
"""Printed in the guide of 2020 and long expired: text may quote it."""
GUIDES_OWN_PATH = "/tmp/cache"
"""Where the guide's pipeline keeps its cache: text may quote it."""
VARIABLE = re.compile(r"\$\{\w+(:[-?][^}]*)?\}")
"""A compose file's reference to a variable, which is no secret."""
SETTINGS = re.compile("MARIADB_RANDOM_ROOT_PASSWORD=yes|from_secret: docker_(user|pass)")
"""What asks for a password that nobody knows, and the names of a pipeline's secrets."""
LONGEST_CELL = 20
IGNORED = "nbval-ignore-output"


@dataclass(frozen=True)
class Notebook:
    """A notebook file, parsed."""

    path: Path

    @cached_property
    def cells(self) -> list[dict[str, Any]]:
        return json.loads(self.path.read_text(encoding="utf-8"))["cells"]

    @property
    def chapter(self) -> str:
        return self.path.stem

    def of(self, kind: str) -> Iterator[tuple[int, str, dict[str, Any]]]:
        """Number from 1, source and cell of each cell of a kind."""
        for number, cell in enumerate(self.cells, 1):
            if cell["cell_type"] == kind:
                yield number, text_of(cell["source"]), cell

    @cached_property
    def calls(self) -> list[tuple[int, ast.Call]]:
        """Each call in the code, in its order, with the number of its cell."""
        found = []
        for number, source, _ in self.of("code"):
            try:
                tree = ast.parse(source)
            except SyntaxError:
                continue  # said by `no_shell_escapes`
            found += [(number, node) for node in ast.walk(tree) if isinstance(node, ast.Call)]
        return found

    def calls_of(self, name: str) -> list[tuple[int, ast.Call]]:
        """The calls of `name(…)` or `….name(…)`."""
        return [(n, c) for n, c in self.calls if getattr(c.func, "attr", getattr(c.func, "id", "")) == name]


def text_of(source: str | list[str]) -> str:
    return source if isinstance(source, str) else "".join(source)


Rule = Callable[[Notebook], Iterator[str]]


def headings(book: Notebook) -> Iterator[str]:
    """One H1, in the first cell, with a subtitle; no level is skipped."""
    levels = []
    for number, source, _ in book.of("markdown"):
        prose = re.sub(r"^(```|~~~).*?^\1", "", source, flags=re.DOTALL | re.MULTILINE)
        levels += [(number, len(m[1]), m[2]) for m in re.finditer(r"^(#{1,6})\s+(.+)$", prose, re.MULTILINE)]
    ones = [number for number, level, _ in levels if level == 1]
    if ones != [1]:
        yield f"one H1 in the first cell is wanted, found in cells {ones}"
    elif len([line for line in text_of(book.cells[0]["source"]).splitlines() if line.strip()]) < 2:
        yield "the title has no subtitle below it: time, needs, leaves behind"
    for (_, before, _), (number, level, title) in pairwise(levels):
        if level > before + 1:
            yield f"cell {number}: {title!r} skips from level {before} to {level}"


def parameters_cell(book: Notebook) -> Iterator[str]:
    """One cell tagged parameters, with the names and the defaults of the schema."""
    tagged = [(n, s) for n, s, cell in book.of("code") if "parameters" in cell["metadata"].get("tags", [])]
    if len(tagged) != 1:
        yield f"one cell tagged parameters is wanted, found {len(tagged)}"
        return
    number, source = tagged[0]
    try:
        values = {ast.unparse(a.targets[0]): ast.literal_eval(a.value) for a in ast.parse(source).body}  # type: ignore[attr-defined]
    except (ValueError, AttributeError, SyntaxError):
        yield f"cell {number}: parameters are plain assignments of literal values"
        return
    schema = CHAPTER_PARAMETERS.get(book.chapter)
    wanted = {"profile": "embedded"} | (schema().model_dump() if schema else {})
    if set(values) != set(wanted):
        yield f"cell {number}: parameters {sorted(values)}, the schema has {sorted(wanted)}"
    for name in sorted(set(values) & set(wanted)):
        if values[name] != wanted[name]:
            yield f"cell {number}: {name} is {values[name]!r}, the schema's default is {wanted[name]!r}"


def objectives(book: Notebook) -> Iterator[str]:
    """The first cell says how long the chapter takes, what it needs and leaves, and at least three things that one learns."""
    first = text_of(book.cells[0]["source"])
    if not re.search(r"^\*\*Time\*\* [^*]+ · \*\*needs\*\* [^*]+ · \*\*leaves\*\*\s+\w", first, re.MULTILINE):
        yield "the first cell has no line: **Time** … · **needs** … · **leaves** …"
    learned = re.search(r"^After this chapter you can:\n\n((?:- .+\n?(?:  .+\n?)*)+)", first, re.MULTILINE)
    if len(re.findall(r"^- ", learned[1], re.MULTILINE) if learned else []) < 3:
        yield "the first cell does not list three things: After this chapter you can: …"


def questions(book: Notebook) -> Iterator[str]:
    """Five numbered questions at the end, each with an answer that unfolds."""
    found = [source for _, source, _ in book.of("markdown") if source.startswith("## Questions")]
    if len(found) != 1:
        yield f"one section of questions is wanted, found {len(found)}"
        return
    asked = re.findall(r"<details><summary>(\d)\. .*?</summary>(.*?)</details>", found[0], re.DOTALL)
    if [number for number, _ in asked] != list("12345"):
        yield f"questions 1 to 5 are wanted, found {[number for number, _ in asked]}"
    for number, answer in asked:
        if len(answer.split()) < 5:
            yield f"question {number} has no answer"


def commented_parameters(book: Notebook) -> Iterator[str]:
    """Each parameter has a comment that says what it is."""
    for number, source, cell in book.of("code"):
        if "parameters" in cell["metadata"].get("tags", []):
            for line in source.splitlines():
                if re.match(r"\w+ = ", line) and not re.search(r"  # \w", line):
                    yield f"cell {number}: {line.split()[0]} has no comment"


def skeleton(book: Notebook) -> Iterator[str]:
    """bind, preconditions, steps, postconditions: each there, in this order; step ids are unique."""
    binds = book.calls_of("bind")
    if len(binds) != 1:
        yield f"one bind(…) is wanted, found {len(binds)}"
    else:
        call = binds[0][1]
        schema = CHAPTER_PARAMETERS.get(book.chapter)
        wanted = set(schema.model_fields) if schema else set()
        if not call.args or not isinstance(call.args[0], ast.Constant) or call.args[0].value != book.chapter:
            yield f"bind names another chapter than {book.chapter}"
        if {k.arg for k in call.keywords} - {"profile"} != wanted:
            yield f"bind passes {sorted(str(k.arg) for k in call.keywords)}, the schema has {sorted(wanted)}"
    places = {}
    for name in ("bind", "preconditions", "step", "postconditions"):
        found = [number for number, _ in book.calls_of(name)]
        places[name] = found
        if not found:
            yield f"no {name}(…)"
    if all(places.values()):
        first_step, last_step = min(places["step"]), max(places["step"])
        if (
            not places["bind"][0]
            <= places["preconditions"][0]
            <= first_step
            <= last_step
            <= places["postconditions"][-1]
        ):
            yield f"bind, preconditions, steps, postconditions are out of order: {places}"
    ids = [ast.unparse(call.args[0]) for _, call in book.calls_of("step") if call.args]
    if twice := sorted({id for id in ids if ids.count(id) > 1}):
        yield f"steps share an id: {', '.join(twice)}"


def links(book: Notebook) -> Iterator[str]:
    """The last text links to the next chapter; each relative link leads to a file."""
    texts = list(book.of("markdown"))
    for number, source, _ in texts:
        for target in re.findall(r"\]\(([^)#\s]+)", source):
            if not re.match(r"[a-z]+:", target) and not (book.path.parent / target).exists():
                yield f"cell {number}: {target} does not exist"
    if not book.chapter.startswith("99-") and not re.search(r"\]\(\d\d-[a-z]+\.ipynb", texts[-1][1] if texts else ""):
        yield "the last text has no link to the next chapter"


def no_shell_escapes(book: Notebook) -> Iterator[str]:
    """Code is Python: no !command, no %magic, nothing else that cannot be parsed."""
    for number, source, _ in book.of("code"):
        for line in source.splitlines():
            if re.match(r"\s*(\w+\s*=\s*)?[!%]", line):
                yield f"cell {number}: {line.strip()!r} never fails a cell"
                break
        else:
            try:
                ast.parse(source)
            except SyntaxError as error:
                yield f"cell {number} is not Python: {error.msg}"


def short_cells(book: Notebook) -> Iterator[str]:
    """No code cell is longer than a reader takes in at once."""
    for number, source, _ in book.of("code"):
        if (length := len(source.rstrip().splitlines())) > LONGEST_CELL:
            yield f"cell {number} has {length} lines, {LONGEST_CELL} are the most"


def alt_texts(book: Notebook) -> Iterator[str]:
    """Each picture has a text for those who cannot see it."""
    for number, source, _ in book.of("markdown"):
        bare = re.findall(r"!\[\s*\]\(", source) + [i for i in re.findall(r"<img\b[^>]*>", source) if not alt_of(i)]
        if bare:
            yield f"cell {number}: {len(bare)} pictures without alt text"
    for number, _, cell in book.of("code"):
        for output in cell["outputs"]:
            for kind in output.get("data", {}):
                if kind.startswith("image/") and not str(output["metadata"].get(kind, {}).get("alt", "")).strip():
                    yield f"cell {number}: a picture without alt text"
            html = text_of(output.get("data", {}).get("text/html", ""))
            if any(not alt_of(tag) for tag in re.findall(r"<img\b[^>]*>", html)):
                yield f"cell {number}: a picture without alt text"


def alt_of(tag: str) -> str:
    found = re.search(r"""\balt\s*=\s*(["'])(.*?)\1""", tag)
    return found[2].strip() if found else ""


def outputs_committed(book: Notebook) -> Iterator[str]:
    """Each code cell has been run, in order, in one go."""
    counts = [(number, cell["execution_count"]) for number, source, cell in book.of("code") if source.strip()]
    if bare := [number for number, count in counts if count is None]:
        yield f"cells {bare} have not been run"
    elif [count for _, count in counts] != sorted({count for _, count in counts}):
        yield "the cells were not run in order"
    elif not any(cell["outputs"] for _, _, cell in book.of("code")):
        yield "no cell has an output"


def printed(cell: dict[str, Any]) -> str:
    """All text of a cell's outputs."""
    parts = []
    for output in cell.get("outputs", []):
        parts.append(text_of(output.get("text", "")))
        parts += [text_of(v) for k, v in output.get("data", {}).items() if not k.startswith("image/") and k != "image"]
        parts += [str(output.get("evalue", "")), *output.get("traceback", [])]
    return "\n".join(part if isinstance(part, str) else json.dumps(part) for part in parts)


def no_secrets(book: Notebook) -> Iterator[str]:
    """Nothing in a source or an output has the shape of a secret."""
    for number, cell in enumerate(book.cells, 1):
        shown = SETTINGS.sub("", VARIABLE.sub(MASK, printed(cell).replace(GUIDES_OWN_TOKEN, MASK)))
        if redact(shown) != shown:
            yield f"cell {number}: its output holds what looks like a secret"
        source = text_of(cell["source"]).replace(GUIDES_OWN_TOKEN, MASK)
        if re.search(
            r"\b[a-z0-9]{6}\.[a-z0-9]{16}\b|PRIVATE KEY-----|\beyJ[\w-]{10,}\.[\w-]{10,}\.|client-key-data:\s*\w",
            source,
        ):
            yield f"cell {number}: its source holds what looks like a secret"


def without_commands(text: str) -> str:
    """What a cell shows, without the commands that are folded in behind the line of a step."""
    return re.sub(r'(?s)<details class="by-hand">.*?</details>', "", text)


def no_errors(book: Notebook) -> Iterator[str]:
    """No output is an exception or a stray warning."""
    for number, _, cell in book.of("code"):
        if any(
            o["output_type"] == "error" for o in cell["outputs"]
        ) or "Traceback (most recent call" in without_commands(printed(cell)):
            yield f"cell {number}: its output is an exception"
        if any(o.get("name") == "stderr" for o in cell["outputs"]):
            yield f"cell {number}: its output has a stderr stream"


def nothing_of_this_machine(book: Notebook) -> Iterator[str]:
    """No path of the machine on which it was run."""
    for number, _, cell in book.of("code"):
        shown = printed(cell).replace(GUIDES_OWN_PATH, "")
        places = [
            (without_commands(shown), "root|home/\\w+|work|tmp"),
            (shown, "root|home/\\w+|work"),
        ]  # machines have a /tmp, too
        if found := next((m for text, top in places if (m := re.search(rf"(?<![\w.])/({top})/[\w./-]+", text))), None):
            yield f"cell {number}: its output names {found[0]}"


def folded(cell: dict[str, Any]) -> bool:
    """Whether JupyterLab, the exported page and the book hide a cell's code until it is unfolded."""
    metadata = cell["metadata"]
    return bool(metadata.get("jupyter", {}).get("source_hidden")) or "hide-input" in metadata.get("tags", [])


def called(node: ast.AST, *names: str) -> bool:
    return isinstance(node, ast.Call) and ast.unparse(node.func) in names


def is_proof(node: ast.AST) -> bool:
    """A call that claims something, or of a function that proves it: `claims.check`, `….prove`, `….demand_…`."""
    if not isinstance(node, ast.Call):
        return False
    name = ast.unparse(node.func)
    last = name.rpartition(".")[2]
    return name.startswith("claims.") or last == "prove" or last.startswith("demand_")


def only_claims(body: list[ast.stmt], *, within: bool = False) -> bool:
    """Whether statements do nothing but check claims: blocks of `lab.claims`, and in them checks and what they compare."""
    for one in body:
        if isinstance(one, ast.If | ast.For):
            good = only_claims([*one.body, *one.orelse], within=within)
        elif isinstance(one, ast.With):
            good = (
                not within
                and all(called(i.context_expr, "lab.claims") for i in one.items)
                and only_claims(one.body, within=True)
            )
        elif isinstance(one, ast.Expr):
            good = within and is_proof(one.value)
        else:
            good = isinstance(one, ast.Assign)
        if not good:
            return False
    return True


def folded_claims(book: Notebook) -> Iterator[str]:
    """A folded cell contains claims alone, and is folded everywhere."""
    for number, source, cell in book.of("code"):
        if not folded(cell):
            continue
        metadata = cell["metadata"]
        if not metadata.get("jupyter", {}).get("source_hidden") or "hide-input" not in metadata.get("tags", []):
            yield f"cell {number} is folded in JupyterLab or in the book, but not in both"
        with contextlib.suppress(SyntaxError):
            tree = ast.parse(source)
            if not only_claims(tree.body) or not any(called(n, "lab.claims") for n in ast.walk(tree)):
                yield f"cell {number} is folded, but contains more than claims"


def asserted_apart(book: Notebook) -> Iterator[str]:
    """What is asserted stands in folded cells. A step checks only what must hold before it goes on: an action follows."""
    for number, source, cell in book.of("code"):
        try:
            tree = ast.parse(source)
        except SyntaxError:
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Assert):
                yield f"cell {number}: a claim of a step takes the place of assert"
            elif not folded(cell) and (is_proof(node) or called(node, "lab.claims")):
                yield f"cell {number}: {ast.unparse(node.func)}(…) belongs into a folded cell"  # type: ignore[attr-defined]
            for field in ("body", "orelse"):
                block = getattr(node, field, None)
                guards = [at for at, one in enumerate(block) if is_guard(one)] if isinstance(block, list) else []
                if block and guards and not any(acts(one) for one in block[guards[-1] + 1 :]):
                    yield f"cell {number}: nothing follows this step.check(…): it is a claim"


def is_guard(one: ast.stmt) -> bool:
    return isinstance(one, ast.Expr) and called(one.value, "step.check")


def acts(one: ast.stmt) -> bool:
    """Whether a statement does something beyond a note in the record."""
    return any(isinstance(n, ast.Call) for n in ast.walk(one)) and not (
        isinstance(one, ast.Expr) and called(one.value, "step.note", "step.progress")
    )


def claims_follow(book: Notebook) -> Iterator[str]:
    """Each block of claims is about a step of an earlier cell; each step has at most one."""
    steps: dict[str, int] = {}
    for number, call in book.calls_of("step"):
        steps.setdefault(ast.unparse(call.args[0]) if call.args else "", number)
    claimed: list[str] = []
    for number, call in book.calls_of("claims"):
        if not called(call, "lab.claims"):
            continue
        id = ast.unparse(call.args[0]) if call.args else ""
        if steps.get(id, number) >= number:
            yield f"cell {number}: no earlier cell runs the step {id}"
        if id in claimed:
            yield f"cell {number}: the claims of {id} stand twice"
        claimed.append(id)


def with_claims(book: Notebook) -> tuple[int, int]:
    """How many of the steps have claims, and how many there are."""
    found = [{ast.unparse(call.args[0]) for _, call in book.calls_of(name) if call.args} for name in ("step", "claims")]
    return len(found[0] & found[1]), len(found[0])


RULES: tuple[Rule, ...] = (
    headings,
    objectives,
    questions,
    parameters_cell,
    commented_parameters,
    skeleton,
    links,
    no_shell_escapes,
    short_cells,
    alt_texts,
    outputs_committed,
    no_secrets,
    no_errors,
    nothing_of_this_machine,
    folded_claims,
    asserted_apart,
    claims_follow,
)


def compared(book: Notebook) -> tuple[int, int]:
    """Code cells with an output: how many nbval compares by more than a picture, and how many there are."""
    shown = [cell for _, _, cell in book.of("code") if cell["outputs"]]
    return sum(is_compared(cell) for cell in shown), len(shown)


def is_compared(cell: dict[str, Any]) -> bool:
    if IGNORED in cell["metadata"].get("tags", []) or re.search(
        r"#\s*(NBVAL_IGNORE|PYTEST_VALIDATE_IGNORE)", text_of(cell["source"])
    ):
        return False
    return any(not any(k.startswith("image/") for k in output.get("data", {})) for output in cell["outputs"])
