"""Workers do every step although some are killed, and raise an error after the last attempt."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from hepfaas.datasets.opened import opened
from hepfaas.errors import MissingError, RequestError, UnavailableError
from hepfaas.evaluation.drawings import Drawing, drawn, warm
from hepfaas.local import workers
from hepfaas.local.workers import Workers
from hepfaas.platform.stores import open_store
from hepfaas.runs.steps import Score, Survey

SAMPLE = Path(__file__).parents[2] / "examples" / "htautau" / "VBF_tautau.root"


@pytest.fixture
def surveys() -> list[Survey]:
    file = opened(str(SAMPLE), "Events")
    ranges = [(start, start + 1_000) for start in range(0, 5_000, 1_000)]
    return [
        Survey(file=file.identity, tree="Events", branches=("MET_pt", "Jet_pt"), entries=entries, url=str(SAMPLE))
        for entries in ranges
    ]


def children() -> list[int]:
    """Return the worker processes of this process."""
    listed = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
    return [pid for pid in map(int, listed) if b"spawn_main" in command_line(pid)]


def command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):  # it ended since it was listed
        return b""


@contextmanager
def killer(times: int) -> Iterator[None]:
    """Kill a number of workers, each as soon as it starts."""
    over = threading.Event()

    def kill() -> None:
        seen: set[int] = set()
        while len(seen) < times and not over.wait(0.002):
            for pid in set(children()) - seen:
                with suppress(ProcessLookupError):  # it ended by itself
                    os.kill(pid, signal.SIGKILL)
                    seen.add(pid)

    thread = threading.Thread(target=kill)
    thread.start()
    yield
    over.set()
    thread.join(timeout=10)


@pytest.mark.parametrize("kills", [0, 1, 2])
def test_every_step_is_done_although_workers_are_killed(kills: int, surveys: list[Survey], tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    with Workers(1, store.url) as pool, killer(kills):
        done = [step.key for step, _ in pool.perform(surveys)]
    assert sorted(done) == sorted(step.key for step in surveys)
    assert all(store.size_bytes(step.key) for step in surveys)
    assert children() == []


def test_a_step_whose_process_is_always_killed_is_an_error(
    surveys: list[Survey], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "BACK_OFF_S", 0.01)
    with (
        Workers(1, str(tmp_path)) as pool,
        killer(workers.MAX_ATTEMPTS),
        pytest.raises(UnavailableError, match=r"did 'survey' of entries .* was killed 4 times, perhaps"),
    ):
        list(pool.perform(surveys))


DRAWINGS: list[Drawing] = [
    ("plots.confusion", ({"confusion": [[8, 2], [3, 7]]}, ("background", "signal"))),
    ("plots.history", ([([{"loss": 0.7, "val_loss": 0.6}, {"loss": 0.5, "val_loss": 0.5}], 1)],)),
]


@pytest.mark.parametrize(("count", "kills"), [(2, 0), (1, 1)])
def test_pictures_are_the_same_wherever_they_are_drawn(count: int, kills: int, tmp_path: Path) -> None:
    with Workers(count, str(tmp_path)) as pool, killer(kills):
        pool.warm(warm)
        spread = pool.spread(drawn, DRAWINGS)
    assert spread == list(map(drawn, DRAWINGS))
    assert {name for drawn in spread for name in drawn} == {"confusion.png", "confusion.pdf", "loss.png", "loss.pdf"}


def ends() -> None:
    """End the process, as for lack of memory."""
    os.kill(os.getpid(), signal.SIGKILL)


def end_at(item: int) -> None:
    ends()


def test_a_function_whose_process_is_always_killed_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "BACK_OFF_S", 0.01)
    with Workers(1, str(tmp_path)) as pool:
        pool.warm(ends)
        with pytest.raises(UnavailableError, match="the process of 'end_at' was killed 4 times"):
            pool.spread(end_at, [1])


def test_missing_inputs_are_yielded_and_steps_that_cannot_succeed_raise(surveys: list[Survey], tmp_path: Path) -> None:
    with Workers(2, str(tmp_path)) as pool:
        ((_, missing),) = pool.perform(
            [Score(export="steps/export/nothing", part="steps/prepare/nothing", n_classes=2, threshold=0.5)]
        )
        assert isinstance(missing, MissingError)
        assert missing.key == "steps/export/nothing"
        with pytest.raises(RequestError, match="has changed since the run opened it"):
            list(
                pool.perform(
                    [Survey(file="another", tree="Events", branches=("MET_pt",), entries=(0, 10), url=str(SAMPLE))]
                )
            )


def test_a_server_that_does_not_answer_is_retried_and_then_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "BACK_OFF_S", 0.01)
    monkeypatch.setattr(workers, "MAX_ATTEMPTS", 2)
    away = Survey(file="file", tree="Events", branches=("MET_pt",), entries=(0, 10), url="root://127.0.0.1:1//x.root")
    with Workers(1, str(tmp_path)) as pool, pytest.raises(UnavailableError, match="root://127.0.0.1:1//x.root"):
        list(pool.perform([away]))
