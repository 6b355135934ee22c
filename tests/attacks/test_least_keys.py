"""Each function has only the Secrets that it needs, and its key of the store has only the rights that it needs."""

import json
import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
from hepfaas.errors import ForbiddenError, RequestError
from hepfaas.orchestration import events
from hepfaas.platform.cloud_events import CloudEvent, is_signed, signed
from hepfaas.platform.roles import owner_of
from hepfaas.platform.settings import Settings
from support.rendered import of_kind
from support.rights import OWNER, POLICY, GuardedStore, secret_variables, secrets_of, store_policies, values_of
from support.servers import TOP, s3_client

POLICIES = store_policies()
FUNCTIONS = sorted(path.parent.name for path in (TOP / "functions").glob("*/main.py"))
GROUP = owner_of("group", "https://issuer.example", "/cms/mlaas")
HASH = "0" * 64
SHORT = {"*run*": POLICIES.RUN, "*records*": POLICIES.RECORDS}
ACTIONS = ("read", "write", "delete")
MOST_POLICY_BYTES = 6_144
"""Largest managed policy of AWS, without white space:
https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html"""


def table() -> dict[str, tuple[set[str], dict[str, set[str]]]]:
    """Secrets and rights of each function, as documented in docs/reference/identity.md."""
    text = (TOP / "docs/reference/identity.md").read_text()
    rows = re.findall(r"^\| `([a-z-]+)` \|(.*)\|(.*)\|(.*)\|(.*)\|$", text[text.index("## Keys of functions") :], re.M)

    def patterns(cell: str) -> set[str]:
        named = [SHORT[name] for name in re.findall(r"\*[a-z]+\*(?=,| |$)", re.sub("`[^`]*`", "", cell))]
        return set(re.findall("`([^`]*)`", cell)).union(*named)

    return {
        name: (set(re.findall("`([^`]*)`", given)), dict(zip(ACTIONS, map(patterns, rights), strict=True)))
        for name, given, *rights in rows
    }


def test_the_table_says_what_manifests_and_policies_do() -> None:
    found = table()
    assert sorted(found) == FUNCTIONS
    for name, (secrets, rights) in found.items():
        given = secrets_of(name) - {f"store-{name}"}
        if name == "advance":
            given = {one if one == "event-keys" else "event-keys-*" for one in given}
        assert given == secrets, name
        assert rights == {action: set(POLICIES.RIGHTS[name].get(action, ())) for action in ACTIONS}, name


def test_the_overlay_of_the_tests_does_what_the_policies_say() -> None:
    policy = json.loads(POLICY.read_text())
    pairs = {one["name"]: tuple(one["credentials"][0].values()) for one in policy["identities"]}
    assert sorted(pairs) == FUNCTIONS
    assert len(set(pairs.values())) == len(FUNCTIONS)
    assert policy == POLICIES.seaweedfs(pairs, "hepfaas")


def test_no_two_functions_share_a_secret_of_the_store_or_of_events() -> None:
    shared = {name: secrets_of(name) for name in FUNCTIONS if name != "advance"}
    for name, secrets in shared.items():
        others = set().union(*(theirs for other, theirs in shared.items() if other != name))
        assert secrets & others <= {"credentials-key"}
    values = [frozenset(values_of(one).items()) for one in of_kind("overlays/local", "Secret").values()]
    assert len(set(values)) == len(values)


def test_a_function_is_given_no_secret_beside_these() -> None:
    """Also by no other variable and no mounted file."""
    for name in FUNCTIONS:
        service = of_kind("base", "Service", "serving.knative.dev")[name]
        mentioned = set(re.findall(r"'(?:secret|secretName)': ", str(service)))
        assert not mentioned, name


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_policy_fits_into_aws(function: str) -> None:
    policy = json.dumps(POLICIES.aws(function, "hepfaas"), separators=(",", ":"))
    assert len(policy) <= MOST_POLICY_BYTES


KEYS = {
    "a graph": "models/m/1/model.tflite",
    "a card": "models/m/1/card.json",
    "an alias": "models/m/aliases/best/7",
    "code": f"blobs/{HASH}",
    "an upload": f"uploads/{HASH}/model.pb",
    "a request": "runs/m-1/request.json",
    "an end": "runs/m-1/attempts/1/end.json",
    "a failure": f"runs/m-1/attempts/1/failed/train-{HASH}",
    "a list": "newest/1-m-1",
    "a rule": "rules/r/1.json",
    "a token of a rule": f"rules/r/tokens/{HASH}",
    "a credential": "credentials/host.example/1",
    "a folder": "folders/f/1",
    "a mark": f"idempotency/{HASH}/run",
    "a wish": "asked/m-scores-1",
    **{f"a result of {kind}": f"steps/{kind}/{HASH}" for kinds in events.DOES.values() for kind in kinds},
    "a sum": f"steps/sum/{HASH}",
    "an active run": "/active/{owner}/m-1",
    "a waiting wish": "/asked/{owner}/m-scores-1",
}
RESULTS = {f"a result of {kind}" for kinds in events.DOES.values() for kind in kinds}
ADDED_UP = {"a sum"}


def results(function: str) -> set[str]:
    return {f"a result of {kind}" for kind in events.DOES[function]}


FAILURE = {"a failure"}
WRITES = {
    "survey": FAILURE | results("survey") | ADDED_UP | {"code"},
    "prepare": FAILURE | results("prepare") | ADDED_UP,
    "train": FAILURE | results("train") | {"code"},
    "score": FAILURE | results("score") | ADDED_UP,
    "apply": FAILURE | results("apply") | ADDED_UP,
    "evaluate": FAILURE | results("evaluate") | {"code"},
    "publish": FAILURE | results("publish") | {"a graph", "a card", "an alias"},
    "advance": FAILURE
    | {"a request", "an end", "a list", "code", "an active run", "a wish", "a waiting wish"},  # it deletes wishes
    "runs": FAILURE
    | {"a graph", "a card", "an alias", "code", "an upload", "a request", "an end", "a list", "a credential"}
    | {"a folder", "a mark", "an active run"},
    "intake": FAILURE | {"a rule", "a token of a rule", "a request", "an end", "a list", "code", "an active run"},
    "predict": {"a graph", "a card", "an alias", "an upload", "a wish", "a waiting wish"},  # it deletes models
    "predict-grpc": set(),
}
"""Keys that an identity can change in SeaweedFS, which has one right for writing and deleting."""

NOT_READ = {
    "survey": {"a graph", "a rule", "a result of train", "a folder"},
    "prepare": {"a graph", "a rule", "a result of train", "a folder"},
    "train": {"a graph", "a credential", "a rule", "a folder", "a token of a rule"},
    "score": {"a credential", "a graph", "an upload", "a result of train"},
    "apply": {"a result of train", "a result of prepare", "a rule", "a folder", "a token of a rule", "a mark"},
    "evaluate": {"a credential", "a graph", "an upload", "a result of prepare"},
    "publish": {"a credential", "an upload", "a result of train", "a rule"},
    "advance": {"a credential", "a graph", "an upload", "a rule", "a token of a rule"},
    "runs": {"a rule", "a token of a rule"},
    "intake": {"a credential", "an upload", "a result of train"},
    "predict": {"code", "a result of train", "a result of prepare", "a rule", "a token of a rule", "a folder"},
    "predict-grpc": set(KEYS) - {"a graph", "a card", "an alias"},
}


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GuardedStore]:
    """Run SeaweedFS with the policy of the overlay and an object of each kind, of a user and of a group."""
    store = GuardedStore(tmp_path_factory.mktemp("guarded") / "seaweedfs")
    store.start()
    try:
        client = s3_client(store.variables)
        for owner in (OWNER, GROUP):
            for what in KEYS:
                client.put_object(Bucket="hepfaas", Key=key_of(what, owner), Body=b"secret")
        yield store
    finally:
        store.stop()


def key_of(what: str, owner: str) -> str:
    key = KEYS[what]
    return key[1:].format(owner=owner) if key.startswith("/") else f"{owner}/{key}"


def allowed(client: Any, call: str, **arguments: Any) -> bool:
    try:
        getattr(client, call)(Bucket="hepfaas", **arguments)
    except client.exceptions.ClientError as error:
        if error.response["Error"]["Code"] != "AccessDenied":
            raise
        return False
    return True


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_stolen_key_changes_and_reads_no_more_than_its_function(guarded: GuardedStore, function: str) -> None:
    client = s3_client(guarded.as_(function))
    for owner in (OWNER, GROUP):
        writes = {what for what in KEYS if allowed(client, "put_object", Key=key_of(what, owner), Body=b"secret")}
        assert writes == WRITES[function]
        read = {what for what in KEYS if allowed(client, "get_object", Key=key_of(what, owner))}
        assert not read & NOT_READ[function]
        assert not {what for what in set(KEYS) - writes if allowed(client, "delete_object", Key=key_of(what, owner))}


@pytest.mark.parametrize("function", FUNCTIONS)
def test_the_policy_of_aws_is_no_wider(function: str) -> None:
    """In AWS `*` matches any characters including `/`, and `?` one character, as in fnmatch."""
    for owner in (OWNER, GROUP):
        for what in set(KEYS) - WRITES[function]:
            for action in ("write", "delete"):
                patterns = POLICIES.patterns(function, action)
                assert not any(fnmatchcase(key_of(what, owner), pattern) for pattern in patterns), (what, action)


@pytest.mark.parametrize("folder", ["models", "default", "uploads", "asked", "blobs", "steps/predict", "runs"])
def test_a_name_that_looks_like_a_room_opens_none(guarded: GuardedStore, folder: str) -> None:
    """Users choose the names of rules, runs and hosts."""
    for function in ("apply", "predict", "score"):
        client = s3_client(guarded.as_(function))
        for room in ("rules", "folders", "credentials", "idempotency"):
            key = f"{OWNER}/{room}/{folder}/1.json"
            assert not allowed(client, "put_object", Key=key, Body=b"x"), (function, key)


def settings_of(name: str) -> Settings:
    return Settings.from_environ({"HEPFAAS_STORE": "/nowhere", **secret_variables(name)})


def task(kind: str) -> CloudEvent:
    data = {"owner": OWNER, "run": "m-1", "attempt": 1, "step": {"kind": kind}}
    return CloudEvent(f"org.hepfaas.{kind}.requested", "/hepfaas/advance", f"steps/{kind}/{HASH}", "1", data)


def report(function: str, kind: str) -> CloudEvent:
    data = {"owner": OWNER, "run": "m-1", "attempt": 1, "step": f"steps/{kind}/{HASH}", "kind": kind, "phase": kind}
    return CloudEvent(events.STEP_COMPLETED, f"/hepfaas/{function}", f"steps/{kind}/{HASH}", "1", data)


@pytest.mark.parametrize("thief", sorted(events.DOES))
def test_a_stolen_key_of_events_makes_no_other_functions_tasks_and_reports(thief: str) -> None:
    (key,) = settings_of(thief).keys_of_events()
    advances = events.keys_by_function(settings_of("advance"))
    for function, kinds in events.DOES.items():
        mine = function == thief
        for kind in kinds:
            forged = signed(task(kind), key)
            assert is_signed(forged, settings_of(function).keys_of_events()) == mine
            assert is_signed(forged, advances(forged)) == mine
            forged = signed(report(function, kind), key)
            assert is_signed(forged, advances(forged)) == mine
            if not mine:
                with pytest.raises(ForbiddenError):
                    advances(report(thief, kind))


@pytest.mark.parametrize("name", ["runs", "intake", "predict", "predict-grpc"])
def test_where_people_ask_there_is_no_key_of_events(name: str) -> None:
    assert not [variable for variable in secret_variables(name) if "EVENT" in variable]


def test_the_step_functions_and_advance_do_not_start_without_keys() -> None:
    for name in (*events.DOES, "advance"):
        kept = {key: value for key, value in secret_variables(name).items() if key != "HEPFAAS_EVENT_KEYS"}
        with pytest.raises(RequestError, match="HEPFAAS_EVENT_KEYS is empty"):
            Settings.from_environ({"K_SERVICE": name, **kept}).keys_of_events()


def test_credentials_are_opened_where_files_are_read_and_nowhere_else() -> None:
    reading = {name for name, kinds in events.DOES.items() if set(kinds) & set(events.READING)}
    having = {name for name in FUNCTIONS if "credentials-key" in secrets_of(name)}
    assert having == reading | {"predict", "runs"}  # `runs` seals what owners give it
    may_read = {name for name in FUNCTIONS if "credentials/*" in POLICIES.RIGHTS[name]["read"]}
    assert may_read == having


def test_new_keys_are_made_for_a_site(tmp_path: Path) -> None:
    POLICIES.main("seaweedfs", str(tmp_path / "keys"), "bucket")
    policy = json.loads((tmp_path / "keys/s3.json").read_text())
    for one in policy["identities"]:
        (pair,) = one["credentials"]
        lines = (tmp_path / f"keys/store-{one['name']}.env").read_text().splitlines()
        assert lines == [f"AWS_ACCESS_KEY_ID={pair['accessKey']}", f"AWS_SECRET_ACCESS_KEY={pair['secretKey']}"]
        assert all("bucket" in action for action in one["actions"])
    assert (tmp_path / "keys").stat().st_mode & 0o077 == 0
