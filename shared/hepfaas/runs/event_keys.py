"""Keys of params.json for weights, labels, targets, spectators and the split of events. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from hepfaas.errors import RequestError
from hepfaas.expressions.expression import parse
from hepfaas.runs.folds import MOST_FOLDS, Folds
from hepfaas.runs.json_values import Key, a_name, is_number, one_of, wrong
from hepfaas.runs.splits import USUAL_SPLIT, Split, SplitRule
from hepfaas.runs.weighting import Balance

MOST_EDGES, MOST_TARGETS, MOST_SPECTATORS = 1_000, 20, 100


def check_folds(recipe: Mapping[str, Any], place: str) -> None:
    """Raise RequestError if `split` has a condition for test events, which the folds choose."""
    if recipe.get("folds") and (split := recipe.get("split")) and split.training:
        raise RequestError(
            f"{place}: 'split' names the test events by a condition, and with 'folds' each event is a test event "
            "of one fold; leave one of them out, or give the expression to 'folds' as 'by'"
        )


def check_regression(recipe: Mapping[str, Any], place: str) -> None:
    """Raise RequestError naming a key that needs classes, which the events of a regression do not have."""
    if "label" in recipe:
        raise RequestError(f"{place} has 'label', of a classifier, and 'target', of a regression; keep one of them")
    if "class_weight" in recipe:
        raise RequestError(f"{place}: 'class_weight' needs classes, and a run with a 'target' has none; use 'weight'")
    if (balance := recipe.get("balance")) and not balance.expression:
        raise RequestError(
            f"{place}: 'balance': true needs classes, and a run with a 'target' has none; to flatten a spectrum give "
            "'balance' a branch and bins"
        )


def _expression(value: Any, place: str) -> str:
    text = a_name(value, place).strip()
    parse(text, place)
    return text


def _expressions(value: Any, place: str) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise wrong(place, value, "a list of branch names")
    if len(value) > MOST_SPECTATORS:
        raise RequestError(f"{place} has {len(value):,} entries; at most {MOST_SPECTATORS}")
    return tuple(dict.fromkeys(_expression(item, f"{place}: item {number}") for number, item in enumerate(value, 1)))


def _targets(value: Any, place: str) -> tuple[str, ...]:
    texts = value if isinstance(value, list) else [value]
    if not 1 <= len(texts) <= MOST_TARGETS or not all(isinstance(text, str) and text.strip() for text in texts):
        raise wrong(place, value, f"a branch or expression, or a list of 1 to {MOST_TARGETS} of them")
    targets = tuple(_expression(text, place) for text in texts)
    if len(set(targets)) < len(targets):
        raise wrong(place, value, "different branches or expressions")
    return targets


def _balance(value: Any, place: str) -> Balance | None:
    """Return the balance in true, false, or {"branch": expression, "bins": edges}."""
    if isinstance(value, bool):
        return Balance() if value else None
    if not isinstance(value, dict) or set(value) != {"branch", "bins"}:
        raise wrong(place, value, 'true, or {"branch": a branch or expression, "bins": edges}')
    edges = _edges(value["bins"], f"{place}: 'bins'")
    return Balance(_expression(value["branch"], f"{place}: 'branch'"), edges)


def _split(value: Any, place: str) -> SplitRule:
    """Return the split in fractions, or in an expression for the events that are no test events.

    A number is the share of test events, as in scikit-learn's train_test_split, with which MLaaS4HEP split; then one in
    five of the others is a validation event. MLaaS4HEP read the key and used 0.2; a number that is no share does so.
    """
    if is_number(value):
        return by_test_share(value) if 0 < value < 1 else USUAL_SPLIT
    if isinstance(value, str):
        return SplitRule(training=_expression(value, place))
    names = [split.label for split in Split]
    wanted = f"{{{', '.join(f'{json.dumps(name)}: share' for name in names)}}} with shares above 0 that add up to 1"
    if not isinstance(value, dict) or set(value) != set(names):
        raise wrong(place, value, f"{wanted}, or a condition that is true for all but test events")
    shares = [value[name] for name in names]
    if not all(is_number(share) and share > 0 for share in shares) or abs(sum(shares) - 1) > 1e-9:
        raise wrong(place, value, wanted)
    training, validation, test = map(float, shares)
    return SplitRule((training, validation, test))


def by_test_share(share: float) -> SplitRule:
    """Return the split with this share of test events."""
    validation = (1 - share) * 0.2
    rule = SplitRule((1 - share - validation, validation, share))
    return USUAL_SPLIT if share == USUAL_SPLIT.fractions[2] else rule


def _folds(value: Any, place: str) -> Folds:
    """Return the folds in their number, or in {"number": n, "by": expression}."""
    values = value if isinstance(value, dict) else {"number": value}
    number = values.get("number")
    if set(values) - {"number", "by"} or type(number) is not int or not 2 <= number <= MOST_FOLDS:
        wanted = f'a number from 2 to {MOST_FOLDS}, or {{"number": 5, "by": a branch or expression, as "event"}}'
        raise wrong(place, value, wanted)
    return Folds(number, _expression(values["by"], f"{place}: 'by'") if "by" in values else "")


def _edges(value: Any, place: str) -> tuple[float, ...]:
    numbers = value if isinstance(value, list) and all(map(is_number, value)) else []
    rising = all(one < other for one, other in pairwise(numbers))
    if not 2 <= len(numbers) <= MOST_EDGES or not rising:
        raise wrong(place, value, f"a list of 2 to {MOST_EDGES:,} rising numbers, the edges of the bins")
    return tuple(map(float, numbers))


KEYS: Mapping[str, Key] = {
    "weight": Key(_expression, "weight"),
    "label": Key(_expression, "label"),
    "target": Key(_targets, "targets"),
    "spectators": Key(_expressions, "spectators"),
    "balance": Key(_balance, "balance"),
    "negative_weights": Key(one_of("keep", "abs", "drop", "error"), "negative_weights"),
    "split": Key(_split, "split"),
    "folds": Key(_folds, "folds"),
}
