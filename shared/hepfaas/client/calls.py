"""The calls of a service."""

from __future__ import annotations

import json
import re
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import httpx
import numpy as np

from hepfaas.client.bodies import ARROW_STREAM, columns_of, lines_of, write_folder
from hepfaas.client.connection import Connection, Token
from hepfaas.client.matches import matches_in
from hepfaas.client.status import Status
from hepfaas.errors import RequestError, UnavailableError
from hepfaas.jobs.data import MATCHES
from hepfaas.platform.terminal import visible

if TYPE_CHECKING:
    from hepfaas.scores.files import Columns

FIRST_POLL_S, POLL_S = 0.05, 0.5
"""Seconds between two requests for a status: the first ones, and the last."""

DAY_S = 86_400
CONTINUED = re.compile(r"run \S+: more by \?follow=1&after=(?P<after>\S*)")
"""The last line of a log that continues: a service ends a response after some minutes."""

Json = dict[str, Any]


class Client:
    """Client of the service at a URL. token: authenticates each request. group: owner of the runs, '' for the user.

    A submission carries an Idempotency-Key, so that its retries start one run. Every call raises RequestError, with
    the reason, if the service refuses, and UnavailableError if it does not answer.
    """

    def __init__(self, url: str, token: Token = "", group: str = "") -> None:
        self._connection = Connection(url, token, group)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._connection.http.close()

    def submit(
        self,
        folder: Path | str,
        *,
        name: str = "",
        files: str = "",
        labels: str = "",
        samples: str = "",
        model: str = "",
        params: str = "",
        preproc: str = "",
        specs: str = "",
        webhook: str = "",
    ) -> str:
        """Send a job's folder and return the name of the run.

        name: of the model. files, labels, samples, model, params, preproc, specs: names of files in the folder, if they
        are not the usual ones. webhook: URL that gets the events of the run.
        Wildcards in root:// and s3:// addresses are resolved here, with the credentials of this machine.
        """
        folder = Path(folder)
        every = {
            "files": files,
            "labels": labels,
            "samples": samples,
            "model": model,
            "params": params,
            "preproc": preproc,
            "specs": specs,
            "name": name,
        }
        names = {key: value for key, value in every.items() if value}
        query = {**names, **({"webhook": webhook} if webhook else {}), "folder": folder.resolve().name}
        matches = matches_in(folder, names)
        headers = {"Content-Type": "application/gzip", "Idempotency-Key": uuid.uuid4().hex}
        with tempfile.TemporaryFile() as archive:
            write_folder(folder, archive, {MATCHES: matches} if matches else {})
            response = self._connection.response("POST", "/v1/runs", params=query, upload=archive, headers=headers)
        return str(response.json()["run"])

    def status(self, run: str) -> Status:
        """Return the state and progress of a run."""
        return Status(self._json("GET", f"/v1/runs/{run}"))

    def follow(self, run: str, timeout_s: float = DAY_S) -> Iterator[Status]:
        """Yield the status of a run, at first often and then twice a second, last after its end. Raises:
        UnavailableError after `timeout_s`."""
        end = time.monotonic() + timeout_s
        for pause_s in pauses():
            yield (status := self.status(run))
            if status.ended:
                return
            if time.monotonic() > end:
                raise not_ended(run, timeout_s)
            time.sleep(pause_s)

    def wait(self, run: str, on_status: Callable[[Status], None] | None = None, timeout_s: float = DAY_S) -> Status:
        """Return the status at the end of a run; `on_status` gets those before. Raises: UnavailableError after
        `timeout_s`."""
        for status in self.follow(run, timeout_s):
            if on_status and not status.ended:
                on_status(status)
        return status

    def runs(self, state: str = "", tag: str = "") -> Iterator[Json]:
        """Yield all runs, or those in a state and with a tag, newest first."""
        after: str | None = ""
        while after is not None:
            query = {"state": state, "after": after, **({"tag": tag} if tag else {})}
            page = self._json("GET", "/v1/runs", params=query)
            yield from page["runs"]
            after = page["after"]

    def models(self) -> list[Json]:
        """Return all model versions."""
        return list(self._json("GET", "/v1/models")["models"])

    def report(self, run: str) -> Json:
        """Return the metrics of a run or of '<model>/<version>', and the paths of its plots, for `fetch`."""
        return self._json("GET", _report_path(run))

    def report_page(self, run: str) -> bytes:
        """Return the report of a run or of '<model>/<version>' as one HTML page with its pictures."""
        return self._connection.response("GET", _report_path(run), headers={"Accept": "text/html"}).content

    def compare(self, *names: str) -> Json:
        """Return metrics, settings, data and ROC curves of runs and model versions ('<model>/<version>')."""
        return self._json("GET", "/v1/comparison", params={"of": list(names)})

    def ledger(self, run: str) -> Json:
        """Return a recount of every event of every epoch from the stored objects."""
        return self._json("GET", f"/v1/runs/{run}/ledger")

    def score(self, model: str, events: Mapping[str, Sequence[Any]]) -> Columns:
        """Return the scores of raw events, {"met": [...], "lep_pt": [[...], ...]}, by '<name>' or '<name>/<version>'.

        Columns: entry, the event identifiers that were sent, score or score_0, score_1, ...
        """
        columns = self._json("POST", _predict_path(model), json={"events": dict(events)})["scores"]
        return {name: np.asarray(values) for name, values in columns.items()}

    def predict(
        self,
        model: str,
        files: Sequence[str],
        tree: str = "",
        on_status: Callable[[Status], None] | None = None,
        timeout_s: float = DAY_S,
        dtype: str = "",
    ) -> Iterator[Columns]:
        """Yield the scores of all events of files that the service can read, with the columns of `scores`.

        dtype: format of the files, '' for that of their names.
        The service turns many events into a run; this waits for it as `wait` does. Raises: RequestError if it fails.
        """
        options = {"tree": tree, "dtype": dtype}
        values = {"files": list(files), **{name: value for name, value in options.items() if value}}
        headers = {"Accept": ARROW_STREAM, "Idempotency-Key": uuid.uuid4().hex}
        with self._stream("POST", _predict_path(model), json=values, headers=headers) as response:
            if response.status_code != 202:
                yield from columns_of(response)
                return
            response.read()
        run = str(response.json()["run"])
        check_completed(self.wait(run, on_status, timeout_s))
        yield from self.scores(run)

    def scores(self, run: str) -> Iterator[Columns]:
        """Yield the scores of a prediction run, some thousand events at a time, in the order of files and entries.

        Columns: file (its index in the list), entry, the event identifiers, score or score_0, score_1, ...
        Raises: UnavailableError also if they break off.
        """
        headers = {"Accept": ARROW_STREAM}
        with self._stream("GET", f"/v1/runs/{run}/scores", headers=headers) as response:
            yield from columns_of(response)

    def tag(self, run: str, *tags: str) -> list[str]:
        """Give a run tags and return all that it has."""
        for tag in tags:
            self._json("PUT", _tag_path(run, tag))
        return list(self.status(run).values["tags"])

    def untag(self, run: str, *tags: str) -> list[str]:
        """Remove tags of a run and return those that are left."""
        for tag in tags:
            self._json("DELETE", _tag_path(run, tag))
        return list(self.status(run).values["tags"])

    def note(self, run: str, text: str) -> Json:
        """Add a note to a run and return it."""
        return self._json("POST", f"/v1/runs/{run}/notes", json={"text": text})

    def notes(self, run: str) -> list[Json]:
        """Return the notes on a run, oldest first."""
        return list(self._json("GET", f"/v1/runs/{run}/notes")["notes"])

    def cancel(self, run: str) -> Json:
        """End a run."""
        return self._json("POST", f"/v1/runs/{run}/cancel")

    def retry(self, run: str) -> Json:
        """Start a new attempt of a failed run."""
        return self._json("POST", f"/v1/runs/{run}/retry")

    def delete(self, run: str) -> None:
        """Delete a run."""
        self._connection.response("DELETE", f"/v1/runs/{run}")

    def fetch(self, path: str) -> bytes:
        """Return a file whose path the service named, e.g. a plot of a report."""
        return self._connection.response("GET", path).content

    def log(self, run: str, follow: bool = False, step: str = "", timeout_s: float = DAY_S) -> Iterator[str]:
        """Yield the lines of the log, control characters escaped; with `follow` as they come, until the run has ended.

        step: a kind of steps, or the start of a step's hash; '' for all steps.
        Raises: UnavailableError after `timeout_s`, or if the log breaks off.
        """
        end, after = time.monotonic() + timeout_s, ""
        while time.monotonic() < end:
            query, continued = {"step": step, "follow": "1" if follow else "0", "after": after}, None
            with self._stream("GET", f"/v1/runs/{run}/log", params=query) as response:
                for line in filter(None, lines_of(response)):  # empty lines keep the connection alive
                    if continued := CONTINUED.fullmatch(line):
                        after = continued["after"]
                    else:
                        yield visible(line)
            if not continued:
                return
        raise not_ended(run, timeout_s)

    def steps(self, run: str, follow: bool = False, timeout_s: float = DAY_S) -> Iterator[Json]:
        """Yield the entries of the log; with `follow` as they come, until the run has ended. Raises: UnavailableError
        after `timeout_s`, or if they break off."""
        end, after = time.monotonic() + timeout_s, ""
        while time.monotonic() < end:
            name, headers = "", {"Last-Event-ID": after}
            with self._stream("GET", f"/v1/runs/{run}/events", headers=headers) as response:
                for line in lines_of(response):
                    key, _, value = line.partition(": ")
                    after = value if key == "id" else after
                    name = value if key == "event" else name
                    if key == "data" and name == "step":
                        yield json.loads(value)
                    if key == "data" and name == "end":
                        return
                    if line.startswith(":") and not follow:  # a comment: nothing new
                        return
        raise not_ended(run, timeout_s)

    def _stream(self, method: str, path: str, **more: Any) -> closing[httpx.Response]:
        return closing(self._connection.response(method, path, stream=True, **more))

    def _json(self, method: str, path: str, **more: Any) -> Json:
        values: Json = self._connection.response(method, path, **more).json()
        return values


def check_completed(status: Status) -> None:
    """Raise RequestError if a run has ended otherwise."""
    if status.state != "completed":
        raise RequestError(f"run '{status.run}' {status.state}{': ' + status.error if status.error else ''}")


def _report_path(name: str) -> str:
    model, slash, version = name.partition("/")
    return f"/v1/models/{model}/{version}/report" if slash else f"/v1/runs/{name}/report"


def _tag_path(run: str, tag: str) -> str:
    return f"/v1/runs/{run}/tags/{quote(tag, safe='')}"


def _predict_path(model: str) -> str:
    name, _, version = model.partition("/")
    return f"/v1/models/{name}{f'/versions/{version}' if version else ''}/predict"


def pauses() -> Iterator[float]:
    """Yield the seconds between one look and the next: short at first, for short runs."""
    pause_s = FIRST_POLL_S
    while True:
        yield pause_s
        pause_s = min(1.2 * pause_s, POLL_S)


def not_ended(run: str, timeout_s: float) -> UnavailableError:
    """Return the error of a wait that has taken too long."""
    return UnavailableError(f"run '{run}' has not ended after {timeout_s:.0f} s")
