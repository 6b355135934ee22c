"""hepfaas.Client: submit folders to a service and follow the runs, from Python. AsyncClient is the same with `await`.

Requests that may be repeated are, with growing pauses, when the service does not answer or says 503 or 429; a
submission carries an Idempotency-Key, so that a repeated one begins no second run.
"""

from __future__ import annotations

import asyncio
import io
import json
import re
import tarfile
import time
import uuid
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast

import httpx
import numpy as np

from hepfaas.errors import RequestError, UnavailableError
from hepfaas.platform.terminal import PRINTED, visible, visible_lines

if TYPE_CHECKING:
    from hepfaas.scores.files import Columns

TRIES = 6
BACK_OFF_S = 0.25
TIMEOUT = httpx.Timeout(60, connect=10)
STREAM = httpx.Timeout(330, connect=10)
AT_ONCE = 1_000
"""Calls of one AsyncClient; a thread is made when it is needed."""

LIMITS = httpx.Limits(max_connections=AT_ONCE, max_keepalive_connections=20)
NOT_BY_PROXY = dict.fromkeys(("all://127.0.0.1", "all://localhost", "all://[::1]"))
"""A service on this machine is asked itself, whatever http_proxy says."""

LATER = (429, 502, 503, 504)
ARROW_STREAM = "application/vnd.apache.arrow.stream"
END_OF_STREAM = b"\xff\xff\xff\xff\x00\x00\x00\x00"
"""The last bytes of a whole Arrow stream (Arrow columnar format, IPC streaming format)."""

MORE = re.compile(r"run \S+: more by \?follow=1&after=(?P<after>\S*)")
"""The last line of a log that goes on: services end an answer after some minutes."""

ENDED = ("completed", "failed", "cancelled")
LOOK_S = 0.5

WAYS = "Programs say who asks by a bearer token: HEPFAAS_TOKEN, HEPFAAS_TOKEN_FILE, or Client(url, token=…)"

Json = dict[str, Any]
T = TypeVar("T")
P = ParamSpec("P")


@dataclass(frozen=True)
class Status:
    """How far a run is: `values` as GET /v1/runs/{id} gives them."""

    values: Mapping[str, Any]

    @property
    def run(self) -> str:
        """Name of the run."""
        return str(self.values["run"])

    @property
    def state(self) -> str:
        """pending (asked for, not begun), unfinished, completed, failed or cancelled."""
        return str(self.values["state"])

    @property
    def ended(self) -> bool:
        """Whether nothing more happens."""
        return self.state in ENDED

    @property
    def error(self) -> str:
        """Why it failed, '' if it did not."""
        return str(self.values.get("error", ""))

    @property
    def model(self) -> str:
        """'<name>/<version>' of a completed run, else ''."""
        return str(self.values.get("model", ""))

    @property
    def refused(self) -> str:
        """Why a completed run published no model, '' if it did."""
        return str(self.values.get("refused", ""))

    def line(self) -> str:
        """What a person reads while waiting."""
        words = [f"{self.run}: {self.state if self.ended else self.values.get('phase', self.state)}"]
        for done, total, what in (
            ("steps_done", "steps_of_phase", "steps"),
            ("events_done", "events_of_phase", "events"),
            ("files_done", "files_of_phase", "files"),
        ):
            if total in self.values and not self.ended:
                words.append(f"{self.values[done]:,} of {self.values[total]:,} {what}")
        if "events_per_s" in self.values:
            words.append(f"{self.values['events_per_s']:,.0f} events/s")
        if "eta_s" in self.values:
            words.append(f"ETA {self.values['eta_s']:.0f} s")
        return visible("  ".join(words))


Token = str | Path | Callable[[], str]
"""A bearer token, a file that holds one and is read for each request, or what gives one for each request."""


class Client:
    """A service at a URL. token: who asks. group: for which he does, '' for himself.

    Raises in every call: RequestError if the service refuses, with its reason; UnavailableError if it does not answer.
    """

    def __init__(self, url: str, token: Token = "", group: str = "") -> None:
        self._http = httpx.Client(
            base_url=_checked_url(url), auth=Bearer(token, group), timeout=TIMEOUT, limits=LIMITS, mounts=NOT_BY_PROXY
        )

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._http.close()

    def submit(self, folder: Path | str, **names: str) -> str:
        """Sends a job's folder and gives the name of the run. `names`: of its files (model=, ...), and of the model."""
        data, query = packed(Path(folder)), {**names, "folder": Path(folder).resolve().name}
        headers = {"Content-Type": "application/gzip", "Idempotency-Key": uuid.uuid4().hex}
        return str(self._json("POST", "/v1/runs", params=query, content=data, headers=headers)["run"])

    def status(self, run: str) -> Status:
        """How far a run is."""
        return Status(self._json("GET", f"/v1/runs/{run}"))

    def wait(
        self, run: str, on_status: Callable[[Status], None] = lambda status: None, most_s: float = 86_400
    ) -> Status:
        """Waits until the run has ended; `on_status` is told on the way. Raises: UnavailableError after `most_s`."""
        end = time.monotonic() + most_s
        while not (found := self.status(run)).ended:
            if on_status is not None:
                on_status(found)
            if time.monotonic() > end:
                raise UnavailableError(f"run '{run}' has not ended after {most_s:.0f} s")
            time.sleep(LOOK_S)
        return found

    def runs(self, state: str = "") -> Iterator[Json]:
        """All runs, newest first."""
        after: str | None = ""
        while after is not None:
            page = self._json("GET", "/v1/runs", params={"state": state, "after": after})
            yield from page["runs"]
            after = page["after"]

    def models(self) -> list[Json]:
        """All model versions."""
        return list(self._json("GET", "/v1/models")["models"])

    def report(self, run: str) -> Json:
        """Metrics, and where the pictures are."""
        return self._json("GET", f"/v1/runs/{run}/report")

    def ledger(self, run: str) -> Json:
        """Recounts every event of every epoch."""
        return self._json("GET", f"/v1/runs/{run}/ledger")

    def score(self, model: str, events: Mapping[str, Sequence[Any]]) -> Columns:
        """Scores of raw events, {"met": [...], "lep_pt": [[...], ...]}, by '<name>' or '<name>/<version>': columns
        entry, what names the event if that was sent, score or score_0, score_1, ..."""
        found = self._json("POST", _predict_path(model), json={"events": dict(events)})["scores"]
        return {name: np.asarray(values) for name, values in found.items()}

    def predict(
        self,
        model: str,
        files: Sequence[str],
        tree: str = "",
        on_status: Callable[[Status], None] = lambda status: None,
        most_s: float = 86_400,
    ) -> Iterator[Columns]:
        """Scores of all events of files that the service can read, by '<name>' or '<name>/<version>', as `scores` does.

        Many events become a run there, which is waited for. Raises: RequestError if that fails.
        """
        values = {"files": list(files), **({"tree": tree} if tree else {})}
        headers = {"Accept": ARROW_STREAM, "Idempotency-Key": uuid.uuid4().hex}
        with self._streamed("POST", _predict_path(model), json=values, headers=headers) as answer:
            if answer.status_code != 202:
                yield from _columns(answer)
                return
            answer.read()
            run = str(answer.json()["run"])
        ended = self.wait(run, on_status, most_s)
        if ended.state != "completed":
            raise RequestError(f"run '{run}' {ended.state}{': ' + ended.error if ended.error else ''}")
        yield from self.scores(run)

    def scores(self, run: str) -> Iterator[Columns]:
        """The scores of a prediction run, some thousand events at a time, in the order of files and entries: columns
        file (its place in the list), entry, what names the event, score or score_0, score_1, ...

        Raises: UnavailableError also if they break off.
        """
        with self._streamed("GET", f"/v1/runs/{run}/scores", headers={"Accept": ARROW_STREAM}) as answer:
            yield from _columns(answer)

    def cancel(self, run: str) -> Json:
        """Ends a run."""
        return self._json("POST", f"/v1/runs/{run}/cancel")

    def retry(self, run: str) -> Json:
        """A new attempt of a run that failed."""
        return self._json("POST", f"/v1/runs/{run}/retry")

    def delete(self, run: str) -> None:
        """Forgets a run."""
        self._request("DELETE", f"/v1/runs/{run}")

    def fetch(self, path: str) -> bytes:
        """A file that the service named, e.g. a picture of a report."""
        return self._request("GET", path).content

    def log(self, run: str, follow: bool = False, step: str = "", most_s: float = 86_400) -> Iterator[str]:
        """Lines of the log, control characters escaped; with `follow` as they come, until the run has ended. Raises:
        UnavailableError after `most_s`, or if they break off."""
        end, after = time.monotonic() + most_s, ""
        while time.monotonic() < end:
            query, goes_on = {"step": step, "follow": "1" if follow else "0", "after": after}, None
            with self._streamed("GET", f"/v1/runs/{run}/log", params=query) as answer:
                for line in filter(None, _lines(answer)):  # empty ones say that the service is still there
                    if goes_on := MORE.fullmatch(line):
                        after = goes_on["after"]
                    else:
                        yield visible(line)
            if not goes_on:
                return
        raise UnavailableError(f"run '{run}' has not ended after {most_s:.0f} s")

    def steps(self, run: str, follow: bool = False, most_s: float = 86_400) -> Iterator[Json]:
        """What was done or failed, as values; with `follow` as it comes, until the run has ended. Raises:
        UnavailableError after `most_s`, or if they break off."""
        end, after = time.monotonic() + most_s, ""
        while time.monotonic() < end:
            name = ""
            with self._streamed("GET", f"/v1/runs/{run}/events", headers={"Last-Event-ID": after}) as answer:
                for line in _lines(answer):
                    key, _, value = line.partition(": ")
                    after = value if key == "id" else after
                    name = value if key == "event" else name
                    if key == "data" and name == "step":
                        yield json.loads(value)
                    if key == "data" and name == "end":
                        return
                    if line.startswith(":") and not follow:  # the service has told all that there is
                        return
        raise UnavailableError(f"run '{run}' has not ended after {most_s:.0f} s")

    def _json(self, method: str, path: str, **more: Any) -> Json:
        values: Json = self._request(method, path, **more).json()
        return values

    def _request(self, method: str, path: str, **more: Any) -> httpx.Response:
        for tried in range(1, TRIES + 1):
            try:
                answer = self._http.request(method, path, **more)
                if answer.status_code not in LATER or tried == TRIES:
                    return _checked(answer)
            except httpx.HTTPError as error:
                if tried == TRIES:
                    raise _away(self._http.base_url, error) from error
            time.sleep(BACK_OFF_S * 2**tried)
        raise AssertionError

    @contextmanager
    def _streamed(self, method: str, path: str, **more: Any) -> Iterator[httpx.Response]:
        """An answer whose body is read as it comes."""
        for tried in range(1, TRIES + 1):
            try:
                request = self._http.build_request(method, path, timeout=STREAM, **more)
                answer = self._http.send(request, stream=True)
            except httpx.HTTPError as error:
                if tried == TRIES:
                    raise _away(self._http.base_url, error) from error
            else:
                with closing(answer):
                    if answer.status_code not in LATER or tried == TRIES:
                        yield _checked(answer, answer.read)
                        return
            time.sleep(BACK_OFF_S * 2**tried)


class AsyncClient:
    """The same, for programs that wait for many things at once: each request goes by a thread of this client."""

    def __init__(self, url: str, token: Token = "", group: str = "") -> None:
        self._client = Client(url, token, group)
        self._threads = ThreadPoolExecutor(AT_ONCE, "hepfaas-client")

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self._client.__exit__(kind, error, at)
        self._threads.shutdown(wait=False, cancel_futures=True)  # who still reads finds the connection closed

    async def submit(self, folder: Path | str, **names: str) -> str:
        """Sends a job's folder and gives the name of the run."""
        return await self._called(self._client.submit, folder, **names)

    async def status(self, run: str) -> Status:
        """How far a run is."""
        return await self._called(self._client.status, run)

    async def follow(self, run: str, most_s: float = 86_400) -> AsyncIterator[Status]:
        """Its status again and again, the last one when the run has ended."""
        end = time.monotonic() + most_s
        while time.monotonic() < end:
            found = await self.status(run)
            yield found
            if found.ended:
                return
            await asyncio.sleep(LOOK_S)
        raise UnavailableError(f"run '{run}' has not ended after {most_s:.0f} s")

    async def wait(
        self, run: str, on_status: Callable[[Status], None] = lambda status: None, most_s: float = 86_400
    ) -> Status:
        """How the run ended; `on_status` is told on the way. Raises: UnavailableError after `most_s`."""
        async for found in self.follow(run, most_s):
            if not found.ended:
                on_status(found)
        return found

    def runs(self, state: str = "") -> AsyncIterator[Json]:
        """All runs, newest first."""
        return self._given(self._client.runs(state))

    async def models(self) -> list[Json]:
        """All model versions."""
        return await self._called(self._client.models)

    async def report(self, run: str) -> Json:
        """Metrics, and where the pictures are."""
        return await self._called(self._client.report, run)

    async def ledger(self, run: str) -> Json:
        """Recounts every event of every epoch."""
        return await self._called(self._client.ledger, run)

    async def score(self, model: str, events: Mapping[str, Sequence[Any]]) -> Columns:
        """Scores of raw events, branch by branch."""
        return await self._called(self._client.score, model, events)

    async def predict(
        self,
        model: str,
        files: Sequence[str],
        tree: str = "",
        on_status: Callable[[Status], None] = lambda status: None,
        most_s: float = 86_400,
    ) -> AsyncIterator[Columns]:
        """Scores of all events of files that the service can read; `on_status` is called by the event loop."""
        loop = asyncio.get_running_loop()

        def say(status: Status) -> None:
            loop.call_soon_threadsafe(on_status, status)

        async for columns in self._given(self._client.predict(model, files, tree, say, most_s)):
            yield columns

    def scores(self, run: str) -> AsyncIterator[Columns]:
        """The scores of a prediction run."""
        return self._given(self._client.scores(run))

    async def cancel(self, run: str) -> Json:
        """Ends a run."""
        return await self._called(self._client.cancel, run)

    async def retry(self, run: str) -> Json:
        """A new attempt of a run that failed."""
        return await self._called(self._client.retry, run)

    async def delete(self, run: str) -> None:
        """Forgets a run."""
        await self._called(self._client.delete, run)

    async def fetch(self, path: str) -> bytes:
        """A file that the service named."""
        return await self._called(self._client.fetch, path)

    def log(self, run: str, follow: bool = False, step: str = "") -> AsyncIterator[str]:
        """Lines of the log, control characters escaped; with `follow` as they come, until the run has ended."""
        return self._given(self._client.log(run, follow, step))

    def steps(self, run: str, follow: bool = False) -> AsyncIterator[Json]:
        """What was done or failed, as values."""
        return self._given(self._client.steps(run, follow))

    async def _called(self, call: Callable[P, T], *args: P.args, **more: P.kwargs) -> T:
        """What a call gives, made by a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, partial(call, *args, **more))

    async def _given(self, some: Iterator[T]) -> AsyncIterator[T]:
        """What an iterator gives, each item fetched by a thread."""
        end = object()
        while (item := await self._called(next, some, end)) is not end:
            yield cast(T, item)


def _checked_url(url: str) -> str:
    """Raises: RequestError if it is no address of a service."""
    if not re.match(r"https?://[^/]", url):
        likely = f"http://{url}" if re.match(r"[^/:]+(:\d+)?(/|$)", url) else "http://127.0.0.1:8080"
        raise RequestError(f"'{url}' is no address of a service; it begins with http:// or https://, e.g. {likely}")
    return url


def _lines(answer: httpx.Response) -> Iterator[str]:
    """Lines of a text as they come: line feeds and carriage returns end them, other separators are text. Raises:
    UnavailableError if it breaks off."""
    rest = ""
    try:
        for text in answer.iter_text():
            *whole, rest = re.split("[\r\n]", rest + text)
            yield from whole
        if rest:
            yield rest
    except httpx.HTTPError as error:
        raise UnavailableError(f"the lines of {answer.request.url} break off: {error}") from error


def _predict_path(model: str) -> str:
    name, _, version = model.partition("/")
    return f"/v1/models/{name}{f'/versions/{version}' if version else ''}/predict"


def packed(folder: Path) -> bytes:
    """The folder as tar.gz. Raises: RequestError if it is none."""
    if not folder.is_dir():
        raise RequestError(f"'{folder}' is no folder; submit takes the folder with files.txt and model.py")
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz", dereference=True, compresslevel=1) as tar:
        for path in sorted(folder.rglob("*")):
            hidden = any(part.startswith(".") or part == "__pycache__" for part in path.relative_to(folder).parts)
            if path.is_file() and not hidden:
                tar.add(path, path.relative_to(folder).as_posix(), recursive=False)
    return out.getvalue()


def _columns(answer: httpx.Response) -> Iterator[Columns]:
    """The record batches of an Arrow stream as they come. Raises: UnavailableError if it has no end."""
    import pyarrow as pa  # only where scores are read

    body = _Body(answer.iter_bytes())
    try:
        for batch in pa.ipc.open_stream(pa.PythonFile(body, mode="r")):
            yield {name: batch.column(name).to_numpy(zero_copy_only=False) for name in batch.schema.names}
        body.read()
    except (httpx.HTTPError, pa.ArrowException, OSError) as error:
        raise UnavailableError(f"the scores of {answer.request.url} break off: {error}") from error
    if body.tail != END_OF_STREAM:
        raise UnavailableError(f"the scores of {answer.request.url} break off; ask again")


class _Body(io.RawIOBase):
    """The body of an answer as a file. tail: the last bytes that came."""

    def __init__(self, parts: Iterator[bytes]) -> None:
        self._parts, self._held, self.tail = parts, b"", b""

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        held = [self._held]
        count = len(self._held)
        while size < 0 or count < size:
            part = next(self._parts, None)
            if part is None:
                break
            self.tail = (self.tail + part)[-len(END_OF_STREAM) :]
            held.append(part)
            count += len(part)
        data = b"".join(held)
        size = len(data) if size < 0 else size
        self._held = data[size:]
        return data[:size]


class Bearer(httpx.Auth):
    """Says who asks."""

    def __init__(self, token: Token, group: str = "") -> None:
        self._token, self._group = token, group

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Adds the token as it is now. Raises: RequestError if its file cannot be read."""
        if token := self._now():
            request.headers["Authorization"] = f"Bearer {token}"
        if self._group:
            request.headers["Hepfaas-Group"] = self._group
        yield request

    def _now(self) -> str:
        try:
            given = self._token.read_text() if isinstance(self._token, Path) else self._token
        except (OSError, UnicodeDecodeError) as error:
            raise RequestError(f"the file of the token, '{self._token}', cannot be read: {error}") from error
        return (given if isinstance(given, str) else given()).strip()


def _checked(answer: httpx.Response, read: Callable[[], bytes] = lambda: b"") -> httpx.Response:
    """Raises what the service answered, if it is no success."""
    if answer.is_success:
        return answer
    read()
    try:
        said = visible_lines(str(answer.json()["error"]), PRINTED)
    except (ValueError, KeyError, TypeError):
        said = f"{answer.request.url} answers {answer.status_code}"
    if answer.status_code == 401:
        raise RequestError(f"{said}. {WAYS}")
    if answer.is_redirect:
        raise RequestError(f"{answer.request.url} leads to a login page of a browser. {WAYS}")
    raise UnavailableError(said) if answer.status_code in LATER else RequestError(said)


def _away(url: httpx.URL, error: httpx.HTTPError) -> UnavailableError:
    return UnavailableError(f"service {url} does not answer: {error}")
