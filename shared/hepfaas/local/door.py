"""Access at the front door of `hepfaas up`: web pages of other origins are refused, and requests without its token.

The token stays in this process. A browser exchanges it for a cookie with another secret. Functions take requests with a
third secret, so that no local user reaches them past the front door.
"""

from __future__ import annotations

import hmac
import secrets
from urllib.parse import quote, urlencode

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from hepfaas.errors import UnauthenticatedError
from hepfaas.orchestration.rules import TOKEN_PREFIX
from hepfaas.platform.browsers import Browsers
from hepfaas.platform.settings import Settings

HOP_BY_HOP = frozenset((b"connection", b"keep-alive", b"transfer-encoding", b"te", b"trailer", b"upgrade"))
HEADER = "Authorization: Bearer …"


class Door:
    """Checks requests. token: what they must carry; '' for no check."""

    def __init__(self, settings: Settings, token: str) -> None:
        self._browsers = Browsers(settings)
        self.token = token
        self._session = secrets.token_urlsafe(32)
        self.inner_token = secrets.token_urlsafe(32) if token else ""

    def login(self, request: Request) -> Response | None:
        """Return the answer to a GET with ?token=: the same address without it, and a cookie. None for other requests.

        Raises: ForbiddenError; UnauthenticatedError.
        """
        sent = request.query_params.get("token")
        if not self.token or sent is None or request.method != "GET":
            return None
        self._browsers.check(request.method, request.headers.raw)
        if not _same(sent, self.token):
            raise UnauthenticatedError("the token in the address is not the one that `hepfaas up` printed last")
        rest = urlencode([(key, value) for key, value in request.query_params.multi_items() if key != "token"])
        location = quote("/" + request.scope["path"].lstrip("/\\"))  # '//host' would lead elsewhere
        response = RedirectResponse(f"{location}?{rest}" if rest else location, 303)
        response.set_cookie(_cookie(request), self._session, path="/", httponly=True, samesite="strict")
        return response

    def passed(self, request: Request) -> list[tuple[bytes, bytes]]:
        """Return the headers of a request as its function gets them. Raises: ForbiddenError; UnauthenticatedError."""
        headers = [pair for pair in request.headers.raw if pair[0] not in HOP_BY_HOP]
        self._browsers.check(request.method, headers)
        if not self.token:
            return headers
        if (sent := request.headers.getlist("authorization")) or not self._has_session(request):
            scheme, _, token = ",".join(sent).partition(" ")
            if scheme.lower() == "bearer" and token.startswith(TOKEN_PREFIX):
                return headers  # token of a rule, which `intake` verifies
            if not (scheme.lower() == "bearer" and _same(token.strip(), self.token)):
                raise UnauthenticatedError(
                    f"send the token that `hepfaas up` printed: '{HEADER}' (commands: HEPFAAS_TOKEN), or "
                    "open the address that it printed"
                )
        kept = [pair for pair in headers if pair[0] not in (b"authorization", b"cookie")]
        return [*kept, (b"authorization", f"Bearer {self.inner_token}".encode())]

    def _has_session(self, request: Request) -> bool:
        return _same(request.cookies.get(_cookie(request), ""), self._session)


def _cookie(request: Request) -> str:
    """Return a name with the port: browsers send the cookies of a host to all its ports."""
    return f"hepfaas-{request.scope['server'][1]}"


def _same(sent: str, secret: str) -> bool:
    return hmac.compare_digest(sent.encode(), secret.encode())
