"""A function that does not start: errors for its callers, and the pauses between its starts."""

import asyncio
import os
import time
from pathlib import Path

import pytest
from hepfaas.errors import UnavailableError
from hepfaas.local import replicas
from hepfaas.local.replicas import MAX_FAILED, Function, Replicas

GOOD = """
import functions_framework

@functions_framework.http
def does(request):
    return "", 204
"""


@pytest.mark.timeout(120)
def test_a_function_that_ends_during_its_start_is_reported_and_started_less_and_less_often(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replicas, "MAX_BACK_OFF_S", 5.0)
    main = tmp_path / "does" / "main.py"
    main.parent.mkdir()
    main.write_text("raise RuntimeError('no such library')\n")

    async def tried() -> None:
        functions = Replicas(tmp_path, os.environ, tmp_path)
        functions.add(Function("does"))
        try:
            with pytest.raises(UnavailableError, match=r"'does' ends during its start; the reason is in .*does\.log"):
                await functions.call("does", {}, b"", 60)
            assert functions.started == MAX_FAILED
            assert "no such library" in (tmp_path / "does.log").read_text()
            began = time.monotonic()
            with pytest.raises(UnavailableError, match="ends during its start"):
                await functions.call("does", {}, b"", 60)
            assert time.monotonic() - began < 1
            main.write_text(GOOD)
            await asyncio.sleep(2.5)
            assert (await functions.call("does", {}, b"", 60)).status_code == 204
            assert functions.started == MAX_FAILED + 1
        finally:
            await functions.close()

    asyncio.run(tried())
