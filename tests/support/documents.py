"""The commands of a document, so that a test can do what it says."""

import os
import re
import subprocess
from pathlib import Path

TOP = Path(__file__).parents[2]
UPLOADS = "## Models from elsewhere"
"""The section of docs/reference/predict.md whose examples need the whole system."""


def sections(document: str) -> dict[str, list[str]]:
    """The commands in a document, by the headings that they stand under."""
    parts = re.split(r"^(## .*)$", (TOP / "docs" / document).read_text(), flags=re.M)
    return {heading: _commands(text) for heading, text in zip(parts[1::2], parts[2::2], strict=True)}


def run(commands: list[str], folder: Path, **variables: str) -> list[str]:
    """Does them all, one after the other, in a folder; what each printed."""
    said = []
    for command in commands:
        done = subprocess.run(
            ["bash", "-c", command.replace("curl -s", "curl -sS --fail-with-body")],
            cwd=folder, env={**os.environ, **variables}, capture_output=True, text=True, timeout=150,
        )  # fmt: skip
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        said.append(done.stdout)
    return said


def _commands(text: str) -> list[str]:
    return [line for block in re.findall(r"```sh\n(.*?)```", text, re.S) for line in block.splitlines()]
