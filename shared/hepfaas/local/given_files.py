"""Files that options name by their paths, as files of a job."""

from __future__ import annotations

from pathlib import Path

from hepfaas.errors import RequestError
from hepfaas.jobs.code import code_of
from hepfaas.jobs.texts import Texts, bytes_of, texts_in


class GivenFiles:
    """The files that options name, by the names that they have in the job. place: the folder that paths start from."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self._by_name: dict[str, bytes] = {}

    def listed(self, option: str, value: str) -> str:
        """Add a list: a file, or the list itself; return its name."""
        if not value.strip():
            raise RequestError(f"--{option} is empty; it takes the path of a list, or the list with commas")
        if self.has(value) or (value.endswith(".txt") and "," not in value):
            return self.file(option, value)
        self._by_name[f"--{option}"] = value.encode()
        return f"--{option}"

    def has(self, value: str) -> bool:
        """Return whether a value is the path of a file."""
        try:
            return (self._place / value).is_file()
        except (OSError, ValueError):  # a list with commas may be too long for a name
            return False

    def file(self, option: str, value: str) -> str:
        """Add a file; return its name. Raises: RequestError if there is none."""
        if not self.has(value):
            raise RequestError(f"--{option}: there is no file '{value[:200]}'")
        path = self._place / value
        name = self._inside(path) or path.name
        if self._by_name.get(name, data := bytes_of(path, value)) != data:
            name = f"{option}-{name}"
        self._by_name[name] = data
        return name

    def module(self, value: str) -> str:
        """Return the name of the file that defines the model; of another folder all files of the code are added."""
        path = self._place / value
        if name := self._inside(path):
            return name
        self._by_name.update(code_of(texts_in(path.parent), path.name).files)
        return path.name

    def above(self, below: Texts) -> Texts:
        """Return these files together with others, which they replace."""
        given = self._by_name
        return Texts(
            {*given, *below.names},
            lambda name: given[name] if name in given else below.read(name),
            lambda name: len(given[name]) if name in given else below.size_bytes(name),
            below.place,
        )

    def _inside(self, path: Path) -> str:
        """Return the name of a path below the place, '' if it is elsewhere."""
        place, path = self._place.resolve(), path.resolve()
        return path.relative_to(place).as_posix() if path.is_relative_to(place) else ""
