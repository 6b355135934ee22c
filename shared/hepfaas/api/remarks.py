"""Tags and notes of runs by HTTP."""

from __future__ import annotations

import time

from flask import Response

from hepfaas.api.bodies import body_object
from hepfaas.api.context import Context
from hepfaas.errors import RequestError
from hepfaas.orchestration import remarks
from hepfaas.orchestration.remarks import MOST_CHARACTERS, Note
from hepfaas.platform.http import json_answer
from hepfaas.platform.routes import Route

MOST_NOTE_BYTES = 12 * MOST_CHARACTERS + 1_000
"""A character may be a pair of escapes, \\ud83d\\ude00."""


def put_tag(context: Context, run: str, tag: str) -> Response:
    """Give a run a tag; the answer has all its tags."""
    context.quotas.check_bytes(context.owner)
    return json_answer({"tags": list(remarks.tag(context.store, context.run(run), [tag]))})


def delete_tag(context: Context, run: str, tag: str) -> Response:
    """Remove a tag of a run; the answer has those that are left."""
    context.quotas.check_bytes(context.owner)
    return json_answer({"tags": list(remarks.untag(context.store, context.run(run), [tag]))})


def list_notes(context: Context, run: str) -> Response:
    """The notes of people on a run, oldest first."""
    notes = remarks.notes_of(context.store, context.run(run))
    return json_answer({"notes": [note.to_json() for note in notes]})


def add_note(context: Context, run: str) -> Response:
    """Add a note to a run. A second note with the same text by the same author is not stored."""
    context.quotas.check_bytes(context.owner)
    values = body_object(context.request, MOST_NOTE_BYTES)
    text = values.get("text")
    if not isinstance(text, str) or len(values) != 1:
        raise RequestError('a note is {"text": "…"}')
    caller = context.caller
    note = Note(time.time(), text, caller.name or caller.subject)
    return json_answer(remarks.note(context.store, context.run(run), note).to_json(), 201)


NOTE = {
    "type": "object",
    "required": ["text"],
    "additionalProperties": False,
    "properties": {"text": {"type": "string", "minLength": 1, "maxLength": MOST_CHARACTERS}},
}

ROUTES = (
    Route("PUT", "/v1/runs/<run>/tags/<tag>", put_tag),
    Route("DELETE", "/v1/runs/<run>/tags/<tag>", delete_tag),
    Route("GET", "/v1/runs/<run>/notes", list_notes),
    Route("POST", "/v1/runs/<run>/notes", add_note, bodies={"application/json": NOTE}, status=201),
)
