"""Python client of a service. `AsyncClient` has the calls of `Client`, for `await` and `async for`."""

from hepfaas.client.awaited import AsyncClient
from hepfaas.client.calls import Client
from hepfaas.client.connection import Token
from hepfaas.client.status import Status

__all__ = ["AsyncClient", "Client", "Status", "Token"]
