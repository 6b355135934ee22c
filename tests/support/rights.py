"""The system as on the cluster: every function with its own key of the store, and with the Secrets that its manifest
names."""

import base64
import importlib.machinery
import importlib.util
import json
import subprocess
import sys
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Self

import pytest
from hepfaas.local import up
from hepfaas.local.replicas import Function, Replicas
from hepfaas.platform.roles import owner_of
from support.rendered import Thing, of_kind
from support.servers import TOP, free_port, s3_client, seaweedfs, wait_until
from support.system import System

OWNER = owner_of("user", "https://issuer.example", "alice")
POLICY = TOP / "manifests/overlays/local/s3.json"
TESTS = {"AWS_ACCESS_KEY_ID": "tests", "AWS_SECRET_ACCESS_KEY": "key-of-the-tests"}
SECRET = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "HEPFAAS_EVENT_KEYS", "HEPFAAS_CREDENTIALS_KEY")
"""Variables that only the Secrets of a manifest set."""


def store_policies() -> Any:
    """manifests/store-policies as a module."""
    loader = importlib.machinery.SourceFileLoader("store_policies", str(TOP / "manifests/store-policies"))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


def container_of(name: str, overlay: str = "base") -> Thing:
    """The container of a function."""
    found: Thing = of_kind(overlay, "Service", "serving.knative.dev")[name]["spec"]["template"]["spec"]["containers"][0]
    return found


def secrets_of(name: str, overlay: str = "base") -> set[str]:
    """Secrets in the environment of a function, by its manifest."""
    container = container_of(name, overlay)
    whole = {one["secretRef"]["name"] for one in container["envFrom"] if "secretRef" in one}
    single = (one.get("valueFrom", {}).get("secretKeyRef", {}).get("name") for one in container.get("env", ()))
    return whole | set(filter(None, single))


def secret_variables(name: str) -> dict[str, str]:
    """What the Secrets of the overlay `local` put into the environment of a function."""
    there = {key: values_of(one) for key, one in of_kind("overlays/local", "Secret").items()}
    container, found = container_of(name, "overlays/local"), dict[str, str]()
    for one in container["envFrom"]:
        found |= there[one["secretRef"]["name"]] if "secretRef" in one else {}
    for one in container.get("env", ()):
        if reference := one.get("valueFrom", {}).get("secretKeyRef"):
            found[one["name"]] = there[reference["name"]][reference["key"]]
    return found


def values_of(secret: Thing) -> dict[str, str]:
    return {key: base64.b64decode(value).decode() for key, value in secret["data"].items()}


def keys_of(identity: str) -> dict[str, str]:
    """What an S3 client says to be an identity of the policy."""
    found = next(one for one in json.loads(POLICY.read_text())["identities"] if one["name"] == identity)
    (pair,) = found["credentials"]
    return {"AWS_ACCESS_KEY_ID": pair["accessKey"], "AWS_SECRET_ACCESS_KEY": pair["secretKey"]}


class Guarded:
    """A SeaweedFS that lets each identity do what the policy of the overlay `local` says, and the tests everything;
    started and stopped by Up."""

    url = "s3://hepfaas"

    def __init__(self, folder: Path) -> None:
        self._folder, self._running = folder, ExitStack()
        folder.mkdir(parents=True)
        port = free_port()
        self._place = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}", "AWS_DEFAULT_REGION": "us-east-1"}
        policy = json.loads(POLICY.read_text())
        pair = {"accessKey": TESTS["AWS_ACCESS_KEY_ID"], "secretKey": TESTS["AWS_SECRET_ACCESS_KEY"]}
        policy["identities"].append({"name": "tests", "credentials": [pair], "actions": ["Admin"]})
        self._policy = folder / "s3.json"
        self._policy.write_text(json.dumps(policy))
        self.variables = {**self._place, **TESTS}

    def as_(self, identity: str) -> dict[str, str]:
        return {**self._place, **keys_of(identity)}

    def of_pod(self, name: str, environ: Mapping[str, str]) -> dict[str, str]:
        """The environment of a function: of keys it has those that its manifest names."""
        return {**{key: value for key, value in environ.items() if key not in SECRET}, **secret_variables(name)}

    def environ(self, given: Mapping[str, str]) -> dict[str, str]:
        return {name: value for name, value in given.items() if not name.startswith("AWS_")} | self.variables

    def start(self) -> None:
        options = (f"-s3.config={self._policy}", "-bucket=hepfaas")
        process = self._running.enter_context(seaweedfs(self._folder, self._place, *options))
        client = s3_client(self.variables)

        def answers() -> bool:
            with suppress(Exception):  # it starts with connections cut and 5xx of all kinds
                client.put_object(Bucket="hepfaas", Key="probe/started", Body=b"")
                return True
            return False

        wait_until(answers, process, "SeaweedFS's S3")

    def stop(self) -> None:
        self._running.close()


class Apart(Replicas):
    """Processes of functions, each with the environment of its pod."""

    guarded: Guarded

    def _start(self, function: Function) -> None:
        everybodys, self._environ = self._environ, self.guarded.of_pod(function.name, self._environ)
        try:
            super()._start(function)
        finally:
            self._environ = everybodys


class Deployed(System):
    """The system with the store of the cluster, each function with its own keys, as in its pod."""

    def __init__(self, folder: Path, **variables: str) -> None:
        more = {"HEPFAAS_OWNER": OWNER, "HEPFAAS_DEADLINE_S": "100", **variables}
        super().__init__(folder / "up", **more)
        self.guarded = Guarded(folder / "seaweedfs")

    def __enter__(self) -> Self:
        replicas = type("ApartHere", (Apart,), {"guarded": self.guarded})
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(up, "Replicas", replicas)
            return super().__enter__()

    def made(self) -> up.Up:
        made = super().made()
        made.store = self.guarded  # type: ignore[assignment]
        return made

    def predict(self, port: int) -> subprocess.Popen[bytes]:
        """A `predict` at a port of its own."""
        variables = {
            **self.guarded.of_pod("predict", self.up.replicas._environ),
            "FUNCTION_TARGET": "predict",
            "FUNCTION_SOURCE": str(TOP / "functions/predict/main.py"),
            "HOST": "127.0.0.1",
            "PORT": str(port),
            "WORKERS": "1",
            "THREADS": "8",
        }
        with (self.options.folder / "log" / "predict-of-the-cluster.log").open("wb") as log:
            command = [sys.executable, "-m", "functions_framework"]
            return subprocess.Popen(command, env=variables, stdout=log, stderr=log, start_new_session=True)
