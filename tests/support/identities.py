"""Identities for tests: an issuer of valid and invalid tokens, a login provider, oauth2-proxy, and functions that check
tokens."""

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
    """An OpenID Connect issuer, as a context manager; it signs any claims and lets people log in by name alone.

    Like INDIGO IAM, it reveals groups and renews sessions only if a client requests these scopes. life_s: lifetime of
    ID tokens, rounded up to the next second. tls: serve HTTPS at localhost. n_requests: GET requests so far. is_away:
    answer 503.
    """

    def __init__(self, life_s: int = 600, tls: ssl.SSLContext | None = None) -> None:
        self.life_s, self._tls = life_s, tls
        self._codes: dict[str, dict[str, str]] = {}
        self.keys = [
            RSAKey.generate_key(2048, {"kid": "one", "use": "sig"}),
            ECKey.generate_key("P-256", {"kid": "ec"}),
        ]
        self.n_requests = 0
        self.is_away = False

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
        """Return the claims of a valid token, with changes; None removes a claim."""
        now = int(time.time())
        valid = {"iss": self.url, "sub": subject, "aud": "training", "iat": now, "exp": now + 600}
        return {name: value for name, value in {**valid, **other}.items() if value is not None}

    def token(self, subject: str = "alice", alg: str = "RS256", key: int = 0, **claims: Any) -> str:
        """Return a token that is valid except for these claims."""
        signing = self.keys[key]
        header = {"alg": alg, "kid": signing.kid, "typ": "JWT"}
        return jwt.encode(header, self.claims(subject, **claims), signing, algorithms=[alg])

    def unsigned(self) -> str:
        """Return a token that is valid except for its algorithm, 'none'."""
        return f"{_part({'alg': 'none', 'kid': 'one'})}.{_part(self.claims())}."

    def signed_with_the_public_key(self) -> str:
        """Return a token that is valid except for its algorithm: HS256 with the public key as secret."""
        signed = f"{_part({'alg': 'HS256', 'kid': 'one'})}.{_part(self.claims())}"
        secret = self.keys[0].as_pem(private=False)
        return f"{signed}.{_base64(hmac.new(secret, signed.encode(), hashlib.sha256).digest())}"

    def _redeemed(self, form: Mapping[str, str]) -> dict[str, Any]:
        """Return tokens for a code or a refresh token, each of which is valid once."""
        grant = self._codes.pop(form.get("code") or form.get("refresh_token", ""), None)
        if grant is None:
            return {"error": "invalid_grant"}
        scopes = grant["scope"].split()
        groups = {GROUPS: ["/cms/mlaas"]} if GROUPS in scopes else {}
        claims = {"aud": grant["client_id"], "email": f"{grant['sub']}@x.example", "nonce": grant["nonce"], **groups}
        token = self.token(grant["sub"], exp=int(time.time()) + 1 + self.life_s, **claims)
        more = {}
        if "offline_access" in scopes:
            more["refresh_token"] = secrets.token_hex(16)
            self._codes[more["refresh_token"]] = grant
        return {
            "access_token": secrets.token_hex(16),
            "token_type": "Bearer",
            "expires_in": 3600,
            "id_token": token,
            **more,
        }

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.n_requests += 1
                if self.path == "/keys":
                    answer: dict[str, Any] = {"keys": [key.as_dict(private=False) for key in issuer.keys]}
                else:
                    answer = {"issuer": issuer.url, "jwks_uri": f"{issuer.url}/keys"}
                    answer |= {f"{name}_endpoint": f"{issuer.url}/{name}" for name in ("authorization", "token")}
                self._answer(503 if issuer.is_away else 200, answer)

            def do_POST(self) -> None:
                url = urlsplit(self.path)
                form = dict(parse_qsl(self.rfile.read(int(self.headers["Content-Length"])).decode()))
                if url.path == "/token":
                    answer = issuer._redeemed(form)
                    self._answer(200 if "id_token" in answer else 400, answer)
                    return
                query, code = dict(parse_qsl(url.query)), secrets.token_hex(16)
                issuer._codes[code] = {**query, **form}
                self.send_response(302)
                self.send_header("Location", f"{query['redirect_uri']}?code={code}&state={query['state']}")
                self.end_headers()

            def _answer(self, status: int, answer: Mapping[str, Any]) -> None:
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.end_headers()
                self.wfile.write(json.dumps(answer).encode())

            def log_message(self, *arguments: object) -> None:
                """Log nothing."""

        return Handler


class Process:
    """A server of a test, as a context manager; its output is in `log`."""

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
        """The process ID."""
        return self._process.pid

    def __exit__(self, *error: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(timeout=LIMIT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(timeout=LIMIT_S)


def provider(folder: Path) -> Process:
    """Return oidc-provider-mock, at which people log in by name alone."""
    port = free_port()
    command = [server_binary("oidc-provider-mock", "PyPI oidc-provider-mock"), "--port", str(port)]
    return Process(command, port, folder / "provider.log", {})


def oauth2_proxy_program() -> str:
    """Return the path of oauth2-proxy by the rule of `server_binary`; tests/build-oauth2-proxy builds it."""
    return shutil.which("oauth2-proxy", path=BUILT) or server_binary("oauth2-proxy", "tests/build-oauth2-proxy")


def oauth2_proxy(folder: Path, audience: str, issuer: str, upstream: str, **variables: str) -> Process:
    """Return oauth2-proxy in front of a function: browsers log in at the issuer as the client '<audience>-login',
    programs send tokens for the audience.

    The audience is not an entry of extra-jwt-issuers, since the proxy reads only the claim 'groups' of those. A bad
    token falls back to a login, which api-route turns into 401; otherwise the answer would be 403 without JSON.
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
    """Return the process of a function, as in a pod."""
    port = free_port()
    main = ROOT / "functions" / name / "main.py"
    environ = {
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
    program = [str(main)] if name == "predict-grpc" else ["-m", "functions_framework"]
    return Process([sys.executable, *program], port, folder / f"{name}-{port}.log", environ)


def log_in(proxy: str, subject: str, client: httpx.Client) -> httpx.Response:
    """Log in as a browser does, and return the proxy's redirect to the login page."""
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
