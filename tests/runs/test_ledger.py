"""The ledger holds if each event was prepared once and trained once per epoch, and names what does not add up."""

import json
import random
from dataclasses import replace

import pytest
from hepfaas.runs.ledger import CountedPart, Ledger, TrainedSegment, Training, ledger, prediction_ledger
from hepfaas.runs.phases import Input
from hypothesis import given
from hypothesis import strategies as st

FILES = (
    Input("a.root", 0, "address-aaaaaaaaaaaa", ((0, 10), (10, 25)), "Events"),
    Input("b.root", 1, "address-bbbbbbbbbbbb", ((100, 110),), "Events"),
    Input("empty.root", 1, "address-cccccccccccc", (), "Events"),
)
PARTS = (
    CountedPart(FILES[0].identity, (0, 10), (6, 2, 1), 2**64 - 1, (1, 0)),
    CountedPart(FILES[0].identity, (10, 25), (9, 3, 3), 40, (0, 0)),
    CountedPart(FILES[1].identity, (100, 110), (5, 2, 1), 2, (0, 2)),
)
EPOCH = (TrainedSegment(12, 2**64 - 9), TrainedSegment(8, 50))
"""20 rows, and ids whose sum is 41 beyond 2**64, as those of the parts."""


@given(st.randoms(use_true_random=False))
def test_a_ledger_of_complete_parts_holds_in_any_order(chooser: random.Random) -> None:
    found = ledger(FILES, [Training(chooser.sample(PARTS, 3), [EPOCH, EPOCH[::-1]])])
    assert found == Ledger(3, 3, 35, (1, 2), 20, 2, ())
    assert found.holds
    assert json.loads(json.dumps(found.to_json())) == {
        "files": 3, "ranges": 3, "events": 35, "rejected": [1, 2], "training_events": 20, "epochs": 2,
        "findings": [], "skipped": [], "holds": True,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("parts", "findings"),
    [
        (PARTS[1:], ("'a.root': entries 0 to 10 are missing",)),
        ((PARTS[0], PARTS[2]), ("'a.root': 10 of its 25 events are scored",)),
        (PARTS[:2], ("'b.root': 0 of its 10 events are scored",)),
        ((*PARTS, PARTS[1]), ("'a.root': entries 10 to 25 are counted twice",)),
        (
            (*PARTS, CountedPart(FILES[0].identity, (12, 20), (6, 1, 1), 0, (0, 0))),
            ("'a.root': entries 12 to 25 are counted twice",),
        ),
        ((*PARTS[:2], replace(PARTS[2], rows=(5, 2, 0))), ("part [100, 110] of file bbbbbbbb has 9 events",)),
    ],
)
def test_a_ledger_names_entries_that_are_missing_or_counted_twice(
    parts: tuple[CountedPart, ...], findings: tuple[str, ...]
) -> None:
    found = prediction_ledger(FILES, parts)
    assert found.findings == findings
    assert (found.holds, found.training_events, found.epochs) == (False, 0, 0)
    assert prediction_ledger(FILES, PARTS).holds


CHUNKS = [[EPOCH[0], EPOCH[0]], [EPOCH[1], EPOCH[1]]]
"""Two chunks, each of two passes, as rounds."""


@pytest.mark.parametrize(
    ("rounds", "finding"),
    [
        (CHUNKS, None),
        (CHUNKS[:1], None),
        ([CHUNKS[0], CHUNKS[1][:1]], "all rounds trained 32 events, and 2 passes over the training sample are 40"),
        (
            [CHUNKS[0], [TrainedSegment(8, 50), TrainedSegment(8, 51)]],
            "all rounds trained 40 events, but not each of the training sample 2 times",
        ),
    ],
)
def test_a_training_by_chunks_passes_over_each_event_as_often_as_asked(
    rounds: list[list[TrainedSegment]], finding: str | None
) -> None:
    assert ledger(FILES, [Training(PARTS, rounds, passes=2)]).findings == ((finding,) if finding else ())


@pytest.mark.parametrize(
    ("epoch", "finding"),
    [
        (EPOCH[:1], "epoch 2 trained 12 events, the training sample has 20"),
        ((EPOCH[0], TrainedSegment(8, 51)), "epoch 2 trained 20 events, but not each of the training sample once"),
    ],
)
def test_a_ledger_names_the_epoch_that_did_not_train_each_event_once(
    epoch: tuple[TrainedSegment, ...], finding: str
) -> None:
    found = ledger(FILES, [Training(PARTS, [EPOCH, epoch])])
    assert found.findings == (finding,)
    assert not found.holds
    assert not found.to_json()["holds"]
