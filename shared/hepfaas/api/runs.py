"""The HTTP API of runs: list, status, events, log, ledger, cancel, retry, delete."""

from __future__ import annotations

from typing import Any

from flask import Response

from hepfaas.api.context import Context
from hepfaas.errors import RequestError
from hepfaas.orchestration import records
from hepfaas.platform.http import json_answer
from hepfaas.platform.routes import Route
from hepfaas.platform.storage import is_name
from hepfaas.views import overview
from hepfaas.views.following import Follower, Followers, follow_events, follow_log

PAGE, MOST_PAGE, MOST_LOOKED = 50, 500, 2000
RETRY_AFTER_S = "2"
FOLLOWERS = Followers()


def list_runs(context: Context) -> Response:
    """Runs, newest first; ?state= and ?tag= select, ?limit= is the size of a page, ?after= continues after a page."""
    args = context.request.args
    limit, state, tag = _limit(args.get("limit", "")), args.get("state", ""), args.get("tag", "")
    if state and state not in overview.STATES:
        raise RequestError(f"state is '{state}'; it takes {', '.join(overview.STATES)}")
    listed: list[overview.Listed] = []
    after = ""
    for looked, (mark, run) in enumerate(records.newest(context.store, _mark(args.get("after", "")))):
        if len(listed) == limit or looked == MOST_LOOKED:
            return json_answer({"runs": _rows(listed), "after": after})
        after = mark
        if not records.is_deleted(context.store, run):
            each = overview.listed(context.store, run)
            listed += [each] if state in ("", each.row.state) and tag in ("", *each.row.tags) else []
    return json_answer({"runs": _rows(listed), "after": None})


def show_run(context: Context, run: str) -> Response:
    """Status of a run."""
    if not records.is_there(context.store, run) and (pending := overview.pending(context.store, run)):
        return json_answer(pending.to_json(), Retry_After=RETRY_AFTER_S)
    status = overview.status(context.store, context.run(run))
    if status.state in overview.ENDED:
        return json_answer(status.to_json())
    return json_answer(status.to_json(), Retry_After=RETRY_AFTER_S)


def run_events(context: Context, run: str) -> Response:
    """Server-sent events: each step as it ends, then the end of the run; at most 300 s, then reconnect."""
    last = _mark(context.request.headers.get("Last-Event-ID", "") or context.request.args.get("after", ""))
    follower = _follower(context, run)
    stream = follow_events(context.store, run, last, is_displaced=follower.is_displaced)
    response = Response(stream, mimetype="text/event-stream", headers={"Cache-Control": "no-store"})
    response.call_on_close(follower.leave)
    return response


def run_log(context: Context, run: str) -> Response:
    """The log of all steps, or of one (?step=kind or the start of its hash). ?follow=1 follows it for some minutes and
    ends with the mark for ?after=."""
    args = context.request.args
    follow, after, step = args.get("follow", "") in ("1", "true"), _mark(args.get("after", "")), args.get("step", "")
    if not follow:
        return Response(follow_log(context.store, context.run(run), step=step, after=after), mimetype="text/plain")
    follower = _follower(context, run)
    lines = follow_log(context.store, run, step=step, follow=True, after=after, is_displaced=follower.is_displaced)
    response = Response(lines, mimetype="text/plain")
    response.call_on_close(follower.leave)
    return response


def _follower(context: Context, run: str) -> Follower:
    """Return a place for a long stream. Raises: NotFound if there is no such run; LimitError; UnavailableError."""
    context.run(run)
    return FOLLOWERS.join(context.owner)


def run_ledger(context: Context, run: str) -> Response:
    """The ledger: every event of every epoch, recounted from the store."""
    return json_answer(overview.verified(context.store, context.run(run)).to_json())


def cancel_run(context: Context, run: str) -> Response:
    """Cancel a run; its results stay for a retry."""
    context.submitting.cancel(context.run(run))
    return json_answer(overview.row(context.store, run).to_json())


def retry_run(context: Context, run: str) -> Response:
    """Retry a run that failed or was cancelled; existing results are reused."""
    attempt = context.submitting.retry(context.run(run))
    return json_answer({"run": run, "attempt": attempt}, 202, Location=f"/v1/runs/{run}", Retry_After=RETRY_AFTER_S)


def delete_run(context: Context, run: str) -> Response:
    """Cancel and delete a run; model versions that it published stay."""
    context.submitting.delete(context.run(run))
    return Response(status=204)


def _rows(listed: list[overview.Listed]) -> list[dict[str, Any]]:
    """Return the rows of a page; `differs` compares the trainings of one name on this page."""
    return [each.to_json() for each in overview.compared(listed)]


def _limit(text: str) -> int:
    if not text:
        return PAGE
    if not (text.isascii() and text.isdecimal() and 0 < int(text[:9]) <= MOST_PAGE):
        raise RequestError(f"limit is '{text[:20]}'; it takes 1 to {MOST_PAGE}")
    return int(text)


def _mark(text: str) -> str:
    if text and not is_name(text):
        raise RequestError(f"'{text[:40]}' is not a valid 'after'; use the 'after' of the page before")
    return text


ROUTES = (
    Route(
        "GET", "/v1/runs", list_runs,
        query={
            "state": {"type": "string", "enum": list(overview.STATES)},
            "tag": {"type": "string"},
            "limit": {"type": "integer", "minimum": 1, "maximum": MOST_PAGE},
            "after": {"type": "string"},
        },
    ),
    Route("GET", "/v1/runs/<run>", show_run),
    Route("DELETE", "/v1/runs/<run>", delete_run, status=204),
    Route("GET", "/v1/runs/<run>/events", run_events, query={"after": {"type": "string"}}),
    Route(
        "GET", "/v1/runs/<run>/log", run_log,
        query={
            "step": {"type": "string"},
            "after": {"type": "string"},
            "follow": {"type": "string", "enum": ["0", "1"]},
        },
    ),
    Route("GET", "/v1/runs/<run>/ledger", run_ledger),
    Route("POST", "/v1/runs/<run>/cancel", cancel_run, is_for_admins=True),
    Route("POST", "/v1/runs/<run>/retry", retry_run, status=202),
)  # fmt: skip
