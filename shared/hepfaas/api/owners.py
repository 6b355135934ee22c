"""The caller, the list of owners for admins, and credentials for file servers."""

from __future__ import annotations

from collections.abc import Iterator

from flask import Response
from werkzeug.exceptions import NotFound

from hepfaas.api.bodies import body_object
from hepfaas.api.context import Context
from hepfaas.errors import ForbiddenError, RequestError
from hepfaas.platform.credentials import KINDS, credential_of
from hepfaas.platform.http import json_answer
from hepfaas.platform.routes import Route
from hepfaas.platform.storage import Store

MOST_CREDENTIAL_BYTES = 100_000


def show_caller(context: Context) -> Response:
    """The caller: owner, groups and permissions."""
    return json_answer(context.caller.to_json())


def list_owners(context: Context) -> Response:
    """All owners, for admins, who may name one of them in the header Hepfaas-Owner."""
    if not context.caller.is_admin:
        raise ForbiddenError("only an admin may list owners")
    return json_answer({"owners": list(_owners(context.root))})


def list_credentials(context: Context) -> Response:
    """The hosts for which the owner has credentials, with kind and expiry; never the secrets."""
    return json_answer({"credentials": [credential.to_json() for credential in context.vault.all()]})


def put_credential(context: Context) -> Response:
    """Store a credential for one host, in place of an earlier one; it is used to read the owner's files there."""
    context.quotas.check_bytes(context.owner)
    if not context.vault.keys:
        raise RequestError("this service stores no credentials: its operator has not set HEPFAAS_CREDENTIALS_KEY")
    credential = credential_of(body_object(context.request, MOST_CREDENTIAL_BYTES))
    context.vault.put(credential)
    return json_answer(credential.to_json(), 201)


def delete_credential(context: Context, host: str) -> Response:
    """Delete the credential for a host."""
    if not context.vault.delete(host.lower()):
        raise NotFound(f"there is no credential for host '{host}'; GET /v1/credentials lists them")
    return Response(status=204)


def _owners(root: Store) -> Iterator[str]:
    """Yield the first parts of keys that have runs, models, rules or folders; one listing call finds the next one."""
    after = ""
    while key := next(iter(root.keys("", after)), None):
        name = key.split("/")[0]
        if any(next(iter(root.keys(f"{name}/{kind}/")), None) for kind in ("newest", "models", "rules", "folders")):
            yield name
        after = f"{name}0"  # '0' follows '/'


CREDENTIAL = {
    "type": "object",
    "required": ["host", "kind", "secret"],
    "additionalProperties": False,
    "properties": {
        "host": {"type": "string", "description": "the server's name, without a port"},
        "kind": {"type": "string", "enum": list(KINDS)},
        "secret": {
            "type": "string",
            "writeOnly": True,
            "description": "the token; a proxy with its key and chain, PEM",
        },
        "expires": {"type": "number", "description": "seconds since 1970, if the secret does not say"},
    },
}

ROUTES = (
    Route("GET", "/v1/me", show_caller),
    Route("GET", "/v1/owners", list_owners),
    Route("POST", "/v1/credentials", put_credential, bodies={"application/json": CREDENTIAL}, status=201),
    Route("GET", "/v1/credentials", list_credentials),
    Route("DELETE", "/v1/credentials/<host>", delete_credential, status=204),
)
