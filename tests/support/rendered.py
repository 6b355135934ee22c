"""Manifests rendered by kustomize: objects by kind, and the environment of containers."""

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
    return {
        thing["metadata"]["name"]: thing
        for thing in rendered(overlay)
        if thing["kind"] == kind and thing["apiVersion"].startswith(group)
    }


def variables(overlay: str, container: Thing) -> dict[str, str]:
    """Return a container's environment with placeholders for secrets."""
    maps, environment = of_kind(overlay, "ConfigMap"), dict[str, str]()
    for source in container.get("envFrom", ()):
        environment |= maps[source["configMapRef"]["name"]]["data"] if "configMapRef" in source else {}
    for variable in container.get("env", ()):
        source = variable.get("valueFrom", {"value": variable.get("value")})
        if "configMapKeyRef" in source:
            value = maps[source["configMapKeyRef"]["name"]]["data"][source["configMapKeyRef"]["key"]]
        else:
            value = source.get("value", "x" * 32)
        environment[variable["name"]] = re.sub(r"\$\((\w+)\)", lambda name: environment[name[1]], value)
    return environment


def uncommented(text: str, beginning: str) -> str:
    """Return the text with comments that start like this uncommented, together with their deeper indented lines."""
    lines, changed = text.splitlines(), list[str]()
    inside = False
    for line in lines:
        comment = line.strip().removeprefix("# ") if line.strip().startswith("# ") else None
        inside = comment is not None and (comment.startswith(beginning) or (inside and comment.startswith(" ")))
        changed.append(line.replace("# ", "", 1) if inside else line)
    assert changed != lines, beginning
    return "\n".join(changed)


def chosen(folder: Path, *beginnings: str) -> list[Thing]:
    """Return the objects of overlay `site` with these lines uncommented."""
    text = (SITE / "kustomization.yaml").read_text()
    for beginning in beginnings:
        text = uncommented(text, beginning)
    values: dict[str, Any] = yaml.safe_load(text)
    for key in ("resources", "components"):
        values[key] = [os.path.relpath(SITE / path, folder.resolve()) if "/" in path else path for path in values[key]]
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
