"""Files in buckets."""

from __future__ import annotations

from hepfaas.datasets.ranged_source import RangedSource
from hepfaas.errors import MissingError, RequestError
from hepfaas.platform.address import parsed
from hepfaas.platform.s3 import S3Store


class S3Source(RangedSource):
    """One object, s3://bucket/key. version: changes with each write. Raises: RequestError if it does not exist;
    UnavailableError."""

    def __init__(self, file_path: str) -> None:
        self._file_path = file_path
        address = parsed(file_path)
        self._key = address.path[1:]
        self._store = S3Store(address.host, "")
        head = self._store.head(self._key) if self._key else None
        if head is None:
            raise RequestError(f"'{file_path}' does not exist")
        self._etag = head.get("ETag", "")
        self.version = repr((self._etag, str(head.get("LastModified")), head.get("VersionId")))
        super().__init__(head["ContentLength"])

    def fetched(self, start: int, stop: int) -> bytes:
        """Return the bytes [start, stop)."""
        if stop <= start:
            return b""
        try:
            data, etag = self._store.get_range_of(self._key, start, stop)
        except MissingError as error:
            raise RequestError(f"'{self._file_path}' was removed while it was read") from error
        if etag != self._etag:
            raise RequestError(
                f"'{self._file_path}' was changed while it was read; start again to read the new content"
            )
        return data
