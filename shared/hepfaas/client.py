"""hepfaas.Client: submit folders to a service and follow the runs, from Python. AsyncClient is the same with `await`.

Requests that may be repeated are, with growing pauses, when the service does not answer or says 503 or 429; a
submission carries an Idempotency-Key, so that a repeated one begins no second run.
"""

from __future__ import annotations

import asyncio
import io
import tarfile
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx

from hepfaas.errors import RequestError, UnavailableError

TRIES = 6
BACK_OFF_S = 0.25
TIMEOUT = httpx.Timeout(60, connect=10)
STREAM = httpx.Timeout(330, connect=10)
LATER = (429, 502, 503, 504)
ENDED = ("completed", "failed", "cancelled")
LOOK_S = 0.5

Json = dict[str, Any]


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
        """unfinished, completed, failed or cancelled."""
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
        if "eta_s" in self.values:
            words.append(f"{self.values['events_per_s']:,.0f} events/s, ETA {self.values['eta_s']:.0f} s")
        return "  ".join(words)


class Client:
    """A service at a URL. `token`: sent as bearer token.

    Raises in every call: RequestError if the service refuses, with its reason; UnavailableError if it does not answer.
    """

    def __init__(self, url: str, token: str = "") -> None:
        self._http = httpx.Client(base_url=url, headers=_headers(token), timeout=TIMEOUT)

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

    def log(self, run: str, follow: bool = False, step: str = "") -> Iterator[str]:
        """Lines of the log; with `follow` as they come, until the run has ended."""
        query = {"step": step, "follow": "1" if follow else "0"}
        with self._http.stream("GET", f"/v1/runs/{run}/log", params=query, timeout=STREAM) as answer:
            _checked(answer, answer.read) if answer.status_code >= 400 else None
            yield from answer.iter_lines()

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


class AsyncClient:
    """The same, for programs that wait for many things at once."""

    def __init__(self, url: str, token: str = "") -> None:
        self._http = httpx.AsyncClient(base_url=url, headers=_headers(token), timeout=TIMEOUT)

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._http.aclose()

    async def submit(self, folder: Path | str, **names: str) -> str:
        """Sends a job's folder and gives the name of the run."""
        data = await asyncio.to_thread(packed, Path(folder))
        query = {**names, "folder": Path(folder).resolve().name}
        headers = {"Content-Type": "application/gzip", "Idempotency-Key": uuid.uuid4().hex}
        return str((await self._json("POST", "/v1/runs", params=query, content=data, headers=headers))["run"])

    async def status(self, run: str) -> Status:
        """How far a run is."""
        return Status(await self._json("GET", f"/v1/runs/{run}"))

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

    async def cancel(self, run: str) -> Json:
        """Ends a run."""
        return await self._json("POST", f"/v1/runs/{run}/cancel")

    async def report(self, run: str) -> Json:
        """Metrics, and where the pictures are."""
        return await self._json("GET", f"/v1/runs/{run}/report")

    async def _json(self, method: str, path: str, **more: Any) -> Json:
        for tried in range(1, TRIES + 1):
            try:
                answer = await self._http.request(method, path, **more)
                if answer.status_code not in LATER or tried == TRIES:
                    values: Json = _checked(answer).json()
                    return values
            except httpx.HTTPError as error:
                if tried == TRIES:
                    raise _away(self._http.base_url, error) from error
            await asyncio.sleep(BACK_OFF_S * 2**tried)
        raise AssertionError


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


def _headers(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"} if token else {}


def _checked(answer: httpx.Response, read: Callable[[], bytes] = lambda: b"") -> httpx.Response:
    """Raises what the service answered, if it is no success."""
    if answer.is_success:
        return answer
    read()
    try:
        said = str(answer.json()["error"])
    except (ValueError, KeyError, TypeError):
        said = f"{answer.request.url} answers {answer.status_code}"
    raise UnavailableError(said) if answer.status_code in LATER else RequestError(said)


def _away(url: httpx.URL, error: httpx.HTTPError) -> UnavailableError:
    return UnavailableError(f"service {url} does not answer: {error}")
