"""Answers to each caller, through a real oauth2-proxy and directly: the table of docs/reference/identity.md."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from hepfaas.models import versions
from hepfaas.orchestration import events, records, rules
from hepfaas.orchestration.events import RunName, Task, requested
from hepfaas.platform.cloud_events import CloudEvent, on_the_wire, signed
from hepfaas.platform.roles import owner_of
from hepfaas.platform.storage import Store
from hepfaas.platform.stores import open_store
from hepfaas.runs.recipe import LabelledFile, Recipe
from hepfaas.runs.steps import Open
from hepfaas.serving import open_inference_pb2 as inference
from support.identities import GROUPS, Issuer, Process, function, log_in, oauth2_proxy, provider
from support.servers import LIMIT_S

ROOT = Path(__file__).parents[2]
KEYS = ("the key that signs events from now on", "the key that signed events until now")
GROUP = "/cms/mlaas"
ROLES = {
    "users": [GROUP],
    "publishers": ["/cms/mlaas/production"],
    "admins": ["/cms/mlaas/admin"],
    "limits": {
        "/cms/mlaas/small": {"runs": 1},
        "/cms/mlaas/quick": {"requests_per_s": 1},
        "/cms/mlaas/full": {"bytes": 1},
    },
}


@dataclass(frozen=True)
class Site:
    """The service as at a site: two functions for people, each behind its proxy, and two for events."""

    folder: Path
    issuer: Issuer
    provider: Process
    runs: Process
    predict: Process
    intake: Process
    survey: Process
    advance: Process
    training: Process
    inference: Process

    def token(
        self, subject: str = "alice", audience: str = "training", groups: tuple[str, ...] = (GROUP,), **more: Any
    ) -> str:
        return self.issuer.token(subject, aud=audience, **{GROUPS: list(groups)}, **more)

    def owner(self, subject: str) -> str:
        return owner_of("user", self.issuer.url, subject)

    def store(self, owner: str) -> Store:
        return open_store(f"{self.folder}/store/{owner}")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    (folder / "roles.json").write_text(json.dumps(ROLES))
    with ExitStack() as stack:
        issuer = stack.enter_context(Issuer())
        people = stack.enter_context(provider(folder))
        common = {
            "HEPFAAS_ISSUER": f"{issuer.url},{people.url}",
            "HEPFAAS_ROLES": str(folder / "roles.json"),
            "HEPFAAS_EVENT_KEYS": ",".join(KEYS),
        }
        training, answering = (
            {**common, "HEPFAAS_AUDIENCE": f"{name},{name}-login"} for name in ("training", "inference")
        )
        runs, intake = (stack.enter_context(function(folder, name, **training)) for name in ("runs", "intake"))
        predict = stack.enter_context(function(folder, "predict", **answering))
        survey, advance = (stack.enter_context(function(folder, name, **common)) for name in ("survey", "advance"))
        for_training, for_inference = (
            stack.enter_context(oauth2_proxy(folder, audience, issuer.url, upstream.url))
            for audience, upstream in (("training", runs), ("inference", predict))
        )
        found = Site(
            folder, issuer, people, runs, predict, intake, survey, advance, for_training, for_inference
        )  # fmt: skip
        _fill(found)
        yield found


def _fill(site: Site) -> None:
    """Create a run, a model and a rule of alice."""
    store = site.store(site.owner("alice"))
    recipe = Recipe("mine", (LabelledFile("root://x//a.root", 1), LabelledFile("root://x//b.root", 0)), "blobs/0")
    assert records.create(store, records.Request(recipe, 1.0)) == "mine-1"
    versions.publish(store, versions.Version("mine", 1), {"n_features": 2, "parameters": 3}, {})
    values = {"prefix": "s3://new/", "labels": {"signal": 1, "background": 0}, "job": {"code": {"model.py": "x = 1"}}}
    rules.put(store, rules.rule_of("mine", values))


def ask(url: str, path: str = "/v1/me", token: str = "", **headers: str) -> httpx.Response:
    given = {"Authorization": f"Bearer {token}"} if token else {}
    return httpx.get(f"{url}{path}", headers={**given, **headers}, timeout=LIMIT_S)


Ask = Callable[[Site, str], httpx.Response]

TABLE: dict[str, tuple[Ask, int, int]] = {
    "no token": (lambda site, url: ask(url), 401, 401),
    "expired": (lambda site, url: ask(url, token=site.token(exp=1_000_000_000)), 401, 401),
    "wrong audience": (lambda site, url: ask(url, token=site.token(audience="inference")), 401, 401),
    "wrong issuer": (lambda site, url: ask(url, token=site.token(iss="https://elsewhere.example")), 401, 401),
    "not valid yet": (lambda site, url: ask(url, token=site.token(nbf=4_000_000_000)), 401, 401),
    "wrong group": (lambda site, url: ask(url, token=site.token(groups=("/atlas",))), 403, 403),
    "algorithm none": (lambda site, url: ask(url, token=site.issuer.unsigned()), 401, 401),
    "HS256 with the public key": (lambda site, url: ask(url, token=site.issuer.signed_with_the_public_key()), 401, 401),
    "X-Forwarded-User": (
        lambda site, url: ask(url, **{"X-Forwarded-User": "alice", "X-Forwarded-Groups": GROUP}),
        401,
        401,
    ),
    "X_Forwarded_User": (
        lambda site, url: ask(url, **{"X_Forwarded_User": "alice", "X_Forwarded_Groups": GROUP}),
        401,
        401,
    ),
    "X-Auth-Request-User": (lambda site, url: ask(url, **{"X-Auth-Request-User": "alice"}), 401, 401),
    "X-Forwarded-Access-Token": (
        lambda site, url: ask(url, **{"X-Forwarded-Access-Token": site.token(), "X_Authorization": site.token()}),
        401,
        401,
    ),
    "token in the query": (lambda site, url: ask(url, f"/v1/me?access_token={site.token()}"), 401, 401),
    "another group": (lambda site, url: ask(url, token=site.token(), **{"Hepfaas-Group": "/atlas"}), 403, 403),
    "another owner by header": (
        lambda site, url: ask(url, token=site.token("bob"), **{"Hepfaas-Owner": site.owner("alice")}),
        403,
        403,
    ),
    "another owner's run": (lambda site, url: ask(url, "/v1/runs/mine-1", token=site.token("bob")), 404, 404),
    "another owner's log": (lambda site, url: ask(url, "/v1/runs/mine-1/log", token=site.token("bob")), 404, 404),
    "another owner's model": (lambda site, url: ask(url, "/v1/models/mine/1", token=site.token("bob")), 404, 404),
    "good": (lambda site, url: ask(url, "/v1/models/mine/1", token=site.token()), 200, 200),
    "good, with a false name beside it": (
        lambda site, url: ask(url, token=site.token(), **{"X-Forwarded-User": "root"}),
        200,
        200,
    ),
}


@pytest.mark.parametrize("row", TABLE)
def test_what_each_caller_gets(site: Site, row: str) -> None:
    asked, through, straight = TABLE[row]
    for url, expected in ((site.training.url, through), (site.runs.url, straight)):
        answer = asked(site, url)
        assert answer.status_code == expected, answer.text
        if expected in (401, 403):
            assert answer.headers["content-type"].startswith("application/json")
            assert site.token() not in answer.text
        if expected == 401 and url == site.runs.url:
            assert answer.headers["www-authenticate"].startswith("Bearer")
            assert answer.json()["error"]
        if expected == 200 and "subject" in answer.json():
            assert answer.json()["subject"] == "alice"


def test_the_table_is_that_of_the_document() -> None:
    rows = re.findall(r"^\| ([^|]+) \| (\d+) \| (\d+) \|", (ROOT / "docs/reference/identity.md").read_text(), re.M)
    assert {name: (int(through), int(straight)) for name, through, straight in rows} == {
        name: (through, straight) for name, (_, through, straight) in TABLE.items()
    }


def test_a_token_for_training_is_refused_by_inference_and_the_other_way_round(site: Site) -> None:
    for audience, other, ours, proxy, foreign, foreign_proxy in (
        ("training", "inference", site.runs, site.training, site.predict, site.inference),
        ("inference", "training", site.predict, site.inference, site.runs, site.training),
    ):
        path = {"training": "/v1/me", "inference": "/v1/models/mine/aliases"}
        token = site.token(audience=audience)
        assert [ask(one.url, path[audience], token).status_code for one in (ours, proxy)] == [200, 200]
        assert [ask(one.url, path[other], token).status_code for one in (foreign, foreign_proxy)] == [401, 401]


def test_models_of_others_are_not_found_and_only_publishers_move_aliases(site: Site) -> None:
    alice, bob = (site.token(subject, "inference") for subject in ("alice", "bob"))
    publisher = site.token("alice", "inference", (GROUP, "/cms/mlaas/production"))
    for url in (site.predict.url, site.inference.url):
        assert ask(url, "/params/mine", alice).status_code == 200
        assert ask(url, "/params/mine", bob).status_code == 404
        assert ask(url, "/v2/models/mine", bob).status_code == 404
        path, body = f"{url}/v1/models/mine/aliases/production", {"version": 1}
        for token, status in ((alice, 403), (bob, 403), (publisher, 200)):
            answer = httpx.put(path, json=body, headers={"Authorization": f"Bearer {token}"}, timeout=LIMIT_S)
            assert answer.status_code == status, answer.text
        for method, refused in (
            ("DELETE", "/v1/models/mine/versions/1"),
            ("DELETE", "/delete/mine"),
            ("POST", "/params"),
        ):
            answer = httpx.request(
                method, f"{url}{refused}", json={"name": "mine"}, headers={"Authorization": f"Bearer {alice}"}
            )
            assert answer.status_code == 403, answer.text
    assert ask(site.predict.url, "/params/mine").status_code == 401
    assert ask(site.predict.url, "/v2/health/live").status_code == 200
    assert ask(site.predict.url, "/healthz").status_code == 204


def test_a_person_who_logs_in_with_a_browser_is_the_owner_in_the_token(site: Site) -> None:
    claims = {"email": "carol@x.example", "preferred_username": "carol", GROUPS: [GROUP]}
    httpx.put(f"{site.provider.url}/users/carol", json=claims, timeout=LIMIT_S).raise_for_status()
    (site.folder / "both.json").write_text(json.dumps({**ROLES, "users": [GROUP, f"{site.provider.url} {GROUP}"]}))
    variables = {
        "HEPFAAS_ISSUER": f"{site.issuer.url},{site.provider.url}",
        "HEPFAAS_AUDIENCE": "training,training-login",
    }
    with ExitStack() as stack:
        browser = stack.enter_context(httpx.Client(timeout=LIMIT_S))
        runs = stack.enter_context(function(site.folder, "runs", HEPFAAS_ROLES=f"{site.folder}/both.json", **variables))
        proxies = [
            stack.enter_context(oauth2_proxy(site.folder, "training", site.provider.url, upstream.url))
            for upstream in (runs, site.runs)
        ]
        assert browser.get(f"{proxies[0].url}/v1/me").status_code == 401
        begun = log_in(proxies[0].url, "carol", browser)
        assert "code_challenge_method=S256" in begun.headers["location"]
        answer = browser.get(f"{proxies[0].url}/v1/me", headers={"X-Forwarded-User": "alice"})
        assert answer.status_code == 200, answer.text
        found = answer.json()
        assert (found["subject"], found["name"], found["groups"]) == ("carol", "carol", [GROUP])
        assert found["owner"] == owner_of("user", site.provider.url, "carol")
        assert browser.get(f"{proxies[0].url}/v1/runs/mine-1").status_code == 404
        log_in(proxies[1].url, "carol", browser)
        answer = browser.get(f"{proxies[1].url}/v1/me")  # a group of that name, of another issuer than the roles say
        assert (answer.status_code, "in no group" in answer.text) == (403, True)


def test_a_page_of_another_site_does_nothing_with_a_session(site: Site) -> None:
    claims = {"email": "erin@x.example", "preferred_username": "erin", GROUPS: [GROUP]}
    httpx.put(f"{site.provider.url}/users/erin", json=claims, timeout=LIMIT_S).raise_for_status()
    (site.folder / "people.json").write_text(json.dumps({**ROLES, "users": [f"{site.provider.url} {GROUP}"]}))
    variables = {
        "HEPFAAS_ISSUER": f"{site.issuer.url},{site.provider.url}",
        "HEPFAAS_AUDIENCE": "training,training-login",
        "HEPFAAS_ROLES": f"{site.folder}/people.json",
    }
    with ExitStack() as stack:
        browser = stack.enter_context(httpx.Client(timeout=LIMIT_S))
        upstream = stack.enter_context(function(site.folder, "runs", **variables))
        proxy = stack.enter_context(oauth2_proxy(site.folder, "training", site.provider.url, upstream.url))
        log_in(proxy.url, "erin", browser)
        link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
        own = {"Sec-Fetch-Site": "same-origin", "Origin": proxy.url}
        mozilla = {"User-Agent": "Mozilla/5.0 (X11; Linux) Firefox/60.0"}
        for method, path, headers, status in (
            ("GET", "/v1/me", {}, 200),
            ("GET", "/v1/me", own, 200),
            ("GET", "/v1/me", link, 200),
            ("POST", "/v1/runs/x-1/cancel", own, 404),
            ("POST", "/v1/runs/x-1/cancel", link, 403),
            ("POST", "/v1/runs/x-1/cancel", {"Sec-Fetch-Site": "same-site"}, 403),
            ("POST", "/v1/runs/x-1/cancel", {"Origin": "https://evil.example"}, 403),
            ("POST", "/v1/runs/x-1/cancel", {"Origin": "null"}, 403),
            ("GET", "/delete_folder?name=x", own, 404),
            ("GET", "/delete_folder?name=x", link, 403),
            ("GET", "/delete_folder?name=x", mozilla, 403),
        ):
            answer = browser.request(method, f"{proxy.url}{path}", headers=headers)
            assert answer.status_code == status, (method, path, headers, answer.text)
            assert answer.headers["x-content-type-options"] == "nosniff"
    with httpx.Client(base_url=site.training.url, headers={"Authorization": f"Bearer {site.token()}"}) as program:
        assert program.post("/v1/runs/x-1/cancel").status_code == 404
        assert program.get("/delete_folder?name=x").status_code == 404


def test_an_admin_may_only_read_and_cancel_runs_of_others(site: Site) -> None:
    owner = site.owner("alice")
    admin = site.token("root", groups=(GROUP, "/cms/mlaas/admin"))
    headers = {"Authorization": f"Bearer {admin}", "Hepfaas-Owner": owner}
    assert owner in ask(site.runs.url, "/v1/owners", admin).json()["owners"]
    assert ask(site.runs.url, "/v1/owners", site.token()).status_code == 403
    with httpx.Client(base_url=site.runs.url, headers=headers, timeout=LIMIT_S) as http:
        assert http.get("/v1/runs/mine-1").status_code == 200
        assert http.delete("/v1/runs/mine-1").status_code == 403
        assert http.post("/v1/runs", json={}).status_code == 403
        assert http.get("/delete_folder?name=mine").status_code == 403
        cancelled = http.post("/v1/runs/mine-1/cancel")
        # the broker of this test is away: that is what keeps the event, and the attempt has ended all the same
        assert cancelled.status_code == 503, cancelled.text
        assert http.get("/v1/runs/mine-1").json()["state"] == "cancelled"
    with httpx.Client(base_url=site.intake.url, headers=headers, timeout=LIMIT_S) as http:
        assert http.get("/v1/rules/mine").status_code == 200
        assert http.delete("/v1/rules/mine").status_code == 403


def test_a_group_keeps_to_its_limits(site: Site) -> None:
    small, quick, full = (f"/cms/mlaas/{name}" for name in ("small", "quick", "full"))
    token = site.token(groups=(GROUP, small, quick, full))
    group = owner_of("group", site.issuer.url, small)
    open_store(f"{site.folder}/store").create(f"active/{group}/x-1", b"")
    job = {"files": ["http://127.0.0.1:1/a.root"] * 2, "labels": [0, 1], "code": {"model.py": "def model(n): ..."}}
    with httpx.Client(base_url=site.runs.url, headers={"Authorization": f"Bearer {token}"}, timeout=LIMIT_S) as http:
        first = http.get("/v1/runs", headers={"Hepfaas-Group": quick})
        second = http.get("/v1/runs", headers={"Hepfaas-Group": quick})
        assert (first.status_code, second.status_code) == (200, 429)
        assert "requests a second" in second.json()["error"]
        site.store(owner_of("group", site.issuer.url, full)).create("models/x", b"more than a byte")
        refused = http.post("/v1/runs", json=job, headers={"Hepfaas-Group": full})
        assert (refused.status_code, "is the limit" in refused.json()["error"]) == (403, True)


def test_rules_belong_to_their_owner_and_a_bucket_reports_files_with_the_token_of_one(site: Site) -> None:
    alice, bob = ({"Authorization": f"Bearer {site.token(subject)}"} for subject in ("alice", "bob"))
    record = {"eventName": "ObjectCreated:Put", "s3": {"bucket": {"name": "new"}, "object": {"key": "signal.root"}}}
    with httpx.Client(base_url=site.intake.url, timeout=LIMIT_S) as http:
        assert http.get("/v1/rules").status_code == 401
        assert http.get("/v1/rules/mine", headers=alice).status_code == 200
        assert http.get("/v1/rules/mine", headers=bob).status_code == 404
        assert http.post("/v1/rules/mine/tokens", headers=bob).status_code == 404
        assert http.post("/v1/notifications", json={"Records": [record]}).status_code == 401
        made = http.post("/v1/rules/mine/tokens", headers=alice)
        assert made.status_code == 201, made.text
        bucket = {"Authorization": f"Bearer {made.json()['token']}"}
        assert http.get("/v1/rules", headers=bucket).status_code == 403
        wrong = {"Authorization": f"{bucket['Authorization']}x"}
        assert http.post("/v1/notifications", json={"Records": [record]}, headers=wrong).status_code == 401
        before = http.get("/v1/rules/mine", headers=alice).json()["arrived"]
        told = http.post("/v1/notifications", json={"Records": [record]}, headers=bucket)
        assert told.status_code == 202, told.text
        assert http.get("/v1/rules/mine", headers=alice).json()["arrived"] == before + 1
        assert http.delete("/v1/rules/mine/tokens", headers=alice).status_code == 204
        assert http.post("/v1/notifications", json={"Records": [record]}, headers=bucket).status_code == 401
        news = {"ce-specversion": "1.0", "ce-type": "x", "ce-source": "s3://new", "ce-id": "1", "ce-subject": "b.root"}
        assert http.post("/", json={}, headers=news).status_code == 401
        ping = {**news, "ce-type": events.PING}
        assert http.post("/", json={}, headers=ping).status_code == 204


@pytest.mark.parametrize(
    ("name", "given", "said"),
    [
        ("runs", {"HEPFAAS_ISSUER": "", "HEPFAAS_AUDIENCE": ","}, "HEPFAAS_ISSUER is empty"),
        ("intake", {"HEPFAAS_EVENT_KEYS": KEYS[0]}, "HEPFAAS_ISSUER is empty"),
        ("predict", {}, "HEPFAAS_ISSUER is empty"),
        ("predict-grpc", {"HEPFAAS_ISSUER": "https://iam.example"}, "HEPFAAS_AUDIENCE go together"),
        ("advance", {}, "HEPFAAS_EVENT_KEYS is empty"),
        ("survey", {"HEPFAAS_EVENT_KEYS": ""}, "HEPFAAS_EVENT_KEYS is empty"),
        ("survey", {"HEPFAAS_EVENT_KEYS": KEYS[0]}, ""),
        ("advance", {"HEPFAAS_EVENT_KEYS": KEYS[0]}, ""),
        ("runs", {"HEPFAAS_WITHOUT_IDENTITY": "1"}, ""),
        ("advance", {"HEPFAAS_EVENT_KEYS": KEYS[0], "HEPFAAS_FAULTS": "/tmp/plan"}, "remove it"),
    ],
)
def test_on_knative_no_function_starts_open_to_everybody(
    tmp_path: Path, name: str, given: dict[str, str], said: str
) -> None:
    environ = {"HEPFAAS_STORE": str(tmp_path), "K_SINK": "http://127.0.0.1:9/", "K_SERVICE": name, **given}
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("HEPFAAS_", "K_"))}
    command = [sys.executable, ROOT / "functions" / name / "main.py"]
    done = subprocess.run(command, env={**inherited, **environ}, capture_output=True, text=True, timeout=LIMIT_S)
    assert (done.returncode == 0) == (not said), done.stderr
    assert said in done.stderr


def post(url: str, event: CloudEvent) -> httpx.Response:
    headers, body = on_the_wire(event)
    return httpx.post(url, headers=headers, content=body, timeout=LIMIT_S)


def test_every_event_function_refuses_events_without_a_valid_signature(site: Site) -> None:
    name = RunName(site.owner("alice"), "none-1", 1)
    step = Open(
        url="root://x//a.root",
        tree="Events",
        selected=(),
        excluded=(),
        identifiers=(),
        range_events=10,
        attempt="none-1/1",
    )
    event = requested(Task(name, step), "advance", "", site.store(name.owner))
    for function_ in (site.survey, site.advance):
        ours = signed(event, KEYS[0])
        dead = {"knativeerrordest": "http://survey", "knativeerrorcode": "422", "knativebrokerttl": "254"}
        good = (ours, signed(event, KEYS[1]), replace(ours, extensions={**ours.extensions, **dead}))
        for one in good:
            answer = post(function_.url, one)  # it is signed, and there is no such run
            assert (answer.status_code, "no run 'none-1'" in answer.text) == (422, True)
        other_data = {**event.data, "run": "mine-1"}
        wrong = (
            event,
            replace(ours, data=other_data),
            replace(ours, type="org.hepfaas.step.failed"),
            replace(ours, source="/hepfaas/x"),
            replace(ours, subject="steps/x/1"),
            replace(ours, id="1"),
            signed(event, "a key that somebody made up himself"),
            replace(event, extensions={"hepfaassig": ""}),
        )
        for one in wrong:
            answer = post(function_.url, one)
            assert answer.status_code == 403, answer.text
        assert b"is not signed by this service" in function_.log.read_bytes()


def test_an_unsigned_ping_only_makes_a_function_look(site: Site) -> None:
    name = RunName(site.owner("alice"), "mine-1", 1)
    step = Open(
        url="root://x//a.root",
        tree="Events",
        selected=(),
        excluded=(),
        identifiers=(),
        range_events=10,
        attempt="mine-1/1",
    )
    task = requested(Task(name, step), "advance", "", site.store(name.owner))
    before = set(open_store(f"{site.folder}/store").keys(name.owner))
    ping = CloudEvent(events.PING, "/apis/v1/namespaces/x/pingsources/y", "", "1", task.data)
    assert post(site.survey.url, ping).status_code == 403
    answer = post(site.advance.url, ping)
    assert answer.status_code != 403, answer.text
    assert set(open_store(f"{site.folder}/store").keys(name.owner)) == before


def test_a_request_for_a_run_needs_no_key_and_begins_only_stored_requests(site: Site) -> None:
    name = RunName(site.owner("alice"), "wished-1", 1)
    wish = events.event(events.RUN_REQUESTED, "predict", "asked/wished-1", name)
    answer = post(site.advance.url, wish)
    assert (answer.status_code, "no run 'wished-1' was requested" in answer.text) == (422, True)
    assert post(site.survey.url, wish).status_code == 403


def test_grpc_asks_for_a_token_in_its_metadata(site: Site) -> None:
    variables = {"HEPFAAS_ISSUER": site.issuer.url, "HEPFAAS_AUDIENCE": "inference"}
    with function(site.folder, "predict-grpc", **variables) as served:
        address = served.url.removeprefix("http://")
        with grpc.insecure_channel(address) as channel:

            def metadata(*pairs: tuple[str, str]) -> grpc.StatusCode:
                call = channel.unary_unary(
                    "/inference.GRPCInferenceService/ModelMetadata",
                    request_serializer=lambda message: message.SerializeToString(),
                    response_deserializer=inference.ModelMetadataResponse.FromString,
                )
                request = inference.ModelMetadataRequest(name="nothing")
                with pytest.raises(grpc.RpcError) as found:
                    call(request, metadata=pairs, timeout=LIMIT_S)
                return found.value.code()

            token = site.token(audience="inference")
            assert metadata() == grpc.StatusCode.UNAUTHENTICATED
            assert metadata(("x-forwarded-user", "alice")) == grpc.StatusCode.UNAUTHENTICATED
            assert metadata(("authorization", f"Bearer {site.token()}")) == grpc.StatusCode.UNAUTHENTICATED
            twice = [("authorization", f"Bearer {token}")] * 2
            assert metadata(*twice) == grpc.StatusCode.UNAUTHENTICATED
            other = ("hepfaas-group", "/atlas")
            assert metadata(("authorization", f"Bearer {token}"), other) == grpc.StatusCode.PERMISSION_DENIED
            assert metadata(("authorization", f"Bearer {token}")) == grpc.StatusCode.NOT_FOUND
