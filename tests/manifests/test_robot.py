"""The proxy that a cache shows to its origin: made by the script that is deployed, and taken by real servers."""

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hepfaas.datasets.opened import opened
from hepfaas.errors import RequestError, UnavailableError
from hepfaas.platform.credentials import credential_of
from support import grid
from support.servers import XRootDCache, server_binary

TOP = Path(__file__).parents[2]
SAMPLE = TOP / "examples" / "htautau" / "ggH_tautau.root"


@pytest.fixture(scope="module")
def authority() -> Iterator[grid.Authority]:
    with grid.Authority() as made:
        yield made


@pytest.fixture
def folder() -> Iterator[Path]:
    """One that the cache's user can look into."""
    with tempfile.TemporaryDirectory(prefix="hepfaas-robot-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def renewed(folder: Path, certificate: str, authority: grid.Authority) -> subprocess.CompletedProcess[str]:
    """What the script says of a robot's certificate and key, in one file."""
    server_binary("xrdgsiproxy", "Debian xrootd-client")
    robot = folder / "robot.pem"
    robot.write_text(certificate)
    robot.chmod(0o440)
    given = {
        "CERTIFICATE": str(robot),
        "KEY": str(robot),
        "PROXY": str(folder / "proxy"),
        "HOURS": "12",
        "EVERY_S": "60",
        "ONCE": "1",
        "X509_CERT_DIR": str(authority.folder),
        "PATH": os.environ["PATH"],
    }
    script = TOP / "manifests/components/xrootd-robot/renew-proxy"
    done = subprocess.run([script], env=given, capture_output=True, text=True, timeout=60)
    robot.unlink()
    return done


def test_a_cache_reads_with_the_proxy_of_its_robot_and_not_without(authority: grid.Authority, folder: Path) -> None:
    done = renewed(folder, authority.person("robot"), authority)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in folder.iterdir()] == ["proxy"]
    assert (folder / "proxy").stat().st_mode & 0o077 == 0
    assert credential_of({"host": "h", "kind": "x509", "secret": (folder / "proxy").read_text()}).expires
    grid.give_to_xrootd(folder / "proxy")
    with grid.with_certificates(authority) as origin:
        origin.serve(SAMPLE)
        shown = {"ORIGIN": f"localhost:{origin.port}", "X509_CERT_DIR": str(authority.folder)}
        with XRootDCache(origin, **shown, X509_USER_PROXY=str(folder / "proxy")) as cache:
            assert opened(cache.url(SAMPLE.name), "Events").entries > 0
        with (
            XRootDCache(origin, **shown, X509_USER_PROXY=str(folder / "none")) as cache,
            pytest.raises((RequestError, UnavailableError)),
        ):
            opened(cache.url(SAMPLE.name), "Events")


def test_a_proxy_that_cannot_be_renewed_leaves_the_one_before(authority: grid.Authority, folder: Path) -> None:
    (folder / "proxy").write_text("the one before")
    done = renewed(folder, authority.person("robot").partition("-----BEGIN RSA")[0], authority)
    assert done.returncode == 1
    assert "the proxy was not renewed; again in 60 s" in done.stderr
    assert [path.name for path in folder.iterdir()] == ["proxy"]
    assert (folder / "proxy").read_text() == "the one before"
