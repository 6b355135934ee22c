"""Predictions on files that become runs: which are long, and the request for a run."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from starlette.responses import Response

from hepfaas.datasets.opened import OpenedFile
from hepfaas.datasets.reading import PLAIN, Reading
from hepfaas.errors import RequestError, UnavailableError
from hepfaas.models.networks import rule_of
from hepfaas.models.served import Served
from hepfaas.orchestration.records import Request
from hepfaas.orchestration.submitting import trace_of
from hepfaas.runs.prediction import Prediction
from hepfaas.serving.context import Context
from hepfaas.serving.responses import json_response
from hepfaas.steps.predict import hashes_of, opened_for

MOST_HEADERS = 16
"""Headers of files that are read to find out whether a prediction is long; one with more files is."""

LOOK_S = 10.0
"""A prediction whose headers take longer to read is long."""

RETRY_AFTER_S = "2"


@dataclass(frozen=True)
class FileEntries:
    """The events to predict: an entry range of a tree in each file, all entries if None.

    trees: of each file, '' for that of the training, or for the only one of a file without it. dtype: format of the
    files, '' for that of their names.
    """

    files: Sequence[str]
    trees: Sequence[str]
    entries: tuple[int, int] | None = None
    dtype: str = ""


def look(
    served: Served, wanted: FileEntries, most_events: int, reading: Reading = PLAIN
) -> tuple[list[OpenedFile], bool]:
    """Return the headers of the first files that were read, and whether there are more than `most_events` events.

    Raises: RequestError and UnavailableError for the first file. Errors in other files are left to their reader.
    """
    files, entries = wanted.files, wanted.entries
    headers: list[OpenedFile] = []
    if entries and len(files) * (entries[1] - entries[0]) <= most_events:
        return headers, False
    events, end = 0, time.monotonic() + LOOK_S
    for number, (url, tree) in enumerate(zip(files, wanted.trees, strict=True)):
        if number == MOST_HEADERS or time.monotonic() > end:
            return headers, True
        try:
            headers.append(opened_for(served.published, url, tree, reading, wanted.dtype))
        except (RequestError, UnavailableError):
            if not number:
                raise
            return headers, False
        first, stop = entries or (0, headers[-1].entries)
        events += max(0, min(stop, headers[-1].entries) - first)
        if events > most_events:
            return headers, True
    return headers, False


def request_run(context: Context, served: Served, wanted: FileEntries, respond_async: bool) -> Response:
    """Request a run; return 202 with its name. respond_async: the client asked for a run.

    Raises: RequestError if this instance cannot start runs, or the idempotency key was used for another request.
    """
    try:
        asking = context.server.asking()
    except RequestError as error:
        most = context.settings.predict_stream_events
        why = "a run was asked for" if respond_async else f"more than {most:,} events become a run"
        raise RequestError(f"{why}, and {error}; ask for fewer events at a time with 'entries'") from error
    headers = context.request.headers
    trace = trace_of(headers.get("traceparent", ""))
    run = asking.ask(
        Request(_recipe(served, wanted), time.time(), trace=trace, submitter=context.submitter),
        headers.get("idempotency-key", "")[:200],
    )
    place = f"{context.settings.predict_base}/v1/runs/{run}"
    links = {"self": place, **{name: f"{place}/{name}" for name in ("scores", "ledger")}}
    values = {"run": run, "model": str(served.version), "files": len(wanted.files), "links": links}
    applied = {"Preference-Applied": "respond-async"} if respond_async else {}
    return json_response(values, 202, {"Location": place, "Retry-After": RETRY_AFTER_S, **applied})


def _recipe(served: Served, wanted: FileEntries) -> Prediction:
    """Return the recipe of the run. It names the version, so an alias that moves later changes nothing."""
    published = served.published
    graph, spec = hashes_of(published)
    return Prediction(
        name=f"{published.version.name}-scores",
        model=str(published.version),
        graph=graph,
        spec=spec,
        urls=tuple(wanted.files),
        tree=published.tree,
        trees=tuple(wanted.trees),
        dtype=wanted.dtype,
        record_function=published.spec.record_function,
        features=tuple(published.spec.input_names),
        identifiers=published.spec.identifiers,
        spectators=published.spec.spectators,
        preprocessing=published.spec.preprocessing.text,
        fold_by=rule.folds.by if (rule := rule_of(published)) else "",
        entries=wanted.entries,
        range_events=int(published.card["recipe"]["range_events"]),
    )
