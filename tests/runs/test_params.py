"""params.json: the keys of MLaaS4HEP keep their meaning, and errors name the key."""

import json

import pytest
from hepfaas.errors import RequestError
from hepfaas.runs.event_keys import MOST_SPECTATORS
from hepfaas.runs.feature_rules import FeatureRules, NanRule, PadRule, ScalingRule
from hepfaas.runs.folds import Folds
from hepfaas.runs.json_values import MOST_NESTED, MOST_VALUES
from hepfaas.runs.params import REDIRECTOR, params_of
from hepfaas.runs.plot_labels import PlotLabels
from hepfaas.runs.preprocessing import Cut, Preprocessing
from hepfaas.runs.recipe import LabelledFile, Recipe
from hepfaas.runs.schedule import Schedule
from hepfaas.runs.splits import SplitRule
from hepfaas.runs.weighting import Balance

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


def test_scaling_missing_values_padding_and_masks_are_rules_by_pattern() -> None:
    params = params_of(
        json.dumps(
            {
                "scaling": {"Muon_pt": "log", "*_eta": {"kind": "standard", "clip": 5}, "*": {"clip": [-1, 2]}},
                "nan": {"Jet_btag": "indicator", "*": -1},
                "pad": {"Jet_*": -2.5},
                "mask": ["Jet_pt"],
            }
        ),
        "p",
    )
    assert params.recipe == {
        "features": FeatureRules(
            scaling=(
                ScalingRule("Muon_pt", "log"),
                ScalingRule("*_eta", "standard", (-5, 5)),
                ScalingRule("*", "minmax", (-1, 2)),
            ),
            nan=(NanRule("Jet_btag", indicator=True), NanRule("*", -1)),
            pad=(PadRule("Jet_*", -2.5),),
            mask=("Jet_pt",),
        )
    }
    assert params.notes == ()


def test_one_value_is_that_of_all_branches() -> None:
    params = params_of('{"scaling": "standard", "nan": "indicator", "pad": -1, "mask": true}', "p")
    assert params.recipe["features"] == FeatureRules(
        (ScalingRule("*", "standard"),), (NanRule("*", indicator=True),), (PadRule("*", -1),), ("*",)
    )
    assert params_of('{"mask": false}', "p").recipe == {}


@pytest.mark.parametrize("value", ["0", "null", "NaN", '"nan"', '""'])
def test_nan_of_an_old_folder_has_no_effect_and_a_note(value: str) -> None:
    params = params_of(f'{{"nan": {value}}}', "params.json")
    assert params.recipe == {}
    assert params.notes == ("params.json: 'nan' has no effect: slots without a value are 0, as in MLaaS4HEP",)


def test_rules_survive_the_request_of_a_run() -> None:
    (rules,) = params_of(
        '{"scaling": {"a": {"kind": "log", "clip": 3}, "b": "none"}, "mask": true}', "p"
    ).recipe.values()
    recipe = Recipe("m", (LabelledFile("a.root", 0),), "blobs/x", features=rules)
    assert Recipe.from_json(json.loads(json.dumps(recipe.to_json()))) == recipe
    assert FeatureRules.from_text(rules.text) == rules
    earlier = {name: value for name, value in recipe.to_json().items() if name != "features"}
    assert Recipe.from_json(earlier).features == FeatureRules()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"scaling": "max"}', r"'scaling', '\*' is \"max\" \(text\); it takes one of \"minmax\", \"standard\""),
        ('{"scaling": {"a": {"kind": "log", "clip": -1}}}', "'a': 'clip' is -1 .*; it takes a number above 0, or"),
        ('{"scaling": {"a": {"clip": [2, 1]}}}', "'clip' is .2, 1. .*; it takes a number above 0"),
        ('{"scaling": {"a": {"clop": 1}}}', "'scaling', 'a' is .*clop.*; it takes one of"),
        ('{"scaling": 5}', "'scaling', '\\*' is 5 .*; it takes one of"),
        ('{"nan": {"a": "median"}}', "'nan', 'a'.* is \"median\" \\(text\\); it takes a number"),
        ('{"nan": {"a": NaN}}', "'nan', 'a'.* is NaN .*; it takes a number"),
        ('{"pad": {"a": 1e39}}', "'pad', 'a' is 1e\\+39 .*; it takes a number of float32"),
        ('{"pad": true}', "'pad', '\\*' is true"),
        ('{"mask": 1}', "'mask' is 1 .*; it takes a list of branch names"),
        ('{"scaling": {"/(/": "log"}}', "'scaling': '/\\(/' is not a regular expression of RE2"),
        ('{"exclude_branches": ["/(/"]}', "'exclude_branches': '/\\(/' is not a regular expression of RE2"),
    ],
)
def test_wrong_rules_are_refused_with_their_key(text: str, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        params_of(text, "params.json")


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
        (
            '{"selected_branches": ["m_ll", "met"], "spectators": ["m_ll"]}',
            r"'m_ll' is in 'selected_branches' and in 'spectators'; .* as an expression, such as '\+m_ll'",
        ),
        ('{"spectators": "m_ll"}', "'spectators' is \"m_ll\" \\(text\\); it takes a list of branch names"),
        ('{"balance": {"branch": "pt"}}', 'it takes true, or {"branch": a branch or expression, "bins": edges}'),
        ('{"balance": {"branch": "pt", "bins": [3, 2]}}', "it takes a list of 2 to 1,000 rising numbers, the edges"),
        ('{"folds": 1}', "'folds' is 1 .*; it takes a number from 2 to 10, or "),
        ('{"folds": 11}', "it takes a number from 2 to 10"),
        ('{"folds": true}', "it takes a number from 2 to 10"),
        ('{"folds": {"by": "event"}}', "it takes a number from 2 to 10"),
        ('{"folds": {"number": 3, "seed": 1}}', "it takes a number from 2 to 10"),
        ('{"folds": {"number": 3, "by": "event %"}}', "'folds': 'by'"),
        ('{"folds": 3, "split": "event % 2"}', "leave one of them out, or give the expression to 'folds' as 'by'"),
        ('{"plots": "CMS"}', "it takes an object with 'label', 'luminosity', 'energy', 'titles'"),
        ('{"plots": {"lumi": 3}}', "has the unknown key 'lumi'; closest: luminosity"),
        ('{"plots": {"energy": 0}}', "'plots': 'energy'"),
        ('{"plots": {"label": "two\\nlines"}}', "it takes a line of at most 100 characters"),
        ('{"plots": {"titles": {"MET_pt": 5}}}', "'titles': 'MET_pt' is 5"),
        ('{"split": {"training": 0.5, "validation": 0.5}}', 'it takes {"training": share, .* or a condition'),
        ('{"split": {"training": 0.5, "validation": 0.5, "test": 0.5}}', "with shares above 0 that add up to 1"),
        ('{"training": "fast"}', '\'training\' is "fast" \\(text\\); it takes "standard" or "chunk"'),
        ('{"training": "chunk", "patience": 3}', "'patience' would end a training by chunks .*; leave one of them out"),
        ('{"verbose": "yes"}', "'verbose' is \"yes\" \\(text\\); it takes a whole number: 0, 1 or 2"),
        ('{"hist": 5}', "'hist' is 5 \\(a whole number\\); it takes text"),
        ('{"nan": [1]}', "'nan' is .1. \\(a list\\); it takes a number, \"indicator\", or an object"),
        ('{"nan": "median"}', "'nan', '.*' .* is \"median\" \\(text\\); it takes a number"),
        ('{"specs": 1}', "'specs' is 1 .*; it takes a name"),
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
        ('{"patience": 0}', "'patience' is 0 .* from 1 to 10,000"),
        ('{"learning_rate": 0}', "'learning_rate' is 0 .* it takes a number above 0"),
        ('{"learning_rate": NaN}', "'learning_rate' is NaN .* it takes a number above 0"),
        (f'{{"learning_rate": 1{"0" * 400}}}', "'learning_rate' is 10+ .* it takes a number above 0"),
        ('{"min_delta": -1}', "'min_delta' is -1 .* it takes a number from 0"),
        ('{"learning_rate_schedule": "cosin"}', '"cosin" .* the name of a schedule, .*: "cosine", "warmup_cosine"'),
        ('{"learning_rate_schedule": {"name": []}}', "it takes the name of a schedule"),
        (
            '{"learning_rate_schedule": {"name": "step", "decay": 2}}',
            "'learning_rate_schedule': 'step' has no argument 'decay'; known: factor, every",
        ),
        (
            '{"learning_rate_schedule": {"name": "step", "factor": 2}}',
            "'step': 'factor' is 2 .* it takes a number above 0 to 1",
        ),
        ('{"class_weight": {"1": 0}}', "'class_weight': '1' is 0 .* it takes a number above 0 to 1e\\+12"),
        ('{"class_weight": {"signal": 2}}', 'it takes a factor for each label, as .*, or "balanced"'),
        ('{"class_weight": "equal"}', '\'class_weight\' is "equal" .* or "balanced"'),
        ('{"callbacks": ["ModelCheckpoint"]}', "it takes callbacks by name .*; for others define callbacks\\(\\)"),
        ('{"callbacks": [3]}', "'callbacks' is 3 .* it takes callbacks by name"),
        (
            '{"callbacks": [{"name": "EarlyStopping", "monitor": "val_auc"}]}',
            "'EarlyStopping': 'monitor' is \"val_auc\" .*; it takes \"val_loss\"; for another metric",
        ),
        (
            '{"callbacks": [{"name": "EarlyStopping", "baseline": 1}]}',
            "'EarlyStopping' has no argument 'baseline'; known: patience, min_delta, restore_best_weights",
        ),
        ('{"callbacks": ["LearningRateScheduler"]}', "'LearningRateScheduler' needs 'schedule', the name of"),
        (
            '{"callbacks": ["early_stopping"], "patience": 3}',
            "params.json: 'patience' and 'callbacks' both say this; keep one",
        ),
        (
            '{"callbacks": ["ReduceLROnPlateau", {"name": "LearningRateScheduler", "schedule": "cosine"}]}',
            "'callbacks': two callbacks set the same",
        ),
        ('{"redirector": 3}', "'redirector' is 3 \\(a whole number\\); it takes text"),
        ('{"metrics": {"threshold": true}}', "'metrics' is .*true.*; it takes true, or"),
        ('{"metrics": 0.3}', "'metrics' is 0.3 \\(a number\\); it takes true, or"),
        ('{"shuffle": "yes"}', "'shuffle' is \"yes\" \\(text\\); it takes true or false"),
        (
            json.dumps({"spectators": ["x"] * (MOST_SPECTATORS + 1)}),
            f"'spectators' has {MOST_SPECTATORS + 1} entries; at most {MOST_SPECTATORS}",
        ),
        (f'{{"hist": {"[" * MOST_NESTED}1', f"params.json is nested deeper than {MOST_NESTED} levels"),
        (f'{{"hist": [{"1," * MOST_VALUES}1]}}', f"params.json has more than {MOST_VALUES:,} values"),
        ('{"order": "file"}', '\'order\' is "file" \\(text\\); it takes "sorted" or "tree"'),
    ],
)
def test_an_error_names_the_wrong_value_and_the_valid_ones(text: str, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        params_of(text, "params.json")


@pytest.mark.parametrize(
    ("text", "recipe"),
    [
        ('{"learning_rate": 1}', {"learning_rate": 1.0}),
        ('{"learning_rate_schedule": "cosine"}', {"learning_rate_schedule": Schedule(name="cosine")}),
        (
            '{"learning_rate_schedule": {"name": "step", "every": 3, "factor": 0.5}}',
            {"learning_rate_schedule": Schedule(name="step", every=3, factor=0.5)},
        ),
        ('{"class_weight": {"1": 5, "0": 1}}', {"class_weight": ((0, 1.0), (1, 5.0))}),
        ('{"class_weight": "balanced"}', {"class_weight": "balanced"}),
        ('{"callbacks": []}', {}),
        ('{"metrics": true}', {"threshold": 0.5}),
        ('{"metrics": {"threshold": 0.25}}', {"threshold": 0.25}),
        ('{"shuffle": "False"}', {"shuffle": False}),
        ('{"negative_weights": "abs"}', {"negative_weights": "abs"}),
        ('{"balance": true}', {"balance": Balance()}),
        ('{"balance": false}', {"balance": None}),
        ('{"split": "event % 2"}', {"split": SplitRule(training="event % 2")}),
        ('{"folds": 5}', {"folds": Folds(5)}),
        ('{"folds": {"number": 5, "by": " event "}}', {"folds": Folds(5, "event")}),
        ('{"plots": {"label": "ACME", "energy": 13}}', {"plots": PlotLabels("ACME", energy=13)}),
        ('{"plots": {"titles": true}}', {"plots": PlotLabels(branch_titles=True)}),
        ('{"plots": {"titles": {"m": "m [GeV]"}}}', {"plots": PlotLabels(titles=(("m", "m [GeV]"),))}),
        (
            '{"split": {"training": 0.5, "validation": 0.25, "test": 0.25}}',
            {"split": SplitRule((0.5, 0.25, 0.25))},
        ),
        ('{"cuts": ["met > 30"]}', {"preprocessing": Preprocessing(cuts=(Cut("met > 30", "met > 30"),))}),
        ('{"callbacks": ["early_stopping"]}', {"patience": 1, "min_delta": 0.0}),
        (
            """{"callbacks": [
                {"name": "EarlyStopping", "patience": 5, "monitor": "val_loss", "restore_best_weights": true},
                {"name": "ReduceLROnPlateau", "factor": 0.5, "patience": 2, "verbose": 1}
            ]}""",
            {
                "patience": 5,
                "min_delta": 0.0,
                "learning_rate_schedule": Schedule(name="reduce_on_plateau", factor=0.5, patience=2),
            },
        ),
        (
            '{"callbacks": [{"name": "LearningRateScheduler", "schedule": {"name": "exponential", "factor": 0.9}}]}',
            {"learning_rate_schedule": Schedule(name="exponential", factor=0.9)},
        ),
    ],
)
def test_training_options_become_fields_of_the_recipe(text: str, recipe: dict[str, object]) -> None:
    assert params_of(text, "params.json").recipe == recipe


@pytest.mark.parametrize(
    ("split", "shares", "note"),
    [
        ("0.2", (0.64, 0.16, 0.2), None),
        (
            "0.3",
            (0.56, 0.14, 0.3),
            "0.56 training, 0.14 validation, 0.3 test; MLaaS4HEP ignored the key (0.64 training, 0.16 validation, "
            "0.2 test)",
        ),
        (
            "7",
            (0.64, 0.16, 0.2),
            "has no effect: 7 is not a share between 0 and 1; 0.64 training, 0.16 validation, 0.2",
        ),
    ],
)
def test_a_number_as_split_is_the_share_of_test_events(split: str, shares: tuple[float, ...], note: str | None) -> None:
    params = params_of(f'{{"split": {split}}}', "params.json")
    assert params.recipe["split"].fractions == pytest.approx(shares)
    assert sum(params.recipe["split"].fractions) == pytest.approx(1)
    assert len(params.notes) == (note is not None)
    assert all(note in one for one in params.notes if note)


@pytest.mark.parametrize(
    ("text", "chunk_events", "note"),
    [
        ("{}", None, None),
        ('{"training": "standard", "chunk_size": 500}', None, None),
        ('{"chunk_size": -1}', None, None),
        (
            '{"chunk_size": 500}',
            None,
            "'chunk_size' has no effect: every epoch sees all events, which makes better models; 'training': 'chunk' "
            "trains chunks of 500 events one after the other, as MLaaS4HEP did",
        ),
        (
            '{"training": "chunk"}',
            1000,
            "'training': chunks of 1,000 events are trained one after the other, each for all epochs",
        ),
        ('{"training": "chunk", "chunk_size": 500}', 500, "'training': chunks of 500 events are trained one after"),
        ('{"training": "chunk", "chunk_size": -1}', None, "'training': one chunk has all events (chunk_size -1), so"),
    ],
)
def test_training_is_by_chunks_where_it_is_asked_for(text: str, chunk_events: int | None, note: str | None) -> None:
    params = params_of(text, "params.json")
    assert params.recipe.get("chunk_events") == chunk_events
    assert len(params.notes) == (note is not None)
    assert all(f"params.json: {note}" in one for one in params.notes)


def test_a_number_as_nan_fills_slots_and_missing_values() -> None:
    params = params_of('{"nan": -1.5}', "params.json")
    assert params.recipe == {"features": FeatureRules(nan=(NanRule("*", -1.5),), pad=(PadRule("*", -1.5),))}
    assert params.notes == (
        "params.json: 'nan': slots and values without a number are -1.5 after scaling; in MLaaS4HEP 0",
    )
    both = params_of('{"nan": -1, "pad": {"Jet_*": -2}}', "params.json").recipe["features"]
    assert both == FeatureRules(nan=(NanRule("*", -1),), pad=(PadRule("Jet_*", -2),))


@pytest.mark.parametrize(
    ("value", "folder"), [('"pdfs"', "pdfs"), ("true", "pdfs"), ('""', ""), ("null", ""), ("false", "")]
)
def test_hist_names_the_folder_of_histograms(value: str, folder: str) -> None:
    params = params_of(f'{{"hist": {value}}}', "params.json")
    assert params.histograms == folder
    note = "params.json: 'hist': the histograms of the branches go to 'pdfs' after a training by `hepfaas train`"
    assert params.notes == ((note,) if folder else ())


@pytest.mark.parametrize(("value", "verbose"), [("0", 0), ("1", 1), ("2", 2), ("5", 2), ("-1", 0), ("true", 1)])
def test_verbose_changes_no_result(value: str, verbose: int) -> None:
    params = params_of(f'{{"verbose": {value}}}', "params.json")
    assert (params.verbose, params.recipe, params.notes) == (verbose, {}, ())


def test_a_file_of_ranges_has_a_key() -> None:
    params = params_of('{"specs": "global-specs.json"}', "params.json")
    assert (params.specs, params.recipe) == ("global-specs.json", {})


def test_targets_are_one_or_several_expressions() -> None:
    assert params_of('{"target": "gen_pt"}', "p").recipe == {"targets": ("gen_pt",)}
    assert params_of('{"target": ["gen_px", "gen_py / 2"]}', "p").recipe == {"targets": ("gen_px", "gen_py / 2")}
    notes = params_of('{"target": "gen_pt", "metrics": {"threshold": 0.3}}', "p").notes
    assert notes == ("p: the threshold of 'metrics' has no effect: a run with a 'target' has no classes",)
    flat = params_of('{"target": "pt", "balance": {"branch": "pt", "bins": [0, 10, 50]}}', "p").recipe
    assert flat["balance"] == Balance("pt", (0.0, 10.0, 50.0))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"target": []},
            "'target' is \\[\\] \\(a list\\); it takes a branch or expression, or a list of 1 to 20 of them",
        ),
        ({"target": 3}, "'target' is 3 \\(a whole number\\); it takes a branch or expression"),
        ({"target": ["x", " "]}, "'target' is .*; it takes a branch or expression"),
        ({"target": [f"x{number}" for number in range(21)]}, "a list of 1 to 20 of them"),
        ({"target": ["x", "x "]}, "'target' is .* it takes different branches or expressions"),
        ({"target": "x +"}, "params.json: 'target'.* at column"),
        (
            {"target": "x", "label": "y"},
            "has 'label', of a classifier, and 'target', of a regression; keep one of them",
        ),
        (
            {"target": "x", "class_weight": "balanced"},
            "'class_weight' needs classes, and a run with a 'target' has none",
        ),
        ({"target": "x", "balance": True}, "'balance': true needs classes, .* give 'balance' a branch and bins"),
    ],
)
def test_what_a_regression_cannot_have_is_an_error(values: dict[str, object], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        params_of(json.dumps(values), "params.json")
