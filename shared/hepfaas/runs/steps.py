"""The steps of a run as values. A step names everything its result depends on; its key is the hash of that.

Two steps with the same names are the same step, whoever asks for them: their result is one object under one key.
A field that is marked as a hint says where to look and is no part of the name. `version` is raised when the
result of a kind of step changes though its names do not.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any, ClassVar

HINT = {"hint": True}


@dataclass(frozen=True)
class Step:
    """One unit of a run's build."""

    kind: ClassVar[str]
    version: ClassVar[int] = 1

    @cached_property
    def key(self) -> str:
        """Where its result lies: 'steps/<kind>/<hash>'."""
        named = {item.name: getattr(self, item.name) for item in fields(self) if not item.metadata.get("hint")}
        text = json.dumps([self.kind, self.version, named], sort_keys=True)
        return f"steps/{self.kind}/{hashlib.sha256(text.encode()).hexdigest()}"

    def to_json(self) -> dict[str, Any]:
        """As JSON values, hints included, so that another process can do it."""
        return {"kind": self.kind, **{item.name: getattr(self, item.name) for item in fields(self)}}


@dataclass(frozen=True)
class Open(Step):
    """Reads one file's header, once an attempt of a run: who it is, which branches, which entry ranges."""

    kind = "open"
    url: str
    tree: str
    selected: tuple[str, ...]
    excluded: tuple[str, ...]
    identifiers: tuple[str, ...]
    range_events: int
    attempt: str


@dataclass(frozen=True)
class Survey(Step):
    """Range and multiplicity of each branch over one entry range."""

    kind = "survey"
    file: str
    tree: str
    branches: tuple[str, ...]
    entries: tuple[int, int]
    url: str = field(metadata=HINT)


@dataclass(frozen=True)
class Spec(Step):
    """Columns, ranges and widths from the sum of all surveys."""

    kind = "spec"
    survey: str
    branches: tuple[str, ...]
    identifiers: tuple[str, ...]
    order: str
    surplus: str


@dataclass(frozen=True)
class Prepare(Step):
    """The matrix of one entry range, train, validation and test rows apart. `spec`: the blob that holds the columns."""

    kind = "prepare"
    file: str
    tree: str
    entries: tuple[int, int]
    spec: str
    label: int
    split_seed: int
    url: str = field(metadata=HINT)


@dataclass(frozen=True)
class Learning(Step):
    """What every step of the learner names: the network and how it computes."""

    data: str
    code: str
    module: str
    n_features: int
    labels: tuple[int, ...]
    batch_size: int
    seed: int
    threads: int
    xla: bool


@dataclass(frozen=True)
class Train(Learning):
    """One segment: from the checkpoint before (None: fresh weights) to the next."""

    kind = "train"
    before: str | None
    epoch: int
    segment: int
    segment_rows: int
    shuffle: bool


@dataclass(frozen=True)
class Export(Learning):
    """What will be served: a LiteRT graph of one checkpoint, checked against the network it came from."""

    kind = "export"
    checkpoint: str


@dataclass(frozen=True)
class Score(Step):
    """What adds up of the scores of one prepared part's held-back rows."""

    kind = "score"
    export: str
    part: str
    n_classes: int
    threshold: float


@dataclass(frozen=True)
class Evaluate(Step):
    """Metrics, curves and plots from the sum of all scores. `epochs`: the last train step of each epoch; `classes`:
    what the plots call them."""

    kind = "evaluate"
    score: str
    epochs: tuple[str, ...]
    best_epoch: int
    classes: tuple[str, ...]


@dataclass(frozen=True)
class Publish(Step):
    """A model version under a name. `recipe`: JSON text for the card, without the places of the files."""

    kind = "publish"
    name: str
    recipe: str
    data: str
    spec: str
    export: str
    evaluate: str


@dataclass(frozen=True)
class Sum(Step):
    """The sum of up to 16 results of one kind, or of such sums."""

    kind = "sum"
    of: str
    members: tuple[str, ...]


KINDS: Mapping[str, type[Step]] = {
    kind.kind: kind for kind in (Open, Survey, Spec, Prepare, Train, Export, Score, Evaluate, Publish, Sum)
}


def step_from_json(values: Mapping[str, Any]) -> Step:
    """What `to_json` gave, also after a journey through JSON text."""
    kind = KINDS[values["kind"]]
    named = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    del named["kind"]
    return kind(**named)
