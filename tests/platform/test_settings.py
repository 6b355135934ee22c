"""The environment gives the settings; the documentation lists them."""

from pathlib import Path

import pytest
from hepfaas.errors import RequestError
from hepfaas.platform.settings import Settings, documented

TOP = Path(__file__).parents[2]


def test_the_store_is_where_the_variable_says_else_in_the_users_data() -> None:
    assert Settings.from_environ({"HEPFAAS_STORE": "s3://bucket/me"}).store == "s3://bucket/me"
    assert Settings.from_environ({"XDG_DATA_HOME": "/data"}).store == "/data/hepfaas"
    assert Settings.from_environ({}).store == str(Path.home() / ".local" / "share" / "hepfaas")


def test_planned_faults_are_refused_on_knative() -> None:
    assert Settings.from_environ({"HEPFAAS_FAULTS": "/plan"}).faults == "/plan"
    with pytest.raises(RequestError, match="HEPFAAS_FAULTS is '/plan', a plan of faults"):
        Settings.from_environ({"HEPFAAS_FAULTS": "/plan", "K_SERVICE": "advance"})


def test_values_have_the_type_of_their_default_and_an_empty_variable_is_unset() -> None:
    settings = Settings.from_environ(
        {
            "HEPFAAS_MAX_SCALE": "8",
            "HEPFAAS_DEADLINE_S": "2.5",
            "HEPFAAS_PREDICT_MODELS": "a, b/2,",
            "HEPFAAS_PREDICT_BASE": "/tfaas/",
            "HEPFAAS_HOSTS": "Files.Example",
            "HEPFAAS_ALLOW_PRIVATE": "1",
            "HEPFAAS_EVENT_KEYS_TRAIN": "k" * 32,
            "HEPFAAS_BUDGET_S": "",
        }
    )
    assert (settings.max_scale, settings.deadline_s, settings.budget_s) == (8, 2.5, 60.0)
    assert (settings.predict_models, settings.predict_base) == (("a", "b/2"), "/tfaas")
    assert (settings.hosts, settings.allow_private) == (("files.example",), True)
    assert settings.function_event_keys == {"train": ("k" * 32,)}


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"HEPFAAS_MAX_SCALE": "many"}, "HEPFAAS_MAX_SCALE is 'many'; it takes a number"),
        ({"HEPFAAS_MAX_SCALE": "0"}, "HEPFAAS_MAX_SCALE is 0; it takes a number above 0"),
        ({"HEPFAAS_ISSUER": "example.org"}, "an issuer is an https:// address"),
        ({"HEPFAAS_LOCAL_TOKEN": "short"}, "HEPFAAS_LOCAL_TOKEN takes 32 characters or more"),
        ({"HEPFAAS_LOCAL_TOKEN": "t" * 32, "HEPFAAS_ISSUER": "https://a"}, "cannot be set with HEPFAAS_ISSUER"),
        ({"HEPFAAS_CREDENTIALS_KEY": "short"}, "HEPFAAS_CREDENTIALS_KEY is not a key"),
    ],
)
def test_a_wrong_value_is_refused_with_the_name_of_its_variable(variables: dict[str, str], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        Settings.from_environ(variables)


def test_the_documentation_lists_all_settings_as_they_are_declared() -> None:
    (path,) = (TOP / "docs").rglob("settings.md")
    assert documented(path.read_text()) == path.read_text(), "the table is not up to date: run `make settings`"
