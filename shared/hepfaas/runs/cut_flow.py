"""The cut flow: how many events of each sample are left after each cut, and their weights. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import reduce
from operator import or_
from typing import Any

from hepfaas.exact import ExactSum
from hepfaas.runs.results import PreparedPart

ALL = "all events"


@dataclass(frozen=True)
class SampleFlow:
    """The events of one sample that are left before the first cut and after each.

    weights: sums of event weights; uncertainties: square roots of the sums of squared weights. Both () without weights.
    """

    sample: str
    events: tuple[int, ...]
    weights: tuple[float, ...] = ()
    uncertainties: tuple[float, ...] = ()


@dataclass(frozen=True)
class CutFlow:
    """The flow of each sample. cuts: names of the cuts in their order, after `ALL`."""

    cuts: tuple[str, ...]
    samples: tuple[SampleFlow, ...]

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> CutFlow:
        """Return the cut flow in JSON values of `to_json`."""
        sums = ("events", "weights", "uncertainties")
        flows = ((flow["sample"], *(tuple(flow.get(name, ())) for name in sums)) for flow in values["samples"])
        return cls(tuple(values["cuts"]), tuple(SampleFlow(*flow) for flow in flows))

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "cuts": list(self.cuts),
            "samples": [{name: value for name, value in asdict(flow).items() if value} for flow in self.samples],
        }


def cut_flow(cuts: Sequence[str], parts: Sequence[PreparedPart], samples: Mapping[str, str]) -> CutFlow:
    """Return the cut flow of prepared parts. samples: name of the sample of each file, by the file's identity."""
    names = dict.fromkeys(samples.values())
    grouped = {name: [part for part in parts if samples[part.file] == name] for name in names}
    return CutFlow((ALL, *cuts), tuple(_flow(name, len(cuts), group) for name, group in grouped.items()))


def _flow(sample: str, n_cuts: int, parts: Sequence[PreparedPart]) -> SampleFlow:
    lost = [sum(part.rejected[number] for part in parts if part.rejected) for number in range(n_cuts)]
    selected = sum(sum(part.rows) for part in parts)
    events = tuple(selected + sum(lost[number:]) for number in range(n_cuts + 1))
    weighted = [part for part in parts if part.flow]
    if not weighted:
        return SampleFlow(sample, events)
    weights, squares = (
        [reduce(or_, (part.sums(number)[which] for part in weighted), ExactSum()) for number in range(n_cuts + 1)]
        for which in (0, 1)
    )
    return SampleFlow(
        sample,
        events,
        tuple(float(reduce(or_, weights[number:])) for number in range(n_cuts + 1)),
        tuple(math.sqrt(float(reduce(or_, squares[number:]))) for number in range(n_cuts + 1)),
    )
