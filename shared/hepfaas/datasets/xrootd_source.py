"""Files behind XRootD servers. Owns where their servers may lead the client. The only module of its client."""

from __future__ import annotations

import os
import queue
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

import uproot

from hepfaas.datasets.addresses import check_host
from hepfaas.datasets.byte_source import ByteSource, Range
from hepfaas.datasets.reading import Endpoint
from hepfaas.errors import RequestError
from hepfaas.platform.address import Address, parsed

XROOTD_LIMITS = {
    "XRD_CONNECTIONWINDOW": "10",
    "XRD_CONNECTIONRETRY": "2",
    "XRD_REQUESTTIMEOUT": "60",
    "XRD_STREAMERRORWINDOW": "30",
    "XRD_TIMEOUTRESOLUTION": "1",
}
"""Seconds and counts: XRootD's own would let a dead endpoint hold a request for half an hour."""

VECTOR_LIMITS = (1024, 2_097_136)
"""Parts of one vector read, and bytes of each, that XRootD servers take unless they are told otherwise."""


class XRootDSource(ByteSource):
    """One file, root://. Raises: OSError with the client's text (errors.py); RequestError if its server leads where it
    may not."""

    def __init__(self, endpoint: Endpoint) -> None:
        for name, value in XROOTD_LIMITS.items():
            os.environ.setdefault(name, value)
        _forbid_metalinks()
        self._client = _Client(endpoint.url, endpoint)
        self.size_bytes = int(self._client.num_bytes)

    def fetch(self, ranges: Sequence[Range]) -> Sequence[bytes | memoryview]:
        """Return the bytes [start, stop) of each range, from where the server may lead."""
        chunks = self._client.chunks(list(ranges), queue.Queue())
        parts = [memoryview(chunk.raw_data) for chunk in chunks]
        self.check_server()
        return parts

    def check_server(self) -> None:
        """Check where the server has led the client by now. Raises: RequestError if that is where none may lead."""
        self._client.check_server()

    def close(self) -> None:
        """Close the connection."""
        self._client.__exit__(None, None, None)


class _Client(uproot.XRootDSource):  # type: ignore[misc]  # uproot has no types
    """A file behind an XRootD server. What is shown to the server stands in its own address of the file alone.

    Connections are shared by name of user: one that no one else has keeps them apart, through redirections too.
    """

    def __init__(self, file_path: str, endpoint: Endpoint, **options: Any) -> None:
        self._endpoint = endpoint
        super().__init__(file_path, **options, timeout=endpoint.limit_s)

    def _open(self) -> None:
        opened = _with_credential(self._endpoint)
        try:
            self._resource = uproot.source.xrootd.XRootDResource(opened, self._timeout)
        except OSError as error:
            raise type(error)(str(error).replace(opened, self._file_path)) from None
        self._resource._file_path = self._file_path
        self.check_server()
        # uproot asks the server for its own limits under no one's name, and so without the credential.
        if self._endpoint.credential is None:
            limits: tuple[int, int] = uproot.source.xrootd.get_server_config(self._resource.file)
        else:
            limits = VECTOR_LIMITS
        self._max_num_elements, self._max_element_size = limits
        nothing = [uproot.source.xrootd.trivial_resource() for _ in range(self._num_workers)]
        self._executor = uproot.source.futures.ResourceThreadPoolExecutor(nothing)

    def chunk(self, start: int, stop: int) -> Any:
        """One range, from where the server may lead."""
        found = super().chunk(start, stop)
        self.check_server()
        return found

    def check_server(self) -> None:
        """Check where the server has led the client by now: its client follows before anybody is asked.

        Raises: RequestError if that is a file of this machine, or a private network where none may be.
        """
        client, file = uproot.extras.XRootD_client(), self._resource.file
        last, server = (client.URL(file.get_property(name)) for name in ("LastURL", "DataServer"))
        try:
            if last.protocol == "file":
                raise RequestError(f"'{self._file_path}' leads to a file of this machine, where no server may lead")
            if server.hostname and not self._endpoint.private:
                check_host(Address("root", server.hostname.strip("[]"), server.port), allow_private=False)
        except RequestError:
            file.close(timeout=1)
            raise


def _with_credential(endpoint: Endpoint) -> str:
    """Return the address that XRootD's client opens. It sends a token with each request and logs in with a proxy."""
    found = endpoint.credential
    if found is None:
        return endpoint.url
    address = parsed(endpoint.url)
    shown = f"authz=Bearer%20{quote(found.secret, safe='')}"
    if found.kind == "x509":
        shown = f"xrd.wantprot=gsi&xrd.gsiusrpxy={found.path}"
    return f"{address.scheme}://{found.mark}@{address.place}/{address.path}?{shown}"


def _forbid_metalinks() -> None:
    """Read files named x.meta4 or x.metalink as files: their server could list others, also local ones, to be opened.

    The client reads the variable once, when it is imported, and lets nobody change what it has read there.
    """
    os.environ["XRD_METALINKPROCESSING"] = "0"
    uproot.extras.XRootD_client().EnvPutInt("MetalinkProcessing", 0)
