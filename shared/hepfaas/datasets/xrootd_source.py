"""Files on XRootD servers. Owns the checks of redirections. The only module that uses the XRootD client."""

from __future__ import annotations

import functools
import os
import queue
import threading
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

import uproot

from hepfaas.datasets.address_checks import check_host
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
"""Seconds and counts: with XRootD's defaults a dead endpoint blocks a request for half an hour."""

_CONFIGURING = threading.Lock()

LISTING_S = 60
"""Longest time for the listing of one folder."""

VECTOR_LIMITS = (1024, 2_097_136)
"""Parts of one vector read and bytes of each: the defaults of XRootD servers."""


class XRootDSource(ByteSource):
    """One file, root://. Raises: OSError with the client's text (errors.py); RequestError if its server redirects to a
    forbidden address."""

    def __init__(self, endpoint: Endpoint) -> None:
        with _CONFIGURING:
            _configure_client()
        self._client = _Client(endpoint.url, endpoint)
        self.size_bytes = int(self._client.num_bytes)

    def fetch(self, ranges: Sequence[Range]) -> Sequence[bytes | memoryview]:
        """Return the bytes [start, stop) of each range, and check where they came from."""
        chunks = self._client.chunks(list(ranges), queue.Queue())
        parts = [memoryview(chunk.raw_data) for chunk in chunks]
        self.check_server()
        return parts

    def check_server(self) -> None:
        """Check where the server has redirected the client so far. Raises: RequestError if that is forbidden."""
        self._client.check_server()

    def close(self) -> None:
        """Close the connection."""
        self._client.__exit__(None, None, None)


class _Client(uproot.XRootDSource):  # type: ignore[misc]  # uproot has no types
    """A file on an XRootD server. Only the address that the client opens contains the credential.

    The client shares connections by user name: a unique name separates them, also after redirections.
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
        # uproot asks the server for its limits over a connection without the credential.
        if self._endpoint.credential is None:
            limits: tuple[int, int] = uproot.source.xrootd.get_server_config(self._resource.file)
        else:
            limits = VECTOR_LIMITS
        self._max_num_elements, self._max_element_size = limits
        workers = [uproot.source.xrootd.trivial_resource() for _ in range(self._num_workers)]
        self._executor = uproot.source.futures.ResourceThreadPoolExecutor(workers)

    def chunk(self, start: int, stop: int) -> Any:
        """Return one range, and check where it came from."""
        chunk = super().chunk(start, stop)
        self.check_server()
        return chunk

    def check_server(self) -> None:
        """Check where the server has redirected the client so far: the client follows without asking.

        Raises: RequestError if that is a local file, or a private network where the endpoint must not be.
        """
        client, file = uproot.extras.XRootD_client(), self._resource.file
        last, server = (client.URL(file.get_property(name)) for name in ("LastURL", "DataServer"))
        try:
            if last.protocol == "file":
                raise RequestError(f"'{self._file_path}' redirects to a local file, which servers must not do")
            if server.hostname and not self._endpoint.private:
                check_host(Address("root", server.hostname.strip("[]"), server.port), allow_private=False)
        except RequestError:
            file.close(timeout=1)
            raise


PARTIAL = 3
"""suPartial of XRootD's client (XrdClStatus.hh): some servers of a redirector did not list the folder."""


def folder(door: str, path: str) -> list[tuple[str, bool]]:
    """Return the names in a folder of a server, or of all servers of a redirector, and whether each is a folder; none
    if there is no such folder. It is listed with the credentials of this machine's user.

    door: scheme://host:port. Raises: OSError with the client's text (errors.py).
    """
    with _CONFIGURING:
        _configure_client()
    client = uproot.extras.XRootD_client()
    flags = client.flags.DirListFlags
    status, listing = client.FileSystem(door).dirlist(path, flags.STAT | flags.LOCATE | flags.MERGE, LISTING_S)
    if not status.ok:
        text = status.message.strip()
        if "[3011]" in text or "not a directory" in text:
            return []
        raise OSError(text)
    if status.code == PARTIAL:
        raise OSError("some of its servers did not list the folder")
    is_folder = client.flags.StatInfoFlags.IS_DIR
    return [(entry.name, bool(entry.statinfo and entry.statinfo.flags & is_folder)) for entry in listing]


def _with_credential(endpoint: Endpoint) -> str:
    """Return the address that XRootD's client opens. It sends a token with each request and logs in with a proxy."""
    credential = endpoint.credential
    if credential is None:
        return endpoint.url
    address = parsed(endpoint.url)
    login = f"authz=Bearer%20{quote(credential.secret, safe='')}"
    if credential.kind == "x509":
        login = f"xrd.wantprot=gsi&xrd.gsiusrpxy={credential.path}"
    return f"{address.scheme}://{credential.mark}@{address.place}/{address.path}?{login}"


@functools.cache
def _configure_client() -> None:
    """Set the client's limits, once in a process: its threads read variables that must not change meanwhile.

    Files named x.meta4 or x.metalink are read as plain files: a metalink could make the client open local files. The
    client reads that variable at import, and does not allow changes of a variable that was set.
    """
    for name, value in XROOTD_LIMITS.items():
        os.environ.setdefault(name, value)
    os.environ["XRD_METALINKPROCESSING"] = "0"
    uproot.extras.XRootD_client().EnvPutInt("MetalinkProcessing", 0)
