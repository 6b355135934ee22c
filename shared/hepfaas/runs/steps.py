"""The steps of a run as values. A step names everything its result depends on; its key is the hash of that.

Two steps with the same names are the same step, whoever asks for them: their result is one object under one key.
A field that is marked as a hint says where to look and is no part of the name. `version` is raised when the
result of a kind of step changes though its names do not.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from json.encoder import encode_basestring_ascii
from typing import Any, ClassVar

HINT = {"hint": True}


_encoded = json.JSONEncoder().encode


@functools.cache
def _shape(kind: str) -> tuple[str, tuple[str, ...], str]:
    """How the text of steps of a kind is made: its first name, the others, and the text around their values."""
    first, *others = sorted(item.name for item in fields(KINDS[kind]) if not item.metadata.get("hint"))
    return first, tuple(others), "".join(f', "{name}": %s' for name in others) + "}]"


_last_begun: dict[str, tuple[int, Any, hashlib._Hash]] = {}


def _begun(kind: str, version: int, name: str, value: Any) -> hashlib._Hash:
    """The hash of how the text of a step begins. Kept for the last of each kind, and compared by identity: to compare
    thousands of branches takes longer than to name the step."""
    last = _last_begun.get(kind)
    if last is None or last[0] != version or last[1] is not value:
        digest = hashlib.sha256(f'["{kind}", {version}, {{"{name}": {_json(value)}'.encode())
        last = _last_begun[kind] = (version, value, digest)
    return last[2]


def _json(value: Any) -> str:
    """JSON text of a value; that of what there are thousands of, names and entry ranges, in a third of the time."""
    if type(value) is str:
        return encode_basestring_ascii(value)
    if type(value) is tuple and len(value) == 2 and type(value[0]) is type(value[1]) is int:
        return f"[{value[0]}, {value[1]}]"
    return _encoded(value)


@dataclass(frozen=True)
class Step:
    """One unit of a run's build."""

    kind: ClassVar[str]
    version: ClassVar[int] = 1

    @property
    def key(self) -> str:
        """Where its result lies: 'steps/<kind>/<hash>', of the JSON text `[kind, version, {names, sorted}]`."""
        kept = self.__dict__  # functools.cached_property takes a lock until Python 3.12: as long as it takes to name
        if "_key" not in kept:
            kept["_key"] = self._named()
        return str(kept["_key"])

    def _named(self) -> str:
        """Ten thousand steps of a phase begin with the same names, maybe of thousands of branches: these are hashed
        once."""
        first, others, text = _shape(self.kind)
        values = self.__dict__
        digest = _begun(self.kind, self.version, first, values[first]).copy()
        digest.update((text % tuple([_json(values[name]) for name in others])).encode())
        return f"steps/{self.kind}/{digest.hexdigest()}"

    def to_json(self) -> dict[str, Any]:
        """As JSON values, hints included, so that another process can do it."""
        return {"kind": self.kind, **{item.name: getattr(self, item.name) for item in fields(self)}}


@dataclass(frozen=True)
class Open(Step):
    """Reads one file's header, once an attempt of a run: who it is, which branches, which entry ranges."""

    kind = "open"
    version = 2
    url: str
    tree: str
    selected: tuple[str, ...]
    excluded: tuple[str, ...]
    identifiers: tuple[str, ...]
    range_events: int
    attempt: str


@dataclass(frozen=True)
class Survey(Step):
    """Range, multiplicity and type of each branch over one entry range."""

    kind = "survey"
    version = 2
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
class Compare(Step):
    """Whether a model is as good as the last version: sums of scores of the same events by both."""

    kind = "compare"
    metric: str
    fall: float
    model: str
    score: str
    last: str


@dataclass(frozen=True)
class Publish(Step):
    """A model version under a name. `recipe`: JSON text for the card, without the places of the files. `compare`: what
    it has passed, None: there was no gate."""

    kind = "publish"
    name: str
    recipe: str
    data: str
    spec: str
    checkpoint: str
    export: str
    evaluate: str
    compare: str | None


@dataclass(frozen=True)
class Convert(Step):
    """A model that was made elsewhere as a LiteRT graph, checked against the model.

    code: the blob that lists its files. format: 'keras', 'saved_model' or 'frozen_graph'; file: the one of them that is
    read, '.' the folder of them all. input, output: names of its nodes, '': those that it has.
    """

    kind = "convert"
    code: str
    format: str
    file: str
    input: str
    output: str


@dataclass(frozen=True)
class Register(Step):
    """A converted model as a version under a name, one for each upload. params: JSON text of its params.json; labels:
    what its scores are called."""

    kind = "register"
    name: str
    upload: str
    convert: str
    format: str
    params: str
    labels: tuple[str, ...]


@dataclass(frozen=True)
class Predict(Step):
    """Scores of one entry range. branches: the features; identifiers: what names an event, of that what the file has;
    spec, graph: hashes of those of the version `model`."""

    kind = "predict"
    file: str
    tree: str
    entries: tuple[int, int]
    branches: tuple[str, ...]
    identifiers: tuple[str, ...]
    spec: str
    graph: str
    model: str = field(metadata=HINT)
    url: str = field(metadata=HINT)


@dataclass(frozen=True)
class Sum(Step):
    """The sum of up to 16 results of one kind, or of such sums."""

    kind = "sum"
    of: str
    members: tuple[str, ...]


KINDS: Mapping[str, type[Step]] = {
    kind.kind: kind
    for kind in (
        Open,
        Survey,
        Spec,
        Prepare,
        Train,
        Export,
        Score,
        Evaluate,
        Compare,
        Publish,
        Predict,
        Convert,
        Register,
        Sum,
    )
}


def step_from_json(values: Mapping[str, Any]) -> Step:
    """What `to_json` gave, also after a journey through JSON text."""
    kind = KINDS[values["kind"]]
    named = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    del named["kind"]
    return kind(**named)
