"""Keys of params.json for the scaling of features, missing values, padding and masks. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hepfaas.expressions.patterns import check_patterns
from hepfaas.runs.feature_rules import SCALINGS, FeatureRules, NanRule, PadRule, ScalingRule
from hepfaas.runs.json_values import Key, branch_patterns, is_number, wrong

NO_VALUE = (0, "", "nan", "NaN")
MOST_FEATURE = 3.4e38
"""Features are float32."""


def rules_in(parsed: Mapping[str, Any], values: Mapping[str, Any]) -> FeatureRules:
    """Return the rules in the parsed values of all keys. A number as `nan` is the pad value of MLaaS4HEP, too.

    values: those of all keys, as they are in the file.
    """
    rules = {key: parsed[key] for key in KEYS if key in parsed}
    if fills(values.get("nan")):
        rules.setdefault("pad", (PadRule("*", float(values["nan"])),))
    return FeatureRules(**rules)


def fills(value: Any) -> bool:
    """Return whether a value of `nan` is a number that fills empty slots. NaN is 0 for the network, as in MLaaS4HEP."""
    return is_number(value) and value != 0


def _feature_value(value: Any, place: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= MOST_FEATURE:
        raise wrong(place, value, "a number of float32")
    return float(value)


def _by_pattern(value: Any, place: str) -> dict[str, Any]:
    """Return the value of each pattern; a value that is not an object is that of all branches."""
    values = value if isinstance(value, dict) else {"*": value}
    check_patterns(list(values), place)
    return values


def _scaling(value: Any, place: str) -> tuple[ScalingRule, ...]:
    return tuple(
        _scaling_rule(name, item, f"{place}, '{name[:100]}'") for name, item in _by_pattern(value, place).items()
    )


def _scaling_rule(name: str, value: Any, place: str) -> ScalingRule:
    values = {"kind": value} if isinstance(value, str) else value
    kinds = ", ".join(f'"{kind}"' for kind in SCALINGS)
    if (
        not isinstance(values, dict)
        or not set(values) <= {"kind", "clip"}
        or values.get("kind", "minmax") not in SCALINGS
    ):
        raise wrong(place, value, f'one of {kinds}, or {{"kind": …, "clip": …}}')
    clip = values.get("clip")
    return ScalingRule(name, values.get("kind", "minmax"), None if clip is None else _clip(clip, f"{place}: 'clip'"))


def _clip(value: Any, place: str) -> tuple[float, float]:
    low, high = value if isinstance(value, list) and len(value) == 2 else (None, value)
    highest = _feature_value(high, place)
    lowest = -highest if low is None else _feature_value(low, place)
    if lowest >= highest:
        raise wrong(place, value, "a number above 0, or [lowest, highest]")
    return lowest, highest


def _nan(value: Any, place: str) -> tuple[NanRule, ...]:
    """Return the rules in an object, "indicator", or a number; none for what is 0 in MLaaS4HEP: 0, null and NaN."""
    if value in NO_VALUE or value is None or value != value:
        return ()
    if isinstance(value, bool) or not isinstance(value, dict | int | float | str):
        raise wrong(place, value, 'a number, "indicator", or an object from names or patterns to these')
    return tuple(
        NanRule(name, indicator=True)
        if item == "indicator"
        else NanRule(name, _feature_value(item, f"{place}, '{name[:100]}' (without \"indicator\")"))
        for name, item in _by_pattern(value, place).items()
    )


def _pad(value: Any, place: str) -> tuple[PadRule, ...]:
    values = _by_pattern(value, place)
    return tuple(PadRule(name, _feature_value(item, f"{place}, '{name[:100]}'")) for name, item in values.items())


def _mask(value: Any, place: str) -> tuple[str, ...]:
    if isinstance(value, bool):
        return ("*",) if value else ()
    return branch_patterns(value, place)


KEYS: Mapping[str, Key] = {"scaling": Key(_scaling), "nan": Key(_nan), "pad": Key(_pad), "mask": Key(_mask)}
