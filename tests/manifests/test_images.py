"""Images by digest: digests are those that a registry tells, and what has only a tag is not released."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from support.rendered import SITE, TOP
from support.servers import LIMIT_S, free_port, is_open, server_binary, wait_until

PIN = TOP / "manifests/pin-images"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"


class Registry:
    """A registry of images, which knows those that were pushed."""

    def __init__(self, port: int, folder: Path) -> None:
        self.place = f"127.0.0.1:{port}"
        config = folder / ".config" / "containers" / "registries.conf"
        config.parent.mkdir(parents=True)
        config.write_text(f'[[registry]]\nlocation = "{self.place}"\ninsecure = true\n')
        self.environ = {**os.environ, "HOME": str(folder)}

    def push(self, name: str, tag: str) -> str:
        """Stores an image without layers under a name, and gives its digest."""
        with httpx.Client(base_url=f"http://{self.place}/v2/{name}", timeout=LIMIT_S) as http:
            config = json.dumps({"architecture": "amd64", "os": "linux", "author": name, "rootfs": {}}).encode()
            blob = f"sha256:{hashlib.sha256(config).hexdigest()}"
            place = http.post("/blobs/uploads/").raise_for_status().headers["Location"]
            http.put(place, params={"digest": blob, "_state": httpx.URL(place).params["_state"]}, content=config)
            described = {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": blob, "size": len(config)}
            manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": described, "layers": []}
            data, headers = json.dumps(manifest).encode(), {"Content-Type": MANIFEST}
            answer = http.put(f"/manifests/{tag}", content=data, headers=headers).raise_for_status()
            return str(answer.headers["Docker-Content-Digest"])

    def pin(self, *words: str | Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, PIN, *words]
        return subprocess.run(command, env=self.environ, capture_output=True, text=True, timeout=LIMIT_S)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    program = server_binary("docker-registry", "apt-get install docker-registry")
    server_binary("skopeo", "apt-get install skopeo")
    folder, port = tmp_path_factory.mktemp("registry"), free_port()
    config = folder / "config.yml"
    storage = {"filesystem": {"rootdirectory": str(folder / "data")}}
    config.write_text(json.dumps({"version": 0.1, "storage": storage, "http": {"addr": f"127.0.0.1:{port}"}}))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([program, "serve", config], stdout=log, stderr=log)
    try:
        wait_until(lambda: is_open(port), process, "docker-registry")
        yield Registry(port, folder)
    finally:
        process.terminate()
        process.wait(timeout=LIMIT_S)


def test_a_site_names_its_images_by_the_digests_of_its_registry(registry: Registry, tmp_path: Path) -> None:
    overlay = tmp_path / "manifests/overlays/mine"
    overlay.parent.mkdir(parents=True)
    for name in ("base", "components"):
        (tmp_path / "manifests" / name).symlink_to(TOP / "manifests" / name)
    overlay.mkdir()
    for path in SITE.iterdir():
        (overlay / path.name).write_text(path.read_text().replace("registry.example.org", registry.place))
    text = (overlay / "kustomization.yaml").read_text().replace("quay.io", registry.place)
    (overlay / "kustomization.yaml").write_text(text)
    names = sorted(path.parent.name for path in (TOP / "functions").glob("*/main.py"))
    pushed = {f"hepfaas/{name}": registry.push(f"hepfaas/{name}", "0.1.0") for name in (*names, "xrootd-cache")}
    pushed["oauth2-proxy/oauth2-proxy"] = registry.push("oauth2-proxy/oauth2-proxy", "v7.15.4")
    before = registry.pin("--check", overlay)
    assert before.returncode == 1
    assert "hepfaas/train:0.1.0" in before.stderr
    done = registry.pin(overlay)
    assert done.returncode == 0, done.stderr
    after = registry.pin("--check", overlay)
    assert after.returncode == 0, after.stderr
    rendered = subprocess.run(["kubectl", "kustomize", overlay], capture_output=True, text=True, timeout=LIMIT_S).stdout
    assert all(f"image: {registry.place}/{name}@{digest}\n" in rendered for name, digest in pushed.items())
    assert "# 0.1.0" in (overlay / "kustomization.yaml").read_text()
    again = registry.pin(overlay)  # nothing is left to do
    assert (again.returncode, again.stdout) == (0, "")


def test_an_image_that_the_registry_does_not_have_is_named(registry: Registry) -> None:
    done = registry.pin("--image", f"{registry.place}/nobody/nothing:1")
    assert done.returncode == 1
    assert f"finds no digest of {registry.place}/nobody/nothing:1" in done.stderr


def test_a_base_image_is_told_with_its_digest(registry: Registry) -> None:
    digest = registry.push("library/python", "3.11")
    done = registry.pin("--image", f"{registry.place}/library/python:3.11")
    assert done.stdout == f"{registry.place}/library/python:3.11@{digest}\n"


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({}, "python:3.11-slim-bookworm has no digest"),
        ({"PYTHON_BASE": f"python:3.11@sha256:{'0' * 64}"}, ""),
        ({"FUNCTION": "xrootd-cache"}, "almalinux:9 has no digest"),
    ],
)
def test_no_image_is_made_for_a_registry_from_a_base_without_a_digest(variables: dict[str, str], said: str) -> None:
    given = {"FUNCTION": "survey", "IMAGES": "registry.example.org/hepfaas", "BUILD": "echo", **variables}
    command = ["make", "--no-print-directory", "image", *(f"{name}={value}" for name, value in given.items())]
    done = subprocess.run(command, cwd=TOP, capture_output=True, text=True, timeout=LIMIT_S)
    assert (said in done.stderr) if said else done.returncode == 0, done.stderr
    assert (done.returncode != 0) == bool(said)


def test_images_of_this_machine_are_made_from_any_base() -> None:
    command = ["make", "--no-print-directory", "image", "FUNCTION=survey", "BUILD=echo"]
    done = subprocess.run(command, cwd=TOP, capture_output=True, text=True, timeout=LIMIT_S)
    assert done.returncode == 0, done.stderr
