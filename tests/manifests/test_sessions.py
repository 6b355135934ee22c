"""Sessions of browsers, through the real oauth2-proxy as it is deployed: who logs in has groups, and his session goes
on while it can be renewed; a function never gets a token that has ended."""

import base64
import json
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from support.identities import Issuer, Process, log_in, oauth2_proxy_program
from support.rendered import of_kind, variables
from support.servers import LIMIT_S, free_port

pytestmark = pytest.mark.slow

LIFE_S, ON_ITS_WAY_S = 10, 2
"""Of a token, and how long a request may be on its way from the proxy when its token ends."""
SHORTEST_S = 300
"""Life of the ID tokens of Keycloak; INDIGO IAM's is 600 s."""


@dataclass
class Upstream:
    """What stands behind the proxy: remembers each token that it was given, and how long that was still good."""

    url: str = ""
    tokens: list[str] = field(default_factory=list)
    left_s: list[float] = field(default_factory=list)


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    found = Upstream()

    class Taking(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            token = self.headers["Authorization"].removeprefix("Bearer ")
            body = token.split(".")[1]
            ends = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))["exp"]
            found.tokens.append(token)
            found.left_s.append(ends - time.time())
            self.send_response(204)
            self.end_headers()

        def log_message(self, *said: object) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Taking)
    found.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield found
    server.shutdown()
    thread.join(timeout=LIMIT_S)
    server.server_close()


def deployed(overlay: str) -> tuple[str, dict[str, str]]:
    """Configuration and environment of the training proxy of an overlay."""
    (text,) = (
        one["data"]["oauth2-proxy.cfg"]
        for one in of_kind(overlay, "ConfigMap").values()
        if "oauth2-proxy.cfg" in one["data"]
    )
    (container,) = of_kind(overlay, "Deployment")["training-proxy"]["spec"]["template"]["spec"]["containers"]
    return text, variables(overlay, container)


def proxy(folder: Path, issuer: Issuer, upstream: Upstream, **other: str) -> Process:
    """The proxy of overlays/site before `upstream`, its clock as much faster as the issuer's tokens are shorter."""
    text, given = deployed("overlays/site")
    (folder / "oauth2-proxy.cfg").write_text(text)
    port = free_port()
    refresh = given["OAUTH2_PROXY_COOKIE_REFRESH"]
    assert refresh.endswith("m")
    here = {
        "HTTP_ADDRESS": f"127.0.0.1:{port}",
        "OIDC_ISSUER_URL": issuer.url,
        "UPSTREAMS": f"{upstream.url}/",
        "ALLOWED_GROUPS": "/cms/mlaas",
        "COOKIE_NAME": "session",
        "COOKIE_SECURE": "false",
        "COOKIE_REFRESH": f"{int(refresh[:-1]) * 60 * LIFE_S / SHORTEST_S:g}s",
        "REDIRECT_URL": f"http://127.0.0.1:{port}/oauth2/callback",
        **other,
    }
    command = [oauth2_proxy_program(), f"--config={folder / 'oauth2-proxy.cfg'}"]
    given |= {f"OAUTH2_PROXY_{name}": value for name, value in here.items()}
    return Process(command, port, folder / "proxy.log", given)


def ask_until(client: httpx.Client, url: str, upstream: Upstream, status: int, n_tokens: int) -> int:
    """Asks until a status is answered or so many tokens were handed on; gives the last status."""
    end = time.monotonic() + 4 * LIFE_S
    while True:
        answer = client.get(f"{url}/v1/me")
        assert answer.status_code in (204, 401), answer.text
        if answer.status_code == status or len(set(upstream.tokens)) == n_tokens:
            return answer.status_code
        assert time.monotonic() < end, f"{len(set(upstream.tokens))} tokens in {4 * LIFE_S} s"
        time.sleep(0.2)


def test_a_session_is_renewed_before_its_token_ends(tmp_path: Path, upstream: Upstream) -> None:
    with ExitStack() as stack:
        issuer = stack.enter_context(Issuer(LIFE_S))
        served = stack.enter_context(proxy(tmp_path, issuer, upstream))
        browser = stack.enter_context(httpx.Client(timeout=LIMIT_S))
        log_in(served.url, "carol", browser)
        assert ask_until(browser, served.url, upstream, 401, n_tokens=3) == 204
    assert min(upstream.left_s) > -ON_ITS_WAY_S


def test_a_session_that_cannot_be_renewed_ends_with_its_token(tmp_path: Path, upstream: Upstream) -> None:
    scope = deployed("overlays/site")[1]["OAUTH2_PROXY_SCOPE"].replace("offline_access ", "")
    with ExitStack() as stack:
        issuer = stack.enter_context(Issuer(LIFE_S))
        served = stack.enter_context(proxy(tmp_path, issuer, upstream, SCOPE=scope))
        browser = stack.enter_context(httpx.Client(timeout=LIMIT_S))
        log_in(served.url, "carol", browser)
        assert ask_until(browser, served.url, upstream, 401, n_tokens=2) == 401
        assert len(set(upstream.tokens)) == 1
        assert min(upstream.left_s) > -ON_ITS_WAY_S
        log_in(served.url, "carol", browser)
        assert browser.get(f"{served.url}/v1/me").status_code == 204


@pytest.mark.parametrize("overlay", ["base", "overlays/local", "overlays/site"])
def test_groups_are_asked_for_where_the_issuer_gives_them_by_scope(overlay: str) -> None:
    given = deployed(overlay)[1]
    asked = given["OAUTH2_PROXY_SCOPE"].split()
    assert {"openid", "email"} <= set(asked)
    assert ("wlcg.groups" in asked) == (given["OAUTH2_PROXY_OIDC_GROUPS_CLAIM"] == "wlcg.groups")
