"""Times that are shown."""

import time

import pytest
from hepfaas.platform.clock import utc


@pytest.mark.parametrize("zone", ["UTC", "America/New_York"])
def test_a_time_is_shown_in_utc_wherever_the_process_runs(zone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", zone)
        time.tzset()
        shown = utc(1_000_000_000.9)
    time.tzset()
    assert shown == "2001-09-09T01:46:40Z"
