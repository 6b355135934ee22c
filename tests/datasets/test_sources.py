"""The operator's file of sources: its errors, the endpoints of a file, and the addresses that may be read."""

import json
from pathlib import Path
from typing import Any

import pytest
from hepfaas.datasets.reading import Endpoint, Reading
from hepfaas.datasets.sources import Sources, sources_in, sources_of
from hepfaas.errors import ForbiddenError, RequestError, UnavailableError, public_text
from hepfaas.platform.address import parsed

ISSUER = "https://iam.example/"
CMS = (ISSUER, "/cms")
FILE: dict[str, Any] = {
    "federations": [
        {
            "name": "cms",
            "hosts": ["global.example", "other.example:1095"],
            "caches": ["root://cache.example:1094"],
            "origins": ["root://origin.example:1094", "https://origin.example/dav"],
        },
        {"name": "web", "hosts": ["web.example"], "caches": ["davs://near.example/store"]},
    ],
    "allowed": [
        {"schemes": ["root", "roots"], "host": "global.example", "path": "/store/", "groups": ["/cms"]},
        {"schemes": ["root", "https"], "host": "open.example", "path": "/eos/open data/"},
        {"schemes": ["s3"], "host": "bucket", "path": "/"},
        {"schemes": ["root"], "host": "ported.example:1094", "path": "/", "groups": ["https://else.example/ /atlas"]},
    ],
}


@pytest.fixture
def sources() -> Sources:
    return sources_of(FILE, ISSUER)


def test_the_sources_in_the_manifests_are_valid() -> None:
    folder = Path(__file__).parents[2] / "manifests"
    assert sources_in(str(folder / "base/sources.json"), ISSUER) == Sources()
    site = sources_in(str(folder / "overlays/site/sources.json"), ISSUER)
    assert tuple(map(str, site.endpoints(parsed("root://cms-xrd-global.cern.ch//store/x.root")))) == (
        "root://xrootd-cache.hepfaas.svc.cluster.local//store/x.root",
        "root://xrootd-cms.infn.it//store/x.root",
    )


@pytest.mark.parametrize(
    ("url", "endpoints"),
    [
        (
            "root://global.example:1094//store/a%b.root",
            [
                "root://cache.example//store/a%b.root",
                "root://origin.example//store/a%b.root",
                "https://origin.example/dav/store/a%25b.root",
            ],
        ),
        ("root://other.example//store/x.root", ["root://other.example//store/x.root"]),
        (
            "https://Web.Example/a%20b.root",
            ["davs://near.example/store/a%20b.root", "https://web.example/a%20b.root"],
        ),
        ("s3://bucket/x.root", ["s3://bucket/x.root"]),
    ],
)
def test_the_endpoints_of_a_file(url: str, endpoints: list[str], sources: Sources) -> None:
    assert list(map(str, sources.endpoints(parsed(url)))) == endpoints


@pytest.mark.parametrize(
    ("url", "groups"),
    [
        ("root://global.example//store/x.root", [CMS]),
        ("root://GLOBAL.example:1094//store/a/x.root", [CMS]),
        ("https://open.example/eos/open%20data/x.root", []),
        ("root://open.example//eos/open data/x.root", []),
        ("s3://bucket/any/thing.root", []),
        ("root://ported.example:1094//x", [("https://else.example/", "/atlas")]),
        ("root://ported.example//x", [("https://else.example/", "/atlas")]),
        ("root://global.example.///store//x.root", [CMS]),
    ],
)
def test_listed_addresses_may_be_read(url: str, groups: list[tuple[str, str]], sources: Sources) -> None:
    sources.check(parsed(url), groups)


@pytest.mark.parametrize(
    ("url", "groups"),
    [
        ("root://global.example//store/x.root", []),
        ("root://global.example//store/x.root", [("https://else.example/", "/cms")]),
        ("root://global.example//storex.root", [CMS]),
        ("root://global.example//user/x.root", [CMS]),
        ("https://global.example/store/x.root", [CMS]),
        ("root://global.example.evil.example//store/x.root", [CMS]),
        ("s3://open.example/eos/open data/x", [CMS]),
        ("root://ported.example:1095//x", [("https://else.example/", "/atlas")]),
    ],
)
def test_other_addresses_are_refused_with_the_list(url: str, groups: list[tuple[str, str]], sources: Sources) -> None:
    with pytest.raises(ForbiddenError) as refused:
        sources.check(parsed(url), groups)
    assert f"'{url}' is not among the addresses that you may read: " in str(refused.value)
    assert "root|https://open.example//eos/open data/, s3://bucket/" in str(refused.value)
    assert ("root|roots://global.example//store/" in str(refused.value)) == (CMS in groups)
    assert ("ported.example" in str(refused.value)) == (groups == [("https://else.example/", "/atlas")])


@pytest.mark.parametrize(
    ("prefix", "may"),
    [
        ("root://global.example//store/mine/", True),
        ("root://global.example//sto", True),
        ("root://global.example//user/", False),
        ("s3://other/", False),
    ],
)
def test_the_prefix_of_a_rule_must_start_an_address_that_may_be_read(prefix: str, may: bool, sources: Sources) -> None:
    if may:
        sources.check(parsed(prefix), [CMS], is_prefix=True)
    else:
        with pytest.raises(ForbiddenError, match="not among the addresses that you may read"):
            sources.check(parsed(prefix), [CMS], is_prefix=True)


def test_without_a_list_everything_may_be_read() -> None:
    sources_of({"federations": FILE["federations"]}, ISSUER).check(parsed("root://anywhere//a/b"), [])
    with pytest.raises(ForbiddenError, match="that you may read: none"):
        sources_of({"allowed": []}, ISSUER).check(parsed("root://anywhere//a"), [])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([], "it is not a JSON object"),
        ({"federation": []}, "it has the unknown key 'federation'; closest: federations"),
        ({"federations": {}}, "'federations' is not a list of objects"),
        ({"federations": [{"hosts": ["h"]}]}, "a federation has no 'name'"),
        ({"federations": [{"name": "f", "cache": []}]}, "unknown key 'cache'; closest: caches"),
        ({"federations": [{"name": "f", "hosts": ["h"]}]}, "federation 'f' needs 'hosts', and 'caches' or 'origins'"),
        ({"federations": [{"name": "f", "hosts": "h"}]}, "federation 'f': 'hosts' is a list of strings"),
        ({"federations": [{"name": "f", "hosts": ["h/x"]}]}, "a host is a name, or name:port"),
        ({"federations": [{"name": "f", "hosts": ["h"], "caches": ["cache:1094"]}]}, "'cache:1094' is not an endpoint"),
        ({"federations": [{"name": "f", "hosts": ["h"], "caches": ["root://u@c"]}]}, "'root://u@c' is not an endpoint"),
        (
            {"federations": 2 * [{"name": "f", "hosts": ["h"], "caches": ["root://c"]}]},
            "host 'h' is in the federations twice",
        ),
        ({"allowed": [{"host": "h", "schemes": ["ftp"]}]}, "host 'h': 'schemes' takes root, roots"),
        ({"allowed": [{"host": "h", "schemes": ["root"], "path": "store"}]}, "'path' starts with one '/'"),
        ({"allowed": [{"host": "h", "schemes": ["root"], "group": []}]}, "unknown key 'group'; closest: groups"),
    ],
)
def test_the_error_says_what_is_wrong_with_the_file(values: Any, message: str, tmp_path: Path) -> None:
    path = tmp_path / "sources.json"
    path.write_text(json.dumps(values))
    with pytest.raises(RequestError, match="HEPFAAS_SOURCES: '.*sources.json' is not a file of sources: ") as it:
        sources_in(str(path), ISSUER)
    assert message in str(it.value)


def test_an_error_of_the_store_is_shown_without_its_place() -> None:
    def unavailable(endpoint: Endpoint) -> None:
        raise UnavailableError(f"store {endpoint.url} does not answer", outside="the store does not answer")

    with pytest.raises(UnavailableError) as error:
        Reading().through("s3://bucket/x.root", unavailable)
    assert public_text(error.value) == "the store does not answer"
