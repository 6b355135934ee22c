"""From raw events to prepared targets, and a whole regression through the command line."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uproot
from hepfaas.cli import main
from hepfaas.errors import RequestError
from hepfaas.platform.storage import Store
from hepfaas.platform.stores import open_store
from hepfaas.runs import plan, preparation
from hepfaas.runs.phases import Ready
from hepfaas.runs.preprocessing import Cut, Preprocessing
from hepfaas.runs.recipe import Earlier, Gate, LabelledFile, Recipe
from hepfaas.runs.results import PreparedPart, prepared_parts
from hepfaas.runs.splits import Split
from hepfaas.runs.weighting import Balance
from hepfaas.steps.objects import encoded, open_part, result_if_there
from hepfaas.steps.performing import perform
from numpy.typing import NDArray

N = 1_500
MODEL = """
import keras

def model(idim):
    network = keras.Sequential([
        keras.Input((idim,)), keras.layers.Dense(16, activation="relu"), keras.layers.Dense(2),
    ])
    network.compile(optimizer=keras.optimizers.Adam(0.01), loss="mse", metrics=["mae"])
    return network
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Two files of events with measured and true values."""
    folder = tmp_path_factory.mktemp("events")
    generator = np.random.default_rng(3)
    for number in range(2):
        true = generator.normal([40, -3], [20, 5], (N, 2))
        branches = {
            "gen_pt": true[:, 0],
            "gen_y": true[:, 1].astype(np.float32),
            "pt": true[:, 0] + generator.normal(0, 4, N),
            "y": (true[:, 1] + generator.normal(0, 1, N)).astype(np.float32),
            "odd": np.where(np.arange(N) == 11, np.nan, 1.0),
            "w": generator.uniform(0.5, 1.5, N),
            "event": np.arange(N) + number * N,
        }
        with uproot.recreate(folder / f"{number}.root") as file:
            file.mktree("Events", {name: values.dtype for name, values in branches.items()}).extend(branches)
    return str(folder / "0.root"), str(folder / "1.root")


def recipe_of(urls: tuple[str, ...], targets: tuple[str, ...], **other: Any) -> Recipe:
    listed = tuple(LabelledFile(url, 0) for url in urls)
    values = {"identifiers": ("event",), "excluded": ("odd", "w"), "code": "blobs/none", "name": "m", **other}
    return Recipe(files=listed, targets=targets, **values)


def prepared(recipe: Recipe, store: Store) -> list[PreparedPart]:
    """Return the prepared parts of a recipe."""
    while True:
        coming = plan.next_steps(recipe, "run/1", lambda key: result_if_there(key, store))
        assert isinstance(coming, Ready)
        if coming.phase == "train":
            return prepared_parts(result_if_there(coming.steps[0].data, store) or {})  # type: ignore[attr-defined]
        for step in coming.steps:
            perform(step, store)


def rows_of(parts: list[PreparedPart], store: Store) -> tuple[NDArray[np.int64], NDArray[Any], NDArray[Any] | None]:
    """Return place (file × N + entry), targets and training weights of all rows, in the order of the places."""
    places, targets, weights = [], [], []
    files = list(dict.fromkeys(part.file for part in parts))
    for part in parts:
        stored = open_part(part.key, part.size_bytes, store)
        for split in Split:
            places.append(stored.entries(stored.facts.batches(split)) + N * files.index(part.file))
            rows = [stored.rows(number) for number in stored.facts.batches(split)]
            targets += [batch.labels for batch in rows]
            weights += [batch.weights for batch in rows if batch.weights is not None]
    order = np.argsort(np.concatenate(places))
    used = np.concatenate(weights)[order] if weights else None
    return np.concatenate(places)[order], np.concatenate(targets)[order], used


def plain(files: tuple[str, str], name: str) -> NDArray[Any]:
    return np.concatenate([uproot.open(f"{url}:Events")[name].array(library="np") for url in files])


@pytest.mark.parametrize("range_events", [N, 170])
def test_prepared_targets_are_those_of_plain_numpy(files: tuple[str, str], tmp_path: Path, range_events: int) -> None:
    cuts = Preprocessing(cuts=(Cut("pt", "pt > 30"),))
    recipe = recipe_of(files, ("gen_pt", "gen_y / 2"), preprocessing=cuts, range_events=range_events)
    store = open_store(str(tmp_path))
    places, found, weights = rows_of(prepared(recipe, store), store)
    selected = np.flatnonzero(plain(files, "pt") > 30)
    assert places.tolist() == selected.tolist()
    true = np.stack([plain(files, "gen_pt"), plain(files, "gen_y").astype(np.float64) / 2], axis=1)[selected]
    expected = (true - true.mean(axis=0)) / true.std(axis=0)
    assert found.dtype == np.float32
    assert found == pytest.approx(expected, abs=1e-6)
    assert weights is None
    step = plan.chains_of(recipe, "run/1", lambda key: result_if_there(key, store))[0][0][0]
    assert [(name, mean) for name, mean, *_ in step.targets] == [
        ("gen_pt", pytest.approx(true[:, 0].mean())),
        ("gen_y / 2", pytest.approx(true[:, 1].mean())),
    ]
    assert step.labels == ()


def test_a_target_is_no_feature_and_its_parts_may_be(files: tuple[str, str], tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    recipe = recipe_of(files, ("gen_pt", "gen_y * 2"))
    prepared(recipe, store)
    (header, _) = preparation.headers(recipe, "run/1", lambda key: result_if_there(key, store))
    assert header.branches == ("gen_y", "pt", "y")


def test_weights_flatten_the_spectrum_of_a_target(files: tuple[str, str], tmp_path: Path) -> None:
    balance = Balance("gen_pt", (-1000.0, 20.0, 40.0, 1000.0))
    recipe = recipe_of(files, ("gen_pt",), weight="w", balance=balance)
    store = open_store(str(tmp_path))
    _, _, weights = rows_of(prepared(recipe, store), store)
    bins = np.digitize(plain(files, "gen_pt"), [20, 40])
    assert weights is not None
    assert np.bincount(bins, weights) == pytest.approx(np.full(3, 2 * N / 3), rel=1e-5)


@pytest.mark.parametrize(
    ("targets", "other", "message"),
    [
        (
            ("odd",),
            {},
            r"target 'odd' of entry 11 of TTree 'Events' in '.*0.root' is nan; add a cut .* isfinite\(odd",
        ),
        (("0 * pt",), {}, "the target '0 \\* pt' is 0 in all 3,000 selected events, so there is nothing to learn"),
        (("gen_pz",), {}, "params.json: 'gen_pz' at column 1: there is no branch 'gen_pz'; closest: gen_pt"),
        (
            ("gen_pt",),
            {"gate": Gate("auc", 0.1, (), Earlier("m/1", "steps/spec/x", "", ""))},
            "a gate compares classifiers, and the run has a 'target'; leave one of them out",
        ),
    ],
)
def test_what_cannot_be_learned_is_refused_with_its_place(
    files: tuple[str, str], tmp_path: Path, targets: tuple[str, ...], other: dict[str, Any], message: str
) -> None:
    with pytest.raises(RequestError, match=message):
        prepared(recipe_of(files, targets, **other), open_store(str(tmp_path)))


def test_a_run_that_continues_learns_the_targets_of_the_earlier_version(files: tuple[str, str], tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    first = recipe_of(files, ("gen_pt",))
    prepared(first, store)
    results = lambda key: result_if_there(key, store)  # noqa: E731
    step = plan.chains_of(first, "run/1", results)[0][0][0]
    spec = next(key for key in store.keys("steps/spec/"))
    store.create("steps/export/before", encoded({}))  # the plan asks only whether there is one
    earlier = Earlier("m/1", spec, "steps/export/before", "steps/export/before")
    more = recipe_of(files[:1], ("gen_pt",), continues=earlier)
    prepared(more, store)
    following = plan.chains_of(more, "run/1", results)[0][0][0]
    assert following.before == earlier.checkpoint
    assert following.data != step.data
    assert following.targets == step.targets  # the scale of all events of the first run
    with pytest.raises(RequestError, match="model 'm/1' learned gen_pt, and this run learns gen_y; train a new model"):
        prepared(recipe_of(files, ("gen_y",), continues=earlier), store)
    with pytest.raises(RequestError, match="model 'm/1' learned gen_pt, and this run learns classes"):
        prepared(recipe_of(files, (), label="event % 2", continues=earlier), store)


@pytest.fixture(scope="module")
def job(files: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a regression, trained in the store beside it."""
    folder = tmp_path_factory.mktemp("place") / "job"
    folder.mkdir()
    (folder / "files.txt").write_text("\n".join(files))
    (folder / "labels.txt").write_text("0\n1\n")
    (folder / "model.py").write_text(MODEL)
    params = {"target": ["gen_pt", "gen_y"], "selected_branches": ["pt", "y"], "weight": "w", "epochs": 6}
    (folder / "params.json").write_text(json.dumps({**params, "batch_size": 50, "range_events": 500}))
    assert main(["train", str(folder), "--store", str(folder.parent / "store")]) == 0
    return folder


def card_in(store: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((store / "local" / "models" / "job" / "1" / "card.json").read_text())
    return values


def test_a_regression_learns_and_its_card_has_the_metrics_in_units(job: Path) -> None:
    card = card_in(job.parent / "store")
    assert (card["labels"], card["outputs"]) == ([], 2)
    assert [target["name"] for target in card["targets"]] == ["gen_pt", "gen_y"]
    pt, y = card["metrics"]["test"]["targets"]
    assert 3.5 < pt["rmse"] < 5.5  # smeared by 4
    assert 0.9 < y["rmse"] < 1.4  # smeared by 1
    assert pt["r2"] > 0.9
    names = {path.name for path in (job.parent / "store" / "local" / "models" / "job" / "1").glob("*.png")}
    kinds = ("residuals", "predictions", "profile")
    assert {"loss.png", *(f"{kind}_{number}.png" for kind in kinds for number in (0, 1))} <= names
    assert card["graph_check"]["largest_difference"] < 1e-5


def test_predictions_are_in_units_and_those_of_the_keras_file(
    job: Path, files: tuple[str, str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    import keras
    from hepfaas.features.matrix import matrix
    from hepfaas.features.spec import FeatureSpec

    store, out = job.parent / "store", tmp_path / "out.root"
    assert main(["predict", "job", files[1], "--store", str(store), "--out", str(out)]) == 0
    assert "mean prediction_gen_pt: " in capsys.readouterr().out
    scores = uproot.open(out)["scores"].arrays(library="np")
    found = np.stack([scores["prediction_gen_pt"], scores["prediction_gen_y"]], axis=1)
    version = store / "local" / "models" / "job" / "1"
    card, spec = card_in(store), FeatureSpec.from_json(json.loads((version / "spec.json").read_text()))
    assert spec.targets == ("gen_pt", "gen_y")
    events = {name: uproot.open(f"{files[1]}:Events")[name].array(library="np") for name in ("pt", "y")}
    features = matrix(events, spec)
    served = keras.saving.load_model(version / "model.keras")
    assert found == pytest.approx(served.predict(features, verbose=0), rel=1e-5, abs=1e-4)
    network = next(layer for layer in served.layers if isinstance(layer, keras.Sequential))
    means, deviations = ([target[name] for target in card["targets"]] for name in ("mean", "deviation"))
    assert found == pytest.approx(network.predict(features, verbose=0) * deviations + means, rel=1e-5, abs=1e-4)


@pytest.mark.slow
def test_a_run_that_lost_its_last_steps_ends_with_the_same_model(job: Path, tmp_path: Path) -> None:
    first, store = job.parent / "store", tmp_path / "store"
    for kind in (
        "blobs",
        *(f"steps/{kind}" for kind in ("open", "survey", "spec", "weigh", "prepare", "sum", "train")),
    ):
        shutil.copytree(first / "local" / kind, store / "local" / kind)
    steps = sorted((store / "local" / "steps" / "train").iterdir(), key=lambda path: path.stat().st_mtime)
    for path in steps[3:]:
        path.unlink()
    assert main(["train", str(job), "--store", str(store)]) == 0
    names = {path.name for path in (first / "local" / "models" / "job" / "1").iterdir()} - {"claim"}
    for name in names:
        one, other = (place / "local" / "models" / "job" / "1" / name for place in (first, store))
        assert name.endswith(".keras") or one.read_bytes() == other.read_bytes(), name


@pytest.mark.slow
@pytest.mark.parametrize(
    ("code", "message"),
    [
        (
            MODEL.replace("Dense(2)", "Dense(1)"),
            "model.py: an event gives 1 number, and there are 2 targets (gen_pt, gen_y); end the network in Dense(2)",
        ),
        (MODEL.replace('"mse"', '"sparse_categorical_crossentropy"'), "model.py: the loss does not fit the targets: "),
    ],
    ids=["outputs", "loss"],
)
def test_a_network_that_does_not_fit_the_targets_is_refused(
    job: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], code: str, message: str
) -> None:
    folder = tmp_path / "job"
    shutil.copytree(job, folder)
    (folder / "model.py").write_text(code)
    store = tmp_path / "store"
    shutil.copytree(job.parent / "store", store)
    assert main(["train", str(folder), "--store", str(store)]) != 0
    assert message in capsys.readouterr().err
