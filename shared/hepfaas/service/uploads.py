"""What people send: a job's folder as tar.gz, as files, or as values. Checked, size-limited, unpacked to scratch."""

from __future__ import annotations

import json
import tarfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import IO, Any

from hepfaas.errors import RequestError

MOST_FILES = 10_000
MOST_NAME = 200
_TEXT = {"files": "files.txt", "labels": "labels.txt"}
_KEYS = ("name", "files", "labels", "code", "model", "params", "webhook")


class Unpacked:
    """Puts what was sent under a folder, no more than `most_bytes` of it."""

    def __init__(self, folder: Path, most_bytes: int) -> None:
        self._folder, self._left, self._most_bytes = folder, most_bytes, most_bytes
        self._files = 0

    def add(self, name: str, data: IO[bytes]) -> None:
        """One file. Raises: RequestError if its name leads elsewhere, or it is too much."""
        path = self._folder / checked_name(name)
        self._files += 1
        if self._files > MOST_FILES:
            raise RequestError(f"the upload has more than {MOST_FILES} files")
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            raise RequestError(f"the upload has '{name}' twice")
        with path.open("wb") as out:
            while chunk := data.read(min(1 << 20, self._left + 1)):
                self._left -= len(chunk)
                if self._left < 0:
                    raise RequestError(
                        f"the upload is larger than {self._most_bytes / 1e6:,.0f} MB; put ROOT files on a server and "
                        "list their root://, s3:// or https:// addresses in files.txt"
                    )
                out.write(chunk)

    def add_tar(self, data: IO[bytes]) -> None:
        """All files of a tar, gzipped or not. Raises: RequestError if a member is a link or leads elsewhere."""
        try:
            with tarfile.open(fileobj=data, mode="r|*") as tar:
                for member in tar:
                    if member.isdir():
                        checked_name(member.name)
                        continue
                    if not member.isreg():
                        raise RequestError(f"the archive's '{member.name}' is no plain file; links are not unpacked")
                    content = tar.extractfile(member)
                    assert content is not None
                    self.add(member.name, content)
        except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
            raise RequestError(f"the upload is no whole tar.gz archive: {error}") from error

    def job(self) -> Path:
        """The folder of the job: what was sent, or the only folder in it."""
        inside = list(self._folder.iterdir())
        return inside[0] if len(inside) == 1 and inside[0].is_dir() else self._folder


def checked_name(name: str) -> PurePosixPath:
    """A path below a folder. Raises: RequestError if it leads elsewhere."""
    path = PurePosixPath(name)
    plain = all(part.isprintable() and part != ".." and "\\" not in part for part in path.parts)
    if path.is_absolute() or not path.parts or not plain or len(name) > MOST_NAME:
        raise RequestError(f"the upload's '{name[:MOST_NAME]}' is no name of a file inside a folder")
    return path


def write_job(values: Mapping[str, Any], folder: Path) -> None:
    """A job that came as values, written as its folder. Raises: RequestError naming what is wrong with it."""
    for key in values:
        if key not in _KEYS:
            raise RequestError(f"the job has the unknown key '{key}'; it takes {', '.join(_KEYS)}")
    code = values.get("code")
    if not isinstance(code, dict) or not code or not all(isinstance(text, str) for text in code.values()):
        raise RequestError("the job needs 'code': an object from file name to Python text, 'model.py' among them")
    for name, text in code.items():
        path = folder / checked_name(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", errors="surrogatepass")
    for key, name in _TEXT.items():
        lines = values.get(key)
        if not isinstance(lines, list) or not all(isinstance(line, str | int) for line in lines):
            raise RequestError(f"the job needs '{key}': a list, one for each file")
        (folder / name).write_text("\n".join(map(str, lines)), encoding="utf-8", errors="surrogatepass")
    params = values.get("params", {})
    if not isinstance(params, dict):
        raise RequestError("the job's 'params' is no object; it takes what params.json takes (docs/params.md)")
    (folder / "params.json").write_text(json.dumps(params))


def given_names(values: Mapping[str, Any], names: Iterable[str]) -> dict[str, str]:
    """Those names that are given. Raises: RequestError if one is no text."""
    given = {name: values[name] for name in names if values.get(name) is not None}
    for name, value in given.items():
        if not isinstance(value, str) or not value:
            raise RequestError(f"'{name}' is {json.dumps(value)}; it takes a name")
        if name != "name":
            checked_name(value)
    return given
