"""A store of objects in a bucket of an S3-compatible server. The only module that imports boto3."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from mmap import mmap
from typing import TYPE_CHECKING

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,
    HTTPClientError,
    NoCredentialsError,
    PartialCredentialsError,
)

from hepfaas.errors import MissingError, RequestError, UnavailableError
from hepfaas.platform.storage import Data, counted_bytes

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import HeadObjectOutputTypeDef

CONFIG = Config(connect_timeout=5, read_timeout=60, retries={"mode": "standard", "max_attempts": 5})
SILENT = "the store of this service does not answer; ask again in a while"
MISCONFIGURED = "the store of this service cannot be used; its operator finds the reason in the function's log"
_SOMEBODY_WAS_FIRST = ("PreconditionFailed", "ConditionalRequestConflict", "412", "409")
_NOT_THERE = ("NoSuchKey", "NotFound", "404")
_LATER = ("SlowDown", "InternalError", "ServiceUnavailable", "RequestTimeout", "RequestTimeTooSkewed")


class S3Store:
    """Objects of the bucket whose keys start with the prefix; one client, which threads may share.

    `create` sends `If-None-Match: *`. When the server's answer is lost, boto3 sends again and meets its own object:
    False then means what it always means, that somebody was first and the object is there.
    """

    def __init__(self, bucket: str, prefix: str) -> None:
        self._bucket, self._prefix = bucket, f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        with self._explained():
            self._client: S3Client = boto3.Session().client("s3", config=CONFIG)

    def below(self, folder: str) -> S3Store:
        """The store of a folder, with the same client: one takes 12 MB and a quarter of a second."""
        found = copy.copy(self)
        found._prefix = f"{self._prefix}{folder}/"
        vars(found).pop("url", None)  # that of this one
        return found

    @cached_property
    def url(self) -> str:
        """s3://bucket/prefix"""
        return f"s3://{self._bucket}/{self._prefix}".rstrip("/")

    def get(self, key: str) -> bytes:
        """The whole object."""
        with self._explained(key):
            return self._client.get_object(Bucket=self._bucket, Key=self._prefix + key)["Body"].read()

    def get_range(self, key: str, start: int, stop: int) -> bytes:
        """Bytes [start, stop) of the object."""
        if stop <= start:
            return b""
        try:
            return self.get_range_of(key, start, stop)[0]
        except _PastTheEnd:
            return b""

    def get_range_of(self, key: str, start: int, stop: int) -> tuple[bytes, str]:
        """Return bytes [start, stop) of the object, start < stop, and the ETag of the object that they are of."""
        wanted = f"bytes={start}-{stop - 1}"
        with self._explained(key):
            answer = self._client.get_object(Bucket=self._bucket, Key=self._prefix + key, Range=wanted)
            return answer["Body"].read(), answer.get("ETag", "")

    def size_bytes(self, key: str) -> int | None:
        """Size of the object, None if it is not there."""
        head = self.head(key)
        return None if head is None else head["ContentLength"]

    def head(self, key: str) -> HeadObjectOutputTypeDef | None:
        """Return what the server states of the object, None if it is not there."""
        try:
            with self._explained(key):
                return self._client.head_object(Bucket=self._bucket, Key=self._prefix + key)
        except MissingError:
            return None

    def create(self, key: str, data: Data) -> bool:
        """Stores the object whole if there is none under this key."""
        body = data if isinstance(data, mmap) else bytes(data)
        try:
            with self._explained(key):
                self._client.put_object(Bucket=self._bucket, Key=self._prefix + key, Body=body, IfNoneMatch="*")  # type: ignore[arg-type]
        except _Taken:
            return False
        return True

    def keys(self, prefix: str, after: str = "") -> Iterator[str]:
        """Keys that start with the prefix, sorted; only those behind the key `after`."""
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self._bucket, Prefix=self._prefix + prefix, StartAfter=self._prefix + after if after else ""
        )
        with self._explained():
            for page in pages:
                for found in page.get("Contents", ()):
                    yield found["Key"][len(self._prefix) :]

    def used_bytes(self) -> int:
        """Size of all objects: a request for each thousand."""
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=self._prefix)
        with self._explained():
            return sum(counted_bytes(found["Size"]) for page in pages for found in page.get("Contents", ()))

    def delete(self, key: str) -> None:
        """Removes the object."""
        with self._explained(key):
            self._client.delete_object(Bucket=self._bucket, Key=self._prefix + key)

    @contextmanager
    def _explained(self, key: str = "") -> Iterator[None]:
        """What boto3 raises, in our two families."""
        try:
            yield
        except ClientError as error:
            raise self._by_code(key, error) from error
        except (NoCredentialsError, PartialCredentialsError) as error:
            raise RequestError(
                f"store {self.url}: no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and "
                "AWS_ENDPOINT_URL, if the server is not Amazon's)",
                outside=MISCONFIGURED,
            ) from error
        except (ConnectionError, HTTPClientError) as error:  # connections refused, cut and timed out
            raise UnavailableError(f"store {self.url} does not answer: {error}", outside=SILENT) from error
        except BotoCoreError as error:
            raise RequestError(
                f"store {self.url} cannot be used: {error}; look at the AWS_* variables", outside=MISCONFIGURED
            ) from error

    def _by_code(self, key: str, error: ClientError) -> Exception:
        code = str(error.response["Error"].get("Code"))
        status = error.response["ResponseMetadata"].get("HTTPStatusCode", 0)
        if code in _SOMEBODY_WAS_FIRST:
            return _Taken()
        if code == "InvalidRange":
            return _PastTheEnd()
        if code in _NOT_THERE and key:
            return MissingError(key, self.url)
        if code == "NoSuchBucket":
            return RequestError(
                f"store {self.url}: there is no bucket '{self._bucket}'; make it first", outside=MISCONFIGURED
            )
        if code in _LATER or status >= 500:
            return UnavailableError(f"store {self.url} does not answer: {code}", outside=SILENT)
        return RequestError(
            f"store {self.url} refuses: {code}; look at AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_ENDPOINT_URL",
            outside=MISCONFIGURED,
        )


class _Taken(Exception):
    """Somebody was first."""


class _PastTheEnd(Exception):
    """The range starts after the object's end."""
