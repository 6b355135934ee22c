"""Tokens of OpenID Connect issuers: fetches the keys of issuers and verifies tokens. The only module for JWTs."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hepfaas.errors import UnauthenticatedError, UnavailableError

if TYPE_CHECKING:
    from joserfc.jwk import ECKey, RSAKey

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512")
"""Asymmetric signatures only: the public key does not permit to sign."""

LEEWAY_S = 30
"""Permitted difference of clocks."""

KEYS_S, AGAIN_S, MOST_KEYS_S = 600.0, 10.0, 86_400.0
"""Keys are fetched again after KEYS_S or when a token names an unknown key, at most every AGAIN_S; the keys of an
issuer that does not answer are used for up to MOST_KEYS_S."""

MOST_TOKEN, MOST_ANSWER_BYTES = 16_384, 1_000_000
TIMEOUT_S = 5.0


class Issuer:
    """The keys of one issuer. Threads may share it."""

    def __init__(self, url: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.url, self._clock = url, clock
        self._lock = threading.Lock()
        self._keys: list[Mapping[str, Any]] = []
        self._fetched = self._tried = -MOST_KEYS_S
        self._failure = ""

    def key(self, header: Mapping[str, Any]) -> RSAKey | ECKey:
        """Return the key that a token's header names. Raises: UnauthenticatedError if the issuer does not have it;
        UnavailableError if the issuer does not answer."""
        from joserfc.jwk import ECKey, RSAKey  # cryptography: only where there are tokens

        with self._lock:
            if self._clock() - self._fetched > KEYS_S:
                self._refresh()
            keys = self._matching(header)
            if not keys:
                self._refresh()
                keys = self._matching(header)
            if self._clock() - self._fetched > MOST_KEYS_S:
                silent = f"issuer '{self.url}' does not send its keys"
                raise UnavailableError(f"{silent}: {self._failure}", outside=silent)
        if len(keys) != 1:
            raise UnauthenticatedError(f"the token is signed with a key that issuer '{self.url}' does not have")
        kind = RSAKey if keys[0]["kty"] == "RSA" else ECKey
        return kind.import_key(dict(keys[0]))

    def _matching(self, header: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        """Return the keys that match the header."""
        alg, kid = header["alg"], header.get("kid")
        kind = "EC" if alg.startswith("ES") else "RSA"
        usable = [
            key
            for key in self._keys
            if key.get("kty") == kind and key.get("use", "sig") == "sig" and key.get("alg", alg) == alg
        ]
        return [key for key in usable if kid is None or key.get("kid") == kid]

    def _refresh(self) -> None:
        """Fetch the keys, unless that was tried within AGAIN_S."""
        from urllib3.exceptions import HTTPError

        if self._clock() - self._tried < AGAIN_S:
            return
        self._tried = self._clock()
        try:
            document = self._json(f"{self.url.rstrip('/')}/.well-known/openid-configuration")
            if document["issuer"] != self.url:
                raise ValueError(f"it calls itself '{document['issuer']}'")
            self._keys = [key for key in self._json(document["jwks_uri"])["keys"] if isinstance(key, dict)]
        except (HTTPError, ValueError, KeyError, TypeError, AttributeError) as error:
            self._failure = str(error)
            return
        self._fetched = self._clock()

    def _json(self, url: str) -> Any:
        import urllib3  # only where there are tokens

        timeout = urllib3.Timeout(connect=TIMEOUT_S, read=TIMEOUT_S)
        with urllib3.PoolManager(timeout=timeout, retries=False) as pool:
            answer = pool.request("GET", url, preload_content=False)
            if answer.status != 200:
                raise ValueError(f"'{url}' answers {answer.status}")
            return json.loads(answer.read(MOST_ANSWER_BYTES))


def verified(token: str, issuers: Mapping[str, Issuer], audiences: Sequence[str], now: float) -> dict[str, Any]:
    """Return the claims of a token of one of these issuers, for one of these audiences, that is valid now (seconds
    since 1970).

    Raises: UnauthenticatedError with the reason; UnavailableError if the issuer does not send its keys.
    """
    from joserfc import jws, jwt
    from joserfc.errors import JoseError

    registry = jws.JWSRegistry(algorithms=ALGORITHMS, strict_check_header=False)  # issuers add other headers
    if len(token) > MOST_TOKEN:
        raise UnauthenticatedError(f"the token has more than {MOST_TOKEN} characters")
    try:
        parts = jws.extract_compact(token.encode(), registry=registry)
        header, unverified = parts.headers(), json.loads(parts.payload)
        if header.get("alg") not in ALGORITHMS:
            raise UnauthenticatedError(f"the token's algorithm is '{str(header.get('alg'))[:20]}'; {_ACCEPTED}")
        issuer = issuers.get(unverified["iss"])
        if issuer is None:
            known = ", ".join(issuers)
            raise UnauthenticatedError(f"the token is of issuer '{str(unverified['iss'])[:200]}'; accepted: {known}")
        claims = json.loads(jws.deserialize_compact(token, issuer.key(header), registry=registry).payload)
        jwt.JWTClaimsRegistry(
            now=int(now),
            leeway=LEEWAY_S,
            iss={"essential": True, "value": issuer.url},
            sub={"essential": True},
            exp={"essential": True},
            aud={"essential": True, "values": list(audiences)},
        ).validate(claims)
    except JoseError as error:
        raise UnauthenticatedError(_why(error, audiences)) from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UnauthenticatedError("the token is not a signed JSON Web Token") from error
    return dict(claims)


_ACCEPTED = f"accepted: {', '.join(ALGORITHMS)}"


def _why(error: Any, audiences: Sequence[str]) -> str:
    """Return the reason why a token is not valid, for its sender."""
    claim = getattr(error, "claim", "")
    if error.error == "expired_token":
        return "the token has expired; get a new one"
    if claim == "aud":
        return f"the token is for another audience; ask the issuer for one for {' or '.join(audiences)}"
    if claim:
        return f"the token's claim '{claim}' is missing or not valid now"
    return f"the token's signature is not valid: {error.error}"
