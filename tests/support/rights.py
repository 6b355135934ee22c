"""The system as on the cluster: each function has its own key of the store and the Secrets that its manifest names."""

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
"""Variables set only by the Secrets of a manifest."""


def store_policies() -> Any:
    """Return manifests/store-policies as a module."""
    loader = importlib.machinery.SourceFileLoader("store_policies", str(TOP / "manifests/store-policies"))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


def container_of(name: str, overlay: str = "base") -> Thing:
    """Return the container of a function."""
    service = of_kind(overlay, "Service", "serving.knative.dev")[name]
    container: Thing = service["spec"]["template"]["spec"]["containers"][0]
    return container


def secrets_of(name: str, overlay: str = "base") -> set[str]:
    """Return the names of the Secrets in the environment of a function, by its manifest."""
    container = container_of(name, overlay)
    whole = {source["secretRef"]["name"] for source in container["envFrom"] if "secretRef" in source}
    single = (entry.get("valueFrom", {}).get("secretKeyRef", {}).get("name") for entry in container.get("env", ()))
    return whole | set(filter(None, single))


def secret_variables(name: str) -> dict[str, str]:
    """Return the variables that a function gets from the Secrets of the overlay `local`."""
    secrets = {key: values_of(secret) for key, secret in of_kind("overlays/local", "Secret").items()}
    container, environment = container_of(name, "overlays/local"), dict[str, str]()
    for source in container["envFrom"]:
        environment |= secrets[source["secretRef"]["name"]] if "secretRef" in source else {}
    for entry in container.get("env", ()):
        if reference := entry.get("valueFrom", {}).get("secretKeyRef"):
            environment[entry["name"]] = secrets[reference["name"]][reference["key"]]
    return environment


def values_of(secret: Thing) -> dict[str, str]:
    return {key: base64.b64decode(value).decode() for key, value in secret["data"].items()}


def keys_of(identity: str) -> dict[str, str]:
    """Return the variables with which an S3 client has this identity of the policy."""
    identities = {entry["name"]: entry for entry in json.loads(POLICY.read_text())["identities"]}
    (pair,) = identities[identity]["credentials"]
    return {"AWS_ACCESS_KEY_ID": pair["accessKey"], "AWS_SECRET_ACCESS_KEY": pair["secretKey"]}


class GuardedStore:
    """A SeaweedFS with the policy of the overlay `local`, and all rights for the tests; started and stopped by Up."""

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
        """Return the environment of a function, with only the keys that its manifest names."""
        return {**{key: value for key, value in environ.items() if key not in SECRET}, **secret_variables(name)}

    def environ(self, variables: Mapping[str, str]) -> dict[str, str]:
        return {name: value for name, value in variables.items() if not name.startswith("AWS_")} | self.variables

    def start(self) -> None:
        options = (f"-s3.config={self._policy}", "-bucket=hepfaas")
        process = self._running.enter_context(seaweedfs(self._folder, self._place, *options))
        client = s3_client(self.variables)

        def answers() -> bool:
            with suppress(Exception):  # while it starts, connections fail or get 5xx
                client.put_object(Bucket="hepfaas", Key="probe/started", Body=b"")
                return True
            return False

        wait_until(answers, process, "SeaweedFS's S3")

    def stop(self) -> None:
        self._running.close()


class GuardedReplicas(Replicas):
    """Processes of functions, each with the environment of its pod."""

    guarded: GuardedStore

    def _start(self, function: Function) -> None:
        common, self._environ = self._environ, self.guarded.of_pod(function.name, self._environ)
        try:
            super()._start(function)
        finally:
            self._environ = common


class GuardedSystem(System):
    """The system with the cluster's store policy; each function has its own keys, as in its pod."""

    def __init__(self, folder: Path, **variables: str) -> None:
        more = {"HEPFAAS_OWNER": OWNER, "HEPFAAS_DEADLINE_S": "100", **variables}
        super().__init__(folder / "up", **more)
        self.guarded = GuardedStore(folder / "seaweedfs")

    def __enter__(self) -> Self:
        replicas = type("Replicas", (GuardedReplicas,), {"guarded": self.guarded})
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(up, "Replicas", replicas)
            return super().__enter__()

    def create(self) -> up.Up:
        created = super().create()
        created.store = self.guarded  # type: ignore[assignment]
        return created

    def predict(self, port: int) -> subprocess.Popen[bytes]:
        """Start another `predict` on this port."""
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
