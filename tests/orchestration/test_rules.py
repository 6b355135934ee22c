"""Rules: what they refuse, which files are theirs, and that the newest counts."""

from pathlib import Path
from typing import Any, cast

import pytest
from hepfaas.errors import RequestError
from hepfaas.orchestration import rules
from hepfaas.platform.storage import Store
from hepfaas.platform.stores import open_store
from hypothesis import given
from hypothesis import strategies as st

VALUES: dict[str, Any] = {"prefix": "s3://in/", "labels": {"signal": 1, "background": 0}, "job": {}}

SAMPLE = ["s3://fixed/signal.root", "s3://fixed/background.root"]
GATE = {"files": SAMPLE, "fall": 0.01}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"prefix": "in/"}, "needs 'prefix'"),
        ({"labels": {"x": 1}}, "two labels or more"),
        ({"labels": {"x": 1, "y": True}}, "needs 'labels'"),
        ({"labels": {"x": 1, "y": -10_000}}, "a label up to 9999"),
        ({"labels": {"x": 1, "y": 10**12}}, "a label up to 9999"),
        ({"job": {"files": []}}, "needs 'job'"),
        ({"files": "some"}, "'new', 'all' or 'continue'"),
        ({"debounce_s": -1}, "needs 'debounce_s'"),
        ({"debounce": 1}, "closest: debounce_s"),
        ({"gate": {}}, "needs 'gate'"),
        ({"gate": 1}, "needs 'gate'"),
        ({"gate": {**GATE, "fall": -0.1}}, "needs 'gate'"),
        ({"gate": {**GATE, "files": []}}, "needs 'gate'"),
        ({"gate": {**GATE, "metric": "loss"}}, "needs 'gate'"),
        ({"gate": {**GATE, "most": 1}}, "needs 'gate'"),
        (
            {"gate": GATE, "job": {"params": {"target": "pt"}}},
            "'gate' compares classifiers, and the job has a 'target'",
        ),
        ({"gate": GATE, "job": {"params": {"folds": 3}}}, "'gate' needs events that no network has learned"),
        ({"files": "continue", "job": {"params": {"folds": 3}}}, "'files' needs events that no network has learned"),
        ({"gate": {**GATE, "files": ["s3://in/signal.root"]}}, "needs files of every label"),
        ({"gate": {**GATE, "files": [*SAMPLE, "s3://in/other.root"]}}, "each of its files must have one"),
    ],
)
def test_a_wrong_rule_is_refused_naming_the_key(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(RequestError, match=said):
        rules.rule_of("fresh", {**VALUES, **changed})


def test_the_first_part_that_fits_gives_the_label_and_other_files_have_none() -> None:
    rule = rules.rule_of("fresh", VALUES)
    told = ["s3://in/signal_background.root", "s3://in/background.root", "s3://in/x.root", "s3://out/signal.root"]
    assert [rule.label_of(url) for url in told] == [1, 0, None, None]


def test_a_rule_comes_back_as_it_was_put(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    rule = rules.rule_of("fresh", {**VALUES, "files": "continue", "gate": {**GATE, "metric": "accuracy"}})
    rules.put(store, rule)
    assert rules.get(store, "fresh") == rule
    assert rule.sample == {SAMPLE[0]: 1, SAMPLE[1]: 0}


def test_the_newest_counts_and_a_deleted_one_is_none_until_it_is_put_again(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    for number in range(1, 12):
        rules.put(store, rules.rule_of("fresh", {**VALUES, "debounce_s": number}))
    found = rules.newest(store, "fresh")
    assert found
    assert (found[0], found[1].debounce_s) == (11, 11)
    rules.delete(store, "fresh")
    assert rules.get(store, "fresh") is None
    assert rules.all_rules(store) == []
    rules.put(store, found[1])
    assert rules.all_rules(store) == [found[1]]


@given(st.sets(st.text("a-0.Z=@_", min_size=1, max_size=4).filter(lambda name: name.strip(".")), max_size=6))
def test_all_rules_are_found_whatever_their_names(names: set[str]) -> None:
    store = cast(Store, Sorted())
    for name in names:
        rule = rules.rule_of(name, VALUES)
        rules.put(store, rule)
        rules.arrived(store, name, rules.File("s3://in/signal.root", 1.0, ""), "")
    assert [rule.name for rule in rules.all_rules(store)] == sorted(names, key=lambda name: f"{name}/")


class Sorted(dict[str, bytes]):
    """A store in memory, for many examples."""

    url = "memory"

    def create(self, key: str, data: Any) -> bool:
        return self.setdefault(key, data) is data

    def get(self, key: str) -> bytes:  # type: ignore[override]
        return self[key]

    def keys(self, prefix: str, after: str = "") -> Any:  # type: ignore[override]
        return iter(sorted(key for key in self if key.startswith(prefix) and key > after))
