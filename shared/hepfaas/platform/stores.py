"""Open an object store by its address."""

from __future__ import annotations

from pathlib import Path

from hepfaas.errors import RequestError
from hepfaas.platform.folder import FolderStore
from hepfaas.platform.storage import OpenedStore


def open_store(url: str) -> OpenedStore:
    """The store at an address: s3://bucket/prefix, or a folder. Raises: RequestError if there can be none."""
    if url.startswith("s3://"):
        from hepfaas.platform.s3 import S3Store  # boto3: only where it is used

        bucket, _, prefix = url.removeprefix("s3://").partition("/")
        return S3Store(bucket, prefix)
    if "://" in url:
        raise RequestError(f"'{url}' is no store; give a folder or s3://bucket/prefix")
    return FolderStore(Path(url))
