"""Errors as answers: the same statuses by every function, and the message for a form that is too large."""

import io
import os
import subprocess
import sys

import pytest
from flask import Flask, Request, Response, request
from hepfaas import errors
from hepfaas.api.forms import form_in
from hepfaas.models.batching import OverloadedError
from hepfaas.platform.cloud_events import CloudEvent
from hepfaas.platform.http import answers, takes_events
from hepfaas.platform.identity import CHALLENGE
from hepfaas.serving.app import failure
from werkzeug.datastructures import FileStorage
from werkzeug.test import EnvironBuilder, encode_multipart

FAILURES = (
    (errors.UnauthenticatedError("who?"), 401),
    (errors.ForbiddenError("no"), 403),
    (errors.NotThereError("none"), 404),
    (errors.TooLargeError("much"), 413),
    (errors.RequestError("wrong"), 422),
    (errors.LimitError("many"), 429),
    (OverloadedError("many"), 429),
    (errors.UnavailableError("away"), 503),
    (errors.MissingError("key", "store"), 503),
    (ZeroDivisionError("ours"), 500),
)


@pytest.mark.parametrize(("error", "status"), FAILURES)
def test_every_function_answers_an_error_with_the_same_status(error: Exception, status: int) -> None:
    @answers("any")
    def function(request: Request) -> Response:
        raise error

    one, (other, _) = function(Request(EnvironBuilder().get_environ())), failure(error, "/v1/x")
    assert (one.status_code, other.status_code) == (status, status)
    assert one.get_json() == {"error": errors.public_text(error)} or status == 500
    named = ("WWW-Authenticate", "Retry-After")
    assert [one.headers.get(name) for name in named] == [other.headers.get(name) for name in named]
    assert (one.headers.get("WWW-Authenticate") == CHALLENGE) == (status == 401)
    assert ("Retry-After" in one.headers) == (status in (429, 503))


def test_an_event_for_a_missing_object_is_not_delivered_again() -> None:
    def handle(event: CloudEvent) -> None:
        raise errors.NotThereError("there is no model 'm'")

    headers = {"ce-specversion": "1.0", "ce-type": "t", "ce-source": "/s", "ce-id": "1"}
    built = EnvironBuilder(method="POST", headers=headers, json={})
    assert takes_events("any", lambda: handle)(Request(built.get_environ())).status_code == 422


def test_predict_imports_neither_flask_nor_its_answers() -> None:
    code = "import sys, hepfaas.serving.app; print({'flask', 'hepfaas.platform.http'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env=os.environ)
    assert done.stdout == "set()\n", done.stderr


def test_the_message_names_the_limit_that_a_form_exceeds() -> None:
    app = Flask("forms")

    def count(request: Request) -> Response:
        with form_in(request, lambda size: None) as form:
            return Response(str(len(form.files)))

    @app.post("/")
    def form() -> Response:
        request.max_content_length = 1_000_000
        return answers("any")(count)(request)

    with app.test_client() as client:

        def message(**parts: object) -> str:
            boundary, body = encode_multipart(parts)
            answer = client.post("/", data=body, content_type=f"multipart/form-data; boundary={boundary}")
            assert answer.status_code == 413
            return str(answer.get_json()["error"])

        many = {f"file{number}": FileStorage(io.BytesIO(b"x"), "x") for number in range(1_100)}
        assert message(**many).startswith(
            "the form has more than 1,000 parts, or one whose headers have more than 16,000"
        )
        assert message(text="x" * 600_000).startswith("the names and texts of the form have more than")
        assert message(file=FileStorage(io.BytesIO(bytes(2_000_000)), "x")) == "the request has more than 1000000 bytes"
