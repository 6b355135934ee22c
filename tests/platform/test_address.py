"""The parser of addresses: every client reads accepted ones in the same way; others are refused with the reason."""

import io
import ipaddress
import string
from urllib.parse import unquote, urlsplit

import boto3
import pytest
from botocore.awsrequest import AWSResponse
from botocore.config import Config
from hepfaas.errors import RequestError
from hepfaas.platform.address import PORTS, SCHEMES, WEB, XROOTD, Address, parsed, place_of, redirect_target
from hypothesis import example, given, settings
from hypothesis import strategies as st
from urllib3 import HTTPResponse
from urllib3.util import parse_url
from XRootD.client import URL

HOSTS = ["allowed.example", "Allowed.Example.", "127.0.0.1", "127.1", "0x7f.1", "2130706433", "0177.0.0.1", "[::1]",
         "[::ffff:127.0.0.1]", "[::127.0.0.1]", "[fe80::1%25lo]", "a_b", "xn--bcher-kva.example", "bücher.example", "",
         "h.", ".h", "h..", "localhost", "１２７.0.0.1"]  # fmt: skip
PIECES = ["/", "//", "///", "?", "#", "@", ":", ":1094", ":443", ":80", ":0", ":99999", ":01", "\\", ";", "..", ".",
          "..;", "%2e", "%2E%2e", "%252e", "%2f", "%5c", "%00", "%23", "%3f", "%40", "%25", "%", "%c0%ae", "%ff", " ",
          "\t", "\r\n", "\0", "a", "store", "x.root", "é", "日本", "\u202e", "\xad", "\ud800", "+", "&", "=", "*", "[",
          "]", "root://127.0.0.1:1094//x", "authz=Bearer", "xrd.wantprot=gsi", "user", "user:secret", "~", "|", '"',
          "<", "^", "`", "{", "'"]  # fmt: skip

nasty = st.builds(
    lambda scheme, parts: f"{scheme}://{''.join(parts)}",
    st.sampled_from([*SCHEMES, "ROOT", "S3", "HtTpS", "file", "ftp", "root:", ""]),
    st.lists(st.one_of(st.sampled_from(HOSTS), st.sampled_from(PIECES), st.text(max_size=3)), min_size=1, max_size=8),
)
likely = st.builds(
    lambda scheme, host, port, parts: f"{scheme}://{host}{port}/{''.join(parts)}",
    st.sampled_from(SCHEMES),
    st.sampled_from(HOSTS),
    st.sampled_from(["", "", ":1094", ":443", ":8443", ":80"]),
    st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=5)), max_size=6),
)
harmless = st.builds(
    lambda scheme, host, port, path: f"{scheme}://{host}{'' if scheme == 's3' else port}/{path}",
    st.sampled_from([*SCHEMES, "s3", "s3", "ROOT", "HTTPS", "S3"]),
    st.one_of(st.sampled_from(["allowed.example", "127.0.0.1", "h", "a-b.c"]), st.ip_addresses(v=4).map(str)),
    st.sampled_from(["", "", ":1094", ":443", ":8443", ":80"]),
    st.text(st.sampled_from("/ab.é日 +&=@:~!$'()*,-_|<>^`{}[]\"%25?#;"), max_size=20),
)
in_ipv6 = st.builds(
    lambda scheme, host, path: f"{scheme}://[{host}]/{path}",
    st.sampled_from([*XROOTD, *WEB]),
    st.one_of(st.ip_addresses(v=6).map(str), st.ip_addresses(v=4).map(lambda host: f"::ffff:{host}"),
              st.ip_addresses(v=4).map(lambda host: f"::{host}")),
    st.sampled_from(["", "x", "/x y"]),
)  # fmt: skip
texts = st.one_of(nasty, likely, harmless, in_ipv6, st.text(max_size=40))


@pytest.fixture(scope="module")
def sent_by_boto3():  # type: ignore[no-untyped-def]  # a function of bucket and key
    """Return the URL that boto3 makes from a bucket and a key."""
    client = boto3.Session().client(
        "s3",
        region_name="us-east-1",
        endpoint_url="http://store.example:8333",
        aws_access_key_id="a",
        aws_secret_access_key="b",
        config=Config(s3={"addressing_style": "path"}),
    )
    urls: list[str] = []

    def keep(request, **named):  # type: ignore[no-untyped-def]
        urls.append(request.url)
        return AWSResponse(request.url, 200, {}, HTTPResponse(io.BytesIO()))

    client.meta.events.register("before-send.s3.HeadObject", keep)

    def sent(bucket: str, key: str) -> str:
        client.head_object(Bucket=bucket, Key=key)
        return urls[-1]

    return sent


def accepted(text: str) -> Address | None:
    try:
        return parsed(text)
    except RequestError:
        return None


@settings(max_examples=400, deadline=None)
@given(text=texts)
@example(text="root://allowed.example?@127.0.0.1:1094//x")
@example(text="root://allowed.example#@127.0.0.1:1094//x")
@example(text="http://allowed.example?/ok/a")
@example(text="http://allowed.example\\@127.0.0.1/ok/a")
@example(text="root://[::ffff:127.0.0.1]:1094//x y")
@example(text="s3://bucket/a b+ä/../x?y#z")
@example(text="s3://bucket//a%23b//c+d ?e#f@g;h")
@example(text="https://HOST:443//a b/%41%c3%a9'()*!~")
def test_what_is_accepted_every_client_reads_in_the_same_way(text: str, sent_by_boto3) -> None:  # type: ignore[no-untyped-def]
    address = accepted(text)
    if address is None:
        return
    normal = str(address)
    assert parsed(normal) == address
    assert str(parsed(normal)) == normal
    assert not address.query
    assert address.path.startswith("/")
    if address.scheme in XROOTD:
        url = URL(normal)
        assert url.is_valid()
        assert (url.protocol, url.hostname, url.port) == (address.scheme, address.bracketed, address.connects_to)
        assert (url.username, url.password) == ("", "")
        assert url.path == url.path_with_params == address.path
    elif address.scheme in WEB:
        for one in (address, address.over_http()):
            read = parse_url(str(one))
            assert (read.scheme, read.host, read.port) == (one.scheme, one.bracketed, one.port)
            assert (read.auth, read.path, read.query, read.fragment) == (None, one.path, None, None)
            assert read.url == str(one)
            parts = urlsplit(str(one))
            assert (parts.hostname, parts.username, parts.path) == (one.host, None, one.path)
        assert address.plain_path == unquote(address.path, errors="strict")
    elif address.path != "/":
        sent = urlsplit(sent_by_boto3(address.host, address.path[1:]))
        assert (sent.scheme, sent.netloc, sent.query) == ("http", "store.example:8333", "")
        assert unquote(sent.path) == f"/{address.host}{address.path}"


@given(text=texts)
def test_no_path_leaves_its_folder_however_often_a_server_decodes_it(text: str) -> None:
    address = accepted(text)
    path = address.path if address else "/"
    for _ in range(10):
        assert not {".", ".."} & {segment.partition(";")[0].strip() for segment in path.split("/")}
        assert "\\" not in path
        path = unquote(path)


@given(text=texts)
def test_a_host_is_a_name_or_an_address_in_its_one_form(text: str) -> None:
    address = accepted(text)
    if address is None or address.scheme == "s3":
        return
    assert address.host == address.host.lower().rstrip(".")
    assert address.port != PORTS[address.scheme]
    if (
        not any(letter in string.ascii_letters for letter in address.host.rpartition(".")[2])
        and "_" not in address.host
    ):
        assert str(ipaddress.ip_address(address.host)) == address.host


@given(st.sampled_from(["https://first.example/a/b", "http://first.example:8080/"]), texts)
def test_the_target_of_a_redirection_is_read_in_the_same_way(first: str, location: str) -> None:
    try:
        address = redirect_target(parsed(first), location)
    except RequestError:
        return
    read = parse_url(str(address))
    assert (read.scheme, read.host, read.port) == (address.scheme, address.bracketed, address.port)
    assert (read.auth, read.fragment) == (None, None)
    parts = urlsplit(str(address))
    assert (parts.hostname, parts.username) == (address.host, None)


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("root://host//store/x.root", "root://host//store/x.root"),
        ("root://host/store/x.root", "root://host//store/x.root"),
        ("ROOT://Host.Example.:1094///store//my file.root", "root://host.example//store/my file.root"),
        ("roots://host:1095//store/é@x", "roots://host:1095//store/é@x"),
        ("root://[0:0::1]:1095//x", "root://[::1]:1095//x"),
        ("root://[::FFFF:7f00:1]//x", "root://127.0.0.1//x"),
        ("https://Host:443//eos/my%20file%c3%A9.root", "https://host/eos/my%20file%C3%A9.root"),
        ("https://host/my file.root", "https://host/my%20file.root"),
        ("https://host", "https://host/"),
        ("davs://host:8443/x", "davs://host:8443/x"),
        ("s3://Bucket.of-me_1/run 7/é+&?#;@%20//x.root", "s3://Bucket.of-me_1/run 7/é+&?#;@%20//x.root"),
    ],
)
def test_the_normal_form(text: str, normal: str) -> None:
    assert str(parsed(text)) == normal


@pytest.mark.parametrize(
    "text",
    [
        "root://global.example//store/../user/x.root",
        "root://global.example//store/./x.root",
        "root://global.example//store/x.root#/../../y",
        "root://global.example//store/x.root#y",
        "root://global.example//store/%2e%2e/user/x.root",
        "root://global.example//root://127.0.0.1//x.root",
        "https://open.example/eos/open%20data/%2E%2E/x.root",
        "https://open.example/eos/open%20data/..%2fx.root",
        "https://open.example/eos/open%20data/%252e%252e/x.root",
        "https://open.example/eos/open%20data/%25%32%65%25%32%65/x.root",
        "https://open.example/ok/..;/x.root",
        "https://open.example/ok/..;a=b/x.root",
        "https://open.example/ok/.. /x.root",
        "https://open.example/ok/%2e%2e%3b/x.root",
        "https://open.example/ok/..\\x.root",
        "https://open.example/ok/x%00.root",
        "https://open.example/ok/x%0a.root",
        "https://open.example/ok/%c0%ae%c0%ae/x.root",
        "https://open.example/ok/x%23.root",
        "https://open.example/ok/..",
        "s3://bucket/a/../b",
        "s3://bucket/a/%2e%2e/b",
        "s3://bucket/..",
        "s3://bucket/a\\b",
    ],
)
def test_a_path_that_two_servers_could_read_differently_is_refused(text: str) -> None:
    with pytest.raises(RequestError, match="write the plain path"):
        parsed(text)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("http://HOST?/ok/a", "goes between '://' and the path"),
        ("http://HOST#/ok/a", "goes between '://' and the path"),
        ("http://HOST\\@evil.example/ok/a", "a token or a client option"),
        ("http://user@host/x", "has a user"),
        ("http://host:0/x", "or host:port, goes between"),
        ("http://host:080/x", "or host:port, goes between"),
        ("http://host:/x", "or host:port, goes between"),
        ("http://127.1/x", "IPv4 is four decimal numbers"),
        ("http://2130706433/x", "IPv4 is four decimal numbers"),
        ("http://0x7f000001/x", "IPv4 is four decimal numbers"),
        ("http://0177.0.0.1/x", "IPv4 is four decimal numbers"),
        ("http://127.0.0.1.5/x", "IPv4 is four decimal numbers"),
        ("http://a.0x1/x", "IPv4 is four decimal numbers"),
        ("http://[fe80::1%25lo]/x", "or host:port, goes between"),
        ("http://[::1]x/x", "or host:port, goes between"),
        ("http://[1]/x", "is not an IPv6 address"),
        ("http://bücher.example/x", "or host:port, goes between"),
        ("http://１２７.0.0.1/x", "or host:port, goes between"),
        ("http://a..b/x", "is not a host name"),
        ("http://-a/x", "is not a host name"),
        ("s3://bucket?x/key", "the name of a bucket goes between"),
        ("s3://a..b/key", "the name of a bucket goes between"),
        ("s3://bucket:80/key", "the name of a bucket goes between"),
        ("https://host/x.root?download=1", "has a query"),
        ("root://host//x\r\n.root", "control characters"),
        (" root://host//x.root", "spaces at its ends"),
        ("root://host//x.root ", "spaces at its ends"),
        ("root://host//x\u202etoor", "control characters"),
        ("https://host/100%", "encodes nothing"),
        ("https://host/%ff", "not UTF-8"),
        ("root://host//" + 5_000 * "x", "at most 4096"),
        ("/etc/passwd", "cannot be read"),
        ("//host/x", "cannot be read"),
        ("localfile://host/x", "cannot be read"),
    ],
)
def test_an_invalid_address_is_refused_with_the_reason(text: str, reason: str) -> None:
    with pytest.raises(RequestError, match=reason):
        parsed(text)


@pytest.mark.parametrize(
    "text",
    [
        "https://me:hidden@host/x.root",
        "https://me:hid/hidden@host/x.root?hidden",
        "root://hidden@host//x",
        "root://host//x?authz=hidden",
        "root://h?hidden@host//x",
        "http://host?hidden/x",
        "ftp://me:hidden@host/x?hidden",
        "https://host/..?sig=hidden",
        "s3://me:hidden@bucket/x",
    ],
)
def test_no_message_repeats_a_possible_secret(text: str) -> None:
    with pytest.raises(RequestError) as refused:
        parsed(text)
    assert "hid" not in str(refused.value)


def test_a_webhook_may_have_a_query_which_is_strict() -> None:
    assert str(parsed("https://Host/hook?token=a%2fb&c=d/?", with_query=True)) == "https://host/hook?token=a%2Fb&c=d/?"
    for query in ("a b", "a#b", "a%b", "é", "a\\b", "[a]"):
        with pytest.raises(RequestError):
            parsed(f"https://host/hook?{query}", with_query=True)


def test_the_host_of_a_file_is_known_for_old_records_too() -> None:
    places = {"root://h:1094//x": "h", "s3://b/k": "b", "/disk/x": "disk", "root://u@h//x?authz=secret": "unknown"}
    assert {url: place_of(url) for url in places} == places
