"""Expressions of a tenant's model take little memory and time from the function that serves others."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hepfaas.errors import RequestError, TooLargeError
from hepfaas.features.jagged import Jagged
from hepfaas.features.spec import FeatureBranch, FeatureSpec, InputBranch
from hepfaas.inputs import raw_events
from hepfaas.models import versions
from hepfaas.runs.preprocessing_keys import preprocessing_from
from support.serving import PREDICT, Served, same, train

SORTED = "sort(" * 60 + "lep_pt" + ")" * 60
"""An expression that is short and takes long."""

LISTS = 20
"""Values of each event."""

AT_ONCE = 30
MOST_THREADS = 10
"""More than the function has. A request that waited for all others would find at most as many unanswered."""


def preprocessing(branches: int) -> Any:
    return preprocessing_from({"new_branches": {f"x{number}": SORTED for number in range(branches)}}, "params.json")


def model_of(branches: int) -> Any:
    spec = FeatureSpec(
        (FeatureBranch("lep_pt", jagged=True, low=0.0, high=1.0, width=2),),
        preprocessing=preprocessing(branches),
        read=(InputBranch("lep_pt", True, "float32"),),
    )
    return SimpleNamespace(published=SimpleNamespace(spec=spec))


def events_of(n_events: int, n_values: int) -> raw_events.Events:
    counts = np.full(n_events, n_values, dtype=np.int64)
    values = np.random.default_rng(1).random(n_events * n_values).astype(np.float32)
    return raw_events.Events({"lep_pt": Jagged(values, counts)}, {})


@pytest.mark.parametrize("n_events", [1, 30_000])
def test_expressions_end_after_a_time(n_events: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(raw_events, "REQUEST_S", 0.2)
    events = events_of(n_events, 600_000 // n_events)
    start = time.thread_time()
    with pytest.raises(RequestError, match="new branches, cuts and object cuts take more than 0.2 s for these events"):
        raw_events.vectors_of_events(model_of(100), events, lambda size: None)
    assert time.thread_time() - start < 3


def test_the_memory_of_new_branches_counts_before_they_are_computed() -> None:
    sizes = []

    def hold(size: int) -> None:
        sizes.append(size)
        raise TooLargeError("too much")

    for n_events in (1, 30_000):
        with pytest.raises(TooLargeError):
            raw_events.vectors_of_events(model_of(100), events_of(n_events, 600_000 // n_events), hold)
    one_event, many_events = sizes
    assert one_event > 100 * 600_000 * 8
    assert many_events < 100_000_000
    with pytest.raises(TooLargeError, match="the features of 1 events take"):
        raw_events.vectors_of_tensors(model_of(100), {"lep_pt": np.ones((1, 600_000), np.float32)}, 100_000_000)


def publish(served: Served, name: str) -> None:
    """Publish a model whose new branches take long."""
    first = versions.load(served.store, "job")
    spec = replace(served.spec, preprocessing=preprocessing(30), read=served.spec.inputs)
    claimed = versions.claim(served.store, name, "claim")
    files = {versions.SPEC: json.dumps(spec.to_json()).encode(), versions.GRAPH: first.graph}
    versions.publish(served.store, claimed, {**first.card, "name": name}, files)


@pytest.mark.slow
def test_a_model_with_heavy_expressions_leaves_threads_for_others(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("trained")
    train(folder)
    n_events = 200
    heavy = {"events": {"met": [1.0] * n_events, "lep_pt": [[float(i) for i in range(LISTS)]] * n_events}}
    with Served(folder) as served, ThreadPoolExecutor(AT_ONCE) as threads:
        publish(served, "heavy")
        served.http.post("/v1/models/heavy/predict", json=heavy).raise_for_status()
        waiting = [threads.submit(served.http.post, "/v1/models/heavy/predict", json=heavy) for _ in range(AT_ONCE)]
        time.sleep(0.5)  # they are under way
        answer = served.http.post(PREDICT, json={"events": served.columns(of=10)})
        n_waiting = sum(not one.done() for one in waiting)
        assert same(answer.json()["scores"]["score"], served.scores[:10])
        assert n_waiting > MOST_THREADS
        assert {one.result().status_code for one in waiting} == {200}
