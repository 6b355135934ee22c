"""Credentials of owners in a store: encrypted for one owner and one host, listed without the secret."""

import base64
import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hepfaas.errors import RequestError
from hepfaas.platform.credentials import Credential, Vault, credential_of
from hepfaas.platform.stores import open_store
from support import grid

KEY = bytes(range(32))
SECRET = "a-secret-that-nobody-else-has"


@pytest.fixture(scope="module")
def authority() -> Iterator[grid.Authority]:
    with grid.Authority() as made:
        yield made


def vault(folder: Path, owner: str = "alice", key: bytes = KEY) -> Vault:
    return Vault(open_store(str(folder / owner)), owner, (key,))


def jwt(ends: float) -> str:
    body = base64.urlsafe_b64encode(json.dumps({"exp": ends}).encode()).decode().rstrip("=")
    return f"e30.{body}.c2ln"


def test_a_credential_is_read_as_it_was_stored_and_is_never_in_clear_text(tmp_path: Path) -> None:
    mine = vault(tmp_path)
    mine.put(Credential("host.example", "bearer", SECRET))
    credential = mine.get("host.example")
    assert credential
    assert credential.secret == SECRET
    assert mine.get("other.example") is None
    stored = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert stored
    for text in (SECRET, base64.b64encode(SECRET.encode()).decode()[:-4]):
        assert text.encode() not in stored
    assert SECRET not in repr(credential)
    assert KEY.hex() not in repr(mine)
    assert repr(KEY) not in repr(mine)


def test_old_credentials_are_read_after_a_change_of_the_key(tmp_path: Path) -> None:
    new = bytes(reversed(KEY))
    vault(tmp_path).put(Credential("old.example", "bearer", SECRET))
    both = Vault(open_store(str(tmp_path / "alice")), "alice", (new, KEY))
    both.put(Credential("new.example", "bearer", SECRET))
    for host in ("old.example", "new.example"):
        credential = both.get(host)
        assert credential
        assert credential.secret == SECRET
    assert vault(tmp_path, key=new).get("new.example")
    with pytest.raises(RequestError, match="encrypted with another key"):
        vault(tmp_path, key=new).get("old.example")


def test_a_new_credential_replaces_the_previous_one_and_a_deleted_one_is_gone(tmp_path: Path) -> None:
    mine = vault(tmp_path)
    for secret in ("first", "second"):
        mine.put(Credential("host.example", "bearer", secret))
    credential = mine.get("host.example")
    assert credential
    assert credential.secret == "second"
    assert len(list(mine.store.keys("credentials/"))) == 1
    assert mine.delete("host.example")
    assert not mine.delete("host.example")
    assert mine.get("host.example") is None
    assert list(mine.store.keys("credentials/")) == []


@pytest.mark.parametrize("changed", ["owner", "host", "key", "expires"])
def test_it_can_be_decrypted_only_for_its_owner_and_host(changed: str, tmp_path: Path) -> None:
    vault(tmp_path).put(Credential("host.example", "bearer", SECRET))
    place = tmp_path / "alice" / "credentials"
    host, other = "host.example", vault(tmp_path)
    if changed == "owner":
        shutil.copytree(tmp_path / "alice", tmp_path / "bob")
        other = vault(tmp_path, "bob")
    elif changed == "host":
        shutil.copytree(place / "host.example", place / "evil.example")
        host = "evil.example"
    elif changed == "key":
        other = vault(tmp_path, key=bytes(32))
    else:
        (file,) = [path for path in place.rglob("*") if path.is_file()]
        file.write_text(json.dumps({**json.loads(file.read_text()), "expires": time.time() + 1e9}))
    with pytest.raises(RequestError, match="was encrypted with another key"):
        other.get(host)


def test_the_expiry_is_read_from_the_secret(authority: grid.Authority) -> None:
    ends = float(int(time.time()) + 1000)
    assert credential_of({"host": "h", "kind": "bearer", "secret": jwt(ends)}).expires == ends
    assert (
        credential_of({"host": "h", "kind": "bearer", "secret": jwt(ends), "expires": ends - 10}).expires == ends - 10
    )
    for secret in ("opaque", "a.b.c", jwt(float("inf"))):
        assert credential_of({"host": "h", "kind": "bearer", "secret": secret}).expires is None
    proxy = credential_of({"host": "H.Example", "kind": "x509", "secret": authority.proxy("alice")})
    assert proxy.host == "h.example"
    assert proxy.expires == (grid.NOW + grid.DAY).replace(microsecond=0).timestamp()


def test_an_expired_credential_is_an_error(tmp_path: Path) -> None:
    mine = vault(tmp_path)
    mine.put(Credential("host.example", "bearer", SECRET, time.time() - 1))
    with pytest.raises(RequestError, match="credential for host 'host.example' expired at .*Z; POST /v1/credentials"):
        mine.get("host.example")
    assert [credential.to_json()["host"] for credential in mine.all()] == ["host.example"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"secert": "x"}, "unknown key 'secert'; a credential has host, kind, secret, expires"),
        ({"host": "h:1094"}, "'host' is the name of the server"),
        ({"host": "../h"}, "'host' is the name of the server"),
        ({"kind": "password"}, "'kind' takes bearer or x509"),
        ({"secret": ""}, "'secret' is the token"),
        ({"secret": "two words"}, "not a bearer token"),
        ({"secret": "x" * 70_000}, "at most 64000 bytes"),
        ({"kind": "x509", "secret": "no PEM"}, "'secret' is not an X509 proxy: PEM"),
        ({"expires": "tomorrow"}, "'expires' takes seconds"),
        ({"expires": float("nan")}, "'expires' takes seconds"),
        ({"expires": 1e300}, "'expires' takes seconds"),
        ({"expires": 1}, "has already expired"),
    ],
)
def test_a_wrong_credential_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        credential_of({"host": "host.example", "kind": "bearer", "secret": "x", **values})


def test_a_proxy_needs_its_own_key_and_must_not_have_expired(authority: grid.Authority) -> None:
    with pytest.raises(RequestError, match="already expired"):
        credential_of({"host": "h", "kind": "x509", "secret": authority.proxy("alice", -grid.DAY)})
    certificate = authority.person("alice").partition("-----BEGIN RSA")[0]
    with pytest.raises(RequestError, match="its key belongs to another certificate"):
        credential_of({"host": "h", "kind": "x509", "secret": certificate + grid.pem(grid.new_key())})


def test_tokens_take_no_files() -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    marks = {Credential("h.example", "bearer", f"token-{number}").mark for number in range(200)}
    assert len(marks) == 200
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert Credential("h.example", "bearer", "token-0").mark in marks
