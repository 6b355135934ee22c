"""Every field of MLaaS4HEP's preproc.json, in every order, gives what a slow reading of the rules gives, row by row."""

import json
import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pytest
import uproot
from hepfaas.features.jagged import Values, values_and_counts
from hepfaas.features.preprocess import inputs_of, preprocessed
from hepfaas.runs.preproc import preprocessing_of
from hypothesis import given
from hypothesis import strategies as st

Row = Mapping[str, Any]
"""One event: a NumPy number for each flat branch, a list of them for each jagged one."""

COMPARES: dict[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
TURNED = {"==": "==", "!=": "!=", "<": ">", "<=": ">=", ">": "<", ">=": "<="}


@dataclass(frozen=True)
class Condition:
    """What one cut says of one value: all of these comparisons hold. text: as it is written in the file."""

    text: str
    comparisons: tuple[tuple[str, float], ...]

    def holds(self, value: Any) -> bool:
        return not math.isnan(value) and all(COMPARES[op](value, bound) for op, bound in self.comparisons)


@dataclass(frozen=True)
class Definition:
    """A new branch: its text and its value for one event."""

    name: str
    text: str
    jagged: bool
    value: Callable[[Row], Any]


@dataclass(frozen=True)
class Entry:
    """One entry of a section, as the reference understands it. cuts: 'all', 'any' or '', and the condition."""

    branch: str
    cuts: tuple[tuple[str, Condition], ...] = ()
    removed: tuple[str, ...] = ()
    definition: Definition | None = None


@dataclass(frozen=True)
class File:
    """A preproc.json, and the meaning of its entries."""

    values: dict[str, Any]
    entries: list[Entry] = field(default_factory=list)


def with_new_branches(file: File, row: Row) -> Row:
    """Return the event with its new branches, whatever their order in the file is."""
    row = dict(row)
    waiting = [entry.definition for entry in file.entries if entry.definition]
    while waiting:
        definition = waiting.pop(0)
        try:
            row[definition.name] = definition.value(row)
        except KeyError:  # a branch that a later entry defines
            waiting.append(definition)
    return row


def is_selected(file: File, row: Row) -> bool:
    """Return whether an event passes all cuts: a jagged one by all or any of its values, of which it may have none."""
    for entry in file.entries:
        for word, condition in entry.cuts:
            value = row[entry.branch]
            if word == "all":
                passed = all(condition.holds(item) for item in value)
            elif word == "any":
                passed = any(condition.holds(item) for item in value)
            else:
                passed = condition.holds(value)
            if not passed:
                return False
    return True


def log(value: Any) -> Any:
    with np.errstate(all="ignore"):
        return np.log(value)


DEFINITIONS = [
    Definition("nMuon_square", "nMuon**2", jagged=False, value=lambda row: row["nMuon"] ** 2),
    Definition("log_MET", "log(MET_pt)", jagged=False, value=lambda row: log(row["MET_pt"])),
    Definition(
        "fraction", " MET_pt / (nMuon + 1) ", jagged=False, value=lambda row: row["MET_pt"] / (row["nMuon"] + 1)
    ),
    Definition("log_Jet_pt", "log(Jet_pt)", jagged=True, value=lambda row: [log(pt) for pt in row["Jet_pt"]]),
    Definition(
        "Jet_sum", "Jet_pt + MET_pt", jagged=True, value=lambda row: [pt + row["MET_pt"] for pt in row["Jet_pt"]]
    ),
    Definition("Jet_twice", "2 * Jet_sum", jagged=True, value=lambda row: [2 * pt for pt in row["Jet_sum"]]),
]
TYPES = {"nMuon": (False, "int32"), "MET_pt": (False, "float32"), "Jet_pt": (True, "float32"), "Jet_q": (True, "int32")}

bounds = st.one_of(
    st.integers(-3, 60).map(str),
    st.sampled_from(["1e1", "2.5e1", "-1e0", "0.5", ".5", "20.", "1e3", "-2.25"]),
)
blanks = st.sampled_from(["", " ", "  "])


@st.composite
def conditions(draw: st.DrawFn, name: str) -> Condition:
    """Return a comparison or a range, from either side, with or without blanks."""
    form = draw(st.sampled_from(["name first", "number first", "rising", "falling"]))
    blank, bound = draw(blanks), draw(bounds)
    op = draw(st.sampled_from(sorted(COMPARES)))
    if form == "name first":
        return Condition(f"{name}{blank}{op}{blank}{bound}", ((op, float(bound)),))
    if form == "number first":
        return Condition(f"{bound}{blank}{op}{name}", ((TURNED[op], float(bound)),))
    first, second = draw(st.tuples(*[st.sampled_from(["<", "<="] if form == "rising" else [">", ">="])] * 2))
    other = draw(bounds)
    return Condition(
        f"{bound}{blank}{first}{name}{blank}{second} {other}", ((TURNED[first], float(bound)), (second, float(other)))
    )


@st.composite
def entries(draw: st.DrawFn, branch: str, jagged: bool, definition: Definition | None) -> tuple[dict[str, Any], Entry]:
    """Return one entry with its keys in any order, and its meaning."""
    cuts = draw(st.lists(conditions(branch), max_size=3))
    words = [draw(st.sampled_from(["all", "any"])) if jagged else "" for _ in cuts]
    numbers = draw(st.permutations(range(1, len(cuts) + 1)))
    keys = ["cut"] if len(cuts) == 1 and draw(st.booleans()) else [f"cut_{number}" for number in numbers]
    values: dict[str, Any] = {
        key: [cut.text, word] if word else cut.text for key, cut, word in zip(keys, cuts, words, strict=True)
    }
    is_removed = draw(st.booleans())
    values["remove"] = draw(st.sampled_from(["True", "true", True] if is_removed else ["False", "false", False]))
    removed = (branch,) if is_removed else ()
    if definition:
        values |= {"def": definition.text, "type": "jagged" if jagged else "flat"}
        if sources := draw(st.lists(st.sampled_from(sorted(TYPES)), unique=True, max_size=2)):
            values["keys_to_remove"] = sources
            removed = (*sources, *removed)
    values = {key: values[key] for key in draw(st.permutations(sorted(values)))}
    return values, Entry(branch, tuple(zip(words, cuts, strict=True)), removed, definition)


@st.composite
def files(draw: st.DrawFn) -> File:
    """Return a preproc.json with its sections, entries and keys in any order."""
    new = draw(st.lists(st.sampled_from(DEFINITIONS), unique=True, max_size=4))
    if any(definition.name == "Jet_twice" for definition in new):
        new = draw(st.permutations([*{definition.name: definition for definition in [*new, DEFINITIONS[4]]}.values()]))
    sections: dict[str, dict[str, Any]] = {"new_branch": {}, "flat_cut": {}, "jagged_cut": {}}
    meanings = []
    for definition in new:
        sections["new_branch"][definition.name], entry = draw(entries(definition.name, definition.jagged, definition))
        meanings.append(entry)
    old = {**TYPES, **{definition.name: (definition.jagged, "") for definition in new}}
    for branch in draw(st.lists(st.sampled_from(sorted(old)), unique=True, max_size=3)):
        jagged, _ = old[branch]
        values, entry = draw(entries(branch, jagged, None))
        sections["jagged_cut" if jagged else "flat_cut"][branch] = values
        meanings.append(entry)
    order = draw(st.permutations(sorted(sections)))
    return File({section: sections[section] for section in order if sections[section] or draw(st.booleans())}, meanings)


numbers = st.floats(-5, 70, width=32) | st.sampled_from([0.0, 10.0, 20.0, 25.0, math.nan, math.inf])
jets = st.lists(st.tuples(numbers, st.sampled_from([-1, 1, 20])), max_size=4)
events = st.lists(st.tuples(st.integers(0, 4), numbers, jets), max_size=15)


def arrays_of(rows: list[tuple[int, float, list[tuple[float, int]]]]) -> dict[str, Values]:
    counts = np.array([len(jets) for _, _, jets in rows], dtype=np.int64)
    all_jets = [jet for _, _, jets in rows for jet in jets]
    return {
        "nMuon": np.array([muons for muons, _, _ in rows], dtype=np.int32),
        "MET_pt": np.array([met for _, met, _ in rows], dtype=np.float32),
        "Jet_pt": ak.unflatten(np.array([pt for pt, _ in all_jets], dtype=np.float32), counts),
        "Jet_q": ak.unflatten(np.array([q for _, q in all_jets], dtype=np.int32), counts),
    }


def rows_of(arrays: Mapping[str, Values]) -> list[Row]:
    """Return the events as dicts of NumPy numbers of the branches' types."""
    columns: dict[str, list[Any]] = {}
    for name, branch in arrays.items():
        values, counts = values_and_counts(branch)
        columns[name] = (
            list(values) if counts is None else [list(part) for part in np.split(values, np.cumsum(counts)[:-1])]
        )
    n_events = len(next(iter(arrays.values())))
    return [{name: column[event] for name, column in columns.items()} for event in range(n_events)]


def check(file: File, arrays: Mapping[str, Values]) -> None:
    """Compare the selection, the new branches and the removed branches with the reference."""
    preprocessing, _ = preprocessing_of(json.loads(json.dumps(file.values)), "preproc.json")
    result = preprocessed(arrays, preprocessing)
    with np.errstate(all="ignore"):
        rows = [with_new_branches(file, row) for row in rows_of(arrays)]
    expected = [is_selected(file, row) for row in rows]
    assert (result.passed.tolist() if result.passed is not None else [True] * len(rows)) == expected
    for entry in file.entries:
        if entry.definition and rows:
            computed = rows_of({entry.branch: result.arrays[entry.branch]})
            for row, got in zip(rows, computed, strict=True):
                np.testing.assert_allclose(got[entry.branch], row[entry.branch], rtol=3e-7)
    assert set(preprocessing.removed) == {name for entry in file.entries for name in entry.removed}


@given(files(), events)
def test_a_preproc_selects_computes_and_removes_what_its_rules_say(
    file: File, rows: list[tuple[int, float, list[tuple[float, int]]]]
) -> None:
    check(file, arrays_of(rows))


TOP = Path(__file__).parents[2]
HTAUTAU = [TOP / "examples/htautau" / name for name in ("VBF_tautau.root", "ggH_tautau.root", "unseen.root")]

TAUS = File(
    {
        "jagged_cut": {
            "Tau_pt": {"remove": False, "cut_2": ["120>=Tau_pt > 18", "all"], "cut_1": ["Tau_pt>30", "any"]},
            "Muon_eta": {"cut": ["-2.1<=Muon_eta<=2.1", "all"], "remove": "False"},
        },
        "new_branch": {
            "Tau_ratio": {
                "cut": ["Tau_ratio<1.0e0", "any"],
                "remove": "true",
                "type": "jagged",
                "def": "exp(Tau_log_pt) / MET_pt",
            },
            "Tau_log_pt": {"def": "log(Tau_pt)", "type": "jagged", "keys_to_remove": ["Tau_pt"], "remove": "False"},
            "n_leptons": {"remove": "False", "type": "flat", "def": "nMuon + nTau", "cut": "6 >= n_leptons"},
        },
        "flat_cut": {"PV_npvs": {"cut": "5<PV_npvs <= 4e1", "remove": "True"}},
    },
    [
        Entry(
            "Tau_pt",
            (("all", Condition("", ((">", 18), ("<=", 120)))), ("any", Condition("", ((">", 30),)))),
        ),
        Entry("Muon_eta", (("all", Condition("", ((">=", -2.1), ("<=", 2.1)))),)),
        Entry(
            "Tau_ratio",
            (("any", Condition("", (("<", 1),))),),
            ("Tau_ratio",),
            Definition(
                "Tau_ratio", "", jagged=True, value=lambda row: [np.exp(x) / row["MET_pt"] for x in row["Tau_log_pt"]]
            ),
        ),
        Entry(
            "Tau_log_pt",
            (),
            ("Tau_pt",),
            Definition("Tau_log_pt", "", jagged=True, value=lambda row: [log(pt) for pt in row["Tau_pt"]]),
        ),
        Entry(
            "n_leptons",
            (("", Condition("", (("<=", 6),))),),
            (),
            Definition("n_leptons", "", jagged=False, value=lambda row: row["nMuon"] + row["nTau"]),
        ),
        Entry("PV_npvs", (("", Condition("", ((">", 5), ("<=", 40)))),), ("PV_npvs",)),
    ],
)

MUONS = File(
    {
        "flat_cut": {"NMuon": {"cut": "3 > NMuon >= 1", "remove": "True"}},
        "jagged_cut": {"Muon_Iso": {"cut": ["Muon_Iso<5e0", "all"], "remove": "False"}},
        "new_branch": {
            "Muon_Pt": {
                "def": "sqrt(Muon_Px**2 + Muon_Py**2)",
                "cut_1": ["20 < Muon_Pt", "any"],
                "cut_2": ["Muon_Pt != 0", "all"],
                "keys_to_remove": ["Muon_Px", "Muon_Py"],
                "remove": "False",
                "type": "jagged",
            }
        },
    },
    [
        Entry("NMuon", (("", Condition("", (("<", 3), (">=", 1)))),), ("NMuon",)),
        Entry("Muon_Iso", (("all", Condition("", (("<", 5),))),)),
        Entry(
            "Muon_Pt",
            (("any", Condition("", ((">", 20),))), ("all", Condition("", (("!=", 0),)))),
            ("Muon_Px", "Muon_Py"),
            Definition(
                "Muon_Pt",
                "",
                jagged=True,
                value=lambda row: [
                    np.sqrt(px**2 + py**2) for px, py in zip(row["Muon_Px"], row["Muon_Py"], strict=True)
                ],
            ),
        ),
    ],
)


@pytest.mark.parametrize(
    ("path", "tree", "file"),
    [*[(path, "Events", TAUS) for path in HTAUTAU], (TOP / "tests/data/uproot-HZZ.root", "events", MUONS)],
    ids=lambda value: value.name if isinstance(value, Path) else "",
)
def test_real_files_are_selected_as_row_by_row(path: Path, tree: str, file: File) -> None:
    with uproot.open(path) as root:
        names = root[tree].keys()
        preprocessing, _ = preprocessing_of(file.values, "preproc.json")
        inputs = inputs_of(preprocessing, [], names)
        arrays = root[tree].arrays(inputs, entry_stop=2000, how=dict)
    result = preprocessed(arrays, preprocessing).passed
    assert result is not None
    assert 0.02 < result.mean() < 0.98
    check(file, arrays)


@given(files(), events, st.data())
def test_slices_give_the_same_as_the_whole(
    file: File, rows: list[tuple[int, float, list[tuple[float, int]]]], data: st.DataObject
) -> None:
    preprocessing, _ = preprocessing_of(file.values, "preproc.json")
    arrays = arrays_of(rows)
    cut = data.draw(st.integers(0, len(rows)))
    whole = preprocessed(arrays, preprocessing)
    parts = [
        preprocessed({name: branch[part] for name, branch in arrays.items()}, preprocessing)
        for part in (slice(None, cut), slice(cut, None))
    ]
    for name, branch in whole.arrays.items():
        values, counts = values_and_counts(branch)
        of_parts = [values_and_counts(part.arrays[name]) for part in parts]
        together = np.concatenate([values for values, _ in of_parts])
        assert together.tobytes() == values.tobytes()
        assert together.dtype == values.dtype
        if counts is not None:
            np.testing.assert_array_equal(np.concatenate([counts for _, counts in of_parts]), counts)
    if whole.flow is not None:
        np.testing.assert_array_equal(
            np.concatenate([part.flow for part in parts if part.flow is not None]), whole.flow
        )
