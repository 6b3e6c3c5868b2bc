"""Chapter 15: a duty in a neighbour's words, a submodule that is behind, services that wait for each other."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from stackbook.artifacts import go_toolchain
from stackbook.core.errors import CheckFailed
from stackbook.lab.attempt import Attempt
from stackbook.lab.challenge import Challenge, Claim, Typed, require
from stackbook.lessons.design import contexts, shop

_CHAPTER = "15-design"


def _yaml(attempt: Attempt, name: str) -> dict[str, Any]:
    """The learner's YAML file as a mapping.

    Raises:
        CheckFailed: it is not a YAML mapping.
    """
    try:
        found = yaml.safe_load(attempt.read(name))
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        raise CheckFailed(f"{name} is not valid YAML: {' '.join(str(error).split())[:120]}") from error
    require(isinstance(found, dict), f"{name} has no lines like `name: value`")
    return dict(found)


# 15-a

_BLURRED = {
    "ratings": "keeps the stars that each author of a book got from a reviewer",
    "reviews": "keeps what each reviewer wrote about the publisher and its pages",
    "details": "knows what a book is: its author, its publisher, and each reviewer",
}


def _blurred(attempt: Attempt) -> None:
    service = attempt.draw("service", sorted(_BLURRED))
    duties = {**contexts.DUTIES, service: _BLURRED[service]}
    attempt.write("duties.yaml", yaml.safe_dump(duties, sort_keys=False, width=200))


def _blurred_claims(attempt: Attempt) -> Sequence[Claim]:
    def words() -> Mapping[str, set[str]]:
        """The names of the fields in each service's answers, read from the running shop."""
        with shop.running(attempt.lab.artifacts.path("app-bookinfo")) as books:
            return {name: shop.words(books.ask(name).json()) for name in shop.SERVICES}

    def duties() -> dict[str, str]:
        found = {str(name): str(text) for name, text in _yaml(attempt, "duties.yaml").items()}
        missing = [name for name in shop.SERVICES if len(found.get(name, "").split()) < 4]
        require(not missing, f"there is no sentence of at least four words for {', '.join(missing)}")
        return found

    def clear() -> str:
        said, known = duties(), words()
        unclear = {name: contexts.foreign(said[name], name, known) for name in shop.SERVICES}
        found = [f"the duty of {name} uses words of others: {', '.join(own)}" for name, own in unclear.items() if own]
        require(not found, "; ".join(found))
        return "each in its own words"

    def own() -> str:
        """A duty that says nothing about its service would use no words of others, but would be useless."""
        said = duties()
        wanted = {"details": ("book",), "reviews": ("review", "wrote"), "ratings": ("rating", "stars"),
                  "productpage": ("page", "shows", "product")}  # fmt: skip
        dumb = [name for name, some in wanted.items() if not any(word in said[name].lower() for word in some)]
        require(not dumb, f"the sentence for {', '.join(dumb)} does not say what the service is about")
        return "each says what its service does"

    return [
        Claim("no duty uses a word that belongs to another service", clear),
        Claim("each duty says what its service is about", own),
    ]


# 15-b

_PROTO = "message Rating {{ {kind} stars = 1; }}\n"


def _git(attempt: Attempt, folder: str, *args: str) -> str:
    """Run git in a folder of the challenge, without this host's own configuration; returns its output."""
    env = {
        "PATH": os.environ.get("PATH", os.defpath), "HOME": str(attempt.folder), "LC_ALL": "C.UTF-8",
        "GIT_CONFIG_NOSYSTEM": "1", "GIT_TERMINAL_PROMPT": "0", "GIT_CONFIG_COUNT": "4",
        "GIT_CONFIG_KEY_0": "user.name", "GIT_CONFIG_VALUE_0": "trainer",
        "GIT_CONFIG_KEY_1": "user.email", "GIT_CONFIG_VALUE_1": "trainer@example.com",
        "GIT_CONFIG_KEY_2": "init.defaultBranch", "GIT_CONFIG_VALUE_2": "main",
        "GIT_CONFIG_KEY_3": "protocol.file.allow", "GIT_CONFIG_VALUE_3": "always",
    }  # fmt: skip
    output = go_toolchain.call(["git", *args], cwd=attempt.folder / folder, env=env, check=False, timeout=60)
    if output.rc:
        reason = (output.stderr.strip() or "no message").splitlines()[-1][:150]
        raise CheckFailed(f"git {args[0]} in {folder} failed: {reason}")
    return str(output.text).strip()


def _commit(attempt: Attempt, folder: str, files: Mapping[str, str], message: str) -> None:
    for name, text in files.items():
        Path(attempt.folder / folder / name).write_text(text, encoding="utf-8")
    _git(attempt, folder, "add", "--all")
    _git(attempt, folder, "commit", "--quiet", f"--message={message}")


def _left_behind(attempt: Attempt) -> None:
    kind = attempt.draw("kind", ["int64", "uint32", "sint32"])
    for name in ("protos", "shop"):
        (attempt.folder / name).mkdir(parents=True)
        _git(attempt, name, "init", "--quiet")
    _commit(attempt, "protos", {"ratings.proto": _PROTO.format(kind="int32")}, "one field")
    _commit(attempt, "shop", {"README.md": "the shop\n"}, "begin")
    _git(attempt, "shop", "submodule", "--quiet", "add", str(attempt.folder / "protos"), "protos")
    _git(attempt, "shop", "commit", "--quiet", "--message=share the protos")
    _commit(attempt, "protos", {"ratings.proto": _PROTO.format(kind=kind)}, "wider")
    attempt.note(head=_git(attempt, "protos", "rev-parse", "HEAD"))


def _behind_claims(attempt: Attempt) -> Sequence[Claim]:
    head, kind = str(attempt.drawn["head"]), str(attempt.drawn["kind"])

    def pinned() -> str:
        parts = _git(attempt, "shop", "ls-tree", "HEAD", "protos").split()
        require(len(parts) > 2 and parts[1] == "commit", "protos is not a submodule in the shop's last commit")
        require(parts[2] == head, f"the shop's last commit refers to {parts[2][:8]} of protos, not to {head[:8]}")
        return head[:8]

    def used() -> str:
        text = attempt.read("shop/protos/ratings.proto")
        require(kind in text, f"shop/protos still has the old field: {text.strip()}")
        return f"{kind} stars"

    def clean() -> str:
        said = _git(attempt, "shop", "status", "--porcelain")
        require(not said, f"not committed: {said}")
        return "nothing is left to commit"

    def upstream() -> str:
        now = _git(attempt, "protos", "rev-parse", "HEAD")
        require(now == head, "the repository protos was changed")
        return "protos is unchanged"

    return [
        Claim("the shop's last commit refers to the newest commit of protos", pinned),
        Claim("the shop's work tree has the files of that commit", used),
        Claim("nothing is left to commit", clean),
        Claim("the repository protos was not changed", upstream),
    ]


def _behind_solution(attempt: Attempt) -> Sequence[Typed]:
    return [
        Typed("git -C shop submodule status"),
        Typed("git -C shop -c protocol.file.allow=always submodule --quiet update --remote protos"),
        Typed(
            "git -C shop -c user.name=learner -c user.email=learner@example.com \\\n"
            "  commit --quiet --all --message='take the wider field'"
        ),
    ]


# 15-c

_GOOD: dict[str, list[str]] = {
    "productpage": ["details", "reviews"],
    "details": [],
    "reviews": ["ratings"],
    "ratings": [],
}
_CIRCLES = {"ratings": "reviews", "details": "productpage", "reviews": "productpage"}


def _circle(attempt: Attempt) -> None:
    caller = attempt.draw("caller", sorted(_CIRCLES))
    calls = {**_GOOD, caller: [*_GOOD[caller], _CIRCLES[caller]]}
    attempt.write("calls.yaml", yaml.safe_dump(calls, sort_keys=False))


def _edges(attempt: Attempt) -> set[tuple[str, str]]:
    found = set()
    for caller, called in _yaml(attempt, "calls.yaml").items():
        require(caller in shop.SERVICES, f"there is no service {caller}")
        require(called is None or isinstance(called, list), f"the entry of {caller} is not a list of services")
        for other in called or []:
            require(other in shop.SERVICES, f"there is no service {other}")
            found.add((str(caller), str(other)))
    return found


def _circle_claims(attempt: Attempt) -> Sequence[Claim]:
    def free() -> str:
        edges = _edges(attempt)
        circular = sorted(name for name in shop.SERVICES if name in _below(edges, name))
        require(not circular, f"these services wait for each other: {', '.join(circular)}")
        return "no service waits for itself"

    def needed() -> str:
        """Observed on the running shop: the calls that a page really makes must stay possible."""
        with shop.running(attempt.lab.artifacts.path("app-bookinfo")) as books:
            made = books.during("productpage", "/productpage")
        missing = made - _edges(attempt)
        said = ", ".join(f"{a} calls {b}" for a, b in sorted(missing))
        require(not missing, f"the page makes calls that the design does not contain: {said}")
        return f"all {len(made)} calls of a page"

    def few() -> str:
        pairs = [row for row in contexts.talks(_edges(attempt), shop.SERVICES) if row["a call between them"]]
        require(len(pairs) <= 3, f"{len(pairs)} pairs of teams have to talk")
        return f"{len(pairs)} pairs of teams"

    return [
        Claim("no service waits for itself, directly or through others", free),
        Claim("every call that the product page makes is in the design", needed),
        Claim("no more than three pairs of teams have to talk", few),
    ]


def _below(edges: set[tuple[str, str]], name: str) -> set[str]:
    """The services that a service calls, directly or through others."""
    found: set[str] = set()
    rest = [name]
    while rest:
        one = rest.pop()
        new = {b for a, b in edges if a == one} - found
        found |= new
        rest += new
    return found


CHALLENGES = (
    Challenge(
        id="15-a",
        chapter=_CHAPTER,
        title="A duty in a neighbour's words",
        situation="duties.yaml describes the duty of each service in a sentence. One sentence reaches into another service's context.",
        goal="No duty uses a word that belongs to another service, and each still says what its service is about.",
        hints=(
            "Which words does each service own? They are the fields of its answers: see the table under 'Bounded contexts'.",
            "author and publisher belong to details, reviewer and text to reviews. Which other duty uses one of them?",
            "Rewrite the duty as in contexts.DUTIES: ratings keeps the ratings of a product.",
        ),
        begin=_blurred,
        claims=_blurred_claims,
        solution=lambda _: [
            Typed(f"cat > duties.yaml <<'END'\n{yaml.safe_dump(contexts.DUTIES, sort_keys=False, width=200)}END")
        ],
    ),
    Challenge(
        id="15-b",
        chapter=_CHAPTER,
        title="A submodule that is behind",
        situation="shop has the repository protos as a submodule. protos has a new commit with a wider field, but shop still "
        "uses the old one.",
        goal="The shop's last commit refers to the newest commit of protos, and its work tree has the files of that commit.",
        hints=(
            "`git -C shop submodule status` shows the commit that shop uses. `git -C protos log` shows a newer one.",
            "Moving a submodule to a newer commit takes a commit in the outer repository. `update --remote` fetches the newer one.",
            "Run `git -C shop -c protocol.file.allow=always submodule update --remote`, then commit in shop.",
        ),
        begin=_left_behind,
        claims=_behind_claims,
        solution=_behind_solution,
    ),
    Challenge(
        id="15-c",
        chapter=_CHAPTER,
        title="Services that wait for each other",
        situation="calls.yaml is a design of the bookshop: which service may call which. In this design two services wait for each "
        "other, so two teams could never change anything alone.",
        goal="No service waits for itself. The product page still gets all that it shows, and at most three pairs of teams have to talk.",
        hints=(
            "Draw the calls as arrows. From which service do the arrows lead back to it?",
            "Chapter 15 counts the calls that a page makes. The call that closes the circle is not among them.",
            "Remove the upward call from calls.yaml: a service that is called does not need to know its callers.",
        ),
        begin=_circle,
        claims=_circle_claims,
        solution=lambda _: [Typed(f"cat > calls.yaml <<'END'\n{yaml.safe_dump(_GOOD, sort_keys=False)}END")],
    ),
)
