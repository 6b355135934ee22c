"""From raw events to prepared rows: cuts, new branches, weights and labels, in training as in serving, bit for bit."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pyarrow as pa
import pytest
import uproot
from hepfaas.datasets.opened import opened, read
from hepfaas.datasets.ranges import EntryRange
from hepfaas.errors import RequestError
from hepfaas.features.spec import FeatureSpec
from hepfaas.features.vectors import vectors_of
from hepfaas.platform.storage import Store
from hepfaas.platform.stores import open_store
from hepfaas.runs import plan, preparation
from hepfaas.runs.feature_rules import FeatureRules, NanRule, PadRule, ScalingRule
from hepfaas.runs.ledger import CountedPart, Training, ledger
from hepfaas.runs.phases import Ready
from hepfaas.runs.preprocessing import Cut, Missing, NewBranch, ObjectCut, Preprocessing
from hepfaas.runs.recipe import LabelledFile, Recipe, Sample
from hepfaas.runs.results import PreparedPart, prepared_parts
from hepfaas.runs.splits import Split, SplitRule
from hepfaas.runs.weighting import Balance
from hepfaas.steps.objects import open_part, result_if_there
from hepfaas.steps.performing import perform
from hepfaas.training.prepared import StoredPart
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

N = 400
NEW = (
    NewBranch("ht", "sum(Jet_pt)"),
    NewBranch("m_jj", "mass(Jet[0], Jet[1])"),
    NewBranch("hard", "Jet_pt[Jet_pt > 40]"),
    NewBranch("ratio", "met / (ht + 1)"),
)
CUTS = (
    Cut("jets", "nJet >= 1"),
    Cut("met", "20 < met <= 300 or tag < 0"),
    Cut("central", "any(abs(Jet_eta) < 2)"),
    Cut("mass", "m_jj > 10"),
)
OBJECTS = (ObjectCut("Jet", "Jet_pt > 25 and abs(Jet_eta) < 2.5"),)
MISSING = (Missing("tag", -999.0), Missing("Jet_*", -9.0))
RULES = FeatureRules(
    scaling=(
        ScalingRule("met", "log", None),
        ScalingRule("Jet_*", "standard", (-5.0, 5.0)),
        ScalingRule("ht", "robust", None),
    ),
    nan=(NanRule("tag", indicator=True),),
    pad=(PadRule("Jet_*", -1.0),),
    mask=("hard",),
)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Two files of events with empty lists, NaN and declared missing values."""
    folder = tmp_path_factory.mktemp("events")
    generator = np.random.default_rng(7)
    paths = []
    for number in range(2):
        counts = generator.poisson(2.0, N)
        total = int(counts.sum())
        pt = generator.exponential(50, total).astype(np.float32)
        pt[generator.random(total) < 0.02] = -9.0
        tag = generator.normal(size=N).astype(np.float32)
        tag[generator.random(N) < 0.2] = -999.0
        met = generator.exponential(60, N)
        met[generator.random(N) < 0.03] = np.nan
        branches = {
            "met": met,
            "tag": tag,
            "w": generator.normal(1.0, 1.0, N).astype(np.float32),
            "kind": generator.choice([-11, 11, 13], N),
            "event": np.arange(N) + number * N,
            "Jet": ak.zip(
                {
                    name: ak.unflatten(values, counts)
                    for name, values in {
                        "pt": pt,
                        "eta": generator.normal(0, 2, total).astype(np.float32),
                        "phi": generator.uniform(-3, 3, total).astype(np.float32),
                        "mass": generator.exponential(5, total).astype(np.float32),
                    }.items()
                }
            ),
        }
        path = folder / f"{number}.root"
        with uproot.recreate(path) as file:
            file.mktree("Events", {name: _type(values) for name, values in branches.items()}).extend(branches)
            file.mktree("Runs", {"sumw": "float64"}).extend({"sumw": np.array([100.0, 50.0 + number])})
        paths.append(str(path))
    return paths[0], paths[1]


def _type(values: Any) -> Any:
    return values.type.content if isinstance(values, ak.Array) else values.dtype


def recipe_of(urls: tuple[str, str], **other: Any) -> Recipe:
    values = {"identifiers": ("event",), "code": "blobs/none", "name": "m", **other}
    listed = values.pop("files", tuple(LabelledFile(url, label) for label, url in enumerate(urls)))
    return Recipe(files=listed, **values)


def prepared(recipe: Recipe, store: Store) -> list[PreparedPart]:
    """Return the prepared parts of a recipe."""
    while True:
        coming = plan.next_steps(recipe, "run/1", lambda key: result_if_there(key, store))
        assert isinstance(coming, Ready)
        if coming.phase == "train":
            (step,) = coming.steps
            return prepared_parts(result_if_there(step.data, store) or {})
        for step in coming.steps:
            perform(step, store)


def rows_of(parts: list[PreparedPart], store: Store) -> dict[tuple[str, int], Mapping[str, Any]]:
    """Return what is stored of each selected event, by file and entry."""
    rows = {}
    for part in parts:
        stored: StoredPart = open_part(part.key, part.size_bytes, store)
        for split in Split:
            entries = stored.entries(stored.facts.batches(split))
            done = 0
            for number in stored.facts.batches(split):
                batch = stored.rows(number)
                weights, spectators = stored.event_weights(number), stored.spectators(number)
                for row in range(len(batch.labels)):
                    rows[part.file, int(entries[done])] = {
                        "features": batch.features[row].tobytes(),
                        "label": int(batch.labels[row]),
                        "split": int(split),
                        "weight": None if weights is None else float(weights[row]),
                        "training": None if batch.weights is None else float(batch.weights[row]),
                        **{name: float(values[row]) for name, values in spectators.items()},
                    }
                    done += 1
    return rows


def spec_of(recipe: Recipe, store: Store) -> FeatureSpec:
    results = lambda key: result_if_there(key, store)  # noqa: E731
    step = plan.chains_of(recipe, "run/1", results)[0][0][0]
    part = prepared_parts(results(step.data) or {})[0]
    prepare = plan.maker(recipe, "run/1", results, part.key)
    return FeatureSpec.from_json(json.loads(store.get(prepare.spec)))  # type: ignore[union-attr]


@st.composite
def preprocessings(draw: Any) -> Preprocessing:
    cuts = tuple(cut for cut in CUTS if draw(st.booleans()))
    return Preprocessing(
        missing=MISSING if draw(st.booleans()) else (),
        objects=OBJECTS if draw(st.booleans()) else (),
        new=NEW if any(cut.name == "mass" for cut in cuts) or draw(st.booleans()) else (),
        cuts=cuts,
        removed=("Jet_mass",) if draw(st.booleans()) else (),
    )


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(preprocessings(), st.booleans(), st.sampled_from([37, 150, N]))
def test_serving_builds_the_features_of_the_training_bit_for_bit(
    files: tuple[str, str],
    tmp_path_factory: pytest.TempPathFactory,
    preprocessing: Preprocessing,
    with_rules: bool,
    range_events: int,
) -> None:
    rules = {"features": RULES} if with_rules and preprocessing.new else {}
    recipe = recipe_of(files, preprocessing=preprocessing, range_events=range_events, **rules)
    store = open_store(str(tmp_path_factory.mktemp("store")))
    parts = prepared(recipe, store)
    rows = rows_of(parts, store)
    spec = spec_of(recipe, store)
    for url in files:
        file = opened(url, "Events")
        for start, stop in ((0, 123), (123, 124), (124, N)):
            arrays = read(url, file.identity, "Events", branches=spec.input_names, entries=EntryRange(start, stop))
            vectors = vectors_of(arrays, spec)
            selected = np.arange(start, stop)[vectors.selected if vectors.selected is not None else slice(None)]
            stored = [entry for name, entry in rows if name == file.identity and start <= entry < stop]
            assert sorted(stored) == selected.tolist()
            for features, entry in zip(vectors.features, selected.tolist(), strict=True):
                assert features.tobytes() == rows[file.identity, entry]["features"]
    headers = preparation.headers(recipe, "run/1", lambda key: result_if_there(key, store))
    counted = [CountedPart(part.file, part.entries, part.rows, part.id_sum, part.rejected) for part in parts]
    book = ledger(preparation.inputs(recipe, headers), [Training(counted, [])])
    assert book.holds
    assert book.events == 2 * N == len(rows) + sum(book.rejected)


def test_the_ranges_change_nothing(files: tuple[str, str], tmp_path: Path) -> None:
    results = []
    for range_events in (N, 61):
        recipe = recipe_of(
            files,
            preprocessing=Preprocessing(MISSING, OBJECTS, NEW, CUTS),
            features=RULES,
            weight="w",
            balance=Balance("met", (0.0, 50.0, 1000.0)),
            negative_weights="abs",
            spectators=("kind", "m_jj"),
            range_events=range_events,
        )
        store = open_store(str(tmp_path / str(range_events)))
        parts = prepared(recipe, store)
        results.append((rows_of(parts, store), plan.flow_of(recipe, "run/1", lambda key: result_if_there(key, store))))  # noqa: B023
    assert repr(results[0]) == repr(results[1])  # NaN is not equal to itself


def plain(url: str) -> dict[str, NDArray[Any]]:
    """Return the flat branches of a file, and the number of its good jets, with uproot and awkward alone."""
    with uproot.open(url) as file:
        events = file["Events"].arrays(library="ak")
    good = (events.Jet_pt > 25) & (abs(events.Jet_eta) < 2.5)
    flat = {name: ak.to_numpy(events[name]).astype(np.float64) for name in ("met", "tag", "w", "kind")}
    return {**flat, "good": ak.to_numpy(ak.sum(good, axis=1)), "ht": ak.to_numpy(ak.sum(events.Jet_pt[good], axis=1))}


def test_weights_are_normalised_and_yields_are_those_of_plain_numpy(files: tuple[str, str], tmp_path: Path) -> None:
    recipe = recipe_of(
        files,
        files=(LabelledFile(files[0], 0, "background"), LabelledFile(files[1], 1, "signal")),
        samples=(
            Sample(name="background", weight="w", cross_section=3.0, sum_of_weights="Runs/sumw"),
            Sample(name="signal", weight="w * 2", cross_section=0.5),
        ),
        luminosity=10.0,
        preprocessing=Preprocessing(objects=OBJECTS, cuts=(Cut("jets", "nJet >= 1"), Cut("met", "met > 30"))),
    )
    store = open_store(str(tmp_path))
    rows = rows_of(prepared(recipe, store), store)
    one, two = map(plain, files)
    weights = [one["w"] * 10 * 3.0 / 150.0, 2 * two["w"] * 10 * 0.5 / (2 * two["w"]).sum()]
    flow = plan.flow_of(recipe, "run/1", lambda key: result_if_there(key, store))
    assert flow is not None
    for number, (events, weight, sample) in enumerate(zip((one, two), weights, flow.samples, strict=True)):
        jets = events["good"] >= 1
        both = jets & (events["met"] > 30)
        assert sample.sample == ("background", "signal")[number]
        assert sample.events == (N, int(jets.sum()), int(both.sum()))
        for place, passed in enumerate((np.ones(N, dtype=bool), jets, both)):
            assert sample.weights[place] == pytest.approx(weight[passed].sum())
            assert sample.uncertainties[place] == pytest.approx(np.sqrt((weight[passed] ** 2).sum()))
        identity = opened(files[number], "Events").identity
        for entry in np.flatnonzero(both).tolist():
            assert rows[identity, entry]["weight"] == pytest.approx(weight[entry])
    training = np.array([row["training"] for row in rows.values()])
    physical = np.array([row["weight"] for row in rows.values()])
    assert training.mean() == pytest.approx(1, rel=1e-5)
    assert training / physical == pytest.approx(np.full(len(rows), training[0] / physical[0]), rel=1e-5)


def test_an_expression_labels_each_event(files: tuple[str, str], tmp_path: Path) -> None:
    recipe = recipe_of(files, label="kind", spectators=("met",))
    store = open_store(str(tmp_path))
    rows = rows_of(prepared(recipe, store), store)
    numbers = {-11: 0, 11: 1, 13: 2}
    for url in files:
        identity, kinds = opened(url, "Events").identity, plain(url)["kind"]
        assert [rows[identity, entry]["label"] for entry in range(N)] == [numbers[int(kind)] for kind in kinds]
    chain = plan.chains_of(recipe, "run/1", lambda key: result_if_there(key, store))[0]
    assert chain[0][0].labels == (0, 1, 2)
    assert "met" not in spec_of(recipe, store).names


def test_an_expression_or_shares_split_the_events(files: tuple[str, str], tmp_path: Path) -> None:
    splits = {}
    for name, rule in {"odd": SplitRule(training="event % 2 == 0"), "shares": SplitRule((0.1, 0.3, 0.6))}.items():
        store = open_store(str(tmp_path / name))
        rows = rows_of(prepared(recipe_of(files, split=rule), store), store)
        splits[name] = {(file, entry): row["split"] for (file, entry), row in rows.items()}
    assert all((split == Split.TEST) == (entry % 2 == 1) for (_, entry), split in splits["odd"].items())
    counts = np.bincount(list(splits["odd"].values()))
    assert counts[0] / (counts[0] + counts[1]) == pytest.approx(0.8, abs=0.06)
    shares = np.bincount(list(splits["shares"].values())) / (2 * N)
    assert shares == pytest.approx([0.1, 0.3, 0.6], abs=0.05)


def test_labels_of_files_that_do_not_begin_at_0_are_numbered(files: tuple[str, str], tmp_path: Path) -> None:
    recipe = recipe_of(files, files=(LabelledFile(files[0], 2), LabelledFile(files[1], 1)))
    store = open_store(str(tmp_path))
    parts = prepared(recipe, store)
    assert [part.label for part in parts] == [1, 0]


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (
            {"weight": "Jet_pt"},
            r"'Jet_pt' has several values for an event; weights, labels, targets and spectators have one",
        ),
        ({"weight": "kimd"}, r"params.json: 'kimd' at column 1: there is no branch 'kimd'; closest: kind"),
        ({"weight": "log(w - 100)"}, r"the weight of entry 0 of TTree 'Events' in '.*0.root' is nan; add a cut"),
        ({"label": "met"}, r"the label 'met' of entry \d+ of TTree .* is .*; a label is a whole number"),
        ({"preprocessing": Preprocessing(cuts=(Cut("c", "Jet_pt > 3"),))}, r"cut 'c' has one value for each object"),
        (
            {"preprocessing": Preprocessing(cuts=(Cut("c", "met > 1e9"),))},
            r"the training sample has no event: the cuts reject 800 of 800 events, and 0 events are too few",
        ),
        ({"weight": "w", "negative_weights": "error"}, r"\d+ of 400 events have a negative weight"),
        ({"selected": ("met",), "spectators": ("met",)}, r"no branch is left|has no branch 'met'"),
    ],
)
def test_what_does_not_fit_the_events_is_refused_with_its_place(
    files: tuple[str, str], tmp_path: Path, other: dict[str, Any], message: str
) -> None:
    with pytest.raises(RequestError, match=message):
        prepared(recipe_of(files, **other), open_store(str(tmp_path)))


def test_identifiers_stay_as_they_were_read(files: tuple[str, str], tmp_path: Path) -> None:
    missing = Preprocessing(missing=(Missing("*", 5.0),), cuts=(Cut("even", "event % 2 == 1 or isnan(event)"),))
    store = open_store(str(tmp_path))
    parts = prepared(recipe_of(files, preprocessing=missing), store)
    for part in parts:
        table = pa.ipc.open_file(pa.py_buffer(store.get(part.key))).read_all()
        events = table["identifier/event"]
        assert events.type == pa.int64()
        wanted = np.arange(N) + N * part.label
        assert sorted(events.to_pylist()) == wanted[wanted % 2 == 1].tolist()


def test_branches_of_weights_and_labels_are_no_features(files: tuple[str, str], tmp_path: Path) -> None:
    of_sample = {
        "samples": (Sample(name="one", weight="abs(w) * 2"), Sample(name="other")),
        "files": (LabelledFile(files[0], 0, "one"), LabelledFile(files[1], 1, "other")),
    }
    everything = {"met", "tag", "w", "kind", "nJet", "Jet_pt", "Jet_eta", "Jet_phi", "Jet_mass"}
    for number, (values, without) in enumerate(
        [
            ({"weight": "w"}, {"w"}),
            ({"label": "where(abs(kind) == 11, 1, 0)"}, {"kind"}),
            (of_sample, {"w"}),
            ({"weight": "w", "excluded": ("w",)}, {"w"}),
            ({"weight": "w", "selected": ("w", "met")}, everything - {"w", "met"}),
            ({"weight": "w", "selected": ("*",)}, {"w"}),
            ({"spectators": ("met*2", "tag")}, {"tag"}),
        ]
    ):
        store = open_store(str(tmp_path / str(number)))
        recipe = recipe_of(files, **values)
        prepared(recipe, store)
        assert set(spec_of(recipe, store).names) == everything - without
        notes = plan.notes(recipe, "run/1", lambda key: result_if_there(key, store))  # noqa: B023
        names = [note.partition("use them: ")[2].partition(";")[0] for note in notes if note.startswith("no features")]
        assert names == ([] if number in (3, 4) else [", ".join(without)])
