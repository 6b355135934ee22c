"""A model's code in the service: what it tries at the function that started it, and where a person reads of it."""

from pathlib import Path

import pytest
from hepfaas import Client
from hepfaas.sandbox import confinement
from support.jobs import small_job
from support.system import System

MOST_S = 300

NOSY = """
import os, socket
print("variables:", *sorted(os.environ))
def model(idim):
    for name in ("environ", "mem", "cmdline"):
        try:
            print(name, open(f"/proc/{os.getppid()}/{name}", "rb").read(9))
        except OSError as error:
            print(name, type(error).__name__)
    socket.create_connection(("192.0.2.1", 80))
"""


@pytest.mark.slow
def test_a_model_that_tries_the_function_and_the_network_gets_nothing_and_the_log_says_so(
    system: System, tmp_path: Path
) -> None:
    folder = small_job(tmp_path / "nosy", seed=71)
    (folder / "model.py").write_text(NOSY)
    with Client(system.url) as client:
        run = client.submit(folder)
        ended = client.wait(run, timeout_s=MOST_S)
        log = list(client.log(run))
    told = f"model.py line 10, in model: PermissionError: [Errno 1] Operation not permitted; {confinement.WHY}"
    assert told in ended.error, ended
    assert f"          failed: {told}" in log
    for name in ("environ", "mem", "cmdline"):
        assert f"          | {name} PermissionError" in log
    variables = [line for line in log if "variables:" in line]  # one a try: the step may have been sent again
    assert variables
    assert not [line for line in variables if "AWS" in line or "HEPFAAS" in line]
