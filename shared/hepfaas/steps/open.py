"""open: the header of one file -> its identity, its feature branches, its entry ranges."""

from __future__ import annotations

from hepfaas.datasets.branch_choice import choose_branches
from hepfaas.datasets.ranges import baskets_read_twice, planned
from hepfaas.datasets.reading import PLAIN, Reading
from hepfaas.datasets.root import opened
from hepfaas.platform.storage import Store
from hepfaas.runs.steps import Open
from hepfaas.steps.objects import encoded


def perform(step: Open, store: Store, reading: Reading = PLAIN) -> None:
    """Raises: RequestError if the file, the tree or a selected branch does not exist; UnavailableError."""
    file = opened(step.url, step.tree, reading)
    choice = choose_branches(
        file.place, file.branches, selected=step.selected, excluded=step.excluded, identifiers=step.identifiers
    )
    baskets = file.baskets([branch.name for branch in choice.features])
    ranges = planned(baskets, file.entries, step.range_events)
    result = {
        "identity": file.identity,
        "fingerprint": file.fingerprint,
        "entries": file.entries,
        "size_bytes": file.size_bytes,
        "read_bytes": sum(branch.size_bytes for branch in choice.features),
        "features": [[branch.name, branch.jagged] for branch in choice.features],
        "identifiers": list(choice.identifiers),
        "ranges": [[entries.start, entries.stop] for entries in ranges],
        "baskets_read_twice": baskets_read_twice(baskets, ranges),
        "left_out": [list(item) for item in file.left_out],
        "notes": list(choice.notes),
    }
    store.create(step.key, encoded(result))
