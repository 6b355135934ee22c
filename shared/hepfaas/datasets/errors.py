"""Translates the exceptions of reading a file into RequestError and UnavailableError."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from urllib.parse import quote

from hepfaas.errors import RequestError, UnavailableError
from hepfaas.platform.credentials import Credential

ALLOCATION = "Unable to allocate"
"""Part of the messages of decompressors and NumPy when memory runs out."""

REFUSED = "[3010]"
"""kXR_NotAuthorized"""


@contextmanager
def translated_errors(url: str, kind: str = "ROOT") -> Iterator[None]:
    """Translate the exceptions of the block. kind: the format of the file.

    Raises: RequestError if the file is missing, unreadable or broken; UnavailableError if its server does not answer.
    """
    try:
        yield
    except FileNotFoundError as error:
        if is_xrootd(url):  # uproot takes every answer of a server, and a host without address, for a missing file
            raise _by_text(url, str(error).splitlines()[0].removeprefix("file not found ")) from error
        raise RequestError(f"file '{url}' does not exist") from error
    except IsADirectoryError as error:
        raise RequestError(f"'{url}' is a folder; name the files in it") from error
    except PermissionError as error:
        raise RequestError(f"file '{url}' cannot be read: no permission") from error
    except HTTPException as error:
        raise _by_status(url, str(error)) from error
    except OSError as error:
        if error.errno and url.startswith(("http://", "https://", "dav://", "davs://")):
            raise UnavailableError(f"the server of '{url}' does not answer: {error.strerror}") from error
        if error.errno:
            raise RequestError(f"file '{url}' cannot be read: {error.strerror}") from error
        raise _by_text(url, str(error), kind) from error
    except (RequestError, UnavailableError):
        raise
    except MemoryError as error:
        raise _too_large(url) from error
    except Exception as error:  # uproot and the decompressors raise any class on damaged bytes
        if ALLOCATION in str(error):  # of a decompressor
            raise _too_large(url) from error
        raise _broken(url, kind, first_line(error)) from error


def _too_large(url: str) -> RequestError:
    return RequestError(
        f"'{url}' takes more memory to read than is available: it is damaged, or its baskets are too large; a smaller "
        "'range_events' may help"
    )


def _by_text(url: str, text: str, kind: str = "ROOT") -> RequestError | UnavailableError:
    """Return the error for a message of XRootD's client, which raises one class with a number in its text."""
    if "[3011]" in text:
        return RequestError(f"file '{url}' does not exist on its server")
    if REFUSED in text or "Auth failed" in text:
        return RequestError(
            f"file '{url}' cannot be read: its server refuses (its path, or a credential: docs/reference/reading.md)"
        )
    if is_xrootd(url):
        return UnavailableError(f"the server of '{url}' does not answer: {text.splitlines()[0]}")
    return _broken(url, kind, text.splitlines()[0].rstrip(","))


def _broken(url: str, kind: str, reason: str) -> RequestError:
    return RequestError(f"'{url}' is not a complete {kind} file: {reason}; copy it again")


def _by_status(url: str, text: str) -> RequestError | UnavailableError:
    """Return the error for a message that has the status of an HTTP server."""
    match = re.search(r"status (\d{3})", text)
    status = int(match[1]) if match else 0
    if status >= 500 or status in (0, 408, 429):
        return UnavailableError(f"the server of '{url}' does not answer: {first_line(HTTPException(text))}")
    if status == 200:
        return RequestError(f"the server of '{url}' sends whole files only (no ranges); put the file on another one")
    return RequestError(f"file '{url}' cannot be read: its server answers {status}")


def redacted(text: str, credential: Credential | None) -> str:
    """Return a text without the secrets of the credential."""
    for secret in (credential.secret, quote(credential.secret), credential.mark) if credential else ():
        text = text.replace(secret, "…")
    return text


def is_xrootd(url: str) -> bool:
    """Return whether the address is that of an XRootD server."""
    return url.startswith(("root://", "roots://", "xroot://", "xroots://"))


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, or its class."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
