"""Training without the files that cannot be read: as if they had not been listed, and told everywhere."""

import html
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import uproot
from hepfaas.cli import main
from support.jobs import small_job, write_root

REASONS = {
    "missing.root": "does not exist",
    "cut.root": "is cut short",
    "garbage.root": "is not a complete ROOT file",
    "other_tree.root": "has no TTree 'Events'; it has: Other",
}


GOOD = {"signal.root": 1, "more.root": 1, "background.root": 0}
MIXED = {"missing.root": 1, "signal.root": 1, "cut.root": 0, "more.root": 1, "garbage.root": 1, "background.root": 0}
MIXED |= {"other_tree.root": 0}


def job(folder: Path, files: Mapping[str, int], **params: Any) -> Path:
    """Return a job with these files and labels."""
    small_job(folder, redirector="", **{"epochs": 1, **params})
    write_root(folder / "more.root", 7, 1.0, 150)
    (folder / "cut.root").write_bytes((folder / "more.root").read_bytes()[:-500])
    (folder / "garbage.root").write_bytes(b"no ROOT file" * 99)
    with uproot.recreate(folder / "other_tree.root") as file:
        file.mktree("Other", {"met": "float32"})
    (folder / "files.txt").write_text("\n".join(files))
    (folder / "labels.txt").write_text("\n".join(map(str, files.values())))
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a training that skips four files."""
    path = tmp_path_factory.mktemp("trained")
    assert train(path, "skips", job(path / "job", MIXED, unreadable_files="skip")) == 0
    return path


def train(place: Path, name: str, folder: Path, *more: str) -> int:
    words = ["train", str(folder), "--name", name, "--store", str(place / "store"), "--workers", "2"]
    return main([*words, *more])


def report(capsys: pytest.CaptureFixture[str], *words: object) -> dict[str, Any]:
    capsys.readouterr()
    assert main([*map(str, words), "--json"]) == 0
    values: dict[str, Any] = json.loads(capsys.readouterr().out)
    return values


def check_listed(listed: Sequence[Mapping[str, str]]) -> None:
    """Check that each bad file is there with its reason, and no other."""
    assert [Path(one["file"]).name for one in listed] == list(REASONS)
    for one, (name, reason) in zip(listed, REASONS.items(), strict=True):
        assert reason in one["reason"]
        assert name in one["reason"]


def test_the_model_is_that_of_the_other_files_alone(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    skips = report(capsys, "report", "skips-1", "--store", trained / "store")
    shutil.copytree(trained / "job", folder := trained / "good")
    (folder / "files.txt").write_text("\n".join(GOOD))
    (folder / "labels.txt").write_text("\n".join(map(str, GOOD.values())))
    assert train(trained, "good", folder) == 0
    good = report(capsys, "report", "good-1", "--store", trained / "store")
    assert skips["weights"] == good["weights"]
    for split in ("validation", "test"):
        for name in ("events", "loss", "auc"):
            assert skips["metrics"][split][name] == good["metrics"][split][name]
    assert "skipped_files" not in good


def test_every_view_lists_the_skipped_files_with_their_reasons(
    trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = ("--store", trained / "store")
    check_listed(report(capsys, "report", "skips-1", *store)["skipped_files"])
    status = report(capsys, "status", "skips-1", "--verify", *store)
    check_listed(status["skipped_files"])
    check_listed(status["ledger"]["skipped"])
    assert (status["ledger"]["holds"], status["ledger"]["files"], status["ledger"]["events"]) == (True, 3, 750)
    assert any(note.startswith("4 files are skipped, since 'unreadable_files' is 'skip'") for note in status["notes"])
    page = trained / "report.html"
    texts = []
    for words in (["report", "skips-1", "--out", page], ["log", "skips-1"], ["status", "skips-1", "--verify"]):
        assert main([*map(str, words), *map(str, store)]) == 0
        texts.append(capsys.readouterr().out)
    for text in (*texts, html.unescape(page.read_text())):
        for name, reason in REASONS.items():
            assert name in text
            assert reason in text


def test_a_dry_run_and_prepare_skip_them_too(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = ("--store", trained / "store")
    check_listed(report(capsys, "train", trained / "job", "--dry-run", *store)["skipped_files"])
    out = ("--out", trained / "prepared", "--workers", "1")
    prepared = report(capsys, "prepare", trained / "job", *store, *out)
    check_listed(prepared["skipped_files"])
    assert sum(prepared["events"].values()) == 750


def test_without_the_key_one_of_them_fails_the_run(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {name: label for name, label in MIXED.items() if name != "missing.root"}
    assert train(tmp_path, "fails", job(tmp_path / "job", files)) == 1
    error = capsys.readouterr().err
    assert "cut.root' is cut short" in error or "garbage.root' is not a complete ROOT file" in error


def test_a_label_without_files_and_a_tree_that_no_file_has_are_errors(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = job(tmp_path / "job", {"signal.root": 1, "cut.root": 0}, unreadable_files="skip")
    assert train(tmp_path, "label", folder) == 1
    assert "hepfaas: no file of label 0 can be read: '" in capsys.readouterr().err
    folder = job(tmp_path / "job", {"signal.root:X": 1, "background.root:X": 0}, unreadable_files="skip")
    assert train(tmp_path, "tree", folder) == 1
    assert "hepfaas: none of the 2 files can be read: '" in capsys.readouterr().err


def test_a_server_that_does_not_answer_is_never_skipped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = {**GOOD, "http://127.0.0.1:1/gone.root": 1}
    assert train(tmp_path, "gone", job(tmp_path / "job", files, unreadable_files="skip")) == 75
    assert "the server of 'http://127.0.0.1:1/gone.root' does not answer" in capsys.readouterr().err
