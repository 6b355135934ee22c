"""Rules for scaling, missing values and padding, by branch name pattern. Pure.

features/scaling.py applies the rules, docs/reference/params.md describes them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from hepfaas.expressions.patterns import values_by_name

Scaling = Literal["minmax", "standard", "robust", "log", "none"]
SCALINGS: tuple[Scaling, ...] = get_args(Scaling)


@dataclass(frozen=True)
class ScalingRule:
    """The scaling of the branches that a pattern names. clip: lowest and highest feature, None for no limits."""

    pattern: str
    kind: Scaling = "minmax"
    clip: tuple[float, float] | None = None


@dataclass(frozen=True)
class NanRule:
    """The feature of values that are NaN or infinite. indicator: further columns, 1 for each such value."""

    pattern: str
    value: float = 0.0
    indicator: bool = False


@dataclass(frozen=True)
class PadRule:
    """The feature of slots without a value."""

    pattern: str
    value: float = 0.0


@dataclass(frozen=True)
class BranchRules:
    """The rules of one branch. mask: the pattern that wants a mask, '' if none does."""

    scaling: ScalingRule = ScalingRule("*")
    nan: NanRule = NanRule("*")
    pad: PadRule = PadRule("*")
    mask: str = ""


@dataclass(frozen=True)
class FeatureRules:
    """The rules of all branches; for each branch the exact name counts, else the first pattern that matches.

    mask: patterns of jagged branches with further columns, 1 for each slot with a value.
    """

    scaling: tuple[ScalingRule, ...] = ()
    nan: tuple[NanRule, ...] = ()
    pad: tuple[PadRule, ...] = ()
    mask: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        """Return whether any rule differs from the default."""
        return self != FeatureRules()

    def of(self, names: Sequence[str]) -> dict[str, BranchRules]:
        """Return the rules of each branch. Raises: RequestError if a rule has no effect on any of them."""
        scaling = values_by_name([(rule.pattern, rule) for rule in self.scaling], names, "'scaling'")
        nan = values_by_name([(rule.pattern, rule) for rule in self.nan], names, "'nan'")
        pad = values_by_name([(rule.pattern, rule) for rule in self.pad], names, "'pad'")
        mask = values_by_name([(pattern, pattern) for pattern in self.mask], names, "'mask'")
        usual = BranchRules()
        return {
            name: BranchRules(
                scaling.get(name, usual.scaling), nan.get(name, usual.nan), pad.get(name, usual.pad), mask.get(name, "")
            )
            for name in names
        }

    def scaled_by(self, kind: Scaling, names: Sequence[str]) -> tuple[str, ...]:
        """Return the branches with a kind of scaling. Raises: as `of`."""
        return tuple(name for name, rules in self.of(names).items() if rules.scaling.kind == kind)

    @property
    def text(self) -> str:
        """JSON text, equal for equal values; '' if there is no rule."""
        return json.dumps(asdict(self), sort_keys=True) if self else ""

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> FeatureRules:
        """Return the rules from their fields as JSON values."""
        return cls(
            scaling=tuple(
                ScalingRule(item["pattern"], item["kind"], tuple(item["clip"]) if item["clip"] else None)
                for item in values.get("scaling", ())
            ),
            nan=tuple(NanRule(**item) for item in values.get("nan", ())),
            pad=tuple(PadRule(**item) for item in values.get("pad", ())),
            mask=tuple(values.get("mask", ())),
        )

    @classmethod
    def from_text(cls, text: str) -> FeatureRules:
        """Return the rules of `text`."""
        return cls.from_json(json.loads(text)) if text else cls()
