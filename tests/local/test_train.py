"""Commands on the sample: train, inspect, predict; and the messages for what cannot be done."""

import json
import shutil
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pytest
import uproot
from hepfaas.cli import main
from hepfaas.datasets.opened import opened, read
from hepfaas.datasets.ranges import EntryRange
from hepfaas.features.matrix import matrix
from hepfaas.learner import learner
from hepfaas.learner.learner import LearnerProcess
from hepfaas.models import versions
from hepfaas.orchestration import records
from hepfaas.platform.storage import Store
from hepfaas.platform.stores import open_store
from hepfaas.steps import learning
from hepfaas.steps.objects import open_part, result_of
from support.servers import XRootD

EXAMPLE = Path(__file__).parents[2] / "examples" / "htautau"


class Result:
    """Exit code and output of a command."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def document(self) -> Any:
        """The JSON on standard output."""
        return json.loads(self.out)


@pytest.fixture
def hepfaas(capfd: pytest.CaptureFixture[str]) -> Any:
    """Run a command, a training with one worker, since each imports for seconds; `place` is made with several."""

    def run(*words: object) -> Result:
        workers = ("--workers", 1) if words[0] == "train" else ()
        code = main([str(word) for word in (*words, *workers)])
        return Result(code, *capfd.readouterr())

    return run


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store, in which the sample is trained."""
    path = tmp_path_factory.mktemp("place")
    folder = path / "htautau"
    folder.mkdir()
    for name in ("ggH_tautau.root", "VBF_tautau.root", "files.txt", "labels.txt", "model.py"):
        shutil.copy(EXAMPLE / name, folder)
    params = json.loads((EXAMPLE / "params.json").read_text())
    (folder / "params.json").write_text(json.dumps({**params, "epochs": 6, "range_events": 1000}))
    assert main(["train", str(folder), "--store", str(path / "store"), "--workers", "2"]) == 0
    return path


@pytest.fixture
def store(place: Path) -> Store:
    return open_store(f"{place}/store/local")


def test_the_sample_is_learned(place: Path, hepfaas: Any) -> None:
    (row,) = hepfaas("models", "--store", place / "store", "--json").document
    assert (row["model"], row["features"], row["events"]) == ("htautau/1", 276, 10_000)
    assert row["AUC"] > 0.75
    assert 0.005 < row["±"] < 0.02


@pytest.fixture
def learners(monkeypatch: pytest.MonkeyPatch) -> list[LearnerProcess]:
    """The learner processes that are started during a test."""
    started: list[LearnerProcess] = []

    class Noted(LearnerProcess):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            started.append(self)

    monkeypatch.setattr(learning, "LearnerProcess", Noted)
    monkeypatch.setattr(learner, "LearnerProcess", Noted)
    return started


def test_everything_is_there_the_second_time(place: Path, hepfaas: Any, learners: list[LearnerProcess]) -> None:
    result = hepfaas("train", place / "htautau", "--store", place / "store", "--json")
    assert not learners
    assert result.document["model"] == "htautau/1"
    entries = hepfaas("log", result.document["run"], "--store", place / "store", "--json").document
    assert [entry["kind"] for entry in entries] == ["open", "open", "sum"]


def test_a_dry_run_shows_the_work_and_stores_nothing(place: Path, hepfaas: Any, tmp_path: Path) -> None:
    result = hepfaas("train", place / "htautau", "--store", tmp_path / "new", "--dry-run", "--json").document
    assert (result["events"], result["features"], [file["ranges"] for file in result["files"]]) == (10_000, 66, [5, 5])
    assert result["steps"][0] == {"step": "survey", "to do": 10, "there": 0}
    assert result["steps"][2] == {"step": "train", "to do": 6, "there": 0}
    assert not [path for path in (tmp_path / "new").rglob("*") if path.is_file()]
    again = hepfaas("train", place / "htautau", "--store", place / "store", "--dry-run").out
    assert "train        0      6" in again


def test_the_ledger_holds_and_a_lost_event_is_found(place: Path, hepfaas: Any, tmp_path: Path) -> None:
    status = hepfaas("status", "htautau-1", "--verify", "--store", place / "store", "--json").document
    assert status["ledger"] == {
        "files": 2, "ranges": 10, "events": 10_000, "rejected": [], "training_events": 6260, "epochs": 6,
        "findings": [], "skipped": [], "holds": True,
    }  # fmt: skip
    shutil.copytree(place / "store", tmp_path / "store")
    prepared = sorted((tmp_path / "store/local/steps/prepare").iterdir())
    shutil.copy(prepared[0], prepared[1])
    result = hepfaas("status", "htautau-1", "--verify", "--store", tmp_path / "store")
    assert result.code == 1
    assert "ledger of run 'htautau-1' does not hold" in result.err


def test_features_at_prediction_are_those_of_training(place: Path, store: Store) -> None:
    card = versions.card_of(store, versions.Version("htautau", 1))
    spec = versions.load(store, "htautau").spec
    url = str(place / "htautau" / "VBF_tautau.root")
    file = opened(url, "Events")
    names = [branch.name for branch in spec.branches]
    arrays = read(url, file.identity, "Events", branches=names, entries=EntryRange(0, file.entries))
    features = matrix(arrays, spec)
    parts = [part for part in result_of(card["steps"]["data"], store)["parts"] if part["file"] == file.identity]
    seen = 0
    for facts in parts:
        part = open_part(facts["key"], facts["size_bytes"], store)
        for split in range(3):
            stored = [part.rows(number).features for number in part.facts.batches(split)]
            assert np.concatenate(stored).tobytes() == features[part.entries(part.facts.batches(split))].tobytes()
            seen += len(part.entries(part.facts.batches(split)))
    assert seen == 5_000


def test_a_remote_file_gets_the_scores_of_the_local_one(
    place: Path, hepfaas: Any, tmp_path: Path, xrootd: XRootD
) -> None:
    scores = []
    for number, url in enumerate((EXAMPLE / "unseen.root", xrootd.serve(EXAMPLE / "unseen.root"))):
        out = tmp_path / f"{number}.root"
        assert hepfaas("predict", "htautau", url, "--out", out, "--store", place / "store").code == 0
        with uproot.open(out) as file:
            scores.append(file["scores"].arrays())
    assert ak.array_equal(*scores)
    truth = np.loadtxt(EXAMPLE / "unseen_truth.csv", delimiter=",", skiprows=1, dtype=int)[:, 1]
    score = scores[0]["score"].to_numpy()
    assert score[truth == 1].mean() > score[truth == 0].mean() + 0.15
    assert scores[0]["event"].tolist() == list(range(5_001, 6_001))


def test_a_prediction_shows_the_first_scores(place: Path, hepfaas: Any) -> None:
    result = hepfaas("predict", "htautau/1", EXAMPLE / "unseen.root", "--store", place / "store")
    assert "model htautau/1: 1,000 events" in result.out
    assert result.err == ""


def test_training_on_a_remote_file_reads_nothing_again(place: Path, hepfaas: Any, xrootd: XRootD) -> None:
    folder = place / "remote"
    shutil.copytree(place / "htautau", folder)
    urls = [xrootd.serve(folder / name) for name in ("ggH_tautau.root", "VBF_tautau.root")]
    (folder / "files.txt").write_text("\n".join(urls))
    result = hepfaas("train", folder, "--name", "htautau", "--store", place / "store", "--json").document
    kinds = {entry["kind"] for entry in hepfaas("log", result["run"], "--store", place / "store", "--json").document}
    assert kinds == {"open", "sum"}


def test_a_submit_json_of_the_original_names_the_files(place: Path, hepfaas: Any) -> None:
    folder = place / "submitted"
    shutil.copytree(place / "htautau", folder)
    renamed = {"files": "f.txt", "labels": "l.txt", "model": "net.py", "params": "p.json"}
    for name, new in renamed.items():
        (folder / f"{name}.{new.partition('.')[2]}").rename(folder / new)
    submit = {"name": "mine", "device": "cpu", "memory": "3gb", "cpus": "2", **renamed}
    (folder / "submit.json").write_text(json.dumps(submit))
    result = hepfaas("train", folder, "--dry-run", "--store", place / "store", "--json").document
    assert result["name"] == "mine"
    assert "submit.json: 'memory' has no effect here" in result["notes"]


def test_samples_with_wildcards_on_disk_and_on_a_server_are_read(hepfaas: Any, tmp_path: Path, xrootd: XRootD) -> None:
    url = xrootd.serve(EXAMPLE / "VBF_tautau.root", "samples_VBF_1.root")
    folder = tmp_path / "job"
    (folder / "data").mkdir(parents=True)
    shutil.copy(EXAMPLE / "ggH_tautau.root", folder / "data" / "ggH_1.root")
    for name in ("model.py", "params.json"):
        shutil.copy(EXAMPLE / name, folder)
    (folder / "samples.yaml").write_text(
        f"samples:\n  ggH: {{files: data/ggH_*.root, label: 0}}\n"
        f"  VBF: {{files: '{url.replace('_1.root', '_*.root')}', label: 1}}\n"
    )
    result = hepfaas("train", folder, "--dry-run", "--store", tmp_path / "store", "--json").document
    assert [(file["file"], file["label"]) for file in result["files"]] == [
        (str(folder / "data" / "ggH_1.root"), 0),
        (url, 1),
    ]
    assert "'data/ggH_*.root' matches 1 file" in result["notes"]
    (folder / "samples.yaml").rename(folder / "higgs.yaml")
    options = ("--samples", "higgs.yaml", "--name", "higgs", "--dry-run", "--store", tmp_path / "store")
    assert "\nnote: 'data/ggH_*.root' matches 1 file\n" in hepfaas("train", folder, *options).out


def test_real_files_of_experiments_are_trained_on(hepfaas: Any, tmp_path: Path, data: Path) -> None:
    shutil.copy(data / "uproot-HZZ.root", tmp_path / "a.root")
    with uproot.open(tmp_path / "a.root") as file:
        arrays = file["events"].arrays(["NJet", "Jet_Px", "Jet_E", "Muon_E", "MET_px", "triggerIsoMu24"], how=dict)
    with uproot.recreate(tmp_path / "b.root") as file:
        kinds = {
            name: "var * float32" if branch.ndim == 2 else str(branch.type.content) for name, branch in arrays.items()
        }
        file.mktree("events", kinds).extend({name: branch[::-1] for name, branch in arrays.items()})
    (tmp_path / "files.txt").write_text("a.root,b.root")
    (tmp_path / "labels.txt").write_text("0,1")
    shutil.copy(EXAMPLE / "model.py", tmp_path)
    params = {"branch": "events", "epochs": 1, "selected_branches": list(arrays), "order": "tree", "nevts": 3000}
    (tmp_path / "params.json").write_text(json.dumps(params))
    result = hepfaas("train", tmp_path, "--name", "hzz", "--store", tmp_path / "store", "--json")
    assert result.code == 0, result.err
    card = versions.card_of(open_store(f"{tmp_path}/store/local"), versions.Version("hzz", 1))
    assert [file["events"] for file in card["data"]] == [1500, 1500]
    assert card["features"][0]["branch"] in ("NJet", "MET_px", "triggerIsoMu24")


def folder_with(tmp_path: Path, **files: str | None) -> Path:
    """Return a folder like the sample's, with changed files, or without those that are None."""
    folder = tmp_path / "job"
    folder.mkdir()
    for name in ("ggH_tautau.root", "VBF_tautau.root"):
        (folder / name).symlink_to(EXAMPLE / name)
    for name in ("files.txt", "labels.txt", "model.py", "params.json"):
        shutil.copy(EXAMPLE / name, folder)
    for key, text in files.items():
        path = folder / key.replace("_", ".")
        path.unlink(missing_ok=True)
        if text is not None:
            path.write_text(text)
    return folder


BAD: list[tuple[dict[str, str | None], str]] = [
    ({"files_txt": None}, "has no 'files.txt'; it has: "),
    ({"labels_txt": None}, "has no 'labels.txt'; it has: "),
    ({"model_py": None}, "has no 'model.py'; it has: "),
    ({"files_txt": "a.root\nVBF_tautau.root"}, "file 'a.root' does not exist at "),
    ({"labels_txt": "0"}, "the list of files has 2 entries, the list of labels 1"),
    ({"labels_txt": "1\n1"}, "all files have label 1; a classifier needs files of at least two labels"),
    ({"labels_txt": "ggH\nVBF"}, "label 1 is 'ggH'; a label is a whole number"),
    ({"params_json": "{"}, "params.json is not JSON"),
    ({"params_json": '{"epochs": "x"}'}, "params.json: 'epochs' is \"x\" (text); it takes a whole number from 1"),
    ({"params_json": '{"epohcs": 3}'}, "params.json has the unknown key 'epohcs'; closest: epochs"),
    ({"params_json": '{"branch": "Event"}'}, "has no TTree 'Event'; it has: Events"),
    ({"params_json": '{"selected_branches": ["Jet_Pt"]}'}, "has no branch 'Jet_Pt'; closest: Jet_pt"),
    ({"params_json": '{"nevts": 2}'}, "events are too few to split"),
    ({"files_txt": "model.py\nVBF_tautau.root"}, "model.py' is not a complete ROOT file"),
    (
        {"model_py": "def model(idim):\n    return keras.Sequential()"},
        "model.py line 2, in model: NameError: name 'keras'",
    ),
    ({"model_py": "def model(idim):\n    pass"}, "model.py: model(idim) returned nothing"),
    ({"submit_json": '{"name": "x", "filse": "f"}'}, "submit.json has the unknown key 'filse'; closest: files"),
]


@pytest.fixture(scope="module")
def failing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of runs that fail: what one prepares is there for the next."""
    return tmp_path_factory.mktemp("failing")


@pytest.mark.parametrize(("files", "message"), BAD, ids=[message[:30] for _, message in BAD])
def test_a_folder_that_cannot_be_trained_on_is_an_error_with_its_reason(
    files: dict[str, str | None], message: str, tmp_path: Path, failing: Path, hepfaas: Any
) -> None:
    result = hepfaas("train", folder_with(tmp_path, **files), "--store", failing, "--name", "job")
    assert result.code == 1
    assert message in result.err.splitlines()[-1]
    assert "Traceback" not in result.err


@pytest.mark.parametrize("params", ['{"branch": "Event"}', '{"nevts": 2}'])
def test_a_run_that_fails_before_its_training_leaves_no_process_and_no_folder(
    params: str, tmp_path: Path, hepfaas: Any, learners: list[LearnerProcess]
) -> None:
    assert hepfaas("train", folder_with(tmp_path, params_json=params), "--store", tmp_path / "store").code == 1
    (process,) = learners
    assert process.ended
    assert not process.scratch.exists()


def test_a_failed_run_says_why_and_can_be_tried_again(tmp_path: Path, hepfaas: Any) -> None:
    few = '{"nevts": 400}'
    folder, store = folder_with(tmp_path, model_py="def model(idim):\n    pass", params_json=few), tmp_path / "store"
    for _ in range(2):
        assert hepfaas("train", folder, "--store", store).code == 1
    (row,) = hepfaas("runs", "--store", store, "--json").document
    assert (row["run"], row["state"]) == ("job-1", "failed")
    status = hepfaas("status", "job-1", "--store", store).out
    assert "model.py: model(idim) returned nothing" in status
    assert records.attempt_of(open_store(f"{store}/local"), "job-1") == 3


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["predict", "nothing", "x.root"], "has no model 'nothing'; it has: htautau/1"),
        (["predict", "htautau/7", "x.root"], "has no model 'htautau/7'"),
        (["predict", "htautau", "nowhere.root"], "file 'nowhere.root' does not exist"),
        (["predict", "htautau", str(EXAMPLE / "unseen.root"), "--tree", "T"], "has no TTree 'T'; it has: Events"),
        (["predict", "htautau", str(EXAMPLE / "unseen.root"), "--out", "x.pickle"], "ends in '.pickle'; scores are"),
        (["status", "nothing"], "has no run 'nothing'; `hepfaas runs` lists them"),
        (["log", "nothing"], "has no run 'nothing'"),
        (["train", "nowhere"], "'nowhere' is not a folder"),
        (["inspect", "nowhere.root"], "file 'nowhere.root' does not exist"),
    ],
)
def test_a_wrong_argument_is_an_error(words: list[str], message: str, place: Path, hepfaas: Any) -> None:
    more = [] if words[0] == "inspect" else ["--store", place / "store"]
    result = hepfaas(*words, *more)
    assert (result.code, message in result.err) == (1, True), result.err


def test_a_file_without_the_branches_of_the_model_is_an_error(place: Path, hepfaas: Any, tmp_path: Path) -> None:
    with uproot.recreate(tmp_path / "x.root") as file:
        file.mktree("Events", {"MET_PT": np.float32}).extend({"MET_PT": np.zeros(3, dtype=np.float32)})
    result = hepfaas("predict", "htautau", tmp_path / "x.root", "--store", place / "store")
    assert result.code == 1
    assert "has no branch 'HLT_" in result.err or "closest" in result.err


def test_a_store_that_cannot_be_written_is_an_error(tmp_path: Path, hepfaas: Any) -> None:
    (tmp_path / "store").write_text("a file")
    result = hepfaas("train", EXAMPLE, "--store", tmp_path / "store")
    assert result.code == 1
    assert "cannot be written: Not a directory" in result.err


@pytest.mark.parametrize("words", [["runs"], ["models"], ["status", "x-1"], ["log", "x-1"]])
def test_reading_a_store_that_does_not_exist_does_not_create_it(tmp_path: Path, hepfaas: Any, words: list[str]) -> None:
    result = hepfaas(*words, "--store", tmp_path / "typo")
    assert result.code == (len(words) > 1)
    assert not (tmp_path / "typo").exists()


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == "hepfaas 0.1.0\n"


def test_the_log_shows_the_network(place: Path, hepfaas: Any) -> None:
    result = hepfaas("log", "htautau-1", "--store", place / "store").out
    assert "Trainable params: 43,777" in result
    assert "the training loop was compiled in" in result


def test_what_is_left_out_is_named_once(hepfaas: Any, tmp_path: Path, data: Path) -> None:
    shutil.copy(data / "uproot-Zmumu.root", tmp_path / "a.root")
    with uproot.open(tmp_path / "a.root") as file, uproot.recreate(tmp_path / "b.root") as other:
        arrays = file["events"].arrays(filter_typename=["double", "int32_t"], library="np")
        kinds = {name: values.dtype.newbyteorder("=") for name, values in arrays.items()}
        other.mktree("events", {**kinds, "Type": str}).extend({**arrays, "Type": ["GG"] * len(arrays["M"])})
    (tmp_path / "files.txt").write_text("a.root\nb.root")
    (tmp_path / "labels.txt").write_text("0\n1")
    (tmp_path / "model.py").write_text("def model(idim): pass")
    (tmp_path / "params.json").write_text('{"branch": "events", "exclude_branches": ["Muon_pt"]}')
    result = hepfaas("train", tmp_path, "--name", "zmumu", "--store", tmp_path / "store")
    assert result.err.count("branches without numbers are left out: ") == 1
    assert "Type (" in result.err
    assert "'Muon_pt' of exclude_branches is not a branch of TTree 'events'" in result.err
