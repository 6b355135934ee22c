"""train: a checkpoint and one segment of an epoch -> the next checkpoint, with the segment's loss and metrics."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hepfaas.learner.learner import Fitted, Learner
from hepfaas.models.inference import INFERENCE, Graph, Inference
from hepfaas.platform.storage import Store
from hepfaas.runs.epochs import VALIDATION_ROWS
from hepfaas.runs.results import PreparedPart, prepared_parts
from hepfaas.runs.splits import Split
from hepfaas.runs.steps import Train
from hepfaas.steps.learning import Learners, fetching, held_back, parts_of
from hepfaas.steps.objects import result_of
from hepfaas.steps.served_graph import check
from hepfaas.training import checkpoint
from hepfaas.training.segments import Block, blocks_of, first_rows, round_of, rows_in, seed_of, segments_of

COMPILED = "the training loop was compiled in"


FRESH_ROWS = 100
"""Events on which the graph of a network is checked before the first epoch."""


def perform(
    step: Train,
    store: Store,
    learners: Learners,
    on_rows: Callable[[int], None],
    inference: Inference = INFERENCE,
) -> None:
    """`on_rows` is called with the number of rows trained since its last call.

    Raises: RequestError if the user's code raises or does not fit the data, or before the first epoch if the network
    cannot be served; UnavailableError; MissingError.
    """
    prepared = prepared_parts(result_of(step.data, store), step.fold)
    learner = learners.holding(step.before, step, store)
    if step.epoch == step.segment == 0 and not learner.is_checked:
        _check_served(step, prepared, learner, store, inference)
    epoch = _segments(step, prepared)
    segment = [block for block in epoch[step.segment] if block]
    fetch = fetching(prepared, store)
    seed = seed_of(step.seed, "segment", step.epoch if step.shuffle else 0, step.segment)
    if step.segment == 0:
        learner.begin_epoch(step.epoch, step.learning_rate, step.rate_factor)
    first = step.segment == 0
    fitted = learner.fit(segment, fetch, seed=seed, first=first, by_block=bool(step.chunks), on_rows=on_rows)
    if fitted.rows != rows_in(segment):
        raise RuntimeError(f"the learner trained {fitted.rows} rows of a segment of {rows_in(segment)}")
    if fitted.compile_s:
        learners.on_log(f"{COMPILED} {fitted.compile_s:.2f} s")
    metrics, stop = dict(fitted.metrics), False
    if step.segment == len(epoch) - 1:
        metrics |= _validated(step, prepared, learner, fetch)
        stop = learner.end_epoch(metrics)
    facts = {**_facts(step, fitted, metrics, learner), "stop": stop}
    if step.epoch == step.segment == 0:
        facts["notes"] = learner.facts.notes.splitlines()
    data = checkpoint.to_bytes(learner.state(), facts)
    if store.create(step.key, data):
        learner.holds = step.key


def _check_served(
    step: Train, prepared: Sequence[PreparedPart], learner: Learner, store: Store, inference: Inference
) -> None:
    """Export the network and check its graph. Raises: RequestError if it cannot be served."""
    features = held_back(step, prepared, FRESH_ROWS, store)
    shape, outputs = features.shape[1:], learner.facts.outputs
    graph = Graph(learner.graph(), shape, outputs, f"the network of {step.module}")
    check(graph, features, learner.predict(features), step.targets, inference)
    learner.is_checked = True


def _segments(step: Train, prepared: Sequence[PreparedPart]) -> list[Sequence[Block]]:
    parts = parts_of(Split.TRAINING, prepared)
    if not step.chunks:
        blocks = blocks_of(parts, seed_of(step.seed, "epoch", step.epoch if step.shuffle else 0))
        return segments_of(blocks, step.segment_rows)
    seed = seed_of(step.seed, "chunks")  # each round cuts the same chunks
    blocks = round_of(parts, seed, n_chunks=step.chunks, passes=step.passes, number=step.epoch)
    return segments_of(blocks, step.segment_rows, sum(part.rows for part in parts), step.chunks)


def _validated(step: Train, prepared: Sequence[PreparedPart], learner: Learner, fetch: Any) -> dict[str, float]:
    """Return loss and metrics on validation rows, the same rows after every epoch."""
    blocks = first_rows(
        blocks_of(parts_of(Split.VALIDATION, prepared), seed_of(step.seed, "validation")), VALIDATION_ROWS
    )
    metrics = learner.validate(blocks, fetch, on_rows=lambda rows: None)
    return {f"val_{name}": value for name, value in metrics.items()}


def _facts(step: Train, fitted: Fitted, metrics: Mapping[str, float], learner: Learner) -> dict[str, Any]:
    facts = learner.facts
    return {
        "epoch": step.epoch,
        "segment": step.segment,
        "rows": fitted.rows,
        "id_sum": fitted.id_sum,
        "metrics": metrics,
        "optimizer": facts.optimizer,
        "score": facts.score,
        "learning_rate": fitted.learning_rate,
        "threads": step.threads,
        "xla": step.xla,
        "processor": facts.processor,
        "versions": dict(facts.versions),
    }
