"""What kustomize makes of the manifests, for tests: objects by kind, and what the environment of a container says."""

import re
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from conftest import server_binary

TOP = Path(__file__).parents[1]

Thing = dict[str, Any]


@cache
def rendered(overlay: str) -> list[Thing]:
    folder = TOP / "manifests" / overlay
    done = subprocess.run([server_binary("kubectl", "kubectl"), "kustomize", folder], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def of_kind(overlay: str, kind: str, group: str = "") -> dict[str, Thing]:
    found = [thing for thing in rendered(overlay) if thing["kind"] == kind and thing["apiVersion"].startswith(group)]
    return {thing["metadata"]["name"]: thing for thing in found}


def variables(overlay: str, container: Thing) -> dict[str, str]:
    """What a container's environment says, without what is secret."""
    maps, found = of_kind(overlay, "ConfigMap"), dict[str, str]()
    for source in container.get("envFrom", ()):
        found |= maps[source["configMapRef"]["name"]]["data"] if "configMapRef" in source else {}
    for one in container.get("env", ()):
        source = one.get("valueFrom", {"value": one.get("value")})
        if "configMapKeyRef" in source:
            value = maps[source["configMapKeyRef"]["name"]]["data"][source["configMapKeyRef"]["key"]]
        else:
            value = source.get("value", "x" * 32)
        found[one["name"]] = re.sub(r"\$\((\w+)\)", lambda name: found[name[1]], value)
    return found
