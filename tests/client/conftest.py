"""The service of the tests of both clients and of the command line."""

import threading
from collections.abc import Iterator

import pytest
from hepfaas.client import connection
from support.servers import LIMIT_S
from support.service import Service


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    monkeypatch.setattr(connection, "BACK_OFF_S", 0.001)
    with Service() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.closed.set()
            server.shutdown()
            thread.join(LIMIT_S)
