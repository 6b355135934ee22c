"""Results of steps as values, where plans, later steps and views read more than one of their fields. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from hepfaas.exact import ExactSum
from hepfaas.runs.folds import seen_by, sizes_of
from hepfaas.runs.opened import files_of
from hepfaas.runs.splits import Split


@dataclass(frozen=True)
class Header:
    """Header of one file, the result of an open step.

    identity: of its events (identities.py). tree: that is read, '' in results of releases before 0.2. ranges: entry
    ranges that it is read in. features: name of each branch, and whether it is jagged. left_out: name of each other
    branch, and why it is no feature. read_bytes: uncompressed size of what is read. inputs: branches of the file that
    the features are made of, () if they are the same. extra: those that weights, labels and spectators are made of.
    spectators: optional ones that the file has. sum_of_weights: JSON text of the exact sum over the file, '' for none.
    titles: of branches, if they are kept. layout: key of the blob with the layout of a table, '' for none. skipped: why
    the file cannot be read, '' if it can; such a file has nothing else.
    """

    identity: str
    fingerprint: str
    entries: int
    ranges: tuple[tuple[int, int], ...]
    features: tuple[tuple[str, bool], ...]
    identifiers: tuple[str, ...]
    left_out: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()
    read_bytes: int = 0
    baskets_read_twice: int = 0
    inputs: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()
    spectators: tuple[str, ...] = ()
    sum_of_weights: str = ""
    titles: tuple[tuple[str, str], ...] = ()
    tree: str = ""
    skipped: str = ""
    layout: str = ""

    @property
    def branches(self) -> tuple[str, ...]:
        """Names of the feature branches."""
        return tuple(name for name, _ in self.features)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Header:
        """Return the header in the result of an open step."""
        pairs = {name: tuple(map(tuple, values[name])) for name in ("ranges", "features", "left_out")}
        return cls(
            identity=values["identity"],
            fingerprint=values["fingerprint"],
            entries=values["entries"],
            identifiers=tuple(values["identifiers"]),
            notes=tuple(values.get("notes", ())),
            read_bytes=values.get("read_bytes", 0),
            baskets_read_twice=values.get("baskets_read_twice", 0),
            inputs=tuple(values.get("inputs", ())),
            extra=tuple(values.get("extra", ())),
            spectators=tuple(values.get("spectators", ())),
            layout=values.get("layout", ""),
            sum_of_weights=values.get("sum_of_weights", ""),
            titles=tuple(map(tuple, values.get("titles", ()))),
            tree=values.get("tree", ""),
            skipped=values.get("skipped", ""),
            **pairs,
        )


@dataclass(frozen=True)
class PreparedPart:
    """One prepared entry range.

    file: identity. label: class of all events, -1 if each has its own. rows: of each split. id_sum: of the training
    rows' event ids. order: the split of each record batch, one digit each. rejected: events by the cut that rejects
    them. flow: exact sums of their weights and of the squares, and then those of the rows; in a sum of results
    the first part of a file has the sums of all its parts, and the others have none. groups: see `PartFacts`. sizes:
    rows of each record batch, of a part as a fold sees it.
    """

    key: str
    size_bytes: int
    file: str
    entries: tuple[int, int]
    label: int
    rows: tuple[int, int, int]
    id_sum: int
    order: str
    rejected: tuple[int, ...] = ()
    flow: tuple[tuple[Any, Any], ...] = ()
    groups: tuple[tuple[int, int], ...] = ()
    sizes: tuple[int, ...] = ()

    def of_fold(self, fold: int | None) -> PreparedPart:
        """Return the part as the network of a fold sees it; None: in a run without folds."""
        if fold is None:
            return self
        sizes = sizes_of(self.order, [rows for rows, _ in self.groups])
        return replace(self, **seen_by(fold, self.groups, self.order), sizes=sizes)

    def batches(self, split: Split) -> list[tuple[int, int]]:
        """Return the number and the rows of each record batch of a split."""
        sizes = self.sizes or sizes_of(self.order, self.rows)
        return [(number, sizes[number]) for number, digit in enumerate(self.order) if digit == str(int(split))]

    def sums(self, number: int) -> tuple[ExactSum, ExactSum]:
        """Return the sums of weights and of squared weights of the events that a cut rejects, or of the rows."""
        weights, squares = self.flow[number]
        return ExactSum.from_json(weights), ExactSum.from_json(squares)


@dataclass(frozen=True)
class ScoredPart:
    """One scored entry range. file: identity; rows: events; n_surplus: events with surplus values."""

    key: str
    file: str
    entries: tuple[int, int]
    rows: int
    n_surplus: int


@dataclass(frozen=True)
class Exported:
    """The served model, the result of an export step.

    graph, keras: keys of blobs. logits: whether its outputs precede the sigmoid or softmax, as in models of 0.1.0.
    weights: hash of the weights. check: difference between graph and network. versions: of the frameworks. each: key of
    the graph with the outputs of each network, '' if there is only one. score: how the outputs of the network become
    those of the graph, '' if they are the same.
    """

    graph: str
    keras: str
    outputs: int
    n_classes: int
    logits: bool
    labels: Sequence[int]
    parameters: int
    weights: str
    check: Mapping[str, Any]
    versions: Mapping[str, str]
    processor: str
    each: str = ""
    score: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the result as JSON values."""
        return vars(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Exported:
        """Return the result that `to_json` gave."""
        return cls(**_known(cls, values))


def headers_of(values: Mapping[str, Any]) -> list[Header]:
    """Return the header of each file, from a sum of open steps or a single result."""
    return [Header.from_json(file) for file in files_of(values)]


def prepared_parts(values: Mapping[str, Any], fold: int | None = None) -> list[PreparedPart]:
    """Return the parts in a sum of prepare steps or a single result, as the network of a fold sees them."""
    tuples = ("entries", "rows", "rejected", "flow", "groups")
    return [
        PreparedPart(**{**_known(PreparedPart, part), **{name: tuple(part.get(name, ())) for name in tuples}}).of_fold(
            fold
        )
        for part in values["parts"]
    ]


def scored_parts(values: Mapping[str, Any]) -> list[ScoredPart]:
    """Return the parts in a sum of predict steps or a single result."""
    return [ScoredPart(**{**_known(ScoredPart, part), "entries": tuple(part["entries"])}) for part in values["parts"]]


def _known(kind: type[Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values that are fields of a dataclass: a later release may store more."""
    return {item.name: values[item.name] for item in fields(kind) if item.name in values}
