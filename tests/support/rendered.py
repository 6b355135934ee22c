"""What kustomize makes of the manifests, for tests: objects by kind, and what the environment of a container says."""

import os
import re
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from support.servers import server_binary

TOP = Path(__file__).parents[2]
SITE = TOP / "manifests" / "overlays" / "site"

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


def uncommented(text: str, beginning: str) -> str:
    """The file with the lines of a comment that begins so as lines that count: up to one that is no deeper."""
    lines, found = text.splitlines(), list[str]()
    inside = False
    for line in lines:
        comment = line.strip().removeprefix("# ") if line.strip().startswith("# ") else None
        inside = comment is not None and (comment.startswith(beginning) or (inside and comment.startswith(" ")))
        found.append(line.replace("# ", "", 1) if inside else line)
    assert found != lines, beginning
    return "\n".join(found)


def chosen(folder: Path, *beginnings: str) -> list[Thing]:
    """The overlay, with these lines of it uncommented."""
    text = (SITE / "kustomization.yaml").read_text()
    for beginning in beginnings:
        text = uncommented(text, beginning)
    values: dict[str, Any] = yaml.safe_load(text)
    for key in ("resources", "components"):
        values[key] = [os.path.relpath(SITE / one, folder.resolve()) if "/" in one else one for one in values[key]]
    for path in SITE.iterdir():
        (folder / path.name).write_text(path.read_text())
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(values))
    done = subprocess.run([server_binary("kubectl", "kubectl"), "kustomize", folder], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    validate = TOP / ".cache/go/bin/validate"
    if validate.exists():
        checked = subprocess.run([validate], input=done.stdout, capture_output=True, text=True, timeout=60)
        assert checked.returncode == 0, checked.stderr
    return list(yaml.safe_load_all(done.stdout))
