"""The steps of a run as values. A step names everything that its result depends on; its key is the hash of this.

Two steps with equal fields are the same step, in any run: their result is one object under one key. Fields marked as
hints say where to look and are not part of the key. `version` of a kind of step is raised when its results change while
its fields stay the same.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from json.encoder import encode_basestring_ascii
from typing import Any, ClassVar

from hepfaas.runs.targets import Row

HINT = {"hint": True}

_encoded = json.JSONEncoder().encode


@functools.cache
def _shape(kind: str) -> tuple[str, tuple[str, ...], str]:
    """Return what the hashed text of a kind of step is made of: its first field, the others, and a format for them."""
    first, *others = sorted(item.name for item in fields(KINDS[kind]) if not item.metadata.get("hint"))
    return first, tuple(others), "".join(f', "{name}": %s' for name in others) + "}]"


_last_begun: dict[str, tuple[int, Any, hashlib._Hash]] = {}


def _begun(kind: str, version: int, name: str, value: Any) -> hashlib._Hash:
    """Return the hash of the first part of a step's text. The last one of each kind is kept and compared by identity:
    comparing thousands of branches takes longer than hashing the rest."""
    last = _last_begun.get(kind)
    if last is None or last[0] != version or last[1] is not value:
        digest = hashlib.sha256(f'["{kind}", {version}, {{"{name}": {_json(value)}'.encode())
        last = _last_begun[kind] = (version, value, digest)
    return last[2]


def _json(value: Any) -> str:
    """Return JSON text of a value; of names and entry ranges, of which there are thousands, in a third of the time."""
    if type(value) is str:
        return encode_basestring_ascii(value)
    if type(value) is tuple and len(value) == 2 and type(value[0]) is type(value[1]) is int:
        return f"[{value[0]}, {value[1]}]"
    return _encoded(value)


LONG = 64

_last_texts: dict[tuple[str, str], tuple[Any, str]] = {}


def _text(kind: str, name: str, value: Any) -> str:
    """Return JSON text of a field. The last long one of each field is kept and compared by identity, as in `_begun`."""
    if type(value) not in (str, tuple) or len(value) < LONG:
        return _json(value)
    last = _last_texts.get((kind, name))
    if last is None or last[0] is not value:
        last = _last_texts[kind, name] = (value, _json(value))
    return last[1]


@dataclass(frozen=True)
class Step:
    """One unit of a run's build."""

    kind: ClassVar[str]
    version: ClassVar[int] = 1

    @property
    def key(self) -> str:
        """Key of the step's result: 'steps/<kind>/<hash>', the hash of the JSON text `[kind, version, {fields}]`."""
        kept = self.__dict__  # functools.cached_property takes a lock until Python 3.12: as long as the hash itself
        if "_key" not in kept:
            kept["_key"] = self._hashed()
        return str(kept["_key"])

    @property
    def n_events(self) -> int:
        """Events that the step reads: 0 where it reads no entry range of a file."""
        return 0

    def _hashed(self) -> str:
        """Ten thousand steps of a phase have an equal first field, perhaps thousands of branches: it is hashed once."""
        first, others, text = _shape(self.kind)
        values = self.__dict__
        digest = _begun(self.kind, self.version, first, values[first]).copy()
        digest.update((text % tuple([_text(self.kind, name, values[name]) for name in others])).encode())
        return f"steps/{self.kind}/{digest.hexdigest()}"

    def to_json(self) -> dict[str, Any]:
        """Return the step as JSON values, hints included, so that another process can do it."""
        return {"kind": self.kind, **{item.name: getattr(self, item.name) for item in fields(self)}}


class RangeStep(Step):
    """A step that reads one entry range of a file. layout: key of the blob that says how a table is read, '' for a ROOT
    file."""

    file: str
    entries: tuple[int, int]

    @property
    def n_events(self) -> int:
        """Events of the entry range."""
        start, stop = self.entries
        return stop - start


IDENTIFIERS = ("run", "event", "luminosityBlock")
"""Default identifiers of an event, as in MLaaS4HEP."""


@dataclass(frozen=True, kw_only=True)
class Open(Step):
    """Header of one file, read once per attempt of a run: identity, branches, entry ranges.

    tree: '' for `usual_tree` if the file has it, else for its only tree. usual_tree: whose events have the identity of
    the file (identities.py), '' for `tree`. removed: names and patterns of branches that are no features.
    preprocessing: text of a `Preprocessing`. expressions: that steps evaluate beside it, each with one value for an
    event. sum_of_weights: '<tree>/<branch>' that is added up, '' for none. optional: expressions that are evaluated if
    the file has their branches. titles: whether the titles of branches are kept. dtype: format of the file, '' for that
    of its name. record_function: source of `preprocessing(record)`, '' for none. skips: whether a file that cannot be
    read has a result, too: the reason.
    """

    kind = "open"
    version = 3
    url: str
    tree: str
    selected: tuple[str, ...]
    excluded: tuple[str, ...]
    identifiers: tuple[str, ...]
    range_events: int
    attempt: str
    removed: tuple[str, ...] = ()
    preprocessing: str = ""
    expressions: tuple[str, ...] = ()
    sum_of_weights: str = ""
    optional: tuple[str, ...] = ()
    titles: bool = False
    usual_tree: str = ""
    skips: bool = False
    dtype: str = ""
    record_function: str = ""


@dataclass(frozen=True, kw_only=True)
class Survey(RangeStep):
    """Range, multiplicity and type of each branch over the selected events of one entry range, and their weights.

    branches: the features. inputs: branches of the file that are read for them, () if they are the same.
    preprocessing: text of a `Preprocessing`. weighting: text of a `Weighting`; '' if no weights are surveyed. moments,
    histograms: branches whose scaling needs them. targets: expressions whose ranges and moments are wanted, too.
    """

    kind = "survey"
    version = 5
    file: str
    tree: str
    branches: tuple[str, ...]
    entries: tuple[int, int]
    inputs: tuple[str, ...] = ()
    preprocessing: str = ""
    weighting: str = ""
    moments: tuple[str, ...] = ()
    histograms: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    url: str = field(metadata=HINT)
    layout: str = ""


@dataclass(frozen=True, kw_only=True)
class Spec(Step):
    """Columns, ranges and widths from the sum of all surveys.

    inputs: branches of a file that they are made of, () if they are the same. preprocessing: text of a `Preprocessing`.
    spectators: branches and expressions that are kept beside the scores. rules: text of the `FeatureRules`. targets:
    expressions that a regression learns. ranges: text of the `OldSpecs`. record_function: source of
    `preprocessing(record)`, '' for none.
    """

    kind = "spec"
    version = 2
    survey: str
    branches: tuple[str, ...]
    identifiers: tuple[str, ...]
    order: str
    surplus: str
    inputs: tuple[str, ...] = ()
    preprocessing: str = ""
    spectators: tuple[str, ...] = ()
    rules: str = ""
    targets: tuple[str, ...] = ()
    ranges: str = ""
    record_function: str = ""


@dataclass(frozen=True, kw_only=True)
class Weigh(Step):
    """Factors of event weights, and the classes, from the sum of all surveys.

    files: identity, number of the class (-1: each event has its own) and sample of each. samples: name, luminosity ×
    cross section (None: not normalised) and sums of weights that add up, as JSON texts (none: the sum over the events
    that are read). weighting: text of the `Weighting` of any file.
    """

    kind = "weigh"
    survey: str
    files: tuple[tuple[str, int, str], ...]
    samples: tuple[tuple[str, float | None, tuple[str, ...]], ...]
    weighting: str


@dataclass(frozen=True, kw_only=True)
class Prepare(RangeStep):
    """Matrix of the selected events of one entry range, with train, validation and test rows apart.

    spec: key of the blob with the columns. inputs: branches of the file that are read for weights, labels and
    spectators beside those of the spec. weighting: text of a `Weighting`. weigh: key of the result with the factors of
    weights; both '' without weights. label: of all events, as the number of its class; -1 if each has its own. targets:
    of a regression; its events are of one class. split, folds: texts of a `SplitRule` and of `Folds`.
    """

    kind = "prepare"
    version = 3
    file: str
    tree: str
    entries: tuple[int, int]
    spec: str
    label: int
    split_seed: int
    inputs: tuple[str, ...] = ()
    spectators: tuple[str, ...] = ()
    weighting: str = ""
    weigh: str = ""
    targets: tuple[Row, ...] = ()
    split: str = ""
    folds: str = ""
    url: str = field(metadata=HINT)
    layout: str = ""


@dataclass(frozen=True, kw_only=True)
class Learning(Step):
    """Fields of every step of the learner: the network and how it computes.

    xla: None: if the network draws no random numbers. weighted: whether the prepared events have weights. class_weight:
    factor of the event weights of each label, in the order of `labels`; none if all are 1. targets: of a regression,
    which has no labels. fold: whose events are the test events; None in a run without folds. spec: key of the blob with
    the columns.
    """

    data: str
    code: str
    module: str
    n_features: int
    labels: tuple[int, ...]
    batch_size: int
    seed: int
    threads: int
    xla: bool | None
    weighted: bool = False
    class_weight: tuple[float, ...] = ()
    targets: tuple[Row, ...] = ()
    fold: int | None = None
    spec: str = ""


@dataclass(frozen=True, kw_only=True)
class Train(Learning):
    """One segment: from the checkpoint `before` (None: fresh weights) to the next.

    learning_rate: of this epoch. rate_factor: gives it as a factor of the rate that the model was compiled with. Both
    None: the model keeps its own. chunks: number of equal parts of the training events that are trained one after the
    other, each for `passes` passes; an epoch is then a round of that many passes (training/segments.py). 0: each epoch
    sees all events.
    """

    kind = "train"
    version = 2
    before: str | None
    epoch: int
    segment: int
    segment_rows: int
    shuffle: bool
    learning_rate: float | None = None
    rate_factor: float | None = None
    chunks: int = 0
    passes: int = 0


@dataclass(frozen=True, kw_only=True)
class Export(Learning):
    """The served model: a LiteRT graph of one checkpoint; of several, a graph of the mean of their outputs and one with
    the outputs of each, one after the other. The graphs are checked against the networks."""

    kind = "export"
    version = 3
    checkpoints: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Score(Step):
    """Counts of the scores of one prepared part's held-back rows; they add up over parts. weigh: key of the factors of
    event weights, '' without weights. targets: of a regression, whose residuals are counted. fold: of the network."""

    kind = "score"
    version = 2
    export: str
    part: str
    n_classes: int
    threshold: float
    weigh: str = ""
    targets: tuple[Row, ...] = ()
    fold: int | None = None


@dataclass(frozen=True, kw_only=True)
class Examine(Step):
    """Histograms of branches, efficiencies, sculpting, correlations and importances, from a sample of the test events.
    data: sum of all prepared parts. spec: key of the blob with the columns. score: sum of all scores. classes: their
    names. targets: of a regression, whose residuals are compared with the branches instead. fold: of the network."""

    kind = "examine"
    data: str
    spec: str
    export: str
    score: str
    classes: tuple[str, ...]
    targets: tuple[Row, ...] = ()
    fold: int | None = None


@dataclass(frozen=True, kw_only=True)
class Evaluate(Step):
    """Metrics, curves and plots from the scores, and the cut flow from the prepared events `data`.

    examine: key of its result. trainings: of each fold, or the only one: the sum of its scores, the last train step of
    each epoch, and the index of the best epoch. classes: their names in the plots. cuts: names. samples: identity of
    each file and name of its sample. targets: of a regression. labels: text of the `PlotLabels`.
    """

    kind = "evaluate"
    version = 3
    examine: str
    trainings: tuple[tuple[str, tuple[str, ...], int], ...]
    classes: tuple[str, ...]
    data: str
    cuts: tuple[str, ...] = ()
    samples: tuple[tuple[str, str], ...] = ()
    targets: tuple[Row, ...] = ()
    labels: str = ""


@dataclass(frozen=True, kw_only=True)
class Compare(Step):
    """Whether a model is as good as the last version, from the sums of both models' scores of the same events."""

    kind = "compare"
    metric: str
    fall: float
    model: str
    score: str
    last: str


@dataclass(frozen=True, kw_only=True)
class Publish(Step):
    """A model version under a name. recipe: JSON text for the card, without the files. checkpoint: of the first fold.
    compare: the step of the gate that it has passed, None if there was no gate."""

    kind = "publish"
    name: str
    recipe: str
    data: str
    spec: str
    checkpoint: str
    export: str
    evaluate: str
    compare: str | None


@dataclass(frozen=True, kw_only=True)
class Convert(Step):
    """A model made elsewhere as a LiteRT graph, checked against the model.

    code: key of the blob that lists its files. format: 'keras', 'saved_model' or 'frozen_graph'; file: the file that is
    read, '.' for their folder. input, output: names of its nodes, '' for those that it has.
    """

    kind = "convert"
    code: str
    format: str
    file: str
    input: str
    output: str


@dataclass(frozen=True, kw_only=True)
class Register(Step):
    """A converted model as a version under a name, one for each upload. params: JSON text of its params.json; labels:
    names of its scores."""

    kind = "register"
    name: str
    upload: str
    convert: str
    format: str
    params: str
    labels: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Predict(RangeStep):
    """Scores of one entry range. branches: the inputs of the model; identifiers, spectators: those that the file has;
    extra: branches that the spectators are made of; spec, graph: hashes of the spec and the graph of the version
    `model`. fold_by: expression of the fold of an event, '' if there is none or the file lacks its branches."""

    kind = "predict"
    file: str
    tree: str
    entries: tuple[int, int]
    branches: tuple[str, ...]
    identifiers: tuple[str, ...]
    spec: str
    graph: str
    spectators: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()
    fold_by: str = ""
    model: str = field(metadata=HINT)
    url: str = field(metadata=HINT)
    layout: str = ""


@dataclass(frozen=True)
class Sum(Step):
    """The sum of up to 16 results of one kind of step, or of such sums."""

    kind = "sum"
    of: str
    members: tuple[str, ...]


KINDS: Mapping[str, type[Step]] = {
    kind.kind: kind
    for kind in (
        Open,
        Survey,
        Spec,
        Weigh,
        Prepare,
        Train,
        Export,
        Score,
        Examine,
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
    """Return the step that `to_json` gave, also after a round trip through JSON text."""
    kind = KINDS[values["kind"]]
    return kind(**{name: _tuples(value) for name, value in values.items() if name != "kind"})


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
