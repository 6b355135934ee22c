"""The addresses that a function may read for its callers."""

import pytest
from hepfaas.datasets.address_checks import check_address, check_file
from hepfaas.datasets.sources import sources_of
from hepfaas.errors import ForbiddenError, RequestError


@pytest.mark.parametrize(
    "url", ["/etc/passwd", "file:///etc/passwd", "ftp://h/x", "gopher://h", "root:///x", "http://"]
)
def test_paths_and_unknown_schemes_are_refused(url: str) -> None:
    with pytest.raises(RequestError, match=r"cannot be read|has no host"):
        check_address(url, allow_private=True)


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "10.0.0.7", "192.168.1.1", "169.254.169.254", "[::1]", "[::ffff:10.0.0.1]", "0.0.0.0"],
)
def test_private_addresses_are_refused_unless_they_are_allowed(host: str) -> None:
    for scheme in ("http", "https", "root"):
        with pytest.raises(RequestError, match="a private address"):
            check_address(f"{scheme}://{host}:1094//x.root", allow_private=False)
        check_address(f"{scheme}://{host}:1094//x.root", allow_private=True)


def test_public_addresses_and_buckets_are_read() -> None:
    check_address("root://8.8.8.8//x.root", allow_private=False)
    check_address("s3://bucket/key.root", allow_private=False)


def test_an_address_with_a_password_is_refused_without_repeating_it() -> None:
    with pytest.raises(RequestError, match="has a password in it") as raised:
        check_address("https://me:secret@8.8.8.8/x.root", allow_private=False)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    "url",
    [
        "root://somebody@8.8.8.8//x.root",
        "root://8.8.8.8//x.root?authz=Bearer%20secret",
        "roots://8.8.8.8//x.root?a=b&xrd.gsiusrpxy=/proc/self/fd/7",
        "xroot://8.8.8.8//x.root?xrdcl.secuid=secret",
        "root://8.8.8.8//x.root?x?XRD.wantprot=secret",
    ],
)
def test_an_address_has_no_client_options_and_no_credentials(url: str) -> None:
    """The client distinguishes connections by user name, and logs in by options in the address."""
    with pytest.raises(
        RequestError, match="has a user, a token or a client option in it; leave it out, and POST"
    ) as raised:
        check_address(url, allow_private=False)
    assert "secret" not in str(raised.value)


def test_the_list_is_checked_before_a_host_is_resolved() -> None:
    sources = sources_of({"allowed": [{"schemes": ["root"], "host": "open.example", "path": "/"}]}, "")
    with pytest.raises(ForbiddenError, match="you may read: root://open.example//"):
        check_file("root://nowhere.invalid//x.root", False, sources, [])


def test_a_federation_may_be_in_a_private_network() -> None:
    federation = {"name": "f", "hosts": ["127.0.0.1"], "caches": ["root://10.0.0.1"]}
    check_file("root://127.0.0.1//x.root", False, sources_of({"federations": [federation]}, ""), [])
    with pytest.raises(RequestError, match="a private address"):
        check_file("root://127.0.0.2//x.root", False, sources_of({"federations": [federation]}, ""), [])


@pytest.mark.parametrize("url", ["http://[::1", "http://h:99999/x", "http://h:x/"])
def test_an_invalid_address_is_an_error(url: str) -> None:
    with pytest.raises(RequestError, match="is not an address"):
        check_address(url, allow_private=False)
