"""Owners share one service and see nothing of each other; programs say who they are by a token."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from hepfaas import AsyncClient, Client
from hepfaas.cli import main
from hepfaas.errors import RequestError
from hepfaas.platform.roles import owner_of
from support.identities import GROUPS, Issuer
from support.jobs import packed, small_job
from support.system import System

MOST_S = 300
GROUP = "/cms/mlaas"


@pytest.fixture(scope="module")
def issuer() -> Iterator[Issuer]:
    with Issuer() as started:
        yield started


@pytest.fixture(scope="module")
def shared(issuer: Issuer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A system that asks who is there."""
    folder = tmp_path_factory.mktemp("shared")
    (folder / "roles.json").write_text(json.dumps({"limits": {GROUP: {"runs": 1}}}))
    variables = {
        "HEPFAAS_ISSUER": issuer.url,
        "HEPFAAS_AUDIENCE": "training",
        "HEPFAAS_ROLES": f"{folder}/roles.json",
        "HEPFAAS_DEADLINE_S": "60",
    }
    with System(folder / "up", **variables) as started:
        yield started


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_job(tmp_path_factory.mktemp("job") / "small")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_run_its_log_and_its_model_are_its_owners_alone(shared: System, issuer: Issuer, job: Path) -> None:
    tokens = iter([issuer.token("alice", preferred_username="Alice") for _ in range(10_000)])
    with Client(shared.url, lambda: next(tokens)) as alice, Client(shared.url, issuer.token("bob")) as bob:
        run = alice.submit(job, name="mine")
        ended = alice.wait(run, timeout_s=MOST_S)
        assert ended.state == "completed", ended.error
        submitter = {"issuer": issuer.url, "subject": "alice", "name": "Alice"}
        assert ended.values["submitter"] == submitter
        owner = owner_of("user", issuer.url, "alice")
        assert shared.end_of(run, owner) is not None
        assert shared.end_of(run) is None
        assert alice.ledger(run)["holds"]
        assert list(bob.runs()) == bob.models() == []
        calls = (bob.status, bob.report, bob.cancel, bob.retry, bob.ledger, bob.delete, lambda it: list(bob.log(it)))
        for call in calls:
            with pytest.raises(RequestError, match=f"there is no run '{run}'"):
                call(run)
    rows = {"values": [0.1] * 10, "model": "mine"}
    with httpx.Client(base_url=shared.url, timeout=60) as http:
        for token, path, status in (
            ("alice", "/v2/models/mine", 200),
            ("alice", "/v1/models/mine/1/card.json", 200),
            ("bob", "/v2/models/mine", 404),
            ("bob", "/v1/models/mine/1/card.json", 404),
            ("bob", "/model?process_name=mine_1", 404),
            ("bob", "/logs?process_name=mine_1", 404),
        ):
            answer = http.get(path, headers={"Authorization": f"Bearer {issuer.token(token)}"})
            assert answer.status_code == status, answer.text
        answer = http.post("/json", json=rows, headers={"Authorization": f"Bearer {issuer.token('bob')}"})
        assert answer.status_code == 404


@pytest.mark.timeout(600)
def test_members_share_what_is_their_groups_and_its_limit(shared: System, issuer: Issuer, job: Path) -> None:
    """Of a group that may have one unfinished run."""
    groups = {GROUPS: [GROUP]}
    alice, bob, eve = issuer.token("alice", **groups), issuer.token("bob", **groups), issuer.token("eve")
    headers = {"Authorization": f"Bearer {bob}", "Hepfaas-Group": GROUP, "Content-Type": "application/gzip"}
    data = packed(job)
    with Client(shared.url, alice, GROUP) as one, Client(shared.url, bob, GROUP) as other:
        run = one.submit(job, name="ours")
        second = httpx.post(f"{shared.url}/v1/runs?name=second", content=data, headers=headers, timeout=60)
        assert (second.status_code, "has 1 unfinished runs" in second.text) == (429, True), second.text
        assert other.status(run).values["submitter"]["group"] == GROUP
        other.cancel(run)
        assert one.wait(run, timeout_s=MOST_S).state in ("cancelled", "completed")
    with Client(shared.url, eve, GROUP) as third, pytest.raises(RequestError, match="'eve' is not in group"):
        third.status(run)
    with Client(shared.url, alice) as alone, pytest.raises(RequestError, match="there is no run"):
        alone.status(run)


def test_a_program_is_told_how_to_say_who_it_is(
    shared: System,
    issuer: Issuer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with Client(shared.url) as nobody, pytest.raises(RequestError, match=r"there is no token.*HEPFAAS_TOKEN_FILE"):
        nobody.status("x-1")
    with Client(shared.url, issuer.token(exp=1)) as late, pytest.raises(RequestError, match="has expired"):
        late.status("x-1")

    async def asked() -> None:
        async with AsyncClient(shared.url, issuer.token()) as client:
            await client.status("x-1")

    with pytest.raises(RequestError, match="there is no run 'x-1'"):
        asyncio.run(asked())
    for name in ("HEPFAAS_TOKEN", "HEPFAAS_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    assert main(["models", "--url", shared.url]) == 1
    assert "HEPFAAS_TOKEN" in capsys.readouterr().err
    monkeypatch.setenv("HEPFAAS_TOKEN", issuer.token("carol"))
    assert main(["models", "--url", shared.url]) == 0
    monkeypatch.delenv("HEPFAAS_TOKEN")
    file = tmp_path / "token"
    monkeypatch.setenv("HEPFAAS_TOKEN_FILE", str(file))
    assert main(["models", "--url", shared.url]) == 1
    assert f"'{file}' cannot be read" in capsys.readouterr().err
    with Client(shared.url, file) as client:
        for subject in ("carol", "dave"):  # oidc-agent writes it anew
            file.write_text(f"{issuer.token(subject)}\n")
            assert json.loads(client.fetch("/v1/me"))["subject"] == subject
    monkeypatch.setenv("HEPFAAS_GROUP", "/atlas")
    assert main(["models", "--url", shared.url]) == 1
    assert "'dave' is not in group '/atlas'" in capsys.readouterr().err
    predict = ["predict", "none", "root://h//x.root", "--url", shared.url]
    assert main(predict) == 1
    assert "'dave' is not in group '/atlas'" in capsys.readouterr().err
    monkeypatch.delenv("HEPFAAS_GROUP")
    assert main(predict) == 1
    assert "has no model 'none'" in capsys.readouterr().err


def test_events_of_hepfaas_up_are_signed_by_a_key_of_its_own(shared: System) -> None:
    headers = {"ce-specversion": "1.0", "ce-type": "org.hepfaas.open.requested", "ce-source": "/x", "ce-id": "1"}
    assert len(shared.up.replicas._environ["HEPFAAS_EVENT_KEYS"]) == 64
    for function in ("survey", "train", "advance"):
        answer = shared.post(function, headers=headers, json={"owner": "local", "run": "x-1"})
        assert answer.status_code == 403, answer.text
