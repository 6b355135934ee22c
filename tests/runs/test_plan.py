"""The plan requests missing results only, in whatever order they come."""

import dataclasses
import hashlib
import itertools
import json
import random
import re
import time
from typing import Any

import pytest
from hepfaas.errors import RequestError
from hepfaas.runs import course, plan, preparation
from hepfaas.runs.feature_rules import FeatureRules, ScalingRule
from hepfaas.runs.folds import Folds
from hepfaas.runs.old_specs import OldRange, OldSpecs
from hepfaas.runs.opened import files_of, joined
from hepfaas.runs.plot_labels import PlotLabels
from hepfaas.runs.preprocessing import Cut, NewBranch, Preprocessing
from hepfaas.runs.recipe import Earlier, Gate, LabelledFile, Recipe, Sample
from hepfaas.runs.schedule import Schedule, n_epochs_until_stop
from hepfaas.runs.splits import SplitRule
from hepfaas.runs.steps import (
    Compare,
    Evaluate,
    Examine,
    Export,
    Open,
    Prepare,
    Score,
    Step,
    Sum,
    Survey,
    Train,
    Weigh,
    step_from_json,
)
from hepfaas.runs.targets import Target
from hepfaas.runs.weighting import Balance
from hypothesis import given, settings
from hypothesis import strategies as st

RECIPE = Recipe(
    name="htautau",
    files=(LabelledFile("a.root", 0), LabelledFile("b.root", 1)),
    code="blobs/code",
    epochs=3,
)
ENTRIES = {"a.root": 40_000, "b.root": 2_000}
EARLIER = Earlier("htautau/7", "steps/spec/7", "steps/train/7", "steps/export/7")
SAMPLE = (LabelledFile("c.root", 0), LabelledFile("d.root", 1))
CONTINUED = dataclasses.replace(RECIPE, continues=EARLIER)
GATED = dataclasses.replace(RECIPE, gate=Gate("auc", 0.01, SAMPLE, EARLIER))


def ranges(entries: int) -> list[list[int]]:
    return [[start, min(start + 1000, entries)] for start in range(0, entries, 1000)]


class World:
    """Results of steps as a store holds them, made from the fields of the step alone."""

    def __init__(self, recipe: Recipe = RECIPE, entries: dict[str, int] | None = None) -> None:
        self.recipe, self.entries = recipe, {"c.root": 3_000, "d.root": 1_000, **(entries or ENTRIES)}
        self.passed = True
        self.losses: list[float] = []
        self.stop_after: int | None = None
        self.results: dict[str, dict[str, Any]] = {
            EARLIER.spec: {"columns": "blobs/kept", "n_features": 5},
            EARLIER.checkpoint: {},
            EARLIER.export: {"n_classes": 2},
        }
        self.done: list[Step] = []
        self.targets = [Target(name, 1.0, 2.0, -9.0, 9.0).to_json() for name in recipe.targets]

    def coming(self) -> plan.Ready | plan.Finished:
        return plan.next_steps(self.recipe, "run/1", self.results.get)

    def perform(self, step: Step) -> None:
        assert step.key not in self.results, "a finished step was asked for"
        self.done.append(step)
        self.results[step.key] = self.result(step)

    def result(self, step: Step) -> dict[str, Any]:
        match step:
            case Open():
                return {
                    "identity": f"id of {step.url}",
                    "fingerprint": f"print of {step.url}",
                    "entries": self.entries[step.url],
                    "ranges": ranges(self.entries[step.url]),
                    "features": [["met", False], ["mu_pt", True]],
                    "identifiers": ["event"],
                    "left_out": [],
                }
            case Prepare():
                count = step.entries[1] - step.entries[0]
                rows = [count * 64 // 100, count * 16 // 100, count - count * 64 // 100 - count * 16 // 100]
                n_folds = self.recipe.folds.number if self.recipe.folds else 0
                groups = [[count // (2 * n_folds), 0] for _ in range(2 * n_folds)]
                part = {
                    "key": step.key,
                    "size_bytes": 1,
                    "file": step.file,
                    "entries": list(step.entries),
                    "label": step.label,
                    "rows": rows,
                    "id_sum": 0,
                    "order": "012",
                    "groups": groups,
                }
                return {"parts": [part]}
            case Sum(of="open"):
                return joined([self.results[key] for key in step.members])
            case Sum(of="prepare"):
                return {"parts": [part for key in step.members for part in self.results[key]["parts"]]}
            case Train():
                loss = self.losses[step.epoch] if self.losses else abs(step.epoch - 1.0)
                return {"metrics": {"val_loss": loss}, "stop": step.epoch + 1 == self.stop_after}
        return {
            "spec": {"columns": "blobs/spec", "n_features": 5, "targets": self.targets},
            "weigh": {"labels": [0, 1] if self.recipe.label else []},
            "export": {"n_classes": 2},
            "compare": {"passed": self.passed},
            "publish": {"name": "htautau", "version": 1},
        }.get(step.kind, {})

    def finish(self, chooser: random.Random | None = None) -> list[Step]:
        for _ in range(10_000):
            coming = self.coming()
            if isinstance(coming, plan.Finished):
                return self.done
            steps = list(coming.steps)
            for step in steps if chooser is None else chooser.sample(steps, chooser.randint(1, len(steps))):
                self.perform(step)
        raise AssertionError("the plan does not end")


def kinds(steps: list[Step]) -> dict[str, int]:
    return {kind: sum(step.kind == kind for step in steps) for kind in {step.kind for step in steps}}


@settings(max_examples=15, deadline=None)
@given(st.randoms(use_true_random=False))
def test_any_order_does_the_same_steps_once_each(chooser: random.Random) -> None:
    assert {step.key for step in World().finish(chooser)} == {step.key for step in World().finish()}


def test_a_run_has_a_step_for_each_range_and_epoch_and_sums_of_sixteen() -> None:
    assert kinds(World().finish()) == {
        "open": 2,
        "survey": 42,
        "spec": 1,
        "prepare": 42,
        "train": 3,
        "export": 1,
        "score": 42,
        "examine": 1,
        "evaluate": 1,
        "publish": 1,
        "sum": 1 + 3 * (3 + 1),
    }


@settings(max_examples=15, deadline=None)
@given(st.randoms(use_true_random=False))
def test_only_a_deleted_result_is_made_again(chooser: random.Random) -> None:
    world = World()
    world.finish()
    lost = chooser.choice([step for step in world.done if not isinstance(step, Open | Survey | Prepare | Score | Sum)])
    del world.results[lost.key]
    world.done.clear()
    world.finish()
    assert [step.key for step in world.done] == [lost.key]


def test_a_lost_survey_costs_nothing_while_its_sum_exists() -> None:
    world = World()
    world.finish()
    for step in [step for step in world.done if isinstance(step, Survey)]:
        del world.results[step.key]
    assert isinstance(world.coming(), plan.Finished)


@settings(max_examples=15, deadline=None)
@given(st.randoms(use_true_random=False))
def test_the_plan_names_the_step_that_makes_a_lost_result(chooser: random.Random) -> None:
    world = World()
    world.finish()
    lost = chooser.choice([step for step in world.done if isinstance(step, Open | Survey | Prepare | Train | Sum)])
    if isinstance(lost, Sum) and lost.of == "score":
        return
    assert plan.maker(RECIPE, "run/1", world.results.get, lost.key) == lost


def folded(**changes: Any) -> Recipe:
    return dataclasses.replace(RECIPE, folds=Folds(3), **changes)


def test_a_run_with_folds_prepares_its_events_once_and_trains_a_network_for_each() -> None:
    steps = World(folded()).finish()
    counts = kinds(steps)
    assert (counts["prepare"], counts["train"], counts["score"]) == (42, 3 * 3, 3 * 42)
    assert (counts["export"], counts["examine"], counts["evaluate"], counts["publish"]) == (3 + 1, 1, 1, 1)
    assert {step.fold for step in steps if isinstance(step, Train)} == {0, 1, 2}
    assert sorted(len(step.checkpoints) for step in steps if isinstance(step, Export)) == [1, 1, 1, 3]


@pytest.mark.parametrize(
    ("identifiers", "expected"),
    [((), ("slice",)), (("slice",), ("event",)), (("/slice|event/",), ()), (("run",), ("event", "slice"))],
)
def test_an_identifier_that_gives_the_fold_is_not_removed(
    identifiers: tuple[str, ...], expected: tuple[str, ...]
) -> None:
    recipe = dataclasses.replace(RECIPE, folds=Folds(3, "event + slice"), identifiers=identifiers)
    (removed,) = {step.removed for step in World(recipe).coming().steps}  # type: ignore[union-attr]
    assert removed == expected


def test_an_identifier_that_a_weight_or_a_spectator_uses_is_no_identifier() -> None:
    recipe = folded(weight="event", spectators=("run",), identifiers=("run", "event"))
    (removed,) = {step.removed for step in World(recipe).coming().steps}  # type: ignore[union-attr]
    assert removed == ("run", "event")


@settings(max_examples=15, deadline=None)
@given(st.randoms(use_true_random=False))
def test_folds_do_the_same_steps_in_any_order(chooser: random.Random) -> None:
    assert {step.key for step in World(folded()).finish(chooser)} == {step.key for step in World(folded()).finish()}


def test_the_folds_can_be_trained_at_the_same_time() -> None:
    world = World(folded())
    while (coming := world.coming()).phase != "train":  # type: ignore[union-attr]
        for step in coming.steps:  # type: ignore[union-attr]
            world.perform(step)
    assert isinstance(coming, plan.Ready)
    chains = [coming, *coming.others]
    assert [chain.fold for chain in chains] == [0, 1, 2]
    assert [chain.chain for chain in chains] == [(0, 3)] * 3
    assert (coming.done, coming.total) == (0, 9)
    for fold in (1, 1, 1, 2):
        step = next(chain for chain in [coming, *coming.others] if chain.fold == fold).steps[0]
        world.perform(step)
        coming = world.coming()
        assert isinstance(coming, plan.Ready)
    assert [(chain.fold, chain.chain) for chain in [coming, *coming.others]] == [(0, (0, 3)), (2, (1, 3))]
    assert (coming.done, coming.total) == (4, 9)


def test_each_fold_has_its_own_best_epoch_and_its_own_end() -> None:
    class Uneven(World):
        def result(self, step: Step) -> dict[str, Any]:
            if not isinstance(step, Train):
                return super().result(step)
            best = step.fold or 0
            return {"metrics": {"val_loss": abs(step.epoch - best)}, "stop": False}

    recipe = folded(epochs=6, patience=2)
    world = Uneven(recipe)
    evaluate = next(step for step in world.finish() if isinstance(step, Evaluate))
    assert [(len(epochs), best) for _, epochs, best in evaluate.trainings] == [(3, 0), (4, 1), (5, 2)]
    assert plan.n_epochs(recipe, "run/1", world.results.get) == [3, 4, 5]


@pytest.mark.parametrize("recipe", [CONTINUED, GATED])
def test_a_run_with_folds_has_no_events_for_a_gate_and_continues_nothing(recipe: Recipe) -> None:
    with pytest.raises(RequestError, match="with 'folds' each event is learned by some; leave one of them out"):
        World(dataclasses.replace(recipe, folds=Folds(2))).finish()


def test_a_fold_without_events_is_named() -> None:
    class Empty(World):
        def result(self, step: Step) -> dict[str, Any]:
            result = super().result(step)
            for part in result["parts"] if isinstance(step, Prepare) else ():
                part["groups"][2:4] = [[0, 0], [0, 0]]
            return result

    with pytest.raises(RequestError, match="the test sample of fold 2 has no event"):
        Empty(folded()).finish()


def test_the_sum_of_headers_keeps_each_header_and_stores_equal_lists_once() -> None:
    step = World()
    one, two = (step.result(opening) for opening in preparation.opens(RECIPE, "run/1"))
    other = {**two, "features": [["met", False]]}
    added = joined([joined([one, two]), joined([other])])
    assert files_of(added) == [one, two, other]
    assert len(added["lists"]) == 3
    read = joined([{**result, "inputs": ["met", "jet_pt"], "extra": ["w"]} for result in (one, two)])
    assert [file["inputs"] for file in files_of(read)] == [["met", "jet_pt"]] * 2
    assert json.dumps(read).count("jet_pt") == json.dumps(joined([one, two])).count("jet_pt") + 1


def test_a_chain_of_train_steps_can_be_followed_without_the_plan() -> None:
    world = World(dataclasses.replace(RECIPE, segment_rows=32_000), {"a.root": 90_000, "b.root": 2_000})
    world.finish()
    chain = plan.chains_of(world.recipe, "run/1", world.results.get)[0]
    assert len(chain[0]) > 1
    step: Train | None = chain[0][0]
    followed = []
    while step:
        followed.append(step)
        step = course.following(step, len(chain[0]), len(chain))
    assert followed == [step for segments in chain for step in segments]


def test_another_model_reads_no_event_again() -> None:
    world = World()
    world.finish()
    world.recipe, world.done = dataclasses.replace(RECIPE, code="blobs/other"), []
    assert set(kinds(world.finish())) == {"train", "export", "score", "sum", "examine", "evaluate", "publish"}


def test_more_epochs_go_on_from_the_last_checkpoint() -> None:
    world = World()
    world.finish()
    world.recipe, world.done = dataclasses.replace(RECIPE, epochs=5), []
    assert kinds(world.finish())["train"] == 2


def test_a_new_attempt_opens_the_files_again_and_does_nothing_else() -> None:
    world = World()
    world.finish()
    coming = plan.next_steps(RECIPE, "run/2", world.results.get)
    assert isinstance(coming, plan.Ready)
    assert [step.kind for step in coming.steps] == ["open", "open"]


RANGES = (OldRange("met", False, 0, 1, 1), OldRange("mu_pt", True, 0, 1, 3))

OTHER: dict[str, Any] = {
    "name": "other",
    "files": (LabelledFile("a.root", 1), LabelledFile("b.root", 0)),
    "code": "blobs/other",
    "module": "net.py",
    "tree": "events",
    "selected": ("met",),
    "excluded": ("mu_pt",),
    "identifiers": ("run",),
    "n_events": 30_000,
    "range_events": 500,
    "order": "tree",
    "surplus": "error",
    "features": FeatureRules(scaling=(ScalingRule("met", "standard"),)),
    "split_seed": 1,
    "epochs": 4,
    "batch_size": 100,
    "shuffle": False,
    "seed": 1,
    "threads": 1,
    "xla": True,
    "segment_rows": 10_000,
    "threshold": 0.4,
    "continues": EARLIER,
    "gate": GATED.gate,
    "samples": (Sample(name="one", cross_section=2.0),),
    "luminosity": 3.0,
    "label": "met > 30",
    "preprocessing": Preprocessing(cuts=(Cut("met", "met > 30"),)),
    "weight": "met",
    "spectators": ("met",),
    "balance": Balance(),
    "negative_weights": "abs",
    "split": SplitRule(training="event % 2"),
    "patience": 2,
    "min_delta": 0.5,
    "learning_rate": 0.1,
    "learning_rate_schedule": Schedule(name="cosine"),
    "class_weight": "balanced",
    "targets": ("met",),
    "folds": Folds(3),
    "record_function": "def preprocessing(record): return record",
    "plots": PlotLabels("other"),
    "unreadable_files": "skip",
    "chunk_events": 1_000,
    "dtype": "parquet",
    "specs": OldSpecs("specs-a.json", (OldRange("met", False, 0, 9, 1), OldRange("mu_pt", True, 0, 9, 2))),
}
WEIGHTED = dataclasses.replace(
    RECIPE,
    files=(LabelledFile("a.root", 0, "one"), LabelledFile("b.root", 1, "two")),
    samples=(Sample(name="one", weight="w", cross_section=2.0), Sample(name="two", sum_of_weights="Runs/sum")),
)
OF = {"luminosity": WEIGHTED, "negative_weights": WEIGHTED}
"""Recipes in which a key matters, where it does not matter alone."""


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(Recipe)])
def test_every_key_of_a_recipe_changes_what_is_published(name: str) -> None:
    recipe = OF.get(name, RECIPE)
    base, changed = World(recipe), World(dataclasses.replace(recipe, **{name: OTHER[name]}))
    assert base.finish()[-1].key != changed.finish()[-1].key


DATA_KEYS = {
    "files", "tree", "n_events", "split_seed", "split", "samples", "luminosity", "label", "weight", "spectators",
    "balance", "negative_weights", "targets",
}  # fmt: skip
MODEL_KEYS = {
    "code", "module", "batch_size", "shuffle", "seed", "threads", "xla", "segment_rows", "epochs", "name",
    "chunk_events",
}  # fmt: skip
TRAINING_OPTIONS = {"patience", "min_delta", "learning_rate", "learning_rate_schedule", "class_weight"}


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(Recipe)])
def test_only_keys_about_data_change_the_prepared_events(name: str) -> None:
    def prepared(world: World) -> set[str]:
        return {step.key for step in world.finish() if step.kind == "prepare"}

    recipe = OF.get(name, RECIPE)
    base, changed = prepared(World(recipe)), prepared(World(dataclasses.replace(recipe, **{name: OTHER[name]})))
    if name in DATA_KEYS:
        assert base != changed
    elif name in MODEL_KEYS | TRAINING_OPTIONS | {"threshold", "unreadable_files"}:
        assert base == changed
    # the others change the results of open and spec, which are fixed in this world


@pytest.mark.parametrize("fold", [None, 3])
def test_a_training_by_chunks_has_rounds_of_equal_size_that_end_with_a_result(fold: int | None) -> None:
    """92,000 events make 19 chunks of at most 5,000 events; rounds and segments are planned as for epochs."""
    changes: dict[str, Any] = {"epochs": 4, "chunk_events": 5_000, "folds": fold and Folds(fold)}
    recipe = dataclasses.replace(RECIPE, **changes)
    world = World(recipe, {"a.root": 90_000, "b.root": 2_000})
    steps = trained(world.finish())
    assert {(step.chunks, step.passes) for step in steps} == {(19, 4)}
    assert len(steps) == 4 * (fold or 1)
    assert {step.epoch for step in steps} == set(range(4))
    many = dataclasses.replace(recipe, segment_rows=32_000, folds=None)
    (chain,) = plan.chains_of(many, "run/1", finished(many).results.get)
    rows = 92_000 * 64 // 100
    assert [len(segments) for segments in chain] == [-(-19 // (32_000 // -(-rows // 19)))] * 4


def finished(recipe: Recipe) -> World:
    world = World(recipe, {"a.root": 90_000, "b.root": 2_000})
    world.finish()
    return world


def test_one_chunk_with_all_events_is_the_usual_training() -> None:
    usual = World(RECIPE).finish()
    one = World(dataclasses.replace(RECIPE, chunk_events=10**9)).finish()
    assert {step.key for step in trained(one)} == {step.key for step in trained(usual)}


@pytest.mark.parametrize(
    ("specs", "message"),
    [
        (
            OldSpecs("s.json", (OldRange("met", False, 0, 1, 1),)),
            "s.json has no range of 'mu_pt' of 'a.root'; exclude the branches, or leave out 'specs'",
        ),
        (
            OldSpecs("s.json", (OldRange("met", False, 0, 1, 1), OldRange("mu_pt", False, 0, 1, 1))),
            "branch 'mu_pt' is jagged in 'a.root' and flat in s.json",
        ),
        (
            OldSpecs("s.json", (*RANGES, OldRange("gone", False, 0, 1, 1))),
            "s.json has 'gone', and 'a.root' has no such branch; it is of other files",
        ),
        (OldSpecs("s.json", RANGES, (("/x/a.root", 5),)), "s.json counts 5 events in '/x/a.root', and 'a.root' has "),
        (OldSpecs("s.json", RANGES, (("c.root", 5),)), "counts events of 'c.root', and 'a.root' is not among them"),
        (
            OldSpecs("s.json", RANGES, (("a.root", 2_000), ("b.root", 3_000), ("c.root", 1))),
            "s.json counts events of 'c.root', which the run does not read",
        ),
    ],
)
def test_ranges_of_other_files_are_refused_with_the_difference(specs: OldSpecs, message: str) -> None:
    with pytest.raises(RequestError, match=re.escape(message)):
        World(dataclasses.replace(RECIPE, specs=specs), {"a.root": 2_000, "b.root": 3_000}).finish()


def test_ranges_of_these_files_are_part_of_the_spec() -> None:
    specs = OldSpecs("s.json", RANGES, (("root://host//a.root", 2_000), ("b.root", 3_000)))
    recipe = dataclasses.replace(RECIPE, specs=specs)
    (spec,) = (step for step in World(recipe, {"a.root": 2_000, "b.root": 3_000}).finish() if step.kind == "spec")
    assert OldSpecs.from_text(spec.ranges) == specs  # type: ignore[attr-defined]
    assert Recipe.from_json(json.loads(json.dumps(recipe.to_json()))) == recipe


def test_events_may_be_counted_after_the_cuts() -> None:
    specs = OldSpecs("s.json", RANGES, (("a.root", 1_500), ("b.root", 3_000)))
    cuts = Preprocessing(cuts=(Cut("met", "met > 30"),))
    world = World(dataclasses.replace(RECIPE, specs=specs, preprocessing=cuts), {"a.root": 2_000, "b.root": 3_000})
    assert world.finish()


def test_a_regression_has_one_class_and_the_scale_of_its_targets_in_every_step() -> None:
    done = World(dataclasses.replace(RECIPE, targets=("met", "log(met)"))).finish()
    assert {step.label for step in done if isinstance(step, Prepare)} == {0}
    (train, *_) = (step for step in done if isinstance(step, Train))
    assert (train.labels, train.class_weight) == ((), ())
    rows = (("met", 1.0, 2.0, -9.0, 9.0), ("log(met)", 1.0, 2.0, -9.0, 9.0))
    kinds = (Prepare, Train, Export, Score, Examine, Evaluate)
    assert [{step.targets for step in done if isinstance(step, kind)} for kind in kinds] == [{rows}] * len(kinds)
    assert {step.targets for step in done if isinstance(step, Survey)} == {("met", "log(met)")}
    for step in done:
        assert step_from_json(json.loads(json.dumps(step.to_json()))) == step


PLATEAU = Schedule(name="reduce_on_plateau", patience=1, factor=0.5)
LOSSES = [5, 4, 4, 3, 3, 2, 2, 2, 1, 1, 0, 0]


def options(**given: Any) -> Recipe:
    return dataclasses.replace(RECIPE, epochs=len(LOSSES), segment_rows=32_000, **given)


def stopping(recipe: Recipe, stop_after: int | None = None) -> World:
    world = World(recipe, {"a.root": 90_000, "b.root": 2_000})
    world.losses, world.stop_after = list(map(float, LOSSES)), stop_after
    return world


def trained(steps: list[Step]) -> list[Train]:
    return [step for step in steps if isinstance(step, Train)]


STOPPING = [
    (options(patience=2), None, 8),
    (options(patience=3), None, 12),
    (options(patience=1, min_delta=1.0), None, 2),
    (options(learning_rate_schedule=PLATEAU), None, 12),
    (options(patience=2, learning_rate_schedule=PLATEAU), None, 8),
    (options(), 5, 5),
]


@pytest.mark.parametrize(("recipe", "stop_after", "n_epochs"), STOPPING)
def test_a_training_ends_where_its_results_say_so(recipe: Recipe, stop_after: int | None, n_epochs: int) -> None:
    world = stopping(recipe, stop_after)
    steps = trained(world.finish())
    chain = plan.chains_of(recipe, "run/1", world.results.get)[0]
    assert steps == [step for segments in chain[:n_epochs] for step in segments]
    assert (len(steps), len(chain[0])) == (2 * n_epochs, 2)
    assert plan.n_epochs(recipe, "run/1", world.results.get) == [n_epochs]
    export, evaluate = (next(step for step in world.done if step.kind == kind) for kind in ("export", "evaluate"))
    ((_, epochs, _),) = evaluate.trainings  # type: ignore[attr-defined]
    assert len(epochs) == n_epochs
    best = min(range(n_epochs), key=LOSSES.__getitem__)
    assert export.checkpoints == (chain[best][-1].key,)  # type: ignore[attr-defined]


@pytest.mark.parametrize(("recipe", "stop_after", "n_epochs"), STOPPING)
def test_a_lost_result_of_a_stopped_training_is_made_again_and_nothing_else(
    recipe: Recipe, stop_after: int | None, n_epochs: int
) -> None:
    world = stopping(recipe, stop_after)
    steps = trained(world.finish())
    for lost in steps[1::2]:
        del world.results[lost.key]
        assert plan.maker(recipe, "run/1", world.results.get, lost.key) == lost
        world.done = []
        assert world.finish() == [lost]


def test_a_training_may_stop_before_epochs_that_another_run_has_trained() -> None:
    world = stopping(options())
    world.finish()
    world.recipe, world.done = options(patience=2), []
    assert not trained(world.finish())
    assert len(plan.chains_of(world.recipe, "run/1", world.results.get)[0]) == 8


def test_more_patience_goes_on_from_the_epoch_where_the_training_stopped() -> None:
    world = stopping(options(patience=2))
    world.finish()
    world.recipe, world.done = options(patience=3), []
    assert [step.epoch for step in trained(world.finish())[::2]] == [8, 9, 10, 11]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 9).map(float), min_size=12, max_size=12), st.integers(1, 5), st.integers(1, 3))
def test_each_step_has_the_learning_rate_that_the_losses_before_it_give(
    losses: list[float], patience: int, waited: int
) -> None:
    schedule = Schedule(name="reduce_on_plateau", patience=waited, factor=0.5, cooldown=1)
    world = stopping(options(patience=patience, learning_rate_schedule=schedule, learning_rate=0.5))
    world.losses = losses
    steps = trained(world.finish())
    stop = n_epochs_until_stop(losses, patience, 0.0) or len(losses)
    rates = [0.5 * factor for factor in schedule.factors(stop, losses)]
    assert [step.learning_rate for step in steps[::2]] == rates == [step.learning_rate for step in steps[1::2]]
    assert {step.rate_factor for step in steps} == {None}
    assert [step.before for step in steps[1:]] == [step.key for step in steps[:-1]]


def test_without_a_rate_of_its_own_a_schedule_gives_factors() -> None:
    steps = trained(World(dataclasses.replace(RECIPE, learning_rate_schedule=Schedule(name="step", every=1))).finish())
    assert [(step.learning_rate, step.rate_factor) for step in steps] == [(None, 1.0), (None, 0.1), (None, 0.01)]
    steps = trained(World(dataclasses.replace(RECIPE, learning_rate=0.1)).finish())
    assert {(step.learning_rate, step.rate_factor) for step in steps} == {(0.1, None)}


@pytest.mark.parametrize(
    ("recipe", "by_epoch"),
    [
        (options(), False),
        (options(learning_rate=0.1), False),
        (options(learning_rate_schedule=Schedule(name="step")), True),
        (options(patience=2), True),
    ],
)
def test_a_chain_is_followed_without_the_plan_only_where_no_epoch_differs(recipe: Recipe, by_epoch: bool) -> None:
    world, steps = stopping(recipe), []
    while len(steps) < 6:
        coming = world.coming()
        assert isinstance(coming, plan.Ready)
        steps = trained([*steps, *coming.steps])
        if coming.chain:
            assert (coming.by_epoch, coming.chain, coming.segments) == (by_epoch, (len(steps) - 1, 24), 2)
        for step in coming.steps:
            world.perform(step)
    for step, after in itertools.pairwise(steps):
        if after.segment or not by_epoch:
            assert course.following(step, 2, 12) == after


@pytest.mark.parametrize(
    ("class_weight", "expected"),
    [
        ("balanced", (26_880 / (2 * 25_600), 26_880 / (2 * 1_280))),
        (((1, 5.0),), (1.0, 5.0)),
        (((0, 1.0), (1, 1.0)), ()),
    ],
)
def test_class_weights_are_factors_of_each_label(class_weight: Any, expected: tuple[float, ...]) -> None:
    steps = World(dataclasses.replace(RECIPE, class_weight=class_weight)).finish()
    assert {step.class_weight for step in steps if isinstance(step, Train | Export)} == {expected}


def test_class_weights_are_those_of_labels_that_are_not_numbered_from_0() -> None:
    files = (LabelledFile("a.root", 5), LabelledFile("b.root", 3))
    for class_weight, expected in (("balanced", (10.5, 0.525)), (((5, 2.0),), (1.0, 2.0))):
        world = World(dataclasses.replace(RECIPE, files=files, class_weight=class_weight))  # type: ignore[arg-type]
        steps = [step for step in world.finish() if isinstance(step, Train)]
        assert {(step.labels, step.class_weight) for step in steps} == {((0, 1), expected)}


def test_a_class_weight_of_a_label_without_files_is_refused() -> None:
    with pytest.raises(RequestError, match="class_weight names label 2; the labels are 0, 1"):
        World(dataclasses.replace(RECIPE, class_weight=((2, 5.0),))).finish()


def test_too_many_train_steps_are_refused() -> None:
    world = World(dataclasses.replace(RECIPE, epochs=100_001))
    with pytest.raises(RequestError, match="100,001 epochs of 1 segments are more than 100,000 steps of training"):
        world.finish()


def test_a_continued_run_keeps_the_spec_and_begins_from_the_earlier_weights() -> None:
    steps = World(CONTINUED).finish()
    assert not [step for step in steps if step.kind in ("survey", "spec")]
    assert {step.spec for step in steps if isinstance(step, Prepare)} == {"blobs/kept"}
    first = next(step for step in steps if isinstance(step, Train))
    assert first.before == EARLIER.checkpoint


def test_a_gate_has_its_sample_scored_by_both_models_on_features_of_their_own() -> None:
    steps, plain = World(GATED).finish(), World().finish()
    more = [step for step in steps if step.key not in {one.key for one in plain}]
    assert kinds(more) == {"open": 2, "prepare": 8, "score": 8, "sum": 5, "compare": 1, "publish": 1}
    compare = next(step for step in steps if isinstance(step, Compare))
    assert compare.score != compare.last
    both = dataclasses.replace(GATED, continues=EARLIER)
    assert kinds(World(both).finish())["prepare"] == 42 + 4


def test_a_model_that_the_gate_refuses_is_not_published() -> None:
    world = World(GATED)
    world.passed = False
    assert not [step for step in world.finish() if step.kind == "publish"]
    assert world.coming() == plan.Finished(None, {"passed": False})


def test_lost_inputs_of_the_gate_are_made_again() -> None:
    world = World(GATED)
    world.finish()
    for step in world.done:
        if isinstance(step, Prepare):
            assert plan.maker(GATED, "run/1", world.results.get, step.key) == step


@pytest.mark.parametrize(("recipe", "lost"), [(CONTINUED, "spec"), (CONTINUED, "checkpoint"), (GATED, "export")])
def test_lost_results_of_an_earlier_version_are_not_made_again(recipe: Recipe, lost: str) -> None:
    world = World(recipe)
    del world.results[getattr(EARLIER, lost)]
    with pytest.raises(RequestError, match=f"the {lost} of model 'htautau/7' .* is not in the store any more"):
        world.finish()


@pytest.mark.parametrize(
    "recipe",
    [
        CONTINUED,
        GATED,
        options(patience=2, learning_rate_schedule=PLATEAU, class_weight=((0, 1.0), (1, 5.0))),
        options(class_weight="balanced"),
    ],
)
def test_a_recipe_survives_json(recipe: Recipe) -> None:
    assert Recipe.from_json(json.loads(json.dumps(recipe.to_json()))) == recipe


def test_the_url_of_a_file_is_not_part_of_a_step() -> None:
    one = Survey(file="id", tree="Events", branches=("met",), entries=(0, 10), url="a.root")
    assert one.key == dataclasses.replace(one, url="root://host//a.root").key
    assert one.key != dataclasses.replace(one, entries=(0, 11)).key


def test_a_step_survives_json() -> None:
    for step in World(GATED).finish():
        again = step_from_json(json.loads(json.dumps(step.to_json())))
        assert (again, again.key) == (step, step.key)


def test_the_event_limit_is_shared_in_proportion() -> None:
    world = World(dataclasses.replace(RECIPE, n_events=4_200))
    prepared = [step for step in world.finish() if isinstance(step, Prepare)]
    assert sum(step.entries[1] - step.entries[0] for step in prepared if step.label == 0) == 4_000
    assert sum(step.entries[1] - step.entries[0] for step in prepared if step.label == 1) == 200


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"a.root": 0, "b.root": 2_000}, "label 0 has no event in TTree 'Events' of its files"),
        ({"a.root": 1, "b.root": 1}, "the training sample has no event: 2 events are too few to split"),
    ],
)
def test_too_few_events_are_an_error(entries: dict[str, int], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        World(entries=entries).finish()


class SameFile(World):
    def result(self, step: Step) -> dict[str, Any]:
        found = super().result(step)
        return {**found, "fingerprint": "one"} if isinstance(step, Open) else found


def test_a_file_listed_twice_under_two_names_is_an_error() -> None:
    with pytest.raises(RequestError, match="'b.root' and 'a.root' are the same file"):
        SameFile().finish()


class OtherBranches(World):
    features: list[list[Any]]

    def result(self, step: Step) -> dict[str, Any]:
        found = super().result(step)
        return {**found, "features": self.features} if isinstance(step, Open) and step.url == "b.root" else found


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ([["met", False]], "'b.root' has no branch 'mu_pt', which 'a.root' has; exclude it"),
        ([["met", False], ["mu_pt", True], ["x", False]], "'a.root' has no branch 'x', which 'b.root' has"),
        ([["met", False], ["mu_pt", False]], "branch 'mu_pt' is flat in 'b.root' and jagged in 'a.root'"),
    ],
)
def test_files_with_other_branches_are_an_error(features: list[list[Any]], message: str) -> None:
    world = OtherBranches()
    world.features = features
    with pytest.raises(RequestError, match=message):
        world.finish()


def test_a_loss_that_is_not_finite_fails_the_run() -> None:
    with pytest.raises(RequestError, match="the loss after epoch 2 is nan: the training diverged"):
        course.best_epoch([0.5, float("nan")])


class Selecting(World):
    """Open steps find a sum of weights and a note; a cut rejects every tenth event."""

    def result(self, step: Step) -> dict[str, Any]:
        found = super().result(step)
        if isinstance(step, Open):
            return {**found, "sum_of_weights": f"[{step.url}]", "notes": [f"a note on {step.url}"]}
        if isinstance(step, Prepare):
            (part,) = found["parts"]
            rejected = (step.entries[1] - step.entries[0]) // 10
            rows = [part["rows"][0] - rejected, *part["rows"][1:]]
            return {"parts": [{**part, "rows": rows, "rejected": [rejected]}]}
        return {**found, "notes": ["-999 is far from all other values"]} if step.kind == "spec" else found


def until(world: World, kind: str) -> None:
    """Perform steps until one of this kind can be done."""
    while isinstance(coming := world.coming(), plan.Ready) and coming.steps[0].kind != kind:
        for step in coming.steps:
            world.perform(step)


def test_what_is_known_of_a_training_grows_with_its_results() -> None:
    world = Selecting(dataclasses.replace(RECIPE, preprocessing=Preprocessing(cuts=(Cut("met", "met > 30"),))))
    recipe, results = world.recipe, world.results.get
    assert preparation.headers(recipe, "run/1", results) == []
    assert preparation.surveys(recipe, "run/1", results) == []
    assert plan.notes(recipe, "run/1", results) == []
    until(world, "survey")
    assert [header.entries for header in preparation.headers(recipe, "run/1", results)] == [40_000, 2_000]
    surveys = preparation.surveys(recipe, "run/1", results)
    assert [step.entries for step in surveys] == [*map(tuple, ranges(40_000)), *map(tuple, ranges(2_000))]
    of_files = ["a note on a.root", "a note on b.root"]
    assert plan.notes(recipe, "run/1", results) == of_files
    assert plan.findings(recipe, "run/1", results) is None
    until(world, "prepare")
    assert plan.notes(recipe, "run/1", results) == [*of_files, "-999 is far from all other values"]
    assert plan.flow_of(recipe, "run/1", results) is None
    assert plan.chains_of(recipe, "run/1", results) == []
    until(world, "train")
    flow = plan.flow_of(recipe, "run/1", results)
    assert flow is not None
    assert flow.cuts == ("all events", "met")
    assert [sum(column) for column in zip(*(sample.events for sample in flow.samples), strict=True)] == [42_000, 37_800]
    assert [len(segments) for segments in plan.chains_of(recipe, "run/1", results)[0]] == [1, 1, 1]
    assert plan.n_epochs(recipe, "run/1", results) is None
    world.finish()
    assert plan.n_epochs(recipe, "run/1", results) == [3]
    assert plan.flow_of(RECIPE, "run/1", results) is None


def test_a_phase_counts_its_steps_without_sums() -> None:
    world = World()
    until(world, "survey")
    coming = world.coming()
    assert isinstance(coming, plan.Ready)
    assert (coming.done, coming.total) == (0, 42)
    for step in coming.steps[:5]:
        world.perform(step)
    coming = world.coming()
    assert isinstance(coming, plan.Ready)
    assert (coming.done, coming.total) == (5, 42)
    until(world, "train")
    world.perform(world.coming().steps[0])  # type: ignore[union-attr]
    coming = world.coming()
    assert isinstance(coming, plan.Ready)
    assert (coming.done, coming.total) == (1, 3)


@pytest.mark.parametrize(
    ("empty", "note"),
    [
        (0, None),
        (1, "1 of 13 files has no event: f0.root"),
        (2, "2 of 13 files have no event: f0.root, f1.root"),
        (11, f"11 of 13 files have no event: {', '.join(f'f{number}.root' for number in range(10))}, …"),
    ],
)
def test_a_note_names_the_first_files_without_events(empty: int, note: str | None) -> None:
    world = World(
        dataclasses.replace(RECIPE, files=tuple(LabelledFile(f"f{number}.root", number % 2) for number in range(13))),
        {f"f{number}.root": 0 if number < empty else 100 for number in range(13)},
    )
    until(world, "survey")
    assert plan.notes(world.recipe, "run/1", world.results.get) == ([note] if note else [])


@pytest.mark.parametrize(
    ("sample", "n_events", "expected"),
    [
        (Sample(name="one"), -1, (None, ())),
        (Sample(name="one", cross_section=2.0), -1, (6.0, ())),
        (Sample(name="one", cross_section=2.0, sum_of_weights=500.0), -1, (6.0, ("500.0",))),
        (Sample(name="one", cross_section=2.0, sum_of_weights="Runs/sum"), -1, (6.0, ("[a.root]", "[c.root]"))),
        # 4,000 of 42,000 events and 40 of 420: ten and a half times fewer
        (Sample(name="one", cross_section=2.0, sum_of_weights=500.0), 4_220, (63.0, ("500.0",))),
    ],
)
def test_a_sample_is_normalised_to_luminosity_and_cross_section_over_the_events_that_are_used(
    sample: Sample, n_events: int, expected: tuple[float | None, tuple[str, ...]]
) -> None:
    files = (LabelledFile("a.root", 0, "one"), LabelledFile("b.root", 1, "two"), LabelledFile("c.root", 0, "one"))
    samples = (sample, Sample(name="two", cross_section=1.0))
    recipe = dataclasses.replace(RECIPE, files=files, samples=samples, luminosity=3.0, n_events=n_events)
    world = Selecting(recipe, {"a.root": 42_000, "b.root": 1_890, "c.root": 420})
    (weigh,) = (step for step in world.finish() if isinstance(step, Weigh))
    (name, factor, sums), other = weigh.samples
    assert (name, sums) == ("one", expected[1])
    assert factor == (None if expected[0] is None else pytest.approx(expected[0], rel=1e-3))
    assert other == ("two", 3.0, ())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gate": GATED.gate, "targets": ("met",)}, "a gate compares classifiers, and the run has a 'target'"),
        ({"class_weight": "balanced", "weight": "w"}, "counts events; with event weights use 'balance': true"),
        (
            {"continues": EARLIER, "targets": ("met",)},
            "model 'htautau/7' learned classes, and this run learns met; train a new model, or give the same 'target'",
        ),
    ],
)
def test_options_that_exclude_each_other_are_an_error(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        World(dataclasses.replace(RECIPE, **changes)).finish()


def test_the_files_of_a_gate_can_be_opened_again_before_anything_else_of_it_is_known() -> None:
    world = World()
    world.finish()
    missing = plan.next_steps(GATED, "run/1", world.results.get)
    assert isinstance(missing, plan.Ready)
    assert [step.url for step in missing.steps if isinstance(step, Open)] == ["c.root", "d.root"]
    for step in missing.steps:
        assert plan.maker(GATED, "run/1", world.results.get, step.key) == step
        assert plan.maker(RECIPE, "run/1", world.results.get, step.key) is None


TEXTS = st.text(max_size=5)
STEPS = st.one_of(
    st.builds(
        Survey,
        file=TEXTS,
        tree=TEXTS,
        branches=st.lists(TEXTS).map(tuple),
        entries=st.tuples(st.integers(), st.integers()),
        url=TEXTS,
    ),
    st.builds(Compare, metric=TEXTS, fall=st.sampled_from([0, 0.0, 1, 1.0, 0.1]), model=TEXTS, score=TEXTS, last=TEXTS),
    st.builds(Sum, TEXTS, st.lists(TEXTS).map(tuple)),
    st.builds(Score, export=TEXTS, part=TEXTS, n_classes=st.integers(), threshold=st.floats(0, 1)),
)


@given(STEPS)
def test_a_key_is_the_hash_of_the_fields_as_plain_json(step: Step) -> None:
    named = {item.name: getattr(step, item.name) for item in dataclasses.fields(step) if not item.metadata.get("hint")}
    text = json.dumps([step.kind, step.version, named], sort_keys=True)
    assert step.key == f"steps/{step.kind}/{hashlib.sha256(text.encode()).hexdigest()}"


def test_a_preprocessing_does_not_slow_the_plan_down() -> None:
    new = tuple(NewBranch(f"x{number}", "met * 2 + sum(jet_pt) / 3 " + "+ 1" * 10) for number in range(200))
    seconds = []
    for values in ({}, {"preprocessing": Preprocessing(new=new), "weight": "w"}):
        world = World(dataclasses.replace(RECIPE, **values), {"a.root": 5_000_000, "b.root": 2_000})
        for opening in preparation.opens(world.recipe, "run/1"):
            world.perform(opening)
        (added,) = preparation.open_levels(world.recipe, "run/1")[1]
        world.perform(added)
        start = time.process_time()
        coming = world.coming()
        seconds.append(time.process_time() - start)
        assert isinstance(coming, plan.Ready)
        assert (coming.phase, coming.total) == ("survey", 5_002)
    assert seconds[1] < 4 * seconds[0] + 0.5


def test_the_sums_of_weights_of_many_files_and_cuts_have_a_limit() -> None:
    files = tuple(LabelledFile(f"root://h//{number}.root", number % 2) for number in range(5_000))
    cuts = tuple(Cut(f"x > {number}", f"x > {number}") for number in range(101))
    recipe = dataclasses.replace(RECIPE, files=files, preprocessing=Preprocessing(cuts=cuts))
    assert len(preparation.opens(recipe, "r/1")) == 5_000
    with pytest.raises(RequestError, match="5,000 files after each of 101 cuts are more than 500,000 sums"):
        preparation.opens(dataclasses.replace(recipe, weight="w"), "r/1")


def test_plots_show_the_titles_of_the_recipe_and_of_the_first_file_and_the_luminosity_of_the_samples() -> None:
    class Titled(World):
        def result(self, step: Step) -> dict[str, Any]:
            titles = [["met", "missing pT"], ["mu_pt", "pT(mu)"]] if isinstance(step, Open) and step.titles else []
            return {**super().result(step), "titles": titles}

    labels = PlotLabels("ACME", energy=13.6, titles=(("mu_pt", "pT [GeV]"),))
    for branch_titles, others in ((True, (("met", "missing pT"),)), (False, ())):
        plots = dataclasses.replace(labels, branch_titles=branch_titles)
        steps = Titled(dataclasses.replace(WEIGHTED, plots=plots, luminosity=140_000.0)).finish()
        (shown,) = (PlotLabels.from_text(step.labels) for step in steps if isinstance(step, Evaluate))
        assert (shown.label, shown.luminosity, shown.energy) == ("ACME", 140.0, 13.6)
        assert dict(shown.titles) == dict([*others, ("mu_pt", "pT [GeV]")])
        assert shown.title("other") == "other"


def test_other_texts_of_plots_make_no_new_training() -> None:
    world = World()
    world.finish()
    world.recipe, world.done = dataclasses.replace(RECIPE, plots=PlotLabels("ACME")), []
    assert {step.kind for step in world.finish()} == {"evaluate", "publish"}
