"""Commands in documents, for tests that run them."""

import os
import re
import subprocess
from pathlib import Path

TOP = Path(__file__).parents[2]


def commands(document: str) -> list[str]:
    """Return the commands in the `sh` blocks of a document, in order."""
    text = (TOP / "docs" / document).read_text()
    return [line for block in re.findall(r"```sh\n(.*?)```", text, re.S) for line in block.splitlines()]


def blocks(document: str, *languages: str) -> list[tuple[str, str]]:
    """Return language and text of the blocks in some languages, in order."""
    text = (TOP / "docs" / document).read_text()
    return re.findall(rf"```({'|'.join(languages)})\n(.*?)```", text, re.S)


def run(commands: list[str], folder: Path, **variables: str) -> list[str]:
    """Run commands one after the other in a folder; return the output of each."""
    outputs = []
    for command in commands:
        done = subprocess.run(
            ["bash", "-c", command.replace("curl -s", "curl -sS --fail-with-body")],
            cwd=folder, env={**os.environ, **variables}, capture_output=True, text=True, timeout=150,
        )  # fmt: skip
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        outputs.append(done.stdout)
    return outputs
