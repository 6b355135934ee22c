"""The identity of callers: valid tokens, owners, roles and limits."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hepfaas.errors import (
    ForbiddenError,
    LimitError,
    RequestError,
    UnauthenticatedError,
    UnavailableError,
)
from hepfaas.platform.folder import FolderStore
from hepfaas.platform.identity import Identity, IdentityHeaders, Quotas, Rate
from hepfaas.platform.oidc import AGAIN_S, KEYS_S, MOST_KEYS_S
from hepfaas.platform.oidc import Issuer as Keys
from hepfaas.platform.roles import OwnerLimits, Roles, owner_of, roles_of
from hepfaas.platform.settings import Settings
from hepfaas.platform.storage import is_name
from hypothesis import given
from hypothesis import strategies as st
from joserfc.jwk import RSAKey
from support.identities import GROUPS, Issuer


@pytest.fixture(scope="module")
def issuer() -> Iterator[Issuer]:
    with Issuer() as started:
        yield started


def settings(issuer: Issuer, **more: Any) -> Settings:
    return Settings("/nowhere", issuers=(issuer.url,), audiences=("training", "https://hepfaas.example"), **more)


def bearer(token: str, group: str = "", owner: str = "") -> IdentityHeaders:
    return IdentityHeaders(f"Bearer {token}", group, owner)


def test_without_an_issuer_everybody_is_the_owner_of_the_settings() -> None:
    identity = Identity(Settings("/nowhere", owner="me"))
    assert (
        identity.caller(IdentityHeaders()).owner == identity.caller(IdentityHeaders("Bearer x", "g", "o")).owner == "me"
    )


def test_a_valid_token_identifies_the_caller_with_every_algorithm(issuer: Issuer) -> None:
    identity = Identity(settings(issuer))
    tokens = [issuer.token(alg=alg) for alg in ("RS256", "RS512", "PS256")] + [issuer.token(alg="ES256", key=1)]
    callers = [identity.caller(bearer(token)) for token in tokens]
    assert {caller.owner for caller in callers} == {owner_of("user", issuer.url, "alice")}
    several = issuer.token("bob", aud=["other", "https://hepfaas.example"], preferred_username="Bob")
    assert identity.caller(bearer(several)).submitter() == {"issuer": issuer.url, "subject": "bob", "name": "Bob"}


@pytest.mark.parametrize(
    ("claims", "message"),
    [
        ({"exp": int(time.time()) - 60}, "has expired"),
        ({"exp": None}, "'exp'"),
        ({"exp": "never"}, "'exp'"),
        ({"exp": float("nan")}, "'exp'"),
        ({"nbf": int(time.time()) + 3600}, "'nbf'"),
        ({"iat": int(time.time()) + 3600}, "'iat'"),
        ({"aud": "inference"}, "another audience; ask the issuer for one for training"),
        ({"aud": None}, "another audience"),
        ({"aud": []}, "another audience"),
        ({"aud": "train"}, "another audience"),
        ({"sub": None}, "'sub'"),
        ({"sub": ""}, "'sub'"),
        ({"sub": 5}, "'sub'"),
        ({"iss": "https://elsewhere.example"}, "of issuer 'https://elsewhere.example'"),
        ({"iss": None}, "not a signed JSON Web Token"),
        ({"iss": ["x"]}, "not a signed JSON Web Token"),
    ],
)
def test_an_invalid_token_is_refused_with_the_reason(issuer: Issuer, claims: dict[str, Any], message: str) -> None:
    with pytest.raises(UnauthenticatedError, match=message):
        Identity(settings(issuer)).caller(bearer(issuer.token(**claims)))


def test_a_forged_token_is_refused(issuer: Issuer) -> None:
    identity = Identity(settings(issuer))
    good = issuer.token()
    head, body, signature = good.split(".")
    other = issuer.token("mallory").split(".")[1]
    with Issuer() as foreign:
        stolen = foreign.token(iss=issuer.url)
    wrong = [
        issuer.unsigned(),
        issuer.signed_with_the_public_key(),
        f"{head}.{other}.{signature}",
        f"{head}.{body}.",
        f"{head}.{body}",
        stolen,
        "x" * 20_000,
        "",
        "a.b.c",
        f"{good}.{signature}.{signature}",
        "é.é.é",
    ]
    for token in wrong:
        with pytest.raises(UnauthenticatedError):
            identity.caller(bearer(token))
    for header in ("", good, f"Basic {good}", f"Bearer {good},Bearer {good}"):
        with pytest.raises(UnauthenticatedError):
            identity.caller(IdentityHeaders(header))
    assert identity.caller(IdentityHeaders(f"bearer {good}")).subject == "alice"


def test_a_repeated_header_is_invalid(issuer: Issuer) -> None:
    pair = (b"authorization", f"Bearer {issuer.token()}".encode())
    identity = Identity(settings(issuer))
    assert identity.caller(IdentityHeaders.from_pairs([(b"x-forwarded-user", b"root"), pair])).subject == "alice"
    with pytest.raises(UnauthenticatedError):
        identity.caller(IdentityHeaders.from_pairs([pair, pair]))


def test_keys_are_fetched_for_a_new_key_but_not_for_every_unknown_one() -> None:
    now = 1000.0
    with Issuer() as issuer:
        keys = Keys(issuer.url, lambda: now)
        keys.key({"alg": "RS256", "kid": "one"})
        assert issuer.n_requests == 2
        issuer.keys.append(RSAKey.generate_key(2048, {"kid": "two"}))
        with pytest.raises(UnauthenticatedError, match="a key that issuer"):
            keys.key({"alg": "RS256", "kid": "two"})
        now += AGAIN_S
        keys.key({"alg": "RS256", "kid": "two"})
        for _ in range(10):
            with pytest.raises(UnauthenticatedError):
                keys.key({"alg": "RS256", "kid": "nobody's"})
        assert issuer.n_requests == 4
        with pytest.raises(UnauthenticatedError):
            keys.key({"alg": "ES256", "kid": "one"})
        with pytest.raises(UnauthenticatedError):
            keys.key({"alg": "RS256"})  # two would match


def test_the_keys_of_an_issuer_that_does_not_answer_are_used_for_a_day() -> None:
    now = 1000.0
    with Issuer() as issuer:
        keys = Keys(issuer.url, lambda: now)
        issuer.is_away = True
        with pytest.raises(UnavailableError, match="does not send its keys: .* answers 503"):
            keys.key({"alg": "RS256", "kid": "one"})
        requests, issuer.is_away = issuer.n_requests, False
        with pytest.raises(UnavailableError):
            keys.key({"alg": "RS256", "kid": "one"})
        assert issuer.n_requests == requests
        now += AGAIN_S
        keys.key({"alg": "RS256", "kid": "one"})
        issuer.is_away = True
        now += KEYS_S + 1
        keys.key({"alg": "RS256", "kid": "one"})
        now += MOST_KEYS_S
        with pytest.raises(UnavailableError):
            keys.key({"alg": "RS256", "kid": "one"})


def test_an_issuer_with_another_name_is_refused() -> None:
    with Issuer() as issuer, pytest.raises(UnavailableError, match="it calls itself"):
        Keys(f"{issuer.url}/").key({"alg": "RS256", "kid": "one"})


def test_a_known_token_is_not_verified_again_until_it_expires(issuer: Issuer) -> None:
    now = time.time()
    identity = Identity(settings(issuer), clock=lambda: now)
    presented = bearer(issuer.token(exp=int(now) + 100))
    assert identity.known(presented) is None
    caller = identity.caller(presented)
    assert identity.known(presented) is caller
    assert identity.known(bearer(issuer.token("bob"))) is None
    now += 101
    assert identity.known(presented) is None
    now += 60
    with pytest.raises(UnauthenticatedError, match="expired"):
        identity.caller(presented)


names = st.text(min_size=1, max_size=300)


@given(st.lists(st.tuples(st.sampled_from(["user", "group"]), names, names), unique=True, min_size=2, max_size=2))
def test_every_subject_and_group_of_every_issuer_is_its_own_owner(two: list[tuple[str, str, str]]) -> None:
    owners = [owner_of(*one) for one in two]
    assert owners[0] != owners[1]
    assert all(is_name(owner) for owner in owners)


def test_only_a_member_acts_for_a_group(issuer: Issuer) -> None:
    identity = Identity(settings(issuer))
    iam = issuer.token(**{GROUPS: ["/cms", "/cms/mlaas"]})
    keycloak = issuer.token("bob", groups=["/cms/mlaas"])
    owners = {identity.caller(bearer(token, "/cms/mlaas")).owner for token in (iam, keycloak)}
    assert owners == {owner_of("group", issuer.url, "/cms/mlaas")}
    assert identity.caller(bearer(iam, "/cms/mlaas")).submitter()["group"] == "/cms/mlaas"
    for token in (issuer.token(), issuer.token(groups="/atlas"), issuer.token(groups=["/atlasx"])):
        with pytest.raises(ForbiddenError, match="is not in group '/atlas'"):
            identity.caller(bearer(token, "/atlas"))


def test_groups_give_roles(issuer: Issuer, tmp_path: Path) -> None:
    roles = {"users": ["/cms"], "publishers": ["/cms/production"], "admins": ["/cms/admin"]}
    (tmp_path / "roles.json").write_text(json.dumps(roles))
    identity = Identity(settings(issuer, roles=str(tmp_path / "roles.json")))
    with pytest.raises(ForbiddenError, match="in no group that may use this service; the token has no groups"):
        identity.caller(bearer(issuer.token()))
    user = identity.caller(bearer(issuer.token(groups=["/cms"])))
    assert (user.is_publisher, user.is_admin) == (False, False)
    assert identity.caller(bearer(issuer.token(groups=["/cms", "/cms/production"]))).is_publisher
    with pytest.raises(ForbiddenError, match="only an admin"):
        identity.caller(bearer(issuer.token(groups=["/cms"]), owner="user-bob-0"))
    admin = issuer.token("root", groups=["/cms", "/cms/admin"])
    caller = identity.caller(bearer(admin, owner="user-bob-0"))
    assert (caller.owner, caller.visits) == ("user-bob-0", True)
    for wrong in ("../bob", "a/b", ".."):
        with pytest.raises(ForbiddenError):
            identity.caller(bearer(admin, owner=wrong))
    own = identity.caller(bearer(admin)).owner
    assert not identity.caller(bearer(admin, owner=own)).visits


def test_a_group_is_of_the_first_issuer_unless_another_is_named() -> None:
    roles = roles_of({"admins": ["/ops", "https://b.example /ops"]}, "https://a.example")
    assert roles.admins == {("https://a.example", "/ops"), ("https://b.example", "/ops")}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"admin": []}', "unknown key 'admin'; closest: admins"),
        ('{"admins": "all"}', "are lists of groups"),
        ('{"limits": {"*": {"runs": "4"}}}', "the limits of '*' are numbers"),
        ('{"limits": {"*": {"cpus": 4}}}', "cpus"),
        ("[]", "is not a file of roles"),
        ("{", "is not a file of roles"),
    ],
)
def test_a_wrong_file_of_roles_is_refused_at_once(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "roles.json").write_text(text)
    with pytest.raises(RequestError) as refused:
        Identity(Settings(str(tmp_path), roles=str(tmp_path / "roles.json")))
    assert message in str(refused.value)


def test_runs_bytes_and_requests_of_an_owner_are_limited(tmp_path: Path) -> None:
    roles = roles_of({"limits": {"*": {"runs": 2}, "/cms": {"bytes": 5_000, "requests_per_s": 5}}}, "https://a.example")
    group = owner_of("group", "https://a.example", "/cms")
    assert roles.limits_of(group) == OwnerLimits(bytes=5_000, requests_per_s=5)
    root = FolderStore(tmp_path)
    quotas = Quotas(roles, root)
    root.create("active/alice/a-1", b"")
    root.create("active/alice-2/a-1", b"")
    quotas.check_runs("alice")
    root.create("active/alice/a-2", b"")
    with pytest.raises(LimitError, match="'alice' has 2 unfinished runs"):
        quotas.check_runs("alice")
    quotas.check_bytes("alice")
    root.create(f"{group}/models/m", bytes(3_999))
    quotas.check_bytes(group)
    root.create(f"{group}/models/n", b"")
    with pytest.raises(ForbiddenError, match=r"and 0\.000 GB is the limit"):
        Quotas(roles, root).check_bytes(group)
    with pytest.raises(ForbiddenError, match="may not start runs"):
        Quotas(Roles(default=OwnerLimits(runs=0)), root).check_runs("carol")


def test_each_owner_has_a_rate_of_requests() -> None:
    identity = Identity(Settings("/nowhere"), most_rate=1)
    alice, bob = (
        identity.caller(IdentityHeaders()),
        Identity(Settings("/nowhere", owner="bob")).caller(IdentityHeaders()),
    )
    identity.admit(alice)
    with pytest.raises(LimitError, match="more than 1 requests a second"):
        identity.admit(alice)
    identity.admit(bob)
    unbounded = Rate(float("inf"), 1.0)
    for _ in range(3):
        unbounded.take(1.0)


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"HEPFAAS_ISSUER": "https://iam.example"}, "go together"),
        ({"HEPFAAS_AUDIENCE": "training"}, "go together"),
        ({"HEPFAAS_ISSUER": "iam.example", "HEPFAAS_AUDIENCE": "x"}, "an issuer is an https:// address"),
        ({"HEPFAAS_EVENT_KEYS": "short"}, "of 32 characters or more"),
        ({"HEPFAAS_EVENT_KEYS": ",".join(["k" * 32] * 3)}, "one key or two"),
        ({"HEPFAAS_CREDENTIALS_KEY": "A" * 43 + "=,short"}, "HEPFAAS_CREDENTIALS_KEY is not a key"),
    ],
)
def test_incomplete_settings_are_refused_at_once(variables: dict[str, str], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        Identity(Settings.from_environ(variables))


OPEN = {"K_SERVICE": "runs", "HEPFAAS_ISSUER": "", "HEPFAAS_AUDIENCE": ","}
"""The variables of a function in manifests/base, if an overlay does not set ConfigMap 'identity'."""


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        (OPEN, "HEPFAAS_ISSUER is empty.*ConfigMap 'identity'"),
        ({**OPEN, "HEPFAAS_AUDIENCE": "x"}, "HEPFAAS_ISSUER is empty"),
        ({**OPEN, "HEPFAAS_ISSUER": "https://iam.example"}, "HEPFAAS_AUDIENCE go together.*ConfigMap 'identity'"),
    ],
)
def test_nobody_is_an_admin_on_knative_because_a_setting_is_empty(variables: dict[str, str], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        Identity(Settings.from_environ(variables))


def test_an_operator_may_open_the_service_to_everybody() -> None:
    settings = Settings.from_environ({**OPEN, "HEPFAAS_WITHOUT_IDENTITY": "1"})
    assert Identity(settings).caller(IdentityHeaders()).owner == "local"
    assert settings.keys_of_events() == ()


def test_events_have_keys_on_knative() -> None:
    with pytest.raises(RequestError, match="HEPFAAS_EVENT_KEYS is empty.*Secret 'event-keys'"):
        Settings.from_environ({"K_SERVICE": "survey"}).keys_of_events()
    settings = Settings.from_environ({"K_SERVICE": "survey", "HEPFAAS_EVENT_KEYS": "k" * 32})
    assert settings.keys_of_events() == ("k" * 32,)
    assert Settings.from_environ({}).keys_of_events() == ()


def test_a_secret_is_not_shown_with_the_settings() -> None:
    settings = Settings.from_environ({"HEPFAAS_EVENT_KEYS": "k" * 32, "HEPFAAS_TOKEN": "t" * 9})
    assert settings.event_keys == ("k" * 32,)
    assert "kkk" not in repr(settings)
    assert "ttt" not in repr(settings)
