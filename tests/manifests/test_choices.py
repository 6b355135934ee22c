"""What a site may choose besides, as overlays/site says it: its components, and what is left out."""

import os
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from support import grid
from support.identities import Issuer, oauth2_proxy
from support.rendered import Thing, chosen
from support.servers import LIMIT_S


def pods(things: list[Thing], *kinds: str) -> dict[str, Thing]:
    return {
        thing["metadata"]["name"]: thing["spec"]["template"]["spec"]
        for thing in things
        if thing["kind"] in kinds and "template" in thing["spec"]
    }


def test_a_site_without_xrootd_leaves_the_cache_out(tmp_path: Path) -> None:
    things = chosen(tmp_path, "- target: {kind: StatefulSet|Service|ServiceAccount, name: xrootd-cache}")
    assert len(things) > 50
    left = [thing["kind"] for thing in things if thing["metadata"]["name"] == "xrootd-cache"]
    assert left == []


def test_images_are_pulled_with_a_password(tmp_path: Path) -> None:
    accounts = [one for one in chosen(tmp_path, "- target: {kind: ServiceAccount}") if one["kind"] == "ServiceAccount"]
    assert len(accounts) > 12
    assert all(one["imagePullSecrets"] == [{"name": "registry"}] for one in accounts)


def test_a_store_in_the_cluster_has_an_image(tmp_path: Path) -> None:
    things = chosen(tmp_path, "- ../../components/seaweedfs", "- {name: seaweedfs")
    (container,) = pods(things, "StatefulSet")["seaweedfs"]["containers"]
    assert container["image"] == "registry.example.org/hepfaas/seaweedfs:4.48"


def test_a_sites_authorities_are_where_its_functions_and_proxies_look(tmp_path: Path) -> None:
    things = chosen(tmp_path, "- ../../components/authorities", "- ../../components/grid-authorities")
    (settings,) = (one["data"] for one in things if one["metadata"]["name"].startswith("settings-"))
    assert settings["HEPFAAS_STORE"]
    assert settings["SSL_CERT_FILE"] == settings["AWS_CA_BUNDLE"] == "/etc/authorities/bundle.pem"
    found = pods(things, "Service", "Deployment", "StatefulSet")
    assert len(found) == 15
    for name, pod in found.items():
        first = pod["containers"][0]
        mounted = {one["mountPath"]: one["name"] for one in first["volumeMounts"]}
        maps = {one["name"]: one["configMap"]["name"] for one in pod["volumes"] if "configMap" in one}
        if name != "xrootd-cache":
            assert maps[mounted["/etc/authorities"]] == "authorities"
        if name.endswith("-proxy"):
            assert {"name": "SSL_CERT_FILE", "value": "/etc/authorities/bundle.pem"} in first["env"]
        if name in ("survey", "prepare", "apply", "predict", "predict-grpc", "xrootd-cache"):
            assert maps[mounted["/etc/grid-security/certificates"]] == "grid-authorities"


@pytest.fixture(scope="module")
def issuer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Issuer, Path]]:
    """By HTTPS, with a certificate of an authority that the system does not know; and that authority's own."""
    with grid.Authority() as authority:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(*authority.host(tmp_path_factory.mktemp("host")))
        with Issuer(tls=tls) as made:
            yield made, authority.file


ASKS_THE_ISSUER = """
import sys
from hepfaas.platform.oidc import Issuer
Issuer(sys.argv[1]).key({"alg": "RS256", "kid": "one"})
"""
ASKS_S3 = """
import sys
import boto3
boto3.client("s3", endpoint_url=sys.argv[1]).get_object(Bucket="a", Key="b")
"""


@pytest.mark.parametrize("code", [ASKS_THE_ISSUER, ASKS_S3])
def test_a_function_knows_the_authority_by_these_variables(issuer: tuple[Issuer, Path], code: str) -> None:
    served, file = issuer
    usual = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_DEFAULT_REGION": "x", "AWS_MAX_ATTEMPTS": "1"}
    for more, known in (({}, False), ({"SSL_CERT_FILE": str(file), "AWS_CA_BUNDLE": str(file)}, True)):
        environ = {**os.environ, **usual, **more}
        command = [sys.executable, "-c", code, served.url]
        done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=LIMIT_S)
        assert (done.returncode == 0) == known, done.stderr
        assert known or "CERTIFICATE_VERIFY_FAILED" in done.stderr


def test_a_proxy_knows_the_authority_by_its_variable(issuer: tuple[Issuer, Path], tmp_path: Path) -> None:
    served, file = issuer
    with oauth2_proxy(tmp_path, "training", served.url, "http://127.0.0.1:9/", SSL_CERT_FILE=str(file)) as proxy:
        assert httpx.get(f"{proxy.url}/ping", timeout=LIMIT_S).status_code == 200
    with pytest.raises(RuntimeError), oauth2_proxy(tmp_path, "inference", served.url, "http://127.0.0.1:9/"):
        pass
    (log,) = tmp_path.glob("proxy-inference-*.log")
    assert "certificate" in log.read_text()
