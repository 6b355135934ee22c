"""Callers with few rights make the service write: everything counts against the owner's limit, and is bounded."""

import io
import json
import tarfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from hepfaas.errors import ForbiddenError, LimitError, RequestError
from hepfaas.models import versions
from hepfaas.orchestration import records, rules
from hepfaas.orchestration.intake import Arrived, Intake
from hepfaas.orchestration.requesting import Asking
from hepfaas.orchestration.submitting import Submitting
from hepfaas.platform.cloud_events import CloudEvent
from hepfaas.platform.identity import Quotas
from hepfaas.platform.roles import OwnerLimits, Roles, owner_of
from hepfaas.platform.storage import LEAST_BYTES
from hepfaas.platform.stores import open_store
from hepfaas.runs.prediction import Prediction
from support.identities import GROUPS, Issuer, Process, function
from support.jobs import MODEL
from support.servers import LIMIT_S

BYTES = 100_000
JOB = {"code": {"model.py": MODEL}, "params": {"epochs": 1}}
VALUES: dict[str, Any] = {
    "prefix": "s3://in/",
    "labels": {"signal": 1, "background": 0},
    "job": JOB,
    "debounce_s": 3600,
}
SCORING = Prediction("m-scores", "m/1", "graph", "spec", ("root://h//a.root",), "Events", ("met",), ())


class World:
    """An intake of an owner with a limit on bytes and on runs, on a folder."""

    def __init__(self, folder: Path, size_bytes: float = BYTES, runs: float = 3) -> None:
        self.root, self.store = open_store(str(folder)), open_store(f"{folder}/me")
        self.sent: list[CloudEvent] = []
        self._roles = Roles(default=OwnerLimits(runs, size_bytes))
        self.start()

    def start(self) -> None:
        """New instances of the functions, which know nothing of what was counted before."""
        self.quotas = Quotas(self._roles, self.root)
        self.intake = Intake(self.root, lambda owner: self.store, self, True, quotas=self.quotas)
        self.asking = Asking(self.root, self, "me", "predict", self.quotas)
        self.submitting = Submitting(self.root, self.store, self, "me", self.quotas)

    def send(self, event: CloudEvent) -> None:
        self.sent.append(event)

    @property
    def keys(self) -> set[str]:
        return set(self.root.keys(""))

    def fill(self) -> None:
        """Fill the store up to the owner's limit."""
        self.store.create("blobs/full", bytes(BYTES))
        self.start()

    def grown(self, tries: int, act: Callable[[int], object]) -> int:
        """Repeat a call, also when it is refused; return the number of objects that it creates."""
        before = len(self.keys)
        for number in range(tries):
            try:
                act(number)
            except (ForbiddenError, LimitError, RequestError):
                continue
        return len(self.keys) - before


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = World(tmp_path)
    made.intake.put("me", rules.rule_of("fresh", VALUES))
    return made


def news(number: int, url: str = "s3://in/signal.root") -> list[Arrived]:
    return [Arrived(url, str(number), "ObjectCreated:Put")]


def test_news_told_by_a_token_end_at_the_limit_though_each_is_small(world: World) -> None:
    tries = 3 * BYTES // LEAST_BYTES
    assert world.grown(tries, lambda number: world.intake.take("me", news(number), "")) <= BYTES / LEAST_BYTES + 1
    assert open_store(f"{world.store.url}").used_bytes() <= BYTES
    with pytest.raises(ForbiddenError, match="an object counts as 1,000 bytes at least"):
        world.intake.take("me", news(-1), "")


def test_an_owner_at_the_limit_gets_nothing_more_by_news(world: World) -> None:
    world.fill()
    assert world.grown(20, lambda number: world.intake.take("me", news(number), "")) == 0


def test_the_same_news_told_again_writes_nothing_more_and_is_never_refused(world: World) -> None:
    world.intake.take("me", news(1), "")
    world.fill()
    before = world.keys
    for _ in range(50):
        assert world.intake.take("me", news(1), "") == []
    assert world.keys == before


def test_files_that_wait_for_a_run_are_bounded_without_a_quota(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "MOST_WAITING", 20)
    world = World(tmp_path, float("inf"), float("inf"))
    world.intake.put("me", rules.rule_of("fresh", {**VALUES, "debounce_s": 0}))
    assert world.grown(50, lambda number: world.intake.take("me", news(number), "")) == 21  # and that the rule waits
    with pytest.raises(ForbiddenError, match="has 20 files that wait for a run"):
        world.intake.take("me", news(-1), "")
    monkeypatch.setattr(rules, "MOST_WAITING", 21)
    assert len(world.intake.take("me", news(0, "s3://in/background.root"), "")) == 1
    assert len(world.intake.take("me", [*news(-1), *news(-1, "s3://in/background.root")], "")) == 1


def test_a_notification_of_more_files_than_may_wait_is_refused_whole(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rules, "MOST_WAITING", 20)
    many = [one for number in range(21) for one in news(number)]
    assert world.grown(3, lambda _: world.intake.take("me", many, "")) == 0


def test_batches_that_never_become_runs_end_at_the_limit(tmp_path: Path) -> None:
    world = World(tmp_path)
    private = "http://127.0.0.1/in/"
    world.intake.put("me", rules.rule_of("fresh", {**VALUES, "prefix": private, "debounce_s": 0}))
    strict = Intake(
        world.root, lambda owner: world.store, world, False, quotas=world.quotas
    )  # so that each batch fails

    def tell(number: int) -> None:
        strict.take("me", [*news(number, f"{private}signal.root"), *news(number, f"{private}background.root")], "")
        assert records.runs(world.store) == []

    assert world.grown(200, tell) <= 1.5 * BYTES / LEAST_BYTES
    assert world.grown(20, tell) <= 1


def test_runs_that_news_begin_are_no_more_than_may_be_unfinished(tmp_path: Path) -> None:
    world = World(tmp_path, float("inf"), runs=3)
    world.intake.put("me", rules.rule_of("fresh", {**VALUES, "debounce_s": 0}))

    def tell(number: int) -> None:
        world.intake.take("me", [*news(number), *news(number, "s3://in/background.root")], "")

    world.grown(20, tell)
    assert len(records.runs(world.store)) == 3
    assert len(list(world.store.keys("rules/fresh/batches/"))) <= 4
    assert len(list(world.store.keys("idempotency/"))) <= 3 * 3  # none of the refused ones


def test_runs_that_are_asked_for_count_before_they_begin(tmp_path: Path) -> None:
    world = World(tmp_path, runs=3)
    ask = lambda number: world.asking.ask(records.Request(SCORING, 1.0), f"key {number}")  # noqa: E731
    assert world.grown(20, ask) == 2 * 3
    with pytest.raises(LimitError, match="has 3 unfinished runs"):
        world.asking.ask(records.Request(SCORING, 1.0))


def test_what_is_asked_for_counts_with_its_bytes(tmp_path: Path) -> None:
    world = World(tmp_path, runs=1_000)
    many = Prediction(**{**vars(SCORING), "urls": tuple(f"root://h//{number}.root" for number in range(1_000))})
    world.grown(100, lambda number: world.asking.ask(records.Request(many, float(number))))
    assert world.store.used_bytes() <= BYTES


def test_refused_submissions_leave_nothing(tmp_path: Path) -> None:
    world = World(tmp_path, runs=0)
    request = records.Request(SCORING, 1.0)
    assert world.grown(20, lambda number: world.submitting.submit(request, f"key {number}")) == 0
    world.fill()
    assert world.grown(20, lambda number: world.submitting.submit(request, f"other {number}")) == 0


def test_retries_and_cancellations_end_at_the_limit(tmp_path: Path) -> None:
    world = World(tmp_path)
    run = world.submitting.submit(records.Request(SCORING, 1.0))

    def act(number: int) -> None:
        world.submitting.cancel(run)
        world.root.delete(f"active/me/{run}")  # as `advance` does
        world.submitting.retry(run)

    assert world.grown(300, act) <= 2 * BYTES / LEAST_BYTES + 2
    world.submitting.delete(run)  # which is always allowed
    assert world.grown(20, lambda _: world.submitting.delete(run)) == 0


def test_rules_and_their_tokens_end_at_the_limit(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def put(number: int) -> None:
        world.intake.put("me", rules.rule_of("fresh", {**VALUES, "debounce_s": number}))

    def churn(number: int) -> None:
        put(number)
        rules.delete(world.store, "fresh")

    assert world.grown(20, lambda _: put(3600)) == 0  # nothing changes
    assert world.grown(20, lambda _: world.intake.make_token("me", "fresh")) == 20
    monkeypatch.setattr(rules, "MOST_TOKENS", 20)
    with pytest.raises(ForbiddenError, match="has 20 tokens; DELETE"):
        world.intake.make_token("me", "fresh")
    assert 0 < world.grown(200, churn) <= 2 * BYTES / LEAST_BYTES
    assert world.grown(20, churn) == 0
    monkeypatch.setattr(rules, "MOST_TOKENS", 1_000)
    assert world.grown(20, lambda _: world.intake.make_token("me", "fresh")) == 0


def test_names_of_rules_are_bounded_without_a_quota(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "MOST_RULES", 5)
    world = World(tmp_path, float("inf"))

    def put(number: int) -> None:
        world.intake.put("me", rules.rule_of(f"r{number}", VALUES))
        rules.delete(world.store, f"r{number}")

    assert world.grown(10, put) == 10
    put(0)
    with pytest.raises(ForbiddenError, match="there are 5 rules, deleted ones included"):
        put(99)


def test_an_alias_that_is_moved_again_and_again_is_two_objects(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    for number in range(1, 30):
        versions.set_alias(store, "m", "production", number)
        assert versions.aliases(store, "m") == {"production": number}
    assert len(list(store.keys(""))) == 2
    versions.set_alias(store, "m", "production", 0)
    assert versions.aliases(store, "m") == {}
    for number in range(versions.MOST_ALIASES - 1):
        versions.set_alias(store, "m", f"a{number}", 1)
    with pytest.raises(ForbiddenError, match="100 aliases"):
        versions.set_alias(store, "m", "another", 1)


# ----------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Site:
    """Functions that people call, with a small limit for each owner."""

    folder: Path
    issuer: Issuer
    runs: Process
    intake: Process
    predict: Process

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.issuer.token('alice', **{GROUPS: ['/cms']})}"}

    def used_bytes(self, subject: str) -> int:
        """An object that someone else stores."""
        return open_store(f"{self.folder}/store/{owner_of('user', self.issuer.url, subject)}").used_bytes()

    @property
    def owner(self) -> str:
        return owner_of("user", self.issuer.url, "alice")

    def keys(self) -> set[str]:
        return {key for key in open_store(f"{self.folder}/store").keys("") if not key.startswith("probe/")}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("quota")
    (folder / "roles.json").write_text(json.dumps({"limits": {"*": {"bytes": BYTES}}}))
    with ExitStack() as stack:
        issuer = stack.enter_context(Issuer())
        given = {
            "HEPFAAS_ISSUER": issuer.url,
            "HEPFAAS_AUDIENCE": "training",
            "HEPFAAS_ROLES": str(folder / "roles.json"),
        }
        names = ("runs", "intake", "predict")
        runs, intake, predict = (stack.enter_context(function(folder, name, **given)) for name in names)
        yield Site(folder, issuer, runs, intake, predict)


def test_a_rules_token_and_a_member_at_the_limit_write_nothing_by_http(site: Site) -> None:
    store = open_store(f"{site.folder}/store/{site.owner}")
    with httpx.Client(timeout=LIMIT_S, headers=site.headers) as http:
        runs, intake = site.runs.url, site.intake.url
        answer = http.put(f"{intake}/v1/rules/fresh", json=VALUES)
        assert answer.status_code == 200, answer.text
        token = http.post(f"{intake}/v1/rules/fresh/tokens").json()["token"]
        teller = {"Authorization": f"Bearer {token}"}
        record = {"eventName": "ObjectCreated:Put", "s3": {"bucket": {"name": "in"}, "object": {"key": "signal.root"}}}
        first = http.post(f"{intake}/v1/notifications", json={"Records": [record]}, headers=teller)
        assert first.status_code == 202, first.text
        codes = set()
        for size in (20, 1):  # files of a notification
            for number in range(20):
                keys = [{"key": "signal.root", "sequencer": f"{size} {number} {place}"} for place in range(size)]
                news = [{**record, "s3": {"bucket": {"name": "in"}, "object": key}} for key in keys]
                answer = http.post(f"{intake}/v1/notifications", json={"Records": news}, headers=teller)
                codes.add(answer.status_code)
        assert codes == {202, 403}
        assert list(store.keys("rules/fresh/files/"))
        assert len(site.keys()) <= BYTES // LEAST_BYTES + 5
        store.create("blobs/full", bytes(BYTES))
        store.create("folders/mine/1", json.dumps({"model.py": "blobs/full", "a_specs": "blobs/full"}).encode())
        before = site.keys()
        for path in ("/delete_specs", "/delete_specs"):
            assert http.get(f"{runs}{path}", params={"name": "mine"}).status_code == 200
        for number in range(3):
            event = {"ce-id": f"x{number}", "ce-type": "x", "ce-specversion": "1.0", "ce-source": "s3://in"}
            event |= {"ce-subject": "signal.root", "Content-Type": "application/json"}
            assert http.post(f"{intake}/v1/events", json={}, headers={**teller, **event}).status_code == 403
            assert http.put(f"{intake}/v1/rules/fresh", json={**VALUES, "debounce_s": number}).status_code == 403
            assert http.put(f"{intake}/v1/rules/new{number}", json=VALUES).status_code == 403
            assert http.post(f"{intake}/v1/rules/fresh/tokens").status_code == 403
            assert http.post(f"{runs}/v1/runs", json={"files": [], "code": {}}).status_code == 403
            names = ("name", "device", "memory", "cpus", "files", "labels", "model", "params")
            assert http.post(f"{runs}/submit", json=dict.fromkeys(names, "mine")).status_code == 403
            file = {"file": ("x.tar.gz", b"x")}
            assert http.post(f"{runs}/upload", params={"name": f"n{number}"}, files=file).status_code == 403
            assert http.put(f"{intake}/v1/rules/fresh", json={**VALUES, "job": 1}).status_code == 422
        assert len(site.keys() - before) == 1  # the folder without its specs, once
        again = http.post(f"{intake}/v1/notifications", json={"Records": [record]}, headers=teller)
        assert again.status_code == 202, again.text


def tarred(name: str, size: int) -> bytes:
    """Return a small tar.gz with a job's folder that contains a file of zeros."""
    out = io.BytesIO()
    texts = {"model.py": MODEL, "files.txt": f"{name}\nb.root\n", "labels.txt": "0\n1\n", "b.root": "x"}
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for path, data in (*((path, text.encode()) for path, text in texts.items()), (name, bytes(size))):
            info = tarfile.TarInfo(f"m/{path}")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def test_what_a_body_unpacks_to_counts_before_it_is_stored(site: Site) -> None:
    def chunked(data: bytes) -> Iterator[bytes]:  # without Content-Length
        yield data

    runs, predict, large = site.runs.url, site.predict.url, 20 * BYTES
    extra = {"Content-Type": "multipart/form-data; boundary=x"}
    form = b'--x\r\nContent-Disposition: form-data; name="file"; filename="%b"\r\n\r\n%b\r\n--x--\r\n'
    sent: dict[str, tuple[str, Any, dict[str, str]]] = {
        "a": (f"{runs}/v1/runs", tarred("a.root", large), {"Content-Type": "application/gzip"}),
        "b": (f"{runs}/upload?name=n", form % (b"x.tar.gz", tarred("a.root", large)), extra),
        "c": (f"{runs}/upload?name=n", chunked(form % (b"x.txt", bytes(large))), extra),
        "d": (f"{predict}/upload", tarred("m.keras", large), {"Content-Type": "application/gzip"}),
    }
    with httpx.Client(timeout=LIMIT_S) as http:
        for subject, (url, body, headers) in sent.items():
            token = {"Authorization": f"Bearer {site.issuer.token(subject)}"}
            answer = http.post(url, content=body, headers={**headers, **token})
            assert answer.status_code == 403, answer.text
            assert "is the limit" in answer.json()["error"]
            assert site.used_bytes(subject) == 0
        small = tarred("a.root", BYTES // 2)
        token = {"Authorization": f"Bearer {site.issuer.token('e')}"}
        answer = http.post(f"{runs}/upload", params={"name": "n"}, files={"file": ("x.tar.gz", small)}, headers=token)
        assert answer.status_code == 200, answer.text
        assert site.used_bytes("e") > BYTES // 2
