"""Folders that people upload, packed in different ways."""

import io
import tarfile
from pathlib import Path

import pytest
from hepfaas.jobs.uploads import Unpacked


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
