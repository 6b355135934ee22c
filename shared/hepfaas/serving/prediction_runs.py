"""Predictions that become runs: which are long, what is asked for, what is answered."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from starlette.responses import Response

from hepfaas.datasets.reading import PLAIN, Reading
from hepfaas.datasets.root import OpenedFile, opened
from hepfaas.errors import RequestError, UnavailableError
from hepfaas.models.served import Served
from hepfaas.orchestration.records import Request
from hepfaas.orchestration.submitting import trace_of
from hepfaas.runs.prediction import Prediction
from hepfaas.serving.predicting import Context, json_response
from hepfaas.steps.predict import hashes_of

MOST_HEADERS = 16
LOOK_S = 10.0
"""So many headers are read, for so long, to tell whether files are long; those that take more are."""

RETRY_AFTER_S = "2"


@dataclass(frozen=True)
class Wish:
    """Which scores are wanted, and whether the client asked for a run itself."""

    served: Served
    files: Sequence[str]
    tree: str
    entries: tuple[int, int] | None
    respond_async: bool


def looked_at(
    files: Sequence[str], tree: str, entries: tuple[int, int] | None, most_events: int, reading: Reading = PLAIN
) -> tuple[dict[str, OpenedFile], bool]:
    """The headers that were read, and whether more events are wanted than `most_events`.

    Raises: RequestError and UnavailableError for the first file; what is wrong with another one its reader will tell.
    """
    headers: dict[str, OpenedFile] = {}
    if entries and len(files) * (entries[1] - entries[0]) <= most_events:
        return headers, False
    events, end = 0, time.monotonic() + LOOK_S
    for number, url in enumerate(files):
        if number == MOST_HEADERS or time.monotonic() > end:
            return headers, True
        try:
            headers[url] = opened(url, tree, reading)
        except (RequestError, UnavailableError):
            if not number:
                raise
            return headers, False
        first, stop = entries or (0, headers[url].entries)
        events += max(0, min(stop, headers[url].entries) - first)
        if events > most_events:
            return headers, True
    return headers, False


def begun(context: Context, wish: Wish) -> Response:
    """Asks for the run, and answers 202 with the name that it will have.

    Raises: RequestError if this instance cannot, or the idempotency key was used for another request.
    """
    try:
        asking = context.serving.asking()
    except RequestError as error:
        most = context.serving.settings.predict_stream_events
        why = "a run was asked for" if wish.respond_async else f"more than {most:,} events become a run"
        raise RequestError(f"{why}, and {error}; ask for fewer events at a time with 'entries'") from error
    headers = context.request.headers
    trace = trace_of(headers.get("traceparent", ""))
    run = asking.ask(
        Request(_recipe(wish), time.time(), trace=trace, submitter=context.submitter),
        headers.get("idempotency-key", "")[:200],
    )
    place = f"{context.serving.settings.predict_base}/v1/runs/{run}"
    links = {"self": place, **{name: f"{place}/{name}" for name in ("scores", "ledger")}}
    values = {"run": run, "model": str(wish.served.version), "files": len(wish.files), "links": links}
    applied = {"Preference-Applied": "respond-async"} if wish.respond_async else {}
    return json_response(values, 202, {"Location": place, "Retry-After": RETRY_AFTER_S, **applied})


def _recipe(wish: Wish) -> Prediction:
    """The version is that of now, whatever an alias names later."""
    published = wish.served.published
    graph, spec = hashes_of(published)
    return Prediction(
        name=f"{published.version.name}-scores",
        model=str(published.version),
        graph=graph,
        spec=spec,
        urls=tuple(wish.files),
        tree=wish.tree,
        features=tuple(branch.name for branch in published.spec.branches),
        identifiers=published.spec.identifiers,
        entries=wish.entries,
        range_events=int(published.card["recipe"]["range_events"]),
    )
