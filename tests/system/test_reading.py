"""Files of a federation in runs of the service: who may read them, who serves them, whose credentials are shown."""

import base64
import json
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from hepfaas.platform.roles import owner_of
from support import grid
from support.identities import GROUPS, Issuer
from support.jobs import MODEL, PARAMS, write_root
from support.servers import LIMIT_S, XRootD, XRootDCache
from support.system import System

pytestmark = pytest.mark.slow

GROUP = "/cms"
EVENTS = 6_000
LISTED = "root://data.example//store/"
PRINTING = f"import os\nprint('environment', sorted(os.environ.items()))\n{MODEL}"
KEY = base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()


@dataclass
class Federation:
    """A service, the servers whose files it reads, and who its tokens are from."""

    origin: XRootD
    cache: XRootDCache
    system: System
    issuer: Issuer
    folder: Path

    def client(self, who: str, *groups: str) -> httpx.Client:
        token = self.issuer.token(who, **{GROUPS: list(groups)})
        return httpx.Client(base_url=self.system.url, headers={"Authorization": f"Bearer {token}"}, timeout=LIMIT_S)

    def job(self, *files: str, **params: Any) -> dict[str, Any]:
        code = {"model.py": PRINTING}
        return {"files": list(files), "labels": [1, 0], "code": code, "params": {**PARAMS, **params}}

    def ended(self, http: httpx.Client, run: str) -> dict[str, Any]:
        end = time.monotonic() + 240
        while (found := http.get(f"/v1/runs/{run}").json())["state"] == "unfinished":
            assert time.monotonic() < end, found
            time.sleep(0.2)
        return dict(found)


def submitted(http: httpx.Client, job: dict[str, Any]) -> str:
    answer = http.post("/v1/runs", json=job)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["run"])


@pytest.fixture(scope="module")
def issuer() -> Iterator[Issuer]:
    with Issuer() as started:
        yield started


@pytest.fixture(scope="module")
def federation(issuer: Issuer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    folder = tmp_path_factory.mktemp("federation")
    for number, name in enumerate(("signal", "background")):
        write_root(folder / f"{name}.root", number, 1.0 - number)
        write_root(folder / f"long-{name}.root", 10 + number, 1.0 - number, EVENTS)
    with XRootD() as origin, XRootDCache(origin) as cache:
        for path in folder.glob("*.root"):
            origin.serve(path)
        sources = {
            "federations": [
                {"name": "tests", "hosts": ["data.example"], "caches": [cache.door], "origins": [origin.door]}
            ],
            "allowed": [
                {"schemes": ["root"], "host": "data.example", "path": "/store/", "groups": [GROUP]},
                {"schemes": ["root"], "host": "127.0.0.1", "path": "/store/owned/"},
            ],
        }
        (folder / "sources.json").write_text(json.dumps(sources))
        variables = {
            "HEPFAAS_ISSUER": issuer.url,
            "HEPFAAS_AUDIENCE": "training",
            "HEPFAAS_SOURCES": str(folder / "sources.json"),
            "HEPFAAS_CREDENTIALS_KEY": KEY,
            "HEPFAAS_DEADLINE_S": "60",
        }
        with System(folder / "up", **variables) as system:
            yield Federation(origin, cache, system, issuer, folder)


@pytest.mark.timeout(600)
def test_a_run_tells_who_served_its_files_and_goes_on_when_the_cache_is_killed(federation: Federation) -> None:
    """Whatever was served by which door: together it is every event, once in each phase."""
    cache, origin = federation.cache, federation.origin
    with federation.client("alice", GROUP) as alice:
        run = submitted(alice, federation.job(f"{LISTED}signal.root", f"{LISTED}background.root"))
        found = federation.ended(alice, run)
        assert found["state"] == "completed", found
        assert found["places"] == {"data.example": 2}
        by_cache = {"open": {cache.door: 2}, "survey": {cache.door: 600}, "prepare": {cache.door: 600}}
        assert found["served_by"] == by_cache
        assert "groups" not in found["submitter"]

        run = submitted(alice, federation.job(f"{LISTED}long-signal.root", f"{LISTED}long-background.root"))
        end = time.monotonic() + 240
        while not alice.get(f"/v1/runs/{run}").json().get("served_by", {}).get("survey"):
            assert time.monotonic() < end
            time.sleep(0.05)
        cache.kill()
        found = federation.ended(alice, run)
        assert found["state"] == "completed", found
        for kind in ("survey", "prepare"):
            assert sum(found["served_by"][kind].values()) == 2 * EVENTS
        assert origin.door in found["served_by"]["prepare"]
        assert alice.get(f"/v1/runs/{run}/ledger").json()["holds"]
        log = alice.get(f"/v1/runs/{run}/log").text
        assert f"the server of '{cache.url('long-signal.root')}' does not answer" in log
        assert KEY not in log
        assert "environment" in log


def test_a_host_that_is_not_on_the_list_is_refused_with_the_list(federation: Federation) -> None:
    job = {"job": {"code": {"model.py": MODEL}}, "labels": {"sig": 1, "back": 0}}
    with federation.client("alice", GROUP) as alice, federation.client("bob") as bob:
        for http, url, told in (
            (alice, "root://evil.example//store/x.root", "root://data.example//store/, root://127.0.0.1//store/owned/"),
            (alice, "root://data.example//private/x.root", "root://data.example//store/, "),
            (bob, f"{LISTED}signal.root", "read: root://127.0.0.1//store/owned/"),
        ):
            answer = http.post("/v1/runs", json=federation.job(url, f"{url}2"))
            assert answer.status_code == 403, answer.text
            assert f"'{url}' is not among the addresses that you may read: " in answer.json()["error"]
            assert told in answer.json()["error"]
            answer = http.put("/v1/rules/x", json={**job, "prefix": url})
            assert answer.status_code == 403, answer.text
            assert told in answer.json()["error"]
        for url, said in (("..", "plain path"), ("%2e%2e", "plain path")):
            answer = alice.post("/v1/runs", json=federation.job(f"{LISTED}{url}/x.root", f"{LISTED}y.root"))
            assert (answer.status_code, said in answer.text) == (422, True), answer.text
        place = federation.origin.door.removeprefix("root://")
        for url in (f"root://data.example?@{place}//store/x.root", f"root://data.example#@{place}//store/x.root"):
            for answer in (
                alice.post("/v1/runs", json=federation.job(url, f"{url}2")),
                alice.put("/v1/rules/x", json={**job, "prefix": url}),
                alice.put(
                    "/v1/rules/x",
                    json={**job, "prefix": LISTED, "gate": {"files": [f"{url}sig", f"{url}back"], "fall": 0}},
                ),
            ):
                assert (answer.status_code, "leave it out" in answer.text) == (422, True), answer.text


@pytest.mark.timeout(600)
def test_predictions_on_files_keep_to_the_list_too(federation: Federation) -> None:
    with federation.client("carol", GROUP) as carol:
        files = (f"{LISTED}signal.root", f"{LISTED}background.root")
        run = submitted(carol, {**federation.job(*files), "name": "listed"})
        assert federation.ended(carol, run)["state"] == "completed"
        answer = carol.post("/v1/models/listed/predict", json={"files": list(files)})
        assert answer.status_code == 200, answer.text
        answer = carol.post("/v1/models/listed/predict", json={"files": ["root://evil.example//store/x.root"]})
        assert answer.status_code == 403, answer.text
        assert (
            "'root://evil.example//store/x.root' is not among the addresses that you may read: root://data"
            in answer.text
        )


@pytest.mark.timeout(600)
def test_a_batch_is_held_to_what_the_groups_of_who_put_the_rule_may_read(federation: Federation) -> None:
    """The rule's prefix begins what may be read, and a file below it is none of that."""
    with federation.client("dave", GROUP) as dave:
        values = {"prefix": "root://data.example//st", "labels": {"sig": 1, "back": 0}}
        answer = dave.put("/v1/rules/r", json={**values, "job": {"code": {"model.py": MODEL}}})
        assert answer.status_code == 200, answer.text
        for name in ("sig", "back"):
            event = {"ce-specversion": "1.0", "ce-type": "x", "ce-source": "/x", "ce-id": name}
            url = f"root://data.example//staged/{name}.root"
            answer = dave.post("/v1/events", headers=event, json={"url": url})
            assert answer.status_code == 204, answer.text
        end = time.monotonic() + LIMIT_S
        while not (batches := dave.get("/v1/rules/r").json()["batches"]) or not batches[0]:
            assert time.monotonic() < end
            time.sleep(0.1)
        assert "staged/" in batches[0]["error"]
        assert "is not among the addresses that you may read: root://data.example//store/" in batches[0]["error"]


@pytest.mark.timeout(600)
def test_a_credential_is_its_owners_alone_and_stands_nowhere(federation: Federation, tmp_path: Path) -> None:
    secret = secrets.token_bytes(32)
    with grid.with_macaroons(secret) as server, federation.client("erin") as erin, federation.client("bob") as bob:
        (server.data / "owned").mkdir(mode=0o755)
        files = []
        for name in ("signal", "background"):
            server.serve(federation.folder / f"{name}.root", f"owned/{name}.root")
            files.append(server.url(f"owned/{name}.root"))
        token = grid.read_token(secret)
        asked = {"host": "127.0.0.1", "kind": "bearer", "secret": token}
        answer = erin.post("/v1/credentials", json=asked)
        assert answer.status_code == 201, answer.text
        told = {"host": "127.0.0.1", "kind": "bearer", "expires": None}
        assert answer.json() == told
        assert erin.get("/v1/credentials").json() == {"credentials": [told]}
        assert bob.get("/v1/credentials").json() == {"credentials": []}

        run = submitted(erin, {**federation.job(*files), "name": "owned"})
        found = federation.ended(erin, run)
        assert found["state"] == "completed", found
        assert found["served_by"]["prepare"] == {server.door: 600}
        answer = erin.post("/v1/models/owned/predict", json={"files": files})
        assert answer.status_code == 200, answer.text
        others = federation.ended(bob, submitted(bob, federation.job(*files)))
        assert others["state"] == "failed"
        assert "its server refuses" in others["error"]

        shown = [
            erin.get(f"/v1/runs/{run}/log").text,
            json.dumps(found),
            json.dumps(others),
            erin.get("/openapi.json").text,
        ]
        owner = federation.system.store(owner_of("user", federation.issuer.url, "erin"))
        shown += [owner.get(key).decode("latin-1") for key in owner.keys("")]
        files_of_all = [path for path in (federation.folder / "up").rglob("*") if path.is_file()]
        shown += [path.read_bytes().decode("latin-1") for path in files_of_all]
        assert len(shown) > 50
        for text in shown:
            assert token not in text
            assert KEY not in text

        assert erin.delete("/v1/credentials/127.0.0.1").status_code == 204
        assert erin.delete("/v1/credentials/127.0.0.1").status_code == 404
        gone = federation.ended(erin, submitted(erin, federation.job(*files, range_events=50)))
        assert "its server refuses" in gone["error"]


def test_a_credential_that_is_none_is_refused_without_being_told(federation: Federation) -> None:
    with federation.client("erin") as erin:
        for values in ({"kind": "x509"}, {"kind": "password"}, {"host": ""}, {"more": 1}, {"expires": 1}):
            asked = {"host": "h", "kind": "bearer", "secret": "not-to-be-told", **values}
            answer = erin.post("/v1/credentials", json=asked)
            assert answer.status_code == 422, answer.text
            assert "not-to-be-told" not in answer.text
