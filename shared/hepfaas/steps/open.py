"""open: the header of one file -> its identity, its feature branches, its entry ranges."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import reduce
from operator import or_
from typing import Any

import numpy as np

from hepfaas.datasets.branch_choice import Branch, absent_note, choose_branches
from hepfaas.datasets.formats import CSV, JSON, Form
from hepfaas.datasets.opened import OpenedFile, opened, read
from hepfaas.datasets.ranges import EntryRange, baskets_read_twice, planned
from hepfaas.datasets.reading import PLAIN, Reading
from hepfaas.errors import RequestError, public_text
from hepfaas.exact import ExactSum
from hepfaas.expressions.expression import parse
from hepfaas.expressions.patterns import matching
from hepfaas.features.extra import extra_inputs, one_number, with_branches
from hepfaas.features.jagged import empty, flat_values, type_of
from hepfaas.features.preprocess import inputs_of, is_named, preprocessed
from hepfaas.platform.storage import Store
from hepfaas.runs.preprocessing import Preprocessing
from hepfaas.runs.steps import Open
from hepfaas.steps.objects import encoded, put_blob

_NOTHING: Mapping[str, Any] = {
    "identity": "",
    "fingerprint": "",
    "entries": 0,
    "ranges": [],
    "features": [],
    "identifiers": [],
    "left_out": [],
}
"""Header of a file that is skipped."""

SUMMED_EVENTS = 1_000_000
"""Values of a sum of weights that are read at once."""


def perform(step: Open, store: Store, reading: Reading = PLAIN) -> None:
    """Raises: RequestError if the file, the tree or a branch does not exist, or an expression does not fit the
    branches; UnavailableError. With `skips` the reason why a file cannot be read is the result."""
    form = Form(step.dtype, step.record_function)
    try:
        file = opened(step.url, step.tree or step.usual_tree, reading, form, or_only=not step.tree)
    except RequestError as error:
        if not step.skips:
            raise
        store.create(step.key, encoded({**_NOTHING, "skipped": public_text(error)}))
        return
    preprocessing = Preprocessing.from_text(step.preprocessing)
    types = _types(file, preprocessing, step.expressions)
    branches = [*file.branches, *(Branch(new.name, *types[new.name], size_bytes=0) for new in preprocessing.new)]
    removed = {match for name in step.removed for match in matching(name, [branch.name for branch in branches])}
    choice = choose_branches(
        file.place,
        [branch for branch in branches if branch.name not in removed],
        selected=step.selected,
        excluded=step.excluded,
        identifiers=step.identifiers,
        no_numbers=file.left_out,
    )
    available = [branch.name for branch in file.branches]
    features = [branch.name for branch in choice.features]
    inputs = inputs_of(preprocessing, features, available)
    spectators = with_branches(step.optional, preprocessing, available)
    extra = extra_inputs([*step.expressions, *spectators], preprocessing, available)
    baskets = file.baskets(list(dict.fromkeys([*inputs, *extra])))
    used = {*inputs, *extra}
    ranges = planned(baskets, file.entries, step.range_events)
    result = {
        "identity": file.identity_of_events(step.usual_tree),
        "tree": file.tree,
        "fingerprint": file.fingerprint,
        "entries": file.entries,
        "size_bytes": file.size_bytes,
        "read_bytes": sum(branch.size_bytes for branch in file.branches if branch.name in used),
        "features": [[branch.name, branch.jagged] for branch in choice.features],
        "identifiers": list(choice.identifiers),
        "ranges": [[entries.start, entries.stop] for entries in ranges],
        "baskets_read_twice": baskets_read_twice(baskets, ranges),
        "left_out": [list(item) for item in file.left_out],
        "notes": [
            *choice.notes,
            *file.notes,
            *_without_function(step, file),
            *_used_elsewhere(step, available),
            *_without_effect(file, branches, preprocessing),
        ],
        "inputs": list(inputs) if preprocessing else [],
        "extra": list(extra),
        "spectators": list(spectators),
        "titles": [[b.name, b.title] for b in file.branches if b.title and b.name in used] if step.titles else [],
        "layout": put_blob(store, file.layout.encode()) if file.layout else "",
        "sum_of_weights": json.dumps(_sum(step, file.tree, reading).to_json()) if step.sum_of_weights else "",
    }
    store.create(step.key, encoded(result))


def _without_function(step: Open, file: OpenedFile) -> list[str]:
    """Return the note on a function for records that a file does not have."""
    if not step.record_function or file.format in (JSON, CSV):
        return []
    return [f"preprocessing(record) is not applied to {file.place}: it is for JSON lines and CSV"]


def _used_elsewhere(step: Open, available: Sequence[str]) -> list[str]:
    """Return the note on branches that are no features because an expression uses them."""
    used = {name for text in step.expressions for name in parse(text, step.tree).names}
    wanted = {match for pattern in step.selected or ("*",) for match in matching(pattern, available)}
    names = [name for name in available if name in used.intersection(step.removed, wanted)]
    if not names:
        return []
    return [
        f"no features, since weights, labels, targets or spectators use them: {', '.join(names)}; to train on one of a "
        "weight or a label, give its name in selected_branches"
    ]


def _types(
    file: OpenedFile, preprocessing: Preprocessing, expressions: Sequence[str]
) -> Mapping[str, tuple[bool, str]]:
    """Return whether each new branch is jagged, and its type, from a try on no events.

    Raises: RequestError if an expression does not fit the branches, or one that must give a number gives several.
    """
    if not preprocessing and not expressions:
        return {}
    try:
        no_events = {branch.name: empty(branch.jagged, branch.type) for branch in file.branches}
        arrays = preprocessed(no_events, preprocessing).arrays
        for text in expressions:
            one_number(arrays, text, 0)
    except RequestError as error:
        raise RequestError(f"{file.place}: {error}") from error
    return {new.name: type_of(arrays[new.name]) for new in preprocessing.new}


def _without_effect(file: OpenedFile, branches: Sequence[Branch], preprocessing: Preprocessing) -> list[str]:
    """Return notes on names and patterns that match no branch. branches: of the file, and new ones."""
    names, read = [branch.name for branch in branches], [branch.name for branch in file.branches]
    missing = dict.fromkeys(missing.pattern for missing in preprocessing.missing)
    removed = preprocessing.removed
    return [
        *(absent_note(name, "missing", file.place) for name in missing if not any(is_named(one, name) for one in read)),
        *(absent_note(name, "remove", file.place) for name in removed if not matching(name, names)),
    ]


def _sum(step: Open, within: str, reading: Reading) -> ExactSum:
    """Return the sum of a branch over all entries of its tree. within: the tree of a branch that is named without."""
    tree, _, branch = step.sum_of_weights.rpartition("/")
    file = opened(step.url, tree or within, reading, Form(step.dtype, step.record_function))
    sums = [ExactSum()]
    for start in range(0, file.entries, SUMMED_EVENTS):
        entries = EntryRange(start, min(start + SUMMED_EVENTS, file.entries))
        place, layout = (step.url, file.identity, file.tree), file.layout
        arrays = read(*place, branches=[branch], entries=entries, reading=reading, layout=layout)
        values = flat_values(arrays[branch], branch).astype(np.float64)
        if not np.isfinite(values).all():
            raise RequestError(f"'{step.sum_of_weights}' in '{step.url}' has a value that is NaN or infinite")
        sums.append(ExactSum.of(values))
    return reduce(or_, sums)
