"""The package is typed for its users: mypy --strict accepts the README's use of both clients, and finds mistakes."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import asyncio
from pathlib import Path

from hepfaas import AsyncClient, Client
from hepfaas.client import Status

with Client("http://127.0.0.1:8080", token=Path("token")) as client:
    run = client.submit("FOLDER")
    print(client.wait(run).model)
    print(client.score("MODEL", {"met": [41.5], "lep_pt": [[31.0, 22.5]]})["score"].mean())
    reveal_type(client.status)


async def main() -> None:
    async with AsyncClient("http://127.0.0.1:8080") as client:
        run, other = await asyncio.gather(asyncio.create_task(client.submit("FOLDER")), client.submit("b", name="m"))
        status: Status = await client.wait(run, lambda status: print(status.line()))
        async for line in client.log(run, follow=True):
            print(line.upper())
        async for columns in client.predict("MODEL", ["x.root"], on_status=print):
            print(columns["score"].mean())
        reveal_type(client.status)
"""
MISTAKES = """
from hepfaas import AsyncClient, Client

Client("http://h").status(1)
Client("http://h").nothing()
AsyncClient("http://h").status(1)
"""


def mypy(script: Path) -> tuple[int, str]:
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--config-file=",
        "--cache-dir",
        script.parent / "cache",
        script,
    ]
    process = subprocess.run(command, cwd=script.parent, capture_output=True, text=True, check=False)
    return process.returncode, process.stdout


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_scripts_of_users_are_checked(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    code, out = mypy(script)
    assert code == 0, out
    assert 'Revealed type is "def (run: str) -> hepfaas.client.status.Status"' in out.replace("builtins.", "")
    script.write_text(MISTAKES)
    code, out = mypy(script)
    assert (code, out.count("error:")) == (1, 4), out  # the last one is not awaited either


def test_the_import_is_light() -> None:
    code = "import sys, hepfaas; assert not {'numpy', 'httpx', 'hepfaas.client'} & sys.modules.keys(); hepfaas.Client"
    subprocess.run([sys.executable, "-c", code], check=True)
