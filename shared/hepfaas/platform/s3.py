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
NO_ANSWER = "the store of this service does not answer; try again later"
MISCONFIGURED = "the store of this service cannot be used; the function's log has the reason for the operator"
_EXISTS = ("PreconditionFailed", "ConditionalRequestConflict", "412", "409")
_NOT_THERE = ("NoSuchKey", "NotFound", "404")
_LATER = ("SlowDown", "InternalError", "ServiceUnavailable", "RequestTimeout", "RequestTimeTooSkewed")


class S3Store:
    """Objects of a bucket whose keys start with a prefix. Threads may share it.

    `create` sends `If-None-Match: *`. If the server's answer is lost, boto3 retries and finds its own object: False
    then means, as always, that the object exists.
    """

    def __init__(self, bucket: str, prefix: str) -> None:
        self._bucket, self._prefix = bucket, f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        with self._translated_errors():
            self._client: S3Client = boto3.Session().client("s3", config=CONFIG)

    def below(self, folder: str) -> S3Store:
        """Return the store of a folder, with the same client: a client takes 12 MB and a quarter of a second."""
        store = copy.copy(self)
        store._prefix = f"{self._prefix}{folder}/"
        vars(store).pop("url", None)  # the cached one of this store
        return store

    @cached_property
    def url(self) -> str:
        """Return s3://bucket/prefix."""
        return f"s3://{self._bucket}/{self._prefix}".rstrip("/")

    def get(self, key: str) -> bytes:
        """Return the whole object."""
        with self._translated_errors(key):
            return self._client.get_object(Bucket=self._bucket, Key=self._prefix + key)["Body"].read()

    def get_range(self, key: str, start: int, stop: int) -> bytes:
        """Return bytes [start, stop) of the object."""
        if stop <= start:
            return b""
        try:
            return self.get_range_of(key, start, stop)[0]
        except _PastTheEndError:
            return b""

    def get_range_of(self, key: str, start: int, stop: int) -> tuple[bytes, str]:
        """Return bytes [start, stop) of the object, start < stop, and the object's ETag."""
        wanted = f"bytes={start}-{stop - 1}"
        with self._translated_errors(key):
            answer = self._client.get_object(Bucket=self._bucket, Key=self._prefix + key, Range=wanted)
            return answer["Body"].read(), answer.get("ETag", "")

    def size_bytes(self, key: str) -> int | None:
        """Return the size of the object, None if it does not exist."""
        head = self.head(key)
        return None if head is None else head["ContentLength"]

    def head(self, key: str) -> HeadObjectOutputTypeDef | None:
        """Return the server's description of the object, None if it does not exist."""
        try:
            with self._translated_errors(key):
                return self._client.head_object(Bucket=self._bucket, Key=self._prefix + key)
        except MissingError:
            return None

    def create(self, key: str, data: Data) -> bool:
        """Store the whole object unless the key exists. Return whether it was stored."""
        body = data if isinstance(data, mmap) else bytes(data)
        try:
            with self._translated_errors(key):
                self._client.put_object(Bucket=self._bucket, Key=self._prefix + key, Body=body, IfNoneMatch="*")  # type: ignore[arg-type]
        except _ExistsError:
            return False
        return True

    def keys(self, prefix: str, after: str = "") -> Iterator[str]:
        """Return the keys that start with the prefix, sorted; only those after the key `after`."""
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self._bucket, Prefix=self._prefix + prefix, StartAfter=self._prefix + after if after else ""
        )
        with self._translated_errors():
            for page in pages:
                for entry in page.get("Contents", ()):
                    yield entry["Key"][len(self._prefix) :]

    def folder(self, prefix: str, start: str = "") -> Iterator[tuple[str, bool]]:
        """Yield the names in a folder that start with a text, and whether each is a folder. prefix: '' or ends with
        '/'."""
        whole = self._prefix + prefix
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self._bucket, Prefix=whole + start, Delimiter="/"
        )
        with self._translated_errors():
            for page in pages:
                for below in page.get("CommonPrefixes", ()):
                    yield below["Prefix"][len(whole) : -1], True
                for entry in page.get("Contents", ()):
                    if entry["Key"] != whole:  # the object that consoles make for an empty folder
                        yield entry["Key"][len(whole) :], False

    def used_bytes(self) -> int:
        """Return the total size of all objects, each by `counted_bytes`: one request for each thousand."""
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=self._prefix)
        with self._translated_errors():
            return sum(counted_bytes(entry["Size"]) for page in pages for entry in page.get("Contents", ()))

    def delete(self, key: str) -> None:
        """Remove the object."""
        with self._translated_errors(key):
            self._client.delete_object(Bucket=self._bucket, Key=self._prefix + key)

    @contextmanager
    def _translated_errors(self, key: str = "") -> Iterator[None]:
        """Translate the exceptions of boto3 into RequestError and UnavailableError."""
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
            raise UnavailableError(f"store {self.url} does not answer: {error}", outside=NO_ANSWER) from error
        except BotoCoreError as error:
            raise RequestError(
                f"store {self.url} cannot be used: {error}; look at the AWS_* variables", outside=MISCONFIGURED
            ) from error

    def _by_code(self, key: str, error: ClientError) -> Exception:
        code = str(error.response["Error"].get("Code"))
        status = error.response["ResponseMetadata"].get("HTTPStatusCode", 0)
        if code in _EXISTS:
            return _ExistsError()
        if code == "InvalidRange":
            return _PastTheEndError()
        if code in _NOT_THERE and key:
            return MissingError(key, self.url)
        if code == "NoSuchBucket":
            return RequestError(
                f"store {self.url}: bucket '{self._bucket}' does not exist; create it first", outside=MISCONFIGURED
            )
        if code in _LATER or status >= 500:
            return UnavailableError(f"store {self.url} does not answer: {code}", outside=NO_ANSWER)
        return RequestError(
            f"store {self.url} refuses: {code}; look at AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_ENDPOINT_URL",
            outside=MISCONFIGURED,
        )


class _ExistsError(Exception):
    """The object exists already."""


class _PastTheEndError(Exception):
    """The range starts after the end of the object."""
