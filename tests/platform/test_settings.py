"""The environment says where the store is."""

from pathlib import Path

import pytest
from hepfaas.errors import RequestError
from hepfaas.platform.settings import Settings


def test_the_store_is_where_the_variable_says_else_in_the_users_data() -> None:
    assert Settings.from_environ({"HEPFAAS_STORE": "s3://bucket/me"}).store == "s3://bucket/me"
    assert Settings.from_environ({"XDG_DATA_HOME": "/data"}).store == "/data/hepfaas"
    assert Settings.from_environ({}).store == str(Path.home() / ".local" / "share" / "hepfaas")


def test_planned_faults_are_refused_on_knative() -> None:
    assert Settings.from_environ({"HEPFAAS_FAULTS": "/plan"}).faults == "/plan"
    with pytest.raises(RequestError, match="HEPFAAS_FAULTS is '/plan', a plan of faults"):
        Settings.from_environ({"HEPFAAS_FAULTS": "/plan", "K_SERVICE": "advance"})
