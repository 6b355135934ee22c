"""The environment says where the store is."""

from pathlib import Path

from hepfaas.platform.settings import Settings


def test_the_store_is_where_the_variable_says_else_in_the_users_data() -> None:
    assert Settings.from_environ({"HEPFAAS_STORE": "s3://bucket/me"}).store == "s3://bucket/me"
    assert Settings.from_environ({"XDG_DATA_HOME": "/data"}).store == "/data/hepfaas"
    assert Settings.from_environ({}).store == str(Path.home() / ".local" / "share" / "hepfaas")
