"""ROOT files in buckets, for uproot."""

from __future__ import annotations

from typing import Any

from hepfaas.datasets.ranged_source import RangedSource
from hepfaas.errors import MissingError, RequestError
from hepfaas.platform.address import parsed
from hepfaas.platform.s3 import S3Store


class S3Source(RangedSource):
    """One object, s3://bucket/key. Raises: RequestError if it is not there; UnavailableError."""

    def __init__(self, file_path: str, **options: Any) -> None:
        address = parsed(file_path)
        self._key = address.path[1:]
        self._store = S3Store(address.host, "")
        size_bytes = self._store.size_bytes(self._key) if self._key else None
        if size_bytes is None:
            raise RequestError(f"'{file_path}' does not exist")
        super().__init__(file_path, size_bytes)

    def fetched(self, start: int, stop: int) -> bytes:
        """Bytes [start, stop)."""
        try:
            return self._store.get_range(self._key, start, stop)
        except MissingError as error:
            raise RequestError(f"'{self._file_path}' was removed while it was read") from error
