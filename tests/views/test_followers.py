"""Streams of runs: how many are open at a time."""

from contextlib import ExitStack

import httpx
import pytest
from hepfaas.errors import LimitError, UnavailableError
from hepfaas.orchestration import records
from hepfaas.runs.recipe import LabelledFile, Recipe
from hepfaas.views.following import MOST_FOLLOWERS, MOST_OF_ONE, Followers
from support.servers import LIMIT_S
from support.system import System


def test_the_streams_of_one_owner_and_of_all_owners_are_limited() -> None:
    followers = Followers()
    joined = [followers.join(f"owner{number // 2}") for number in range(MOST_FOLLOWERS)]
    with pytest.raises(UnavailableError, match="too many clients follow"):
        followers.join("owner0")
    joined[-1].leave()
    joined[-1].leave()
    followers.join("owner0")
    with pytest.raises(UnavailableError, match="too many clients follow"):
        followers.join("owner0")
    joined[-2].leave()
    followers.join("owner0")
    with pytest.raises(LimitError, match="you follow"):
        followers.join("owner0")
    assert not any(one.is_displaced() for one in joined)


def test_too_many_streams_of_an_owner_are_refused_while_others_are_answered(system: System) -> None:
    store = system.store()
    request = records.Request(Recipe("followed", (LabelledFile("root://h//a", 0),), "blobs/x"), 0.0)
    run = records.create(store, request)
    with ExitStack() as stack, httpx.Client(base_url=system.url, timeout=LIMIT_S) as client:
        for _ in range(MOST_OF_ONE):
            stack.enter_context(client.stream("GET", f"/v1/runs/{run}/events"))
        for path in ("events", "log?follow=1"):
            answer = client.get(f"/v1/runs/{run}/{path}")
            assert (answer.status_code, answer.headers["Retry-After"]) == (429, "1")
            assert "you follow 4 runs already" in answer.json()["error"]
        assert client.get(f"/v1/runs/{run}/log").status_code == 200
        assert client.post(f"/v1/runs/{run}/cancel").status_code == 200
