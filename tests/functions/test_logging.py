"""The log of a function: one line per request, whatever the answer."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from hepfaas.orchestration.events import DOES
from support.servers import LIMIT_S, TOP, free_port, is_open, wait_until


def test_a_function_logs_one_line_for_each_request_that_it_answers(tmp_path: Path) -> None:
    port = free_port()
    environ = {
        "FUNCTION_TARGET": "runs",
        "FUNCTION_SOURCE": str(TOP / "functions" / "runs" / "main.py"),
        "HEPFAAS_STORE": str(tmp_path / "store"),
        "K_SINK": "http://127.0.0.1:9/",
        "HOST": "127.0.0.1",
        "PORT": str(port),
        "PATH": os.environ["PATH"],
    }
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen([sys.executable, "-m", "functions_framework"], env=environ, stdout=log, stderr=log)
    try:
        wait_until(lambda: is_open(port), process, "runs")
        statuses = [
            httpx.get(f"http://127.0.0.1:{port}{path}", timeout=LIMIT_S).status_code
            for path in ("/v1/runs", "/v1/runs/none-1")
        ]
    finally:
        process.terminate()
        process.wait(timeout=LIMIT_S)
    text = (tmp_path / "log").read_text()
    lines = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    assert statuses == [200, 404]
    assert [(line["path"], line["status"]) for line in lines] == [("/v1/runs", 200), ("/v1/runs/none-1", 404)], text
    assert lines[0]["outcome"] == "done"


@pytest.mark.parametrize("name", sorted(DOES))
def test_the_contract_of_a_step_function_names_every_status_that_it_answers(name: str) -> None:
    contract = ast.get_docstring(ast.parse((TOP / "functions" / name / "main.py").read_text())) or ""
    answers = " ".join(contract.partition("Answers ")[2].split())
    assert [status for status in ("204", "403", "422", "503") if status not in answers] == []
