"""Chapter 13: a pipeline that leaks a secret, two services that disagree, a webhook that anybody can call."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import subprocess
import sys
from collections.abc import Sequence

from stackbook.core import temp_dirs
from stackbook.core.errors import CheckFailed
from stackbook.lab.attempt import Attempt
from stackbook.lab.challenge import Challenge, Claim, Typed, require
from stackbook.lessons.delivery import compose, guide_files, pipeline

_CHAPTER = "13-delivery"

# 13-a

_WORDS = ("swordfish", "open-sesame", "abracadabra")
_NAME, _PASS = "docker_user", "docker_pass"


def _leaking(word: str) -> str:
    return f"""\
kind: pipeline
type: docker
name: default

steps:
  - name: build
    image: node:24
    environment:
      REGISTRY_WORD: {word}
    commands:
      - echo "log in with $REGISTRY_WORD"
      - mkdir -p dist && echo built > dist/index.html

  - name: docker
    image: plugins/docker
    settings:
      username:
        from_secret: {_NAME}
      password: {word}
      repo: registry.example.com/team/shop
      tags: latest
"""


_TIGHT = f"""\
kind: pipeline
type: docker
name: default

steps:
  - name: build
    image: node:24
    commands:
      - mkdir -p dist && echo built > dist/index.html

  - name: docker
    image: plugins/docker
    settings:
      username:
        from_secret: {_NAME}
      password:
        from_secret: {_PASS}
      repo: registry.example.com/team/shop
      tags: latest
"""


def _leak(attempt: Attempt) -> None:
    word = attempt.draw("word", _WORDS)
    attempt.write(".drone.yml", _leaking(word))


def _pipeline(attempt: Attempt) -> pipeline.Pipeline:
    return pipeline.parse(attempt.read(".drone.yml"))


def _leak_claims(attempt: Attempt) -> Sequence[Claim]:
    word = attempt.drawn["word"]

    def hidden() -> str:
        lines = [n for n, line in enumerate(attempt.read(".drone.yml").splitlines(), 1) if word in line]
        require(not lines, f"the password is in line {', '.join(map(str, lines))}")
        return "not in the file"

    def asked() -> str:
        step = next((s for s in _pipeline(attempt).steps if s.name == "docker"), None)
        if step is None:
            raise CheckFailed("the pipeline no longer has a step docker")
        got = {name: step.settings.get(name) for name in ("username", "password")}
        wanted = {"username": {"from_secret": _NAME}, "password": {"from_secret": _PASS}}
        wrong = [name for name in wanted if got[name] != wanted[name]]
        require(not wrong, f"{' and '.join(wrong)} should come from Drone's secrets")
        return f"{_NAME} and {_PASS} come from Drone's secrets"

    def silent() -> str:
        """Run the pipeline, and search its output for the password."""
        steps = _pipeline(attempt)
        with temp_dirs.folder("pipeline") as folder:
            (folder / "work").mkdir()
            done = pipeline.run(
                steps, folder / "work", repository="team/shop", cache=folder / "cache", env={"PATH": os.defpath}
            )
            built = (folder / "work" / "dist" / "index.html").is_file()
        said = "\n".join(line for one in done for line in one.said)
        require(word not in said, "the log of the build contains the password")
        require(built and done[0].outcome == "success", f"the build fails: {said[-150:]}")
        return "the build passes, and its log does not contain the password"

    return [
        Claim("the password is not in the file", hidden),
        Claim("the step docker takes user name and password from Drone's secrets", asked),
        Claim("the build passes, and does not print the password", silent),
    ]


# 13-b

_OF_YOUR_OWN = {name: value or "of-your-own" for name, value in guide_files.ENV.items()}
_FALLBACKS = (("", "secret"), ("changeme", ""), ("one", "two"))
_SECRET = "DRONE_RPC_SECRET"


def _apart(attempt: Attempt) -> None:
    server, runner = attempt.draw("fallbacks", [list(pair) for pair in _FALLBACKS])
    text = guide_files.today("drone-compose")
    needed = "${" + _SECRET + ":?openssl rand -hex 16}"
    for fallback in (server, runner):
        text = text.replace(needed, "${" + f"{_SECRET}:-{fallback}" + "}", 1)
    attempt.write("compose.yaml", text)


def _apart_claims(attempt: Attempt) -> Sequence[Claim]:
    program = attempt.lab.artifacts.path("compose-config")
    names = ("drone-server", "drone-runner")

    def read(env: dict[str, str]) -> compose.Config:
        return compose.config(program, attempt.read("compose.yaml"), env)

    def agreed() -> str:
        found = read({**_OF_YOUR_OWN, _SECRET: "the-same"})
        require(not found.error, found.error.splitlines()[0] if found.error else "")
        missing = [name for name in names if name not in found.model.get("services", {})]
        require(not missing, f"there is no service {', '.join(missing)}")
        got = [found.variable(name, _SECRET) for name in names]
        require(got == ["the-same"] * 2, f"{_SECRET} does not have the value from .env in both services")
        return "the same secret in both services"

    def refused() -> str:
        env = {name: value for name, value in _OF_YOUR_OWN.items() if name != _SECRET}
        found = read(env)
        if not found.error:
            got = [found.variable(name, _SECRET) or "empty" for name in names]
            raise CheckFailed(f"without {_SECRET} the services start, with {' and '.join(got)}")
        require(_SECRET in found.error, f"the file is refused for another reason: {found.error[:120]}")
        return "refused"

    return [
        Claim("with .env, server and runner have the same secret", agreed),
        Claim("without the secret, nothing starts, and the error names the variable", refused),
    ]


def _apart_solution(attempt: Attempt) -> Sequence[Typed]:
    return [
        Typed(f"grep -n {_SECRET} compose.yaml"),
        Typed("sed -i 's/${" + _SECRET + ":-[^}]*}/${" + _SECRET + ":?openssl rand -hex 16}/' compose.yaml"),
    ]


# 13-c

_FILE = "webhook.py"
_OPEN = '''"""Is this webhook from Gitea? It signs the body: HMAC-SHA256 with the shared secret, in hexadecimal."""


def accepted(body: bytes, signature: str, secret: bytes) -> bool:
    return {what}
'''
_WEAK = ("bool(signature)", "len(signature) == 64", "signature is not None")
_STRONG = '''"""Is this webhook from Gitea? It signs the body: HMAC-SHA256 with the shared secret, in hexadecimal."""

import hashlib
import hmac


def accepted(body: bytes, signature: str, secret: bytes) -> bool:
    wanted = hmac.new(secret, body, hashlib.sha256).hexdigest()
    return hmac.compare_digest(wanted, signature)
'''
_ASK = """\
import importlib.util, json, sys
spec = importlib.util.spec_from_file_location("webhook", sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
cases = json.load(sys.stdin)
print(json.dumps([bool(module.accepted(b.encode(), s, k.encode())) for b, s, k in cases]))
"""


def _open_door(attempt: Attempt) -> None:
    attempt.write(_FILE, _OPEN.format(what=attempt.draw("what", _WEAK)))


def _door_claims(attempt: Attempt) -> Sequence[Claim]:
    body, key = '{"ref": "refs/heads/main"}', "shared"
    good = hmac.new(key.encode(), body.encode(), hashlib.sha256).hexdigest()
    other = hmac.new(b"guessed", body.encode(), hashlib.sha256).hexdigest()
    cases = {
        "signed by Gitea": (body, good, key),
        "another body with the same signature": (body.replace("main", "evil"), good, key),
        "signed with another secret": (body, other, key),
        "without a signature": (body, "", key),
    }

    def answers() -> dict[str, bool]:
        attempt.read(_FILE)
        try:
            done = subprocess.run(
                [sys.executable, "-c", _ASK, str(attempt.folder / _FILE)], input=json.dumps(list(cases.values())),
                capture_output=True, text=True, timeout=20, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise CheckFailed(f"{_FILE} did not finish within 20 s") from error
        try:
            return dict(zip(cases, json.loads(done.stdout.splitlines()[-1]), strict=True))
        except (ValueError, IndexError) as error:
            raise CheckFailed(
                f"{_FILE} fails: {(done.stderr.strip().splitlines() or ['no output'])[-1][:150]}"
            ) from error

    def let_in() -> str:
        require(answers()["signed by Gitea"], "the webhook is refused")
        return "accepted"

    def kept_out() -> str:
        wrong = [name for name, said in answers().items() if said and name != "signed by Gitea"]
        require(not wrong, f"accepted: {'; '.join(wrong)}")
        return "three other webhooks are refused"

    return [Claim("a webhook that Gitea signed is accepted", let_in), Claim("no other webhook is accepted", kept_out)]


CHALLENGES = (
    Challenge(
        id="13-a",
        chapter=_CHAPTER,
        title="A pipeline that leaks a secret",
        situation="The pipeline in .drone.yml logs in to a registry. Everybody who can read the repository or the log of a build "
        "can read the password.",
        goal="The pipeline still builds and still logs in. The password is neither in the file nor in the log.",
        hints=(
            "Where is the password written, and which step prints it?",
            "Drone can store secrets. A setting refers to one with from_secret, as username does.",
            "Set password to `from_secret: docker_pass`. Remove the variable and its echo from the step build.",
        ),
        begin=_leak,
        claims=_leak_claims,
        solution=lambda _: [Typed(f"cat > .drone.yml <<'END'\n{_TIGHT}END")],
    ),
    Challenge(
        id="13-b",
        chapter=_CHAPTER,
        title="Two services that disagree",
        situation="Drone's server and runner start from compose.yaml, but no build ever starts. There is no .env beside it, and "
        "no error said so.",
        goal="With .env, both have the same secret. Without it, nothing starts, and the error says what is missing.",
        hints=(
            "What is DRONE_RPC_SECRET in each service when .env does not set it?",
            "${NAME:-value} uses a default when NAME is not set. So two services can have two different values.",
            "With ${NAME:?message}, Compose refuses to start instead. Use it in both services.",
        ),
        begin=_apart,
        claims=_apart_claims,
        solution=_apart_solution,
    ),
    Challenge(
        id="13-c",
        chapter=_CHAPTER,
        title="A webhook that anybody can call",
        situation="webhook.py decides whether a build starts. It accepts every webhook that has a signature, even a made-up one.",
        goal="A webhook that Gitea signed is accepted. One with another body, another secret or no signature is refused.",
        hints=(
            "Gitea signs the body with a secret that both sides know. Chapter 13 checks such a signature under 'push'.",
            "The signature is HMAC-SHA256 of the body, in hexadecimal: `hmac.new(secret, body, hashlib.sha256)`.",
            "Compare with hmac.compare_digest(…hexdigest(), signature): it takes the same time for every wrong signature.",
        ),
        begin=_open_door,
        claims=_door_claims,
        solution=lambda _: [Typed(f"cat > {_FILE} <<'END'\n{_STRONG}END")],
    ),
)
