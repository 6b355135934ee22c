"""params.json: the keys of MLaaS4HEP keep their meaning, and errors name the key."""

import json

import pytest
from hepfaas.errors import RequestError
from hepfaas.runs.params import REDIRECTOR, params_of

OLD = {
    "nevts": 3000,
    "shuffle": True,
    "chunk_size": 1000,
    "epochs": 5,
    "batch_size": 100,
    "identifier": "",
    "branch": "boostedAk8/events",
    "selected_branches": "",
    "exclude_branches": ["pt", "eta"],
    "hist": "pdfs",
    "redirector": "root://stormgf1.pi.infn.it:1094",
    "verbose": 1,
}


def test_the_example_of_mlaas4hep_is_understood() -> None:
    params = params_of(json.dumps(OLD), "params.json")
    assert params.recipe == {
        "n_events": 3000,
        "shuffle": True,
        "epochs": 5,
        "batch_size": 100,
        "identifiers": (),
        "tree": "boostedAk8/events",
        "selected": (),
        "excluded": ("pt", "eta"),
    }
    assert params.redirector == "root://stormgf1.pi.infn.it:1094"
    assert [note.split("'")[1] for note in params.notes] == ["chunk_size", "hist"]


def test_a_file_or_commas_may_name_the_excluded_branches() -> None:
    assert params_of('{"exclude_branches": "out.txt"}', "p").branch_file == "out.txt"
    assert params_of('{"exclude_branches": "pt, eta"}', "p").recipe == {"excluded": ("pt", "eta")}


def test_defaults_are_those_of_mlaas4hep() -> None:
    assert params_of("{}", "p").redirector == REDIRECTOR


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "params.json is not JSON: .* at line 1 column 2"),
        ("[1]", "params.json holds a list; it must be one JSON object"),
        ('{"epoch": 5}', "params.json has the unknown key 'epoch'; closest: epochs"),
        ('{"zzzz": 5}', "params.json has the unknown key 'zzzz'; known: balance, batch_size"),
        ('{"epochs": "five"}', "'epochs' is \"five\" \\(text\\); it takes a whole number from 1"),
        ('{"epochs": 0}', "'epochs' is 0 .* a whole number from 1"),
        ('{"epochs": true}', "'epochs' is true \\(true or false\\); it takes a whole number"),
        ('{"preproc": ["preproc.json"]}', "'preproc' is .* \\(a list\\); it takes a name"),
        ('{"weight": "pt >"}', "params.json: 'weight': "),
        ('{"spectators": "m_ll"}', "'spectators' is \"m_ll\" \\(text\\); it takes a list of branch names"),
        ('{"balance": {"branch": "pt"}}', "it takes true, or {\"branch\": a branch or expression, \"bins\": edges}"),
        ('{"balance": {"branch": "pt", "bins": [3, 2]}}', "it takes a list of 2 to 1,000 rising numbers, the edges"),
        ('{"negative_weights": "no"}', 'it takes "keep" or "abs" or "drop" or "error"'),
        ('{"epochs": 10001}', "'epochs' is 10001 .* from 1 to 10,000"),
        ('{"batch_size": 1000001}', "'batch_size' is 1000001 .* from 1 to 1,000,000"),
        ('{"threads": 257}', "'threads' is 257 .* from 1 to 256"),
        ('{"range_events": 10000001}', "'range_events' is 10000001 .* from 1 to 10,000,000"),
        ('{"seed": 4294967296}', "'seed' is 4294967296 .* from 0 to 4,294,967,295"),
        (f'{{"seed": {"9" * 5000}}}', "params.json cannot be read: "),
        (f'{{"epochs": {"9" * 4000}}}', "'epochs' is 9{100} .* from 1 to 10,000"),
        ('{"nevts": 0}', "'nevts' is 0 .* from 1, or -1 for all"),
        ('{"shuffle": 1}', "'shuffle' is 1 \\(a whole number\\); it takes true or false"),
        ('{"branch": ""}', "'branch' is \"\" \\(text\\); it takes a name"),
        ('{"selected_branches": [1]}', "'selected_branches' is \\[1\\] \\(a list\\); it takes a list of branch names"),
        ('{"metrics": {"threshold": 2}}', "'metrics' is .*threshold.*; it takes true"),
        ('{"order": "file"}', '\'order\' is "file" \\(text\\); it takes "sorted" or "tree"'),
    ],
)
def test_an_error_names_the_wrong_value_and_the_valid_ones(text: str, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        params_of(text, "params.json")
