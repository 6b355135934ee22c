"""What a run is asked to do: the recipe. Everything a result depends on is in it or follows from the files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath
from typing import Any, Literal


@dataclass(frozen=True)
class LabelledFile:
    """One input file and the label of all its events."""

    url: str
    label: int


@dataclass(frozen=True)
class Recipe:
    """A training run, complete: which events, which features, which model, how it is trained.

    n_events: events used of all files together, in proportion to their sizes; -1: all.
    range_events: most entries read by one step.
    code: key of the blob that lists the user's code files; module: the one that defines `model`.
    segment_rows: most rows trained by one step, None: by the number of features. xla: compile the training loop
    with XLA, None: if an epoch is long enough to pay for it. threads: of the learner, since sums depend on them.
    threshold: score above which a binary classifier says 1.
    """

    name: str
    files: tuple[LabelledFile, ...]
    code: str
    module: str = "model.py"
    tree: str = "Events"
    selected: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()
    identifiers: tuple[str, ...] = ()
    n_events: int = -1
    range_events: int = 100_000
    order: Literal["sorted", "tree"] = "sorted"
    surplus: Literal["truncate", "error"] = "truncate"
    split_seed: int = 21
    epochs: int = 10
    batch_size: int = 50
    shuffle: bool = True
    seed: int = 21
    threads: int = 2
    xla: bool | None = None
    segment_rows: int | None = None
    threshold: float = 0.5

    @property
    def labels(self) -> tuple[int, ...]:
        """The distinct labels, sorted."""
        return tuple(sorted({file.label for file in self.files}))

    @property
    def classes(self) -> tuple[str, ...]:
        """What a person calls each label: the name of its file if it has only one, else 'label <n>'."""
        files = {label: [file.url for file in self.files if file.label == label] for label in self.labels}
        return tuple(
            PurePosixPath(urls[0]).stem if len(urls) == 1 else f"label {label}" for label, urls in files.items()
        )

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Recipe:
        """What `to_json` gave, also after a journey through JSON text."""
        lists = {name: tuple(values[name]) for name in ("selected", "excluded", "identifiers")}
        files = tuple(LabelledFile(**file) for file in values["files"])
        return cls(**{**values, **lists, "files": files})
