"""Open an object store by its address."""

from __future__ import annotations

from pathlib import Path

from hepfaas.errors import RequestError
from hepfaas.platform.folder import FolderStore
from hepfaas.platform.storage import OpenedStore


def open_store(url: str) -> OpenedStore:
    """Return the store at an address: s3://bucket/prefix, or a folder. Raises: RequestError for any other scheme."""
    if url.startswith("s3://"):
        from hepfaas.platform.s3 import S3Store  # boto3: import it only when needed

        bucket, _, prefix = url.removeprefix("s3://").partition("/")
        return S3Store(bucket, prefix)
    if "://" in url:
        raise RequestError(f"'{url}' is not a store; give a folder or s3://bucket/prefix")
    return FolderStore(Path(url))
