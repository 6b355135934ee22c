"""Tokens of OpenID Connect issuers: fetches their keys, verifies what they signed. The only module that knows JWTs."""

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
"""Signatures of keys whose public half alone is known here: none that knows the public half can make one."""

LEEWAY_S = 30
"""By so much clocks may differ."""

KEYS_S, AGAIN_S, MOST_KEYS_S = 600.0, 10.0, 86_400.0
"""Keys are fetched anew when they are so old or a token names an unknown one, not more often than every AGAIN_S; those
of an issuer that does not answer count a day longer."""

MOST_TOKEN, MOST_ANSWER_BYTES = 16_384, 1_000_000
TIMEOUT_S = 5.0


class Issuer:
    """The keys of one issuer, which threads may share."""

    def __init__(self, url: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.url, self._clock = url, clock
        self._lock = threading.Lock()
        self._keys: list[Mapping[str, Any]] = []
        self._fetched = self._tried = -MOST_KEYS_S
        self._failure = ""

    def key(self, header: Mapping[str, Any]) -> RSAKey | ECKey:
        """The key that a token's header names. Raises: UnauthenticatedError if it is none of the issuer's;
        UnavailableError if the issuer does not tell its keys."""
        from joserfc.jwk import ECKey, RSAKey  # cryptography: only where there are tokens

        with self._lock:
            if self._clock() - self._fetched > KEYS_S:
                self._refresh()
            found = self._named(header)
            if not found:
                self._refresh()
                found = self._named(header)
            if self._clock() - self._fetched > MOST_KEYS_S:
                silent = f"issuer '{self.url}' does not tell its keys"
                raise UnavailableError(f"{silent}: {self._failure}", outside=silent)
        if len(found) != 1:
            raise UnauthenticatedError(f"the token is signed with a key that issuer '{self.url}' does not have")
        kind = RSAKey if found[0]["kty"] == "RSA" else ECKey
        return kind.import_key(dict(found[0]))

    def _named(self, header: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        """The keys that the header may mean."""
        alg, kid = header["alg"], header.get("kid")
        kind = "EC" if alg.startswith("ES") else "RSA"
        fitting = [
            key
            for key in self._keys
            if key.get("kty") == kind and key.get("use", "sig") == "sig" and key.get("alg", alg) == alg
        ]
        return [key for key in fitting if kid is None or key.get("kid") == kid]

    def _refresh(self) -> None:
        """Fetches the keys, unless that was just done."""
        from urllib3.exceptions import HTTPError

        if self._clock() - self._tried < AGAIN_S:
            return
        self._tried = self._clock()
        try:
            found = self._json(f"{self.url.rstrip('/')}/.well-known/openid-configuration")
            if found["issuer"] != self.url:
                raise ValueError(f"it calls itself '{found['issuer']}'")
            self._keys = [key for key in self._json(found["jwks_uri"])["keys"] if isinstance(key, dict)]
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
    """The claims of a token that one of these issuers made for one of these audiences and that holds now (seconds since
    1970).

    Raises: UnauthenticatedError saying why it does not count; UnavailableError if the issuer tells no keys.
    """
    from joserfc import jws, jwt
    from joserfc.errors import JoseError

    registry = jws.JWSRegistry(algorithms=ALGORITHMS, strict_check_header=False)  # issuers add headers of their own
    if len(token) > MOST_TOKEN:
        raise UnauthenticatedError(f"the token has more than {MOST_TOKEN} characters")
    try:
        told = jws.extract_compact(token.encode(), registry=registry)
        header, unverified = told.headers(), json.loads(told.payload)
        if header.get("alg") not in ALGORITHMS:
            raise UnauthenticatedError(f"the token's algorithm is '{str(header.get('alg'))[:20]}'; {_TAKEN}")
        issuer = issuers.get(unverified["iss"])
        if issuer is None:
            known = ", ".join(issuers)
            raise UnauthenticatedError(f"the token is of issuer '{str(unverified['iss'])[:200]}'; it takes {known}")
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
        raise UnauthenticatedError("the token is no JSON Web Token that is signed") from error
    return dict(claims)


_TAKEN = f"it takes {', '.join(ALGORITHMS)}"


def _why(error: Any, audiences: Sequence[str]) -> str:
    """What is wrong with a token, for who sent it."""
    claim = getattr(error, "claim", "")
    if error.error == "expired_token":
        return "the token has expired; take a new one"
    if claim == "aud":
        return f"the token is for another audience; ask the issuer for one for {' or '.join(audiences)}"
    if claim:
        return f"the token's claim '{claim}' is missing or does not hold now"
    return f"the token's signature does not hold: {error.error}"
