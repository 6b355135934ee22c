"""The front door hands each request to the function that has its route."""

import re

import pytest
from hepfaas.api import calls, intake
from hepfaas.local.dispatch import function_for
from hepfaas.serving import app
from starlette.requests import Request

OF_BOTH = {"/openapi.json", "/v1/runs/x", "/v1/runs/x/scores", "/v1/runs/x/ledger"}
"""Paths of predict that runs has too."""


def request(method: str, path: str, query: str = "") -> Request:
    headers = [(b"host", b"localhost")]
    return Request({"type": "http", "method": method, "path": path, "query_string": query.encode(), "headers": headers})


@pytest.mark.parametrize(
    ("name", "routes"), [("runs", calls.ROUTES), ("predict", app.ROUTES), ("intake", intake.ROUTES)]
)
def test_each_route_leads_to_its_function(name: str, routes: tuple[object, ...]) -> None:
    wrong = []
    for route in routes:
        path = re.sub(r"<int:[^<>]+>", "1", route.path)
        path = re.sub(r"<[^<>]+>", "x", path)
        query = "name=x" if (name, path) == ("runs", "/upload") else ""
        expected = "runs" if path in OF_BOTH else "predict" if path == "/" else name
        if function_for(request(route.method, path, query)) != expected:
            wrong.append((route.method, path))
    assert not wrong


@pytest.mark.parametrize(
    ("method", "path", "query", "name"),
    [
        ("POST", "/upload", "", "predict"),
        ("POST", "/upload", "name=x", "runs"),
        ("GET", "/metrics", "", "predict"),
        ("GET", "/", "", "predict"),
        ("POST", "/", "", "predict"),
        ("GET", "/json", "", "predict"),
        ("HEAD", "/v2/health/ready", "", "predict"),
        ("PATCH", "/v1/rules/mine", "", "intake"),
        ("GET", "/v1/models/m/1", "", "runs"),
        ("GET", "/v1/models/m/1/card.json", "", "runs"),
        ("GET", "/v1/models/m/aliases", "", "predict"),
        ("POST", "/v1/models/m/versions/1/predict", "", "predict"),
        ("GET", "/nothing", "", "runs"),
        ("GET", "//json", "", "predict"),
    ],
)
def test_a_path_leads_to_a_function_whatever_the_method(method: str, path: str, query: str, name: str) -> None:
    assert function_for(request(method, path, query)) == name
