"""`train` goes on with the next segments by itself only where it knows them; else `advance` sends the next epoch."""

import dataclasses
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hepfaas.orchestration import events, records, stepping
from hepfaas.orchestration.advancing import Advancing
from hepfaas.orchestration.events import RunName
from hepfaas.orchestration.stepping import Stepping
from hepfaas.platform.cloud_events import CloudEvent
from hepfaas.platform.storage import Store
from hepfaas.platform.stores import open_store
from hepfaas.runs import plan
from hepfaas.runs.opened import joined
from hepfaas.runs.recipe import LabelledFile, Recipe
from hepfaas.runs.schedule import Schedule
from hepfaas.runs.steps import Step, Train
from hepfaas.steps.objects import encoded, result_if_there
from hepfaas.training import checkpoint

RECIPE = Recipe(
    "job", (LabelledFile("a", 0), LabelledFile("b", 1)), "blobs/x", epochs=6, segment_rows=32_000, learning_rate=1.0
)
LOSSES = [3.0, 2.0, 2.0, 2.0, 2.0, 1.0]
PLATEAU = Schedule(name="reduce_on_plateau", patience=1, factor=0.5)


def root_of(phase: str, steps: Sequence[Step]) -> dict[str, Any]:
    """Return the result at the root of a phase."""
    common = {"features": [["met", False]], "identifiers": [], "left_out": []}
    files = [
        {"identity": file.url, "fingerprint": file.url, "entries": 40_000, "ranges": [[0, 40_000]], **common}
        for file in RECIPE.files
    ]
    parts = [
        {
            **{"key": step.key, "size_bytes": 1, "file": step.key, "entries": [0, 40_000], "label": label},
            **{"rows": [25_600, 6_400, 8_000], "id_sum": 0, "order": "012"},
        }
        for label, step in enumerate(steps)
    ]
    spec = {"columns": "blobs/spec", "n_features": 5}
    return {"open": joined(files), "survey": {}, "spec": spec, "prepare": {"parts": parts}}[phase]


class World:
    """A run whose events are prepared, `advance`, and a `train` whose segments take no time."""

    def __init__(self, folder: Path, recipe: Recipe, stop_after: int | None) -> None:
        self.root, self.waiting, self.trained = open_store(str(folder)), list[CloudEvent](), list[Train]()
        self.store, self.stop_after = open_store(f"{self.root.url}/me"), stop_after
        self.run = records.create(self.store, records.Request(recipe, 1000.0))
        self.root.create(f"active/me/{self.run}", b"")
        self.advancing = Advancing(
            self.root, lambda owner: self.store, self, max_scale=4, deadline_s=10.0, clock=lambda: 1000.0
        )
        self.train = Stepping("train", lambda owner: self.store, self, budget_s=60.0, clock=lambda: 1000.0)
        while (coming := self.coming()).phase != "train":
            self.store.create(coming.levels[-1][0].key, encoded(root_of(coming.phase, coming.levels[0])))

    def coming(self) -> plan.Ready:
        coming = plan.next_steps(
            records.request_of(self.store, self.run).recipe,  # type: ignore[arg-type]
            f"{self.run}/1",
            lambda key: result_if_there(key, self.store),
        )
        assert isinstance(coming, plan.Ready)
        return coming

    def send(self, event: CloudEvent) -> None:
        self.waiting.append(event)

    def perform(self, step: Step, store: Store, **tools: Any) -> None:
        assert isinstance(step, Train)
        self.trained.append(step)
        facts = {"metrics": {"val_loss": LOSSES[step.epoch]}, "stop": step.epoch + 1 == self.stop_after}
        store.create(step.key, checkpoint.to_bytes({"model/0": np.zeros(1)}, facts))

    def finish(self) -> Counter[str]:
        """Deliver all events until the export is requested; return how many of each type were sent."""
        sent = Counter[str]()
        self.send(CloudEvent(events.PHASE_COMPLETED, "/t", "s", "1", RunName("me", self.run, 1).to_json(), {}))
        while self.waiting:
            event = self.waiting.pop(0)
            sent[event.type.removeprefix("org.hepfaas.")] += 1
            if event.type == "org.hepfaas.train.requested":
                self.train.handle(event)
            elif event.type != "org.hepfaas.export.requested":
                self.advancing.handle(event)
        return sent


@pytest.mark.parametrize(
    ("options", "stop_after", "n_epochs", "n_requests"),
    [
        ({}, None, 6, 1),
        ({"patience": 2}, None, 4, 4),
        ({"patience": 5}, None, 6, 6),
        ({"learning_rate_schedule": PLATEAU}, None, 6, 6),
        ({"learning_rate_schedule": Schedule(name="cosine")}, None, 6, 6),
        ({"learning_rate_schedule": PLATEAU, "patience": 3}, None, 5, 5),
        ({}, 3, 3, 1),
    ],
)
def test_a_training_has_the_epochs_of_the_plan(
    options: dict[str, Any],
    stop_after: int | None,
    n_epochs: int,
    n_requests: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recipe = dataclasses.replace(RECIPE, **options)
    world = World(tmp_path, recipe, stop_after)
    monkeypatch.setattr(stepping, "perform", world.perform)
    sent = world.finish()
    assert sent["train.requested"] == n_requests
    assert sent["export.requested"] == 1
    assert world.coming().phase == "export"
    chain = plan.chains_of(recipe, f"{world.run}/1", lambda key: result_if_there(key, world.store))[0]
    assert world.trained == [step for segments in chain[:n_epochs] for step in segments]
    assert len(world.trained) == 2 * n_epochs
