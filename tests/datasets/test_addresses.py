"""What a function reads for people, and what it does not."""

import pytest
from hepfaas.datasets.addresses import check_address
from hepfaas.errors import RequestError


@pytest.mark.parametrize(
    "url", ["/etc/passwd", "file:///etc/passwd", "ftp://h/x", "gopher://h", "root:///x", "http://"]
)
def test_paths_and_unknown_schemes_are_refused(url: str) -> None:
    with pytest.raises(RequestError, match=r"cannot be read by a function|names no host"):
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


@pytest.mark.parametrize("url", ["http://[::1", "http://h:99999/x", "http://h:x/"])
def test_what_is_no_address_is_said_so(url: str) -> None:
    with pytest.raises(RequestError, match="is no address"):
        check_address(url, allow_private=False)
