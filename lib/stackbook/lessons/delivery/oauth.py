"""OAuth2's authorisation code flow with Gitea, hop by hop: what happens when a user opens Drone's page and signs in."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx

from stackbook.core.errors import CheckFailed
from stackbook.core.redact import Secret
from stackbook.lessons.delivery.gitea import TOLD, USER, Gitea
from stackbook.lessons.delivery.webhook_receiver import Listener


@dataclass(frozen=True)
class Application:
    """An OAuth2 application registered in Gitea."""

    name: str
    client_id: str
    client_secret: Secret
    redirect_uri: str


def register(gitea: Gitea, name: str, redirect_uri: str) -> Application:
    """Register an application of the user, like the guide does by hand in the settings."""
    values = {"name": name, "redirect_uris": [redirect_uri], "confidential_client": True}
    made = gitea.post("/user/applications/oauth2", values)
    return Application(made["name"], made["client_id"], Secret(made["client_secret"]), made["redirect_uris"][0])


@dataclass(frozen=True)
class Login:
    """The path of a login.

    Attributes:
        hops: each request, its server, and the response.
        landed: the host:port at which the browser arrived.
        user: the signed-in user according to Gitea, asked with the token that replaced the code.
    """

    hops: tuple[dict[str, Any], ...]
    landed: str
    user: str


def refused(gitea: Gitea, app: Application, redirect_uri: str) -> str:
    """Gitea's answer to a redirect URI that is not registered.

    Raises:
        CheckFailed: it accepted it.
    """
    browser = gitea.client(signed_in=True)
    answer = browser.get("/login/oauth/authorize", params=_question(app, redirect_uri, "s"))
    if answer.status_code != 400 or "location" in answer.headers:
        raise CheckFailed(f"a redirect to {redirect_uri} was not refused: status {answer.status_code}")
    for words in ("Unregistered Redirect URI",):
        if words in answer.text:
            return words
    raise CheckFailed("the redirect was refused for another reason")


def login(gitea: Gitea, app: Application, drone: Listener) -> Login:
    """Sign in through Gitea to the listener that stands in for Drone.

    Raises:
        CheckFailed: a hop did not go where the protocol says (RFC 6749, 4.1).
    """
    browser = gitea.client(signed_in=True)
    state = secrets.token_urlsafe(12)
    names = {urlsplit(gitea.url).netloc: "Gitea", drone.host: "Drone's place"}
    hops = []

    def hop(method: str, answer: httpx.Response) -> httpx.Response:
        target = urlsplit(answer.headers.get("location", ""))
        where = f"{names.get(target.netloc, target.netloc)}, {target.path}" if target.netloc else target.path
        url = answer.request.url
        hops.append({"asked": names[f"{url.host}:{url.port}"], "for": f"{method} {url.path}",
                     "status": answer.status_code, "sends the browser to": where})  # fmt: skip
        return answer

    hop("GET", browser.get("/login/oauth/authorize", params=_question(app, app.redirect_uri, state)))
    form = {"client_id": app.client_id, "redirect_uri": app.redirect_uri, "state": state, "scope": "", "nonce": ""}
    back = hop("POST", browser.post("/login/oauth/grant", data={**form, "granted": "true"}))
    location = back.headers.get("location", "")
    if back.status_code not in (302, 303) or not location.startswith(app.redirect_uri + "?"):
        raise CheckFailed(f"the grant gave status {back.status_code}, and no redirect to the application")
    with httpx.Client(trust_env=False, timeout=10, event_hooks=TOLD) as elsewhere:
        landed = hop("GET", elsewhere.get(location))
    code = parse_qs(urlsplit(location).query)
    if code.get("state") != [state]:
        raise CheckFailed("the returned state differs from the one that was sent")
    once = Secret(code["code"][0])
    values = {"grant_type": "authorization_code", "code": once.reveal(), "redirect_uri": app.redirect_uri}
    who = {"client_id": app.client_id, "client_secret": app.client_secret.reveal()}
    with httpx.Client(base_url=gitea.url, trust_env=False, timeout=10, event_hooks=TOLD) as server:
        given = hop("POST", server.post("/login/oauth/access_token", json={**values, **who}))
        given.raise_for_status()
        token = Secret(given.json()["access_token"])
        headers = {"Authorization": f"Bearer {token.reveal()}"}
        answer = hop("GET", server.get("/api/v1/user", headers=headers))
        answer.raise_for_status()
    return Login(tuple(hops), f"{landed.request.url.host}:{landed.request.url.port}", answer.json()["login"])


def _question(app: Application, redirect_uri: str, state: str) -> dict[str, str]:
    return {"client_id": app.client_id, "redirect_uri": redirect_uri, "response_type": "code", "state": state}


__all__ = ["USER", "Application", "Login", "login", "refused", "register"]
