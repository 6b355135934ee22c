"""Folders written after MLaaS4HEP's documents train, and `workflow` and `reader` take their old options."""

import json
import re
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uproot
from hepfaas.cli import main
from hepfaas.errors import RequestError
from hepfaas.features.spec import FeatureSpec
from hepfaas.jobs.folder import job_in
from hepfaas.jobs.job import Job, recipe_of
from hepfaas.local.workers import perform
from hepfaas.local.workflow import Workflow, job_of
from hepfaas.platform.storage import Store
from hepfaas.platform.stores import open_store
from hepfaas.runs import plan
from hepfaas.runs.phases import Ready
from hepfaas.runs.splits import Split
from hepfaas.steps.objects import open_part, result_if_there
from numpy.typing import NDArray
from support.jobs import MODEL, write_root

FILES = ("signal.root", "background.root")
BRANCHES = ("met", "nlep_pt", "lep_pt")
PARAMS = {
    "nevts": -1,
    "shuffle": True,
    "chunk_size": 100,
    "epochs": 2,
    "batch_size": 32,
    "identifier": ["event"],
    "branch": "Events",
    "selected_branches": "",
    "exclude_branches": "",
    "hist": "pdfs",
    "redirector": "",
    "verbose": 2,
    "nan": -1.0,
    "split": 0.3,
    "metrics": {"threshold": 0.4},
    "training": "chunk",
}
"""Every key of the original's branches."""


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("old") / "job"
    folder.mkdir()
    write_root(folder / "signal.root", 1, 1.0)
    write_root(folder / "background.root", 2, 0.0)
    (folder / "files.txt").write_text("# two files\nsignal.root\nbackground.root\n")
    (folder / "labels.txt").write_text("1\n0\n")
    (folder / "model.py").write_text(MODEL)
    (folder / "params.json").write_text(json.dumps(PARAMS))
    (folder / "global-specs.json").write_text(json.dumps(specs_of(folder, FILES)))
    return folder


@pytest.fixture
def folder(written: Path, tmp_path: Path) -> Path:
    """A folder with the same files, of which a test may change some."""
    copy = tmp_path / "job"
    copy.mkdir()
    for path in written.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    return copy


def values_in(path: Path, branch: str) -> list[NDArray[Any]]:
    """Return the values of each event."""
    with uproot.open(path) as file:
        return [np.atleast_1d(np.asarray(event, dtype=np.float64)) for event in file["Events"][branch].array()]


def specs_of(folder: Path, names: Sequence[str], margin: float = 1.0) -> dict[str, Any]:
    """Return the ranges of files as the original wrote them, and wider by a margin; without events for one file."""
    events = [{branch: values_in(folder / name, branch) for branch in BRANCHES} for name in names]
    flat = {branch: np.concatenate([one for file in events for one in file[branch]]) for branch in BRANCHES}
    widest = max(len(one) for file in events for one in file["lep_pt"])
    counts = {name: len(file["met"]) for name, file in zip(names, events, strict=True)}
    values = {
        "jdim": {"lep_pt": widest + int(margin)},
        "minv": {branch: float(values.min()) - margin for branch, values in flat.items()},
        "maxv": {branch: float(values.max()) + margin for branch, values in flat.items()},
        "fkeys": ["met", "nlep_pt"],
        "jkeys": ["lep_pt"],
        "nans": {},
    }
    return {**values, "events": {**counts, "total": sum(counts.values())}} if len(names) > 1 else values


class Matrix:
    """The prepared events of a job, in the order of files and entries within each sample."""

    def __init__(self, job: Job, store: Store) -> None:
        recipe = recipe_of(job, store)

        def results(key: str) -> dict[str, Any] | None:
            return result_if_there(key, store)

        while isinstance(coming := plan.prepared(recipe, "run/1", results), Ready):
            for step in coming.steps:
                perform(step, store)
        parts = [(open_part(part.key, part.size_bytes, store), part) for part in coming.parts]
        rows = [
            (part.file, stored.prepared(number))
            for stored, part in parts
            for split in Split
            for number in stored.facts.batches(split)
        ]
        self.spec = FeatureSpec.from_json(json.loads(store.get(coming.spec)))
        self.features = np.concatenate([row.features for _, row in rows])
        self.entries = np.concatenate([row.entries for _, row in rows])
        self.files = np.concatenate([[Path(coming.files[file][0]).name] * len(row) for file, row in rows])
        self.labels = np.concatenate([row.columns["label"] for _, row in rows])
        self.shares = np.array([sum(part.rows[split] for _, part in parts) for split in Split]) / len(self.features)


def matrix(folder: Path, **options: str) -> Matrix:
    return Matrix(job_in(folder, options, inside=False), open_store(str(folder.parent / "store")))


def with_params(folder: Path, **changes: Any) -> Path:
    (folder / "params.json").write_text(json.dumps({**PARAMS, **changes}))
    return folder


@pytest.mark.parametrize("name", ["global-specs.json", "specs-signal.json"])
@pytest.mark.parametrize("order", ["sorted", "tree"])
def test_ranges_of_both_forms_scale_the_features_in_both_orders(folder: Path, name: str, order: str) -> None:
    """The expected matrix is computed from the values, the ranges in the file, and the fill value of 'nan'."""
    specs = json.loads((folder / "global-specs.json").read_text())
    if name != "global-specs.json":
        del specs["events"]
    (folder / name).write_text(json.dumps(specs))
    found = matrix(with_params(folder, specs=name, order=order))
    flat = ["met", "nlep_pt"]
    with uproot.open(folder / "signal.root") as file:
        branches = flat if order == "sorted" else [branch for branch in file["Events"].keys() if branch in flat]  # noqa: SIM118
    assert found.spec.names == [*branches, "lep_pt"]
    width = specs["jdim"]["lep_pt"]
    assert found.features.shape == (600, 2 + width)
    events = {file: {name: values_in(folder / file, name) for name in BRANCHES} for file in FILES}
    for row, file, entry in zip(found.features, found.files, found.entries, strict=True):
        expected: list[float] = []
        for branch in found.spec.names:
            low, high = specs["minv"][branch], specs["maxv"][branch]
            expected += [(value - low) / (high - low) for value in events[file][branch][entry]]
        expected += [-1.0] * (2 + width - len(expected))
        np.testing.assert_allclose(row, expected, rtol=2e-6, atol=1e-6)
    np.testing.assert_allclose(found.shares, [0.56, 0.14, 0.3], atol=0.08)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"maxv": {"met": 0.5, "nlep_pt": 9, "lep_pt": 999}}, "'met' is .* to 0.5 there, and .* in the files"),
        ({"jdim": {"lep_pt": 1}}, "'lep_pt' has up to 1 values in an event there, and 2 in the files"),
        ({"events": {"signal.root": 300, "background.root": 299}}, "299 events in 'background.root', and .* has 300"),
        ({"events": {"signal.root": 600}}, "counts 600 events in 'signal.root', and '.*signal.root' has 300"),
        ({"fkeys": ["met"]}, "global-specs.json has no range of 'nlep_pt' of '.*signal.root'; exclude"),
    ],
)
def test_ranges_of_other_events_are_refused_with_the_difference(
    folder: Path, change: Mapping[str, Any], message: str
) -> None:
    specs = json.loads((folder / "global-specs.json").read_text())
    (folder / "global-specs.json").write_text(json.dumps({**specs, **change}))
    with pytest.raises(RequestError, match=message):
        matrix(folder, specs="global-specs.json")


def test_files_of_ranges_that_nobody_names_have_no_effect_and_one_note(folder: Path) -> None:
    (folder / "specs-signal.json").write_text("not even JSON")
    job = job_in(folder, {})
    assert [note for note in job.notes if "specs" in note] == [
        "global-specs.json, specs-signal.json have no effect: ranges are those of the files; to use one, name it with "
        "--specs or 'specs' in params.json"
    ]
    assert not recipe_of(job, open_store(str(folder.parent / "store"))).specs


def test_every_key_that_differs_has_one_note(folder: Path) -> None:
    notes = [note for note in job_in(folder, {}).notes if note.startswith("params.json")]
    assert [note.split("'")[1] for note in notes] == ["training", "split", "nan", "hist"]
    usual = with_params(folder, split=0.2, nan=0, hist="", training="standard")
    assert [note for note in job_in(usual, {}).notes if note.startswith("params.json")] == [
        "params.json: 'nan' has no effect: slots without a value are 0, as in MLaaS4HEP"
    ]


@pytest.mark.parametrize(
    ("files", "labels"),
    [
        ("signal.root\nbackground.root\n", "1\n0\n"),
        ("background.root\nsignal.root\n", "0\n1\n"),
        ("background.root,signal.root", "0,1"),
        ("signal.root, background.root", "# numbers\n1, 0"),
    ],
)
def test_labels_belong_to_files_in_either_order(folder: Path, files: str, labels: str) -> None:
    (folder / "files.txt").write_text(files)
    (folder / "labels.txt").write_text(labels)
    found = matrix(folder)
    np.testing.assert_array_equal(found.labels, found.files == "signal.root")


def test_a_word_names_the_branch_that_labels_each_event(folder: Path) -> None:
    (folder / "labels.txt").write_text("nlep_pt\n")
    found = matrix(folder)
    counts = {file: values_in(folder / file, "nlep_pt") for file in FILES}
    expected = [int(counts[file][entry][0]) for file, entry in zip(found.files, found.entries, strict=True)]
    assert sorted(set(expected)) == [0, 1, 2]
    np.testing.assert_array_equal(found.labels, expected)
    assert found.spec.names == ["met", "lep_pt"]


def test_any_file_of_the_folder_may_list_excluded_branches(folder: Path) -> None:
    (folder / "left-out").write_text("nlep_pt\n")
    assert matrix(with_params(folder, exclude_branches="left-out")).spec.names == ["met", "lep_pt"]
    with pytest.raises(RequestError, match="has no 'gone.txt'"):
        job_in(with_params(folder, exclude_branches="gone.txt"), {})


Command = Callable[..., tuple[str, str]]


@pytest.fixture
def hepfaas(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Command:
    """Run a command with a store of its own; return standard output and standard error."""

    def run(*words: object, code: int = 0) -> tuple[str, str]:
        assert main([*map(str, words), "--store", str(tmp_path / "store")]) == code
        return capfd.readouterr()

    return run


def test_workflow_trains_by_chunks_with_every_key_and_saves_the_model(
    folder: Path, hepfaas: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    (folder / "lists").mkdir()
    (folder / "files.txt").rename(folder / "lists/files.txt")
    (folder / "model.py").rename(folder / "ex_keras.py")
    (folder / "preproc.json").write_text('{"flat_cut": {"met": {"cut": "met > 99", "remove": "False"}}}')
    out, err = hepfaas(
        "workflow", "--files", "lists/files.txt", "--labels", "1,0", "--model", "ex_keras.py", "--dtype", "root",
        "--specs", "global-specs.json", "--fout", "saved/model.h5", "--workers", 1,
    )  # fmt: skip
    assert out.endswith(f"The model is in {folder / 'saved/model.keras'}\n")
    with zipfile.ZipFile(folder / "saved/model.keras") as saved:
        assert "model.weights.h5" in saved.namelist()
    assert {path.name for path in (folder / "pdfs").iterdir()} == {"branches.pdf", "branches_scaled.pdf"}
    lines = err.splitlines()
    for line in (
        "note: params.json: 'training': chunks of 100 events are trained one after the other, each for all epochs",
        "flat branches: met, nlep_pt",
        "jagged branches: lep_pt",
        "identifier branches: event",
        "5 features of 3 branches",
        " Trainable params: 29 (116.00 B)",
    ):
        assert line in lines
    patterns = (
        r"survey: 300 events of signal\.root from 0 in .* s, [\d,]+ events/s, [\d.,]+ MB/s",
        r"memory: [\d,]+ MB in \d+ processes; [\d,]+ of [\d,]+ MB are free; swap [\d,]+ of [\d,]+ MB",
        r"matrix: training 3\d\d × 5, validation \d+ × 5, test 1\d\d × 5",
        r"epoch 2 of 2, segment 1: accuracy [\d.]+, loss [\d.]+, val_accuracy [\d.]+, val_loss [\d.]+",
    )
    for pattern in patterns:
        assert [line for line in lines if re.fullmatch(pattern, line)], pattern
    ledger = json.loads(hepfaas("status", "job-1", "--verify", "--json")[0])["ledger"]
    assert (ledger["holds"], ledger["epochs"], ledger["events"]) == (True, 2, 600)
    written_again = json.loads(hepfaas("export-specs", "job-1")[0])
    given = json.loads((folder / "global-specs.json").read_text())
    assert {name: written_again[name] for name in ("jdim", "minv", "maxv", "fkeys", "jkeys")} == {
        name: given[name] for name in ("jdim", "minv", "maxv", "fkeys", "jkeys")
    }
    assert {Path(name).name: count for name, count in written_again["events"].items()} == given["events"]
    (card,) = (tmp for tmp in (folder.parent / "store").rglob("card.json"))
    recipe = json.loads(card.read_text())["recipe"]
    assert (recipe["threshold"], recipe["chunk_events"], recipe["preprocessing"]["cuts"]) == (0.4, 100, [])


@pytest.mark.slow
def test_a_folder_trains_in_the_standard_mode_with_the_ranges_that_reader_wrote(
    folder: Path, hepfaas: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    (folder / "labels.txt").write_text("nlep_pt > 1\n")
    specs = specs_of(folder, FILES)
    (folder / "specs-all.json").write_text(json.dumps({name: specs[name] for name in specs if name != "events"}))
    with_params(folder, training="standard", specs="specs-all.json", order="tree", verbose=0, exclude_branches="lep_pt")
    _, err = hepfaas("train", folder, "--workers", 1, "--verbose", 1)
    assert [line for line in err.splitlines() if line.startswith("memory: ")]
    status = json.loads(hepfaas("status", "job-1", "--verify", "--json")[0])
    assert status["ledger"]["holds"]


def workflow(folder: Path, **options: str) -> Job:
    return job_of(Workflow(**{"files": "files.txt", "labels": "labels.txt", **options}), folder)


def test_workflow_takes_lists_and_files_from_anywhere(folder: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "net.py").write_text(MODEL)
    (elsewhere / "more.py").write_text("x = 1\n")
    (elsewhere / "labels.txt").write_text("0\n1\n")
    (elsewhere / "params.json").write_text('{"epochs": 7, "redirector": ""}')
    job = workflow(
        folder,
        files="signal.root,background.root",
        labels=str(elsewhere / "labels.txt"),
        model="../elsewhere/net.py",
        params=str(elsewhere / "params.json"),
        name="mine",
    )
    assert (job.name, job.module, job.params.recipe["epochs"]) == ("mine", "net.py", 7)
    assert {"net.py", "more.py"} <= set(job.code)
    assert [(Path(file.url).name, file.label) for file in job.files] == [("signal.root", 0), ("background.root", 1)]
    assert workflow(folder, labels="nlep_pt").label == "nlep_pt"
    assert workflow(folder, dtype="parquet").params.recipe["dtype"] == "parquet"


def test_workflow_takes_no_file_that_it_was_not_told(folder: Path) -> None:
    (folder / "preproc.json").write_text('{"flat_cut": {"met": {"cut": "met > 99", "remove": "False"}}}')
    (folder / "submit.json").write_text('{"name": "other"}')
    (folder / "samples.json").write_text("{}")
    job = workflow(folder)
    assert (job.name, "preprocessing" in job.params.recipe, len(job.files)) == ("job", False, 2)
    assert "preprocessing" in workflow(folder, preproc="preproc.json").params.recipe


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"files": ""}, "--files is empty; it takes the path of a list, or the list with commas"),
        ({"files": "gone.txt"}, "--files: there is no file 'gone.txt'"),
        ({"files": "signal.root,gone.root"}, "file 'gone.root' does not exist"),
        ({"params": "gone.json"}, "--params: there is no file 'gone.json'"),
        ({"specs": "gone.json"}, "--specs: there is no file 'gone.json'"),
        ({"model": "gone.py"}, "folder 'job' has no 'gone.py'; it has"),
        ({"dtype": "picture"}, "--dtype is 'picture'; it takes root, parquet, avro, json, csv"),
        ({"labels": "1"}, "the list of files has 2 entries, the list of labels 1"),
    ],
)
def test_workflow_names_the_option_that_is_wrong(folder: Path, options: dict[str, str], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        workflow(folder, **options)


def test_a_model_is_saved_only_in_forms_that_exist(
    folder: Path, hepfaas: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    words = ("workflow", "--files", "files.txt", "--labels", "labels.txt", "--fout", "model.pth")
    _, err = hepfaas(*words, code=1)
    assert "--fout 'model.pth': models are saved as .keras or .tflite files" in err
    assert not (folder.parent / "store").exists()


def test_reader_writes_ranges_and_histograms(folder: Path, hepfaas: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    out, err = hepfaas(
        "reader", "--fin", "signal.root", "--nevts", -1, "--fout", "specs-signal.json", "--hists", "--verbose", 2,
        "--redirector", "", "--workers", 1,
    )  # fmt: skip
    assert out.startswith(f"read 300 events of {(folder / 'signal.root').resolve()}: 2 flat and 2 jagged features of 3")
    expected = specs_of(folder, ["signal.root"], margin=0)
    specs = json.loads((folder / "specs-signal.json").read_text())
    assert (specs["jdim"], specs["jkeys"]) == (expected["jdim"], expected["jkeys"])
    for name in BRANCHES:
        assert (specs["minv"][name], specs["maxv"][name]) == (expected["minv"][name], expected["maxv"][name])
    assert "events" not in specs
    assert {path.name for path in (folder / "pdfs").iterdir()} == {"branches.pdf", "branches_scaled.pdf"}
    assert "jagged branches: lep_pt" in err
    with pytest.raises(RequestError, match="specs-signal.json is not about these events: .*'met' is "):
        matrix(with_params(folder), specs="specs-signal.json")


def test_reader_reads_five_events_and_takes_the_old_options(
    folder: Path, hepfaas: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    (folder / "out.txt").write_text("nlep_pt\n")
    (folder / "cut.json").write_text('{"flat_cut": {"met": {"cut": "met > -99", "remove": "False"}}}')
    common = ("reader", "--fin", "signal.root", "--branch", "Events", "--redirector", "", "--workers", 1, "--json")
    more = ("--identifier", "event", "--exclude-branches", "out.txt", "--preproc", "cut.json", "--nan", -5)
    report = json.loads(hepfaas(*common, *more, "--chunk-size", 10)[0])
    assert (report["events"], report["branches"], report["flat_features"], report["files"]) == (5, 2, 1, [])
    report = json.loads(hepfaas(*common, "--branches", "met", "--specs", "global-specs.json", "--nevts", 50)[0])
    assert (report["events"], report["branches"], report["jagged_features"]) == (50, 1, 0)


def test_reader_shows_trees_as_inspect_does(folder: Path, hepfaas: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    out, _ = hepfaas("reader", "--fin", "signal.root", "--redirector", "", "--info")
    assert main(["inspect", str((folder / "signal.root").resolve())]) == 0
    assert "lep_pt" in out


def test_a_prepare_step_of_a_training_by_chunks_is_that_of_any_other(folder: Path) -> None:
    """Only train steps differ, so that the prepared events are those of the standard mode."""
    store = open_store(str(folder.parent / "store"))
    Matrix(job_in(folder, {}), store)
    before = set(store.keys("steps/prepare/"))
    Matrix(job_in(with_params(folder, training="standard"), {}), store)
    assert set(store.keys("steps/prepare/")) == before
