"""What people send as a job's folder, however they have packed it."""

import io
import tarfile
from pathlib import Path

import pytest
from hepfaas.errors import RequestError
from hepfaas.jobs.folder import recipe_of
from hepfaas.jobs.uploads import Unpacked
from hepfaas.platform.stores import open_store


def packed(folder: Path, name: str) -> io.BytesIO:
    """The folder as tar.gz under a name: '.' as `tar c .` does it."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        tar.add(folder, name)
    return io.BytesIO(out.getvalue())


@pytest.mark.parametrize("name", [".", "./job", "job", "job/below"])
def test_a_folder_can_be_packed_from_within_and_from_above(tmp_path: Path, name: str) -> None:
    (tmp_path / "job" / "code").mkdir(parents=True)
    (tmp_path / "job" / "files.txt").write_text("a.root")
    (tmp_path / "job" / "code" / "more.py").write_text("X = 1")
    (tmp_path / "out").mkdir()
    unpacked = Unpacked(tmp_path / "out", 10_000)
    unpacked.add_tar(packed(tmp_path / "job", name))
    found = {path.relative_to(tmp_path / "out" / name).as_posix() for path in (tmp_path / "out").rglob("*.*")}
    assert found == {"files.txt", "code/more.py"}


def test_the_mark_that_windows_writes_before_a_text_is_passed_over(tmp_path: Path) -> None:
    folder = tmp_path / "job"
    folder.mkdir()
    for name, text in (("files.txt", "root://h//a.root\nroot://h//b.root"), ("labels.txt", "0\n1"), ("model.py", "")):
        (folder / name).write_text(text, encoding="utf-8-sig")
    (folder / "params.json").write_text('{"epochs": 3}', encoding="utf-8-sig")
    recipe, _ = recipe_of(folder, {}, open_store(str(tmp_path / "store")))
    assert [(file.url, file.label) for file in recipe.files] == [("root://h//a.root", 0), ("root://h//b.root", 1)]
    assert recipe.epochs == 3


def test_what_is_wrong_with_a_folder_is_said_without_the_place_where_it_was_unpacked(tmp_path: Path) -> None:
    folder = tmp_path / "scratch" / "job"
    folder.mkdir(parents=True)
    (folder / "files.txt").write_text("root://h//a.root\nroot://h//b.root")
    (folder / "labels.txt").write_text("0\n1")
    (folder / "model.py").write_text("#" * 6_000_000)
    with pytest.raises(RequestError, match=r"folder 'job' has 6\.0 MB of Python files"):
        recipe_of(folder, {}, open_store(str(tmp_path / "store")))
    (folder / "model.py").write_text("X = 1")
    (folder / "files.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(RequestError, match=r"'files\.txt' in folder 'job' cannot be read as text"):
        recipe_of(folder, {}, open_store(str(tmp_path / "store")))


def test_a_preproc_json_is_said_to_have_no_effect_and_cannot_be_asked_for(tmp_path: Path) -> None:
    folder, store = tmp_path / "job", open_store(str(tmp_path / "store"))
    folder.mkdir()
    (folder / "files.txt").write_text("root://h//a.root\nroot://h//b.root")
    (folder / "labels.txt").write_text("0\n1")
    (folder / "model.py").write_text("X = 1")
    assert recipe_of(folder, {}, store)[1] == ()
    (folder / "preproc.json").write_text('{"flat_cut": {"met": {"cut": "met > 20", "remove": "False"}}}')
    (note,) = recipe_of(folder, {}, store)[1]
    assert note == "preproc.json has no effect: cuts and new branches are not supported yet; apply them to the files"
    for name in ("submit.json", "params.json"):
        (folder / name).write_text('{"preproc": "preproc.json"}')
        with pytest.raises(RequestError, match=rf"{name}: 'preproc' is refused: cuts and new branches"):
            recipe_of(folder, {}, store)
        (folder / name).unlink()
