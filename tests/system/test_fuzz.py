"""Requests nobody would send, at every door: no fault of ours, no traceback, nothing written by a refused one."""

import io
import json
import os
import tarfile
import uuid
from collections.abc import Iterator

import httpx
import pytest
import schemathesis
from hepfaas.orchestration.events import DOES, PREFIX
from hepfaas.platform.cloud_events import CloudEvent, signed
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from support.system import System

ALL = os.environ.get("HEPFAAS_CHAOS") == "all"
AN_OPERATION = 80 if ALL else 3
BODIES = 1500 if ALL else 60
QUIET = settings(
    deadline=None,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


LEAVES = st.none() | st.booleans() | st.integers() | st.text()
JSON_VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8)
KEYS = ("files", "labels", "model", "params", "name", "exclude_branches", "epochs", "redirector")
CONTENT = (
    st.binary()
    | st.text().map(str.encode)
    | JSON_VALUES.map(lambda value: json.dumps(value).encode())
    | st.dictionaries(st.sampled_from(KEYS), JSON_VALUES).map(lambda value: json.dumps(value).encode())
)
FOLDERS = st.dictionaries(
    st.sampled_from(["files.txt", "labels.txt", "model.py", "params.json", "submit.json", "a", "a/b.py"]), CONTENT
)


def written(system: System) -> set[str]:
    """All objects of the store, but for those that functions try it with when they start."""
    return {key for key in system.root.keys("") if not key.startswith("probe/")}


def signature(system: System, event: CloudEvent) -> dict[str, str]:
    """What makes an event one of the system's; it looks into no other."""
    return dict(signed(event, system.up.replicas._environ["HEPFAAS_EVENT_KEYS"]).extensions)


def check(answer: httpx.Response) -> None:
    """What holds for every answer, whatever was asked."""
    assert answer.status_code < 500, answer.text
    assert "Traceback" not in answer.text
    if answer.status_code >= 400:
        assert answer.json()["error"]


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_document_tells_what_is_answered(system: System) -> None:
    schema = schemathesis.openapi.from_url(f"{system.url}/openapi.json")
    for found in schema.get_all_operations():
        fuzz(system, found.ok())


def fuzz(system: System, operation: schemathesis.APIOperation) -> None:  # type: ignore[type-arg]
    @settings(QUIET, max_examples=AN_OPERATION)
    @given(case=operation.as_strategy())
    def fuzzed(case: schemathesis.Case) -> None:
        before = written(system)
        answer = case.call(base_url=system.url, timeout=60)
        assert answer.status_code in (200, 201, 202, 204, 400, 404, 405, 413, 422), (
            case.as_curl_command(),
            answer.text,
        )
        assert "Traceback" not in answer.text
        if answer.status_code >= 400:
            assert written(system) == before, case.as_curl_command()

    fuzzed()


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", ["intake", "advance", "train", "survey"])
def test_random_bodies_are_refused(system: System, name: str) -> None:
    types = st.sampled_from([*(f"{PREFIX}.{kind}.requested" for kind in DOES), f"{PREFIX}.phase.completed", "x"])
    before = written(system)

    @settings(QUIET, max_examples=BODIES)
    @given(st.binary() | JSON_VALUES, types, st.booleans())
    def posted(body: object, type_: str, binary: bool) -> None:
        headers = {"Content-Type": "application/json" if binary else "application/cloudevents+json"}
        event = {"type": type_, "source": "/x", "id": uuid.uuid4().hex, "specversion": "1.0"}
        if isinstance(body, dict):  # what is not signed is not looked at
            event |= signature(system, CloudEvent(type_, "/x", "", event["id"], body))
            body = body if binary else {**event, "data": body}
        if binary:
            headers |= {f"ce-{name}": value for name, value in event.items()}
        data = {"content": body} if isinstance(body, bytes) else {"json": body}
        check(system.post(name, headers=headers, **data))

    posted()
    assert written(system) == before


@pytest.mark.timeout(1800)
def test_random_folders_are_refused(system: System) -> None:
    before = written(system)

    @settings(QUIET, max_examples=BODIES)
    @given(FOLDERS)
    def posted(folder: dict[str, bytes]) -> None:
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w:gz") as archive:
            for name, content in folder.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
        headers = {"Content-Type": "application/gzip"}
        with httpx.Client(base_url=system.url, timeout=60) as http:
            answer = http.post("/v1/runs", content=packed.getvalue(), headers=headers)
        check(answer)
        assert answer.status_code in (400, 422), answer.text

    posted()
    assert written(system) == before


def test_a_body_without_a_length_is_cut_off_at_the_limit(system: System) -> None:
    def long() -> Iterator[bytes]:
        yield from (b"x" * 65_536 for _ in range(40))

    headers = {"ce-type": "x", "ce-source": "/x", "ce-id": "1", "ce-specversion": "1.0"}
    for place in ("survey", "intake"):
        answer = system.post(place, headers=headers, content=b"x" * 2_600_000)
        assert answer.status_code == 413
        assert "more than 262144 bytes" in answer.json()["error"]
    with httpx.Client(base_url=system.url, timeout=60) as http:
        answer = http.post("/v1/events", headers=headers, content=long())
        assert answer.status_code == 413, answer.text


@pytest.mark.parametrize("step", [{}, {"kind": "train"}, {"kind": "sum", "of": "x", "members": ["../x"]}, {"kind": []}])
@pytest.mark.parametrize("name", [{"owner": "o", "run": "none-1"}, {"owner": "..", "run": "x"}, {"owner": 1}, {}])
def test_events_of_runs_that_are_not_there_are_refused(system: System, name: object, step: object) -> None:
    data = {**name, "attempt": 1, "step": step}  # type: ignore[dict-item]
    event = {"type": "x", "source": "/x", "id": "1", "specversion": "1.0"}
    event |= signature(system, CloudEvent("x", "/x", "", "1", data))
    headers = {f"ce-{key}": value for key, value in event.items()}
    before = written(system)
    for function in ("survey", "train", "advance"):
        answer = system.post(function, headers=headers, json=data)
        check(answer)
        assert answer.status_code == 422
    assert written(system) == before
