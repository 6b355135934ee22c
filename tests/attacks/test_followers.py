"""A few owners hold as many streams as they can; another owner's stream is still served."""

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack

import httpx
import pytest
from hepfaas.errors import UnavailableError
from hepfaas.orchestration import records
from hepfaas.orchestration.records import Entry
from hepfaas.platform.roles import owner_of
from hepfaas.platform.stores import open_store
from hepfaas.runs.recipe import LabelledFile, Recipe
from hepfaas.views.following import MOST_ENDING, MOST_FOLLOWERS, MOST_OF_ONE, Follower, Followers
from hypothesis import given
from hypothesis import strategies as st
from support.identities import Issuer, Process, function
from support.servers import LIMIT_S

OWNERS = "abcdefghij"


def active(joined: list[Follower]) -> Counter[str]:
    return Counter(one.owner for one in joined if not one.is_displaced())


def test_two_owners_with_all_streams_keep_no_other_out() -> None:
    followers = Followers()
    joined = [followers.join(owner) for owner in "ab" for _ in range(MOST_OF_ONE)]
    joined += [followers.join(owner) for owner in "cd"]
    assert active(joined) == {"a": 3, "b": 3, "c": 1, "d": 1}
    assert [one.is_displaced() for one in joined[:MOST_OF_ONE]] == [True, False, False, False]  # the oldest


def test_the_displaced_owner_cannot_take_the_place_back() -> None:
    followers = Followers()
    joined = [followers.join(owner) for owner in "ab" for _ in range(MOST_OF_ONE)]
    mine = followers.join("c")
    for one in joined:
        if one.is_displaced():
            one.leave()
    for owner in "ab" * 10:
        with pytest.raises(UnavailableError):
            followers.join(owner)
    assert not mine.is_displaced()


def test_streams_that_do_not_end_take_no_more_threads() -> None:
    followers = Followers()
    joined = [followers.join(owner) for owner in "ab" for _ in range(MOST_OF_ONE)]
    refused = 0
    for owner in OWNERS * 3:
        try:
            joined.append(followers.join(owner))
        except UnavailableError:
            refused += 1
    assert refused
    assert len(joined) <= MOST_FOLLOWERS + MOST_ENDING


@given(st.lists(st.tuples(st.sampled_from(OWNERS), st.booleans()), max_size=60))
def test_whoever_follows_less_than_half_of_the_largest_owner_is_let_in(moves: list[tuple[str, bool]]) -> None:
    followers, joined = Followers(), list[Follower]()
    for owner, joins in moves:
        before = active(joined)
        if not joins:
            for one in [one for one in joined if one.owner == owner][:1]:
                one.leave()
                joined.remove(one)
            continue
        try:
            joined.append(followers.join(owner))
        except UnavailableError:
            assert before[owner] + 1 >= max(before.values())
        assert before[owner] <= active(joined)[owner]
        for one in [one for one in joined if one.is_displaced()]:  # it ends at its next check
            one.leave()
            joined.remove(one)
        assert active(joined).total() <= MOST_FOLLOWERS


@pytest.fixture(scope="module")
def issuer() -> Iterator[Issuer]:
    with Issuer() as running:
        yield running


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, issuer: Issuer) -> Iterator[Process]:
    """Run the function `runs`, with an unfinished run of each owner that has one entry in its log."""
    folder = tmp_path_factory.mktemp("followers")
    recipe = Recipe("long", (LabelledFile("root://h//a", 0),), "blobs/x")
    for subject in OWNERS:
        store = open_store(f"{folder}/store/{owner_of('user', issuer.url, subject)}")
        records.create(store, records.Request(recipe, 1.0))
        records.log(store, "long-1", Entry(2.0, "survey", f"steps/survey/{'0' * 64}", 1.0))
    given = {"HEPFAAS_ISSUER": issuer.url, "HEPFAAS_AUDIENCE": "training", "THREADS": "17"}
    with function(folder, "runs", **given) as running:
        yield running


def opened(stack: ExitStack, client: httpx.Client, url: str, headers: dict[str, str]) -> httpx.Response:
    """Open a stream as soon as there is room for it: the server notices a closed client only at its next write."""
    end = time.monotonic() + LIMIT_S
    while time.monotonic() < end:
        answer = stack.enter_context(client.stream("GET", url, headers=headers))
        if answer.status_code == 200:
            return answer
        assert answer.headers["Retry-After"] == "1"
        answer.close()
        time.sleep(0.2)
    pytest.fail(f"no place for {url}")


@pytest.mark.parametrize("path", ["events", "log?follow=1"])
def test_a_third_owner_follows_his_run_and_the_displaced_client_goes_on_behind_its_mark(
    runs: Process, issuer: Issuer, path: str
) -> None:
    of = {subject: {"Authorization": f"Bearer {issuer.token(subject)}"} for subject in "abc"}
    with ExitStack() as stack, httpx.Client(base_url=runs.url, timeout=LIMIT_S) as client:
        url = f"/v1/runs/long-1/{path}"
        streams = [opened(stack, client, url, of[subject]) for subject in "ab" for _ in range(MOST_OF_ONE)]
        mine = stack.enter_context(client.stream("GET", url, headers=of["c"]))
        assert mine.status_code == 200, mine.read()
        first = streams[0].read().decode()  # the stream ends although the run does not
        mark = f"{2_000_000:017d}-survey-{'0' * 12}"
        assert (f"id: {mark}" in first) if path == "events" else first.endswith(f"more by ?follow=1&after={mark}\n")
        streams[5].close()
        more = {"Last-Event-ID": mark} if path == "events" else {}
        resumed = opened(stack, client, f"{url}&after={mark}" if "?" in url else url, {**of["a"], **more})
        assert "survey  " not in (text := next(resumed.iter_text()))
        assert "event: step" not in text
