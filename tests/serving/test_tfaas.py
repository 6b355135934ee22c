"""The calls of TFaaS, by HTTP."""

import json
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import httpx
import numpy as np
import pytest
from hepfaas.models import versions
from hepfaas.serving import tfaas_pb2
from support.servers import wait_until
from support.serving import Served, same


def test_clients_of_tfaas_are_answered_as_they_were(served: Served) -> None:
    http, row, columns = served.http, served.features[0].tolist(), served.spec.columns
    expected = served.scores[:1]
    sent = {"keys": ["x", "y", "z"], "values": row, "model": "job"}
    assert same(http.post("/json", json=sent).json(), expected)
    turned = {"keys": columns[::-1], "values": row[::-1], "model": "job"}
    assert same(http.post("/predict/json", json=turned).json(), expected)
    partly = http.post("/json", json={**turned, "keys": [*columns[:2], "other"]})
    assert partly.status_code == 422
    assert "give all 3 or none" in partly.json()["error"]
    assert http.post("/json", json={"values": row}).status_code == 422
    assert http.post("/params", json={"name": "job"}).content == b""
    assert same(http.post("/json", json={"values": row}).json(), expected)
    proto = tfaas_pb2.Row(key=columns, value=row, model="job")
    answer = tfaas_pb2.Predictions.FromString(http.post("/proto", content=proto.SerializeToString()).content)
    assert [(one.label, np.float32(one.probability)) for one in answer.prediction] == [("1", served.scores[0])]
    frame = tfaas_pb2.DataFrame(row=[tfaas_pb2.Row(value=row.tolist()) for row in served.features[:3]])
    answer = http.post("/predict/proto?message=DataFrame", content=frame.SerializeToString())
    predictions = tfaas_pb2.Predictions.FromString(answer.content)
    assert same([one.probability for one in predictions.prediction], served.scores[:3])
    assert http.get("/status").json()["postRequests"] > 4
    listed = http.get("/models").json()
    assert [one["name"] for one in listed] == ["job"]
    assert http.get("/params/job").json()["inputNode"] == listed[0]["input_node"]


@pytest.mark.parametrize(
    ("path", "body", "status", "finding"),
    [
        ("/json", {"values": [1, 2], "model": "job"}, 422, "shape [events, 3]; the request has shape [1, 2]"),
        ("/json", {"keys": True, "values": [1, 2, 3], "model": "job"}, 422, "it takes a list of names"),
        ("/json", {"values": ["a", 1, 2], "model": "job"}, 422, "'values': value 0 is \"a\""),
        ("/json", {"values": [1, 2], "model": "../job"}, 404, "there is no model '../job'"),
        ("/json", [], 422, "the body is not a JSON object"),
    ],
)
def test_what_is_wrong_is_told_with_what_was_expected(
    served: Served, path: str, body: Any, status: int, finding: str
) -> None:
    answer = served.http.post(path, json=body)
    assert (answer.status_code, finding in answer.json()["error"]) == (status, True), answer.text


def test_many_at_once_each_get_their_own_scores(served: Served) -> None:
    def ask(event: int) -> float:
        values = served.features[event].tolist()
        return float(served.http.post("/json", json={"values": values, "model": "job"}).json()[0])

    with ThreadPoolExecutor(16) as askers:
        assert same(list(askers.map(ask, range(len(served.scores)))), served.scores)
    metrics = served.http.get("/metrics").text
    assert re.search(r'hepfaas_requests_total\{call="row",status="200"\} \d', metrics)
    assert "hepfaas_model_loads 1" in metrics or "hepfaas_model_loads" in metrics


def test_versions_are_swapped_under_load_and_no_request_fails(served: Served) -> None:
    store, first = served.store, versions.load(served.store, "job")
    files = {versions.SPEC: store.get(f"models/job/1/{versions.SPEC}"), versions.GRAPH: first.graph}
    answers: list[int] = []
    swapped = threading.Event()

    def ask() -> None:
        with httpx.Client(base_url=served.url, timeout=60) as http:
            while not swapped.is_set():
                sent = {"values": served.features[0].tolist(), "model": "swapped"}
                answers.append(http.post("/json", json=sent).status_code)

    def published(number: int) -> versions.Version:
        claimed = versions.claim(store, "swapped", f"claim {number}")
        versions.publish(store, claimed, {**first.card, "name": "swapped", "version": number}, files)
        return claimed

    def answers_with(number: int) -> bool:
        return bool(served.http.get("/v2/models/swapped").json()["versions"] == [str(number)])

    before = published(1)
    with ThreadPoolExecutor(4) as askers:
        asking = [askers.submit(ask) for _ in range(4)]
        for number in range(2, 5):
            now = published(number)
            versions.delete(store, before)
            before = now
            wait_until(partial(answers_with, number), served.process, f"version {number}")
        swapped.set()
        for one in asking:
            one.result(timeout=60)
    assert set(answers) == {200}
    assert len(answers) > 100


def test_a_regression_answers_with_the_names_of_its_targets(served: Served) -> None:
    store, first = served.store, versions.load(served.store, "job")
    spec = {**first.spec.to_json(), "targets": ["gen_pt"]}
    card = {**first.card, "name": "pt", "labels": [], "targets": [{"name": "gen_pt"}]}
    files = {versions.SPEC: json.dumps(spec).encode(), versions.GRAPH: first.graph}
    versions.publish(store, versions.claim(store, "pt", "claim"), card, files)
    events = served.http.post("/v1/models/pt/predict", json={"events": served.columns()}).json()["scores"]
    assert same(events["prediction"], served.scores)
    assert "score" not in events
    proto = tfaas_pb2.Row(value=served.features[0].tolist(), model="pt")
    answer = tfaas_pb2.Predictions.FromString(served.http.post("/proto", content=proto.SerializeToString()).content)
    assert [(one.label, np.float32(one.probability)) for one in answer.prediction] == [("gen_pt", served.scores[0])]
