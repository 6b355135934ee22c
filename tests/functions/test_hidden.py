"""A process of the same user cannot read the memory of the function that starts users' code, nor of its master."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.servers import LIMIT_S, free_port, is_open, server_binary, wait_until

FUNCTIONS = Path(__file__).parents[2] / "functions"

PEEK = """
import sys
from pathlib import Path
for pid in sys.argv[1:]:
    try:
        print(b"HIDDEN=secret" in Path(f"/proc/{pid}/environ").read_bytes())
    except PermissionError:
        print("refused")
"""


def as_a_user() -> list[str]:
    """Return the start of a command without privileges: processes of root see each other through theirs."""
    if os.geteuid():
        return []
    return [server_binary("setpriv", "Debian util-linux"), "--bounding-set=-all", "--inh-caps=-all"]


@pytest.mark.parametrize(("name", "seen"), [("train", "refused"), ("runs", "True")])
def test_no_other_process_sees_the_environment_of_the_function_train(name: str, seen: str, tmp_path: Path) -> None:
    port = free_port()
    environ = {
        "FUNCTION_TARGET": name,
        "FUNCTION_SOURCE": str(FUNCTIONS / name / "main.py"),
        "HEPFAAS_STORE": str(tmp_path),
        "HEPFAAS_LEARNER_WITHOUT_LANDLOCK": "1",
        "HIDDEN": "secret",
        "HOST": "127.0.0.1",
        "PORT": str(port),
        "PATH": os.environ["PATH"],
        "PYTHONUNBUFFERED": "1",
    }
    command = [*as_a_user(), sys.executable, "-m", "functions_framework"]
    with (tmp_path / "said").open("wb") as out:
        process = subprocess.Popen(command, env=environ, stdout=out, stderr=out)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    try:
        wait_until(lambda: is_open(port) and children.read_text() != "", process, name)
        look = [*as_a_user(), sys.executable, "-c", PEEK, str(process.pid), *children.read_text().split()]
        found = subprocess.run(look, capture_output=True, text=True, check=True, timeout=LIMIT_S).stdout.split()
    finally:
        process.terminate()
        process.wait(timeout=LIMIT_S)
    assert len(found) >= 2, (tmp_path / "said").read_text()
    assert set(found) == {seen}
