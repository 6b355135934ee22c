"""A job is the same job, with the same recipe, as a folder, a tar, a form, a JSON object or by a rule."""

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
from hepfaas.errors import RequestError
from hepfaas.jobs.addresses import place_files
from hepfaas.jobs.folder import job_in
from hepfaas.jobs.job import Job, job_of, recipe_of
from hepfaas.jobs.uploads import Unpacked
from hepfaas.orchestration import rules
from hepfaas.platform.stores import open_store
from hepfaas.runs.old_specs import OldRange
from hepfaas.runs.preprocessing import Cut, Preprocessing

FILES = {"s3://in/background.root": 0, "s3://in/signal.root": 1}
CODE = {
    "model.py": "from parts.layers import X\n",
    "parts/layers.py": "X = 1\n",
    "skipped.txt": "pt\neta # both\n",
    "ranges.json": '{"minv": {"x": 0}, "maxv": {"x": 1}, "fkeys": ["x"], "jkeys": []}',
}
PARAMS = {
    "epochs": 3,
    "exclude_branches": "skipped.txt",
    "verbose": 1,
    "chunk_size": 10,
    "training": "chunk",
    "specs": "ranges.json",
}
JOB: dict[str, Any] = {"files": [*FILES], "labels": [*FILES.values()], "code": CODE, "params": PARAMS}
TEXTS = {
    **CODE,
    "files.txt": "\n".join(FILES),
    "labels.txt": "0, 1 # background, signal",
    "params.json": json.dumps(PARAMS),
    ".hidden/x.py": "",
    "environment/lib/x.py": "",
    "environment/pyvenv.cfg": "",
}


def written(folder: Path, texts: dict[str, str] = TEXTS, encoding: str = "utf-8") -> Path:
    """Return a job's folder."""
    for name, text in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding=encoding)
    return folder


def as_folder(place: Path) -> Job:
    return job_in(written(place / "model"), {})


def as_tar(place: Path) -> Job:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        tar.add(written(place / "sent"), "model")
    unpacked = Unpacked(place / "empty", 10_000)
    unpacked.add_tar(io.BytesIO(out.getvalue()))
    return job_in(unpacked.job(), {})


def as_form(place: Path) -> Job:
    unpacked = Unpacked(place / "model", 10_000)
    for name, text in TEXTS.items():
        unpacked.add(name, io.BytesIO(text.encode()))
    return job_in(unpacked.job(), {})


def as_json(place: Path) -> Job:
    return job_of({**JOB, "code": {**CODE, ".hidden/x.py": "", "e/lib/x.py": "", "e/pyvenv.cfg": ""}})


def by_rule(place: Path) -> Job:
    job = {"name": "model", "code": CODE, "params": PARAMS}
    return rules.rule_of("nightly", {"prefix": "s3://in/", "labels": FILES, "job": job}).job_on(FILES)


@pytest.mark.parametrize("way", [as_folder, as_tar, as_form, as_json, by_rule])
def test_a_job_has_one_recipe_however_it_comes(tmp_path: Path, way: Any) -> None:
    store = open_store(str(tmp_path / "store"))
    (tmp_path / "empty").mkdir()
    job, expected = way(tmp_path), job_of(JOB)
    place = place_files(store, True)
    assert recipe_of(job, store, place) == recipe_of(expected, store, place)
    assert (
        job.notes
        == expected.notes
        == (
            "params.json: 'training': chunks of 10 events are trained one after the other, each for all epochs",
            "ranges.json gives the ranges of the branches, which are compared with the files",
        )
    )
    recipe = recipe_of(job, store)
    assert (recipe.name, recipe.epochs, recipe.excluded) == ("model", 3, ("pt", "eta"))
    assert (recipe.chunk_events, recipe.specs.branches) == (10, (OldRange("x", False, 0.0, 1.0, 1),))
    assert set(job.code) == {"model.py", "parts/layers.py"}
    assert [(file.url, file.label) for file in recipe.files] == [*FILES.items()]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"epochs": 1}, "unknown key 'epochs'; it takes name, files"),
        ({"name": 3}, "'name' is 3; it takes a name"),
        ({"name": "a b"}, "'a b' cannot name a model"),
        ({"model": "../model.py"}, "not the name of a file inside a folder"),
        ({"model": "modle.py"}, "the job's 'code' has no 'modle.py'; it has: model.py"),
        ({"code": {}}, "the job needs 'code'"),
        ({"code": {"model.py": "", "./model.py": ""}}, "has a file twice: model.py, ./model.py"),
        (
            {"code": {"model.py": "", "model.py/x.py": ""}},
            "'model.py/x.py' in the job's 'code' lies below another file",
        ),
        ({"code": {"model.py": "\ud800"}}, "'model.py' in the job's 'code' cannot be read as text"),
        ({"code": {"model.py": "#" * 6_000_000}}, "'model.py' has 6.0 MB; at most 5 MB are read"),
        ({"code": {f"{number}.py": "" for number in range(1_001)}}, "has 1,001 files; it takes 1,000"),
        ({"params": {"exclude_branches": "nothing.txt"}}, "has no 'nothing.txt'"),
        ({"params": []}, "'params' is not an object"),
        ({"code": {"model.py": "", "submit.json": "{}"}}, "has 'submit.json'; give its values as keys of the job"),
        ({"params": {"epohcs": 3}}, "closest: epochs"),
        ({"files": "s3://in/a.root"}, "the job needs 'files': a list"),
        ({"labels": [0]}, "has 2 entries, the list of labels 1"),
        ({"labels": [1, 1]}, "all files have label 1"),
        ({"files": ["/etc/passwd", "s3://in/a.root"]}, "'/etc/passwd' did not come with the job"),
        (
            {"files": ["a.root", "b.root"], "params": {"redirector": ""}},
            "file 'a.root' does not exist, and 'redirector'",
        ),
    ],
)
def test_a_wrong_json_object_is_refused_naming_the_key(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        job_of({**JOB, **changed})


def test_files_of_a_folder_are_stored_and_other_files_of_the_machine_are_not(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "store"))
    (tmp_path / "other.root").write_text("x")
    texts = {**TEXTS, "a.root": "a", "files.txt": f"a.root\n{tmp_path}/other.root"}
    folder = written(tmp_path / "job", texts)
    with pytest.raises(RequestError, match=r"other\.root' did not come with the job"):
        job_in(folder, {})
    job = job_in(folder, {}, inside=False)
    assert [file.url for file in recipe_of(job, store).files] == [f"{folder}/a.root", f"{tmp_path}/other.root"]
    with pytest.raises(RequestError, match=r"'other\.root' did not come with the job"):
        recipe_of(job, store, place_files(store, True))
    (folder / "files.txt").write_text("a.root\ns3://in/b.root")
    first, second = recipe_of(job_in(folder, {}), store, place_files(store, True)).files
    assert first.url.startswith(f"{store.url}/uploads/")
    assert store.get(first.url.removeprefix(f"{store.url}/")) == b"a"
    assert second.url == "s3://in/b.root"


BESIDE = {
    "widths.json": '{"hidden": 24}',
    "tables/means.csv": "1,2",
    "weights/start.weights.h5": "w",
    "words/vocabulary": "text",
}
NOT_CODE = {
    "a.root": "a",
    "b.json": "{}",
    "old.ROOT": "r",
    "events.jsonl": "{}",
    "train.log": "l",
    "README": "r",
    "LICENSE.txt": "l",
    "plots/roc.pdf": "p",
    ".secret": "s",
    "__pycache__/x.cpython-311.pyc": "c",
    f"store/local/blobs/{'0' * 64}": "b",
    "store/active/local/model-1": "",
}


def test_files_beside_the_code_travel_and_data_and_results_do_not(tmp_path: Path) -> None:
    lists = {"files.txt": "a.root\nb.json", "params.json": json.dumps({**PARAMS, "redirector": ""})}
    job = job_in(written(tmp_path / "job", {**TEXTS, **BESIDE, **NOT_CODE, **lists}), {})
    assert set(job.code) == {"model.py", "parts/layers.py", *BESIDE}
    assert job.code["widths.json"] == b'{"hidden": 24}'
    assert "tables/means.csv, weights/start.weights.h5, widths.json, words/vocabulary travel with model.py" in job.notes
    sent = job_of({**JOB, "code": {**CODE, **BESIDE}})
    assert dict(sent.code) == dict(job.code)


@pytest.mark.parametrize(
    ("others", "found"),
    [
        ({f"table{number}.txt": "x" for number in range(101)}, "101 other files of 0.0 MB"),
        ({f"{name}.npy": 7_000_000 * "x" for name in "abc"}, "3 other files of 21.0 MB"),
    ],
    ids=["count", "size"],
)
def test_a_folder_with_many_or_large_files_sends_its_python_files_and_says_so(
    tmp_path: Path, others: dict[str, str], found: str
) -> None:
    job = job_in(written(tmp_path / "job", {**TEXTS, **others}), {})
    assert set(job.code) == {"model.py", "parts/layers.py"}
    (note,) = (note for note in job.notes if "travel" in note)
    assert f"has {found}, more than 100 or 20 MB; if model.py reads one of them, put the job into a folder" in note


def test_one_large_file_keeps_no_other_file_from_travelling(tmp_path: Path) -> None:
    job = job_in(written(tmp_path / "job", {**TEXTS, "dump.bin": 20_000_001 * "x", "widths.json": "{}"}), {})
    assert set(job.code) == {"model.py", "parts/layers.py", "widths.json"}


def test_trees_of_a_file_that_came_with_the_job_stay_beside_the_place_where_it_is_stored(tmp_path: Path) -> None:
    texts = {**TEXTS, "files.txt": "both.root:S\nboth.root:dir/B\n", "both.root": "ROOT"}
    job, store = job_in(written(tmp_path / "model", texts), {}), open_store(str(tmp_path / "store"))
    recipe = recipe_of(job, store, place_files(store, allow_private=False))
    assert [(file.tree, file.label) for file in recipe.files] == [("S", 0), ("dir/B", 1)]
    (url,) = {file.url for file in recipe.files}
    assert url.startswith(f"{store.url}/uploads/")
    assert url.endswith("/both.root")
    assert recipe.tree == "Events"
    same = {**JOB, "files": [f"{name}:dir/B" for name in FILES]}
    assert recipe_of(job_of(same), store) == recipe_of(job_of({**JOB, "params": {**PARAMS, "branch": "dir/B"}}), store)


def test_names_by_option_win_over_submit_json(tmp_path: Path) -> None:
    texts = {**TEXTS, "other.py": "", "submit.json": '{"model": "other.py", "name": "x", "cpus": "2"}'}
    job = job_in(written(tmp_path / "job", texts), {"name": "chosen"})
    assert (job.name, job.module) == ("chosen", "other.py")
    assert "submit.json: 'cpus' has no effect here" in job.notes


def test_a_byte_order_mark_before_a_text_is_ignored(tmp_path: Path) -> None:
    job = job_in(written(tmp_path / "job", TEXTS, "utf-8-sig"), {})
    assert [file.label for file in job.files] == [0, 1]
    assert job.params.recipe["epochs"] == 3


def test_a_wrong_folder_is_refused_without_the_path_where_it_was_unpacked(tmp_path: Path) -> None:
    folder = written(tmp_path / "scratch" / "job", {**TEXTS, "a.py": 3_000_000 * "#", "b.py": 3_000_000 * "#"})
    with pytest.raises(RequestError, match="^folder 'job' has more than 5 MB of Python files"):
        job_in(folder, {})
    (folder / "a.py").unlink()
    (folder / "files.txt").write_text(6_000_000 * "#")
    with pytest.raises(RequestError, match=r"^'files\.txt' has 6\.0 MB; at most 5 MB are read"):
        job_in(folder, {})
    (folder / "files.txt").write_text(TEXTS["files.txt"])
    (folder / "model.py").unlink()
    with pytest.raises(RequestError, match=r"^folder 'job' has no 'model\.py'; it has: b\.py"):
        job_in(folder, {})
    (folder / "files.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(RequestError, match=r"^'files\.txt' in folder 'job' cannot be read as text"):
        job_in(folder, {})


def test_preproc_json_is_the_preprocessing_of_the_job(tmp_path: Path) -> None:
    cuts = {"flat_cut": {"met": {"cut": "met > 20", "remove": "False"}}}
    folder = written(tmp_path / "job", {**TEXTS, "preproc.json": json.dumps(cuts)})
    (folder / "params.json").write_text('{"cuts": ["njet >= 2"]}')
    expected = Preprocessing(cuts=(Cut("met > 20", "met > 20"), Cut("njet >= 2", "njet >= 2")))
    assert job_in(folder, {}).params.recipe["preprocessing"] == expected
    (folder / "preproc.json").rename(folder / "cuts.json")
    (folder / "params.json").write_text('{"preproc": "cuts.json"}')
    assert job_in(folder, {}).params.recipe["preprocessing"] == Preprocessing(cuts=expected.cuts[:1])
    (folder / "params.json").write_text("{}")
    (folder / "submit.json").write_text('{"preproc": "cuts.json"}')
    assert job_in(folder, {}).params.recipe["preprocessing"] == Preprocessing(cuts=expected.cuts[:1])
    (folder / "submit.json").write_text('{"preproc": "hook.py"}')
    (folder / "hook.py").write_text("def preprocessing(record): return record")
    assert job_in(folder, {}).params.recipe["record_function"] == "def preprocessing(record): return record"
    (folder / "hook.py").write_text("#" * 100_001)
    with pytest.raises(RequestError, match="'hook.py' has 100,001 characters; at most 100,000 are taken"):
        job_in(folder, {})
