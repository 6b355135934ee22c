"""The recipe of a training run. Everything that a result depends on is in it or follows from the files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import PurePosixPath
from typing import Any, ClassVar, Literal

from hepfaas.runs.feature_rules import FeatureRules
from hepfaas.runs.folds import Folds
from hepfaas.runs.old_specs import NO_SPECS, OldSpecs
from hepfaas.runs.plot_labels import USUAL_LABELS, PlotLabels
from hepfaas.runs.preprocessing import NOTHING, Preprocessing
from hepfaas.runs.schedule import Schedule
from hepfaas.runs.splits import USUAL_SPLIT, SplitRule
from hepfaas.runs.weighting import Balance, NegativeWeights, Weighting, balance_from_json

MOST_SHOWN = 4
"""Samples that the name of their class lists."""


@dataclass(frozen=True)
class LabelledFile:
    """One input file, the label of all its events, the name of its sample ('' if the job names no samples), and its
    tree, '' for that of the recipe."""

    url: str
    label: int
    sample: str = ""
    tree: str = ""

    @property
    def address(self) -> str:
        """The file, and its tree if that is not the recipe's, as in 'data.root:Signal'."""
        return f"{self.url}:{self.tree}" if self.tree else self.url

    @property
    def short_name(self) -> str:
        """The name of the tree if it has one of its own, else the name of the file without its end."""
        return PurePosixPath(self.tree).name or PurePosixPath(self.url).stem


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A named sample of events. The weight of an event is luminosity × cross_section × weight / sum of weights.

    weight: expression, '' for 1. cross_section: in pb, None if the sample is not normalised. sum_of_weights: of all
    generated events: a number, or the text '<tree>/<branch>' of a branch that is added up over the files; None: the sum
    of `weight` over all events that are read, before any cut. class_name: the name that the job gave to its label, ''
    if it gave a number.
    """

    name: str
    weight: str = ""
    cross_section: float | None = None
    sum_of_weights: float | str | None = None
    class_name: str = ""


@dataclass(frozen=True)
class Earlier:
    """A published version, '<name>/<version>', and the keys of the steps that made its spec, weights and graph."""

    model: str
    spec: str
    checkpoint: str
    export: str


@dataclass(frozen=True)
class Gate:
    """Publish only a model as good as the last version: its `metric` on the test events of the sample's files, split
    as in training, may be at most `fall` below that of `last`."""

    metric: Literal["auc", "accuracy"]
    fall: float
    sample: tuple[LabelledFile, ...]
    last: Earlier


@dataclass(frozen=True)
class Recipe:
    """A training run, complete: which events, which features, which model, how it is trained.

    n_events: events used of all files together, in proportion to their sizes; -1: all.
    tree: of files without a tree of their own. range_events: most entries read by one step.
    features: how values become features.
    code: key of the blob that lists the user's code files; module: the one that defines `model`.
    segment_rows: most rows trained by one step, None: by the number of features. xla: compile the training loop
    with XLA, None: if an epoch is long enough to pay for it. threads: of the learner, since sums depend on them.
    threshold: score above which a binary classifier predicts 1. continues: the version whose spec is kept and whose
    weights are trained further, None: fresh weights. gate: condition for the model to be published.
    samples: that the files name. luminosity: in 1/pb, None: samples are not normalised to one. label: expression that
    gives the label of each event; '': the label of its file, which is 0 otherwise.
    preprocessing: new branches, cuts and what comes before them. weight: expression of the weight of each event, beside
    that of its sample; '': 1. spectators: branches that are kept with rows and scores and are no features. balance: of
    the training weights. negative_weights: what becomes of negative weights in training. split: of the events into
    samples.
    patience: epochs without a validation loss more than `min_delta` below the best one, after which the training stops;
    None: it goes on to the last epoch. learning_rate: instead of the one that the model was compiled with.
    class_weight: factor of the event weights by label, 'balanced': equal for all classes together; (): none.
    targets: expressions of the numbers that a regression learns; (): the run is a classifier. folds: of a k-fold
    training, which makes one network for each; None: `split` gives the test events of one network. plots: their texts.
    chunk_events: events of the chunks that are trained one after the other, each for all epochs; None: every epoch sees
    all events. specs: ranges and widths of the branches, instead of those of the events.
    dtype: format of the files, '' for that of their names. record_function: source of `preprocessing(record)`, '' for
    none.
    unreadable_files: what becomes of a run with a file that cannot be read: it fails, or goes on without the file.
    """

    kind: ClassVar[str] = "training"
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
    features: FeatureRules = field(default_factory=FeatureRules)
    split_seed: int = 21
    epochs: int = 10
    batch_size: int = 50
    shuffle: bool = True
    seed: int = 21
    threads: int = 2
    xla: bool | None = None
    segment_rows: int | None = None
    threshold: float = 0.5
    continues: Earlier | None = None
    gate: Gate | None = None
    samples: tuple[Sample, ...] = ()
    luminosity: float | None = None
    label: str = ""
    preprocessing: Preprocessing = NOTHING
    weight: str = ""
    spectators: tuple[str, ...] = ()
    balance: Balance | None = None
    negative_weights: NegativeWeights = "keep"
    split: SplitRule = USUAL_SPLIT
    patience: int | None = None
    min_delta: float = 0.0
    learning_rate: float | None = None
    learning_rate_schedule: Schedule | None = None
    class_weight: Literal["balanced"] | tuple[tuple[int, float], ...] = ()
    targets: tuple[str, ...] = ()
    folds: Folds | None = None
    plots: PlotLabels = USUAL_LABELS
    chunk_events: int | None = None
    specs: OldSpecs = NO_SPECS
    unreadable_files: Literal["fail", "skip"] = "fail"
    dtype: str = ""
    record_function: str = ""

    @property
    def fold_numbers(self) -> tuple[int | None, ...]:
        """The number of each fold; (None,) without folds."""
        return tuple(range(self.folds.number)) if self.folds else (None,)

    def tree_of(self, file: LabelledFile) -> str:
        """Return the tree that is read of a file."""
        return file.tree or self.tree

    @property
    def urls(self) -> tuple[str, ...]:
        """The files that the run reads."""
        return tuple(file.url for file in self.files)

    @property
    def labels(self) -> tuple[int, ...]:
        """The distinct labels, sorted."""
        return tuple(sorted({file.label for file in self.files}))

    @property
    def classes(self) -> tuple[str, ...]:
        """Readable name of each label: those of its samples or classes; without samples the name of its file if it has
        only one, else 'label <n>'."""
        if self.samples:
            return tuple(_joined(self._names_of(label)) for label in self.labels)
        files = {label: [file for file in self.files if file.label == label] for label in self.labels}
        return tuple(
            of_label[0].short_name if len(of_label) == 1 else f"label {label}" for label, of_label in files.items()
        )

    def _names_of(self, label: int) -> tuple[str, ...]:
        """Return the names of the classes of a label, or else of its samples."""
        used = {file.sample for file in self.files if file.label == label}
        return tuple(dict.fromkeys(one.class_name or one.name for one in self.samples if one.name in used))

    @property
    def is_weighted(self) -> bool:
        """Return whether events have weights or labels of their own, or classes are balanced."""
        has_weights = any(sample.weight or sample.cross_section is not None for sample in self.samples)
        return bool(self.weight or self.label or self.balance or has_weights)

    def weighting(self, sample: str) -> Weighting:
        """Return how the events of a sample are weighted and labelled."""
        own = next((one.weight for one in self.samples if one.name == sample), "")
        weight = f"({self.weight}) * ({own})" if self.weight and own else self.weight or own
        return Weighting(weight=weight, label=self.label, balance=self.balance, negative=self.negative_weights)

    def to_json(self) -> dict[str, Any]:
        """Return the recipe as JSON values."""
        return {"kind": self.kind, **asdict(self)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Recipe:
        """Return the recipe that `to_json` gave, also after a round trip through JSON text."""
        values = {name: value for name, value in values.items() if name != "kind"}
        names = ("selected", "excluded", "identifiers", "spectators", "targets")
        lists = {name: tuple(values.get(name, ())) for name in names}
        continues, gate = values.get("continues"), values.get("gate")
        folds = values.get("folds")
        schedule, class_weight = values.get("learning_rate_schedule"), values.get("class_weight", ())
        rest = {
            "files": _files(values["files"]),
            "features": FeatureRules.from_json(values.get("features", {})),
            "continues": Earlier(**continues) if continues else None,
            "gate": Gate(**{**gate, "sample": _files(gate["sample"]), "last": Earlier(**gate["last"])})
            if gate
            else None,
            "samples": tuple(Sample(**sample) for sample in values.get("samples", ())),
            "preprocessing": Preprocessing.from_json(values.get("preprocessing", {})),
            "balance": balance_from_json(values.get("balance")),
            "split": SplitRule.from_json(values.get("split")),
            "learning_rate_schedule": Schedule(**schedule) if schedule else None,
            "folds": Folds(**folds) if folds else None,
            "plots": PlotLabels.from_json(values.get("plots")),
            "specs": OldSpecs.from_json(values.get("specs", {})),
            "class_weight": class_weight if isinstance(class_weight, str) else tuple(map(tuple, class_weight)),
        }
        return cls(**{**values, **lists, **rest})


def with_usual_tree(files: Sequence[LabelledFile], tree: str) -> tuple[tuple[LabelledFile, ...], str]:
    """Return the files, and the tree of those without a tree of their own: `tree`, or the one that all files name. A
    file that names this tree is the same as one that names none."""
    named = {file.tree for file in files}
    usual = tree if len(named) != 1 or "" in named else named.pop()
    return tuple(replace(file, tree="" if file.tree == usual else file.tree) for file in files), usual


def _joined(names: Sequence[str]) -> str:
    """Return names as the name of their class, which is shown in tables and plots."""
    more = [f"{len(names) - MOST_SHOWN} more"] if len(names) > MOST_SHOWN else []
    return " + ".join([*names[:MOST_SHOWN], *more])


def _files(values: Sequence[Mapping[str, Any]]) -> tuple[LabelledFile, ...]:
    return tuple(LabelledFile(**file) for file in values)
