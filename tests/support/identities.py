"""Who asks, for tests: an issuer whose tokens may be wrong in any way, a provider that people log in at, oauth2-proxy,
and functions that ask for tokens."""

import base64
import hashlib
import hmac
import json
import os
import secrets
import shutil
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qsl, urlsplit

import httpx
from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey
from support.servers import LIMIT_S, free_port, is_open, server_binary, wait_until

ROOT = Path(__file__).parents[2]
BUILT = ROOT / ".cache" / "go" / "bin"
GROUPS = "wlcg.groups"


class Issuer:
    """Tells its keys by HTTP, while the `with` lasts, and signs what it is told to. People log in at it by name alone:
    as INDIGO IAM, it tells their groups and lets their sessions be renewed only where a client asks for these scopes.

    life_s: of the ID tokens that people get, and the second that has begun. tls: by HTTPS, at localhost.
    """

    def __init__(self, life_s: int = 600, tls: ssl.SSLContext | None = None) -> None:
        self.life_s, self._tls = life_s, tls
        self._codes: dict[str, dict[str, str]] = {}
        self.keys = [
            RSAKey.generate_key(2048, {"kid": "one", "use": "sig"}),
            ECKey.generate_key("P-256", {"kid": "ec"}),
        ]
        self.asked = 0
        self.away = False

    def __enter__(self) -> Self:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        if self._tls:
            self._server.socket = self._tls.wrap_socket(self._server.socket, server_side=True)
            self.url = f"https://localhost:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, name="issuer")
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._thread.join(timeout=LIMIT_S)
        self._server.server_close()

    def claims(self, subject: str = "alice", **other: Any) -> dict[str, Any]:
        """Those of a good token; None: without that one."""
        now = int(time.time())
        usual = {"iss": self.url, "sub": subject, "aud": "training", "iat": now, "exp": now + 600}
        return {name: value for name, value in {**usual, **other}.items() if value is not None}

    def token(self, subject: str = "alice", alg: str = "RS256", key: int = 0, **claims: Any) -> str:
        """A token, good but for the claims that are given."""
        signing = self.keys[key]
        header = {"alg": alg, "kid": signing.kid, "typ": "JWT"}
        return jwt.encode(header, self.claims(subject, **claims), signing, algorithms=[alg])

    def unsigned(self) -> str:
        """A good token but for its algorithm, 'none'."""
        return f"{_part({'alg': 'none', 'kid': 'one'})}.{_part(self.claims())}."

    def signed_with_the_public_key(self) -> str:
        """A good token but for its algorithm, HS256: its secret is what everybody knows."""
        what = f"{_part({'alg': 'HS256', 'kid': 'one'})}.{_part(self.claims())}"
        secret = self.keys[0].as_pem(private=False)
        return f"{what}.{_base64(hmac.new(secret, what.encode(), hashlib.sha256).digest())}"

    def _redeemed(self, form: Mapping[str, str]) -> dict[str, Any]:
        """Tokens for a code, or for a refresh token, each of which counts once."""
        found = self._codes.pop(form.get("code") or form.get("refresh_token", ""), None)
        if found is None:
            return {"error": "invalid_grant"}
        scopes = found["scope"].split()
        groups = {GROUPS: ["/cms/mlaas"]} if GROUPS in scopes else {}
        told = {"aud": found["client_id"], "email": f"{found['sub']}@x.example", "nonce": found["nonce"], **groups}
        token = self.token(found["sub"], exp=int(time.time()) + 1 + self.life_s, **told)
        more = {}
        if "offline_access" in scopes:
            more["refresh_token"] = secrets.token_hex(16)
            self._codes[more["refresh_token"]] = found
        return {
            "access_token": secrets.token_hex(16),
            "token_type": "Bearer",
            "expires_in": 3600,
            "id_token": token,
            **more,
        }

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        issuer = self

        class Telling(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.asked += 1
                if self.path == "/keys":
                    told: dict[str, Any] = {"keys": [key.as_dict(private=False) for key in issuer.keys]}
                else:
                    told = {"issuer": issuer.url, "jwks_uri": f"{issuer.url}/keys"}
                    told |= {f"{name}_endpoint": f"{issuer.url}/{name}" for name in ("authorization", "token")}
                self._tell(503 if issuer.away else 200, told)

            def do_POST(self) -> None:
                url = urlsplit(self.path)
                form = dict(parse_qsl(self.rfile.read(int(self.headers["Content-Length"])).decode()))
                if url.path == "/token":
                    told = issuer._redeemed(form)
                    self._tell(200 if "id_token" in told else 400, told)
                    return
                asked, code = dict(parse_qsl(url.query)), secrets.token_hex(16)
                issuer._codes[code] = {**asked, **form}
                self.send_response(302)
                self.send_header("Location", f"{asked['redirect_uri']}?code={code}&state={asked['state']}")
                self.end_headers()

            def _tell(self, status: int, told: Mapping[str, Any]) -> None:
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.end_headers()
                self.wfile.write(json.dumps(told).encode())

            def log_message(self, *said: object) -> None:
                """Says nothing."""

        return Telling


class Process:
    """A server of a test, while the `with` lasts; its output is in `log`."""

    def __init__(self, command: list[str], port: int, log: Path, variables: Mapping[str, str]) -> None:
        self._command, self._port, self.log, self._variables = command, port, log, variables
        self.url = f"http://127.0.0.1:{port}"

    def __enter__(self) -> Self:
        with self.log.open("wb") as log:
            environ = {**os.environ, **self._variables}
            self._process = subprocess.Popen(self._command, env=environ, stdout=log, stderr=log)
        try:
            wait_until(lambda: is_open(self._port), self._process, f"{self._command[0]}: {self.log}")
        except BaseException:
            self.__exit__()
            raise
        return self

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def __exit__(self, *error: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(timeout=LIMIT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(timeout=LIMIT_S)


def provider(folder: Path) -> Process:
    """oidc-provider-mock: people log in at it, by name alone."""
    port = free_port()
    command = [server_binary("oidc-provider-mock", "PyPI oidc-provider-mock"), "--port", str(port)]
    return Process(command, port, folder / "provider.log", {})


def oauth2_proxy_program() -> str:
    """Path of oauth2-proxy, by the rule of `server_binary`; tests/build-oauth2-proxy builds it."""
    return shutil.which("oauth2-proxy", path=BUILT) or server_binary("oauth2-proxy", "tests/build-oauth2-proxy")


def oauth2_proxy(folder: Path, audience: str, issuer: str, upstream: str, **variables: str) -> Process:
    """oauth2-proxy before a function: for browsers a login at the issuer as the client '<audience>-login', for programs
    tokens for the audience.

    The audience is no entry of extra-jwt-issuers: of those, it knows the claim 'groups' alone. A bad token falls back
    to a login, which api-route turns into 401: else it is 403 and no JSON.
    """
    port = free_port()
    options = {
        "provider": "oidc",
        "oidc-issuer-url": issuer,
        "client-id": f"{audience}-login",
        "oidc-extra-audience": audience,
        "client-secret": "of-the-tests",
        "scope": "openid profile email",
        "oidc-groups-claim": GROUPS,
        "allowed-group": "/cms/mlaas",
        "email-domain": "*",
        "code-challenge-method": "S256",
        "insecure-oidc-skip-nonce": "false",
        "cookie-secret": "0123456789abcdef0123456789abcdef",
        "cookie-secure": "false",
        "skip-jwt-bearer-tokens": "true",
        "bearer-token-login-fallback": "true",
        "api-route": "^/",
        "force-json-errors": "true",
        "pass-authorization-header": "true",
        "redirect-url": f"http://127.0.0.1:{port}/oauth2/callback",
        "http-address": f"127.0.0.1:{port}",
        "upstream": upstream,
    }
    command = [oauth2_proxy_program(), *(f"--{name}={value}" for name, value in options.items())]
    return Process(command, port, folder / f"proxy-{audience}-{port}.log", variables)


def function(folder: Path, name: str, **variables: str) -> Process:
    """A function as in a pod."""
    port = free_port()
    main = ROOT / "functions" / name / "main.py"
    given = {
        "HEPFAAS_STORE": str(folder / "store"),
        "K_SINK": "http://127.0.0.1:9/",
        "FUNCTION_TARGET": name,
        "FUNCTION_SOURCE": str(main),
        "HOST": "127.0.0.1",
        "PORT": str(port),
        "WORKERS": "1",
        "THREADS": "3",
        **variables,
    }
    own = [str(main)] if name == "predict-grpc" else ["-m", "functions_framework"]
    return Process([sys.executable, *own], port, folder / f"{name}-{port}.log", given)


def log_in(proxy: str, subject: str, client: httpx.Client) -> httpx.Response:
    """What a browser does: to the login page, a name, and back with a session; gives the page that sent it there."""
    begun = client.get(f"{proxy}/oauth2/start", params={"rd": "/v1/me"})
    assert begun.status_code == 302, begun.text
    back = client.post(begun.headers["location"], data={"sub": subject})
    assert back.status_code == 302, back.text
    done = client.get(back.headers["location"])
    assert done.status_code == 302, done.text
    return begun


def _part(values: Mapping[str, Any]) -> str:
    return _base64(json.dumps(values).encode())


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
