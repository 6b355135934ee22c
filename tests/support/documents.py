"""The commands of a document, for a test to run them."""

import os
import re
import subprocess
from pathlib import Path

TOP = Path(__file__).parents[2]
UPLOADS = "## Models from elsewhere"
"""Section of docs/predict.md whose examples need the whole system."""


def sections(document: str) -> dict[str, list[str]]:
    """Return the commands in a document by their headings."""
    parts = re.split(r"^(## .*)$", (TOP / "docs" / document).read_text(), flags=re.M)
    return {heading: _commands(text) for heading, text in zip(parts[1::2], parts[2::2], strict=True)}


def run(commands: list[str], folder: Path, **variables: str) -> list[str]:
    """Run the commands in a folder, one after the other; return the output of each."""
    outputs = []
    for command in commands:
        done = subprocess.run(
            ["bash", "-c", command.replace("curl -s", "curl -sS --fail-with-body")],
            cwd=folder, env={**os.environ, **variables}, capture_output=True, text=True, timeout=150,
        )  # fmt: skip
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        outputs.append(done.stdout)
    return outputs


def _commands(text: str) -> list[str]:
    return [line for block in re.findall(r"```sh\n(.*?)```", text, re.S) for line in block.splitlines()]
