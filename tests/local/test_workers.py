"""Workers do every step although some are killed, and raise an error after the last attempt."""

import os
import signal
import threading
import time
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


def slow_or_ends(item: int) -> int:
    """End the process of item 0 after a while, when the others have begun."""
    time.sleep(0.3)
    if not item and not Path(os.environ["ENDED"]).exists():
        Path(os.environ["ENDED"]).touch()
        ends()
    Path(f"{os.environ['ENDED']}-{item}-{os.getpid()}").touch()
    return item


def test_a_killed_worker_loses_its_own_task_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENDED", str(tmp_path / "ended"))
    monkeypatch.setattr(workers, "BACK_OFF_S", 0.01)
    with Workers(2, str(tmp_path)) as pool:
        assert pool.spread(slow_or_ends, range(4)) == [0, 1, 2, 3]
    assert [len(list(tmp_path.glob(f"ended-{item}-*"))) for item in range(4)] == [1, 1, 1, 1]


class OddError(Exception):
    """An error that pickle writes and cannot read."""

    def __init__(self, one: str, other: str) -> None:
        super().__init__(one + other)


def fails(item: int) -> int:
    raise OddError("1", "2") if item else ValueError("one")


def test_an_error_has_the_traceback_of_the_worker(tmp_path: Path) -> None:
    with Workers(1, str(tmp_path)) as pool:
        with pytest.raises(ValueError, match="one") as error:
            pool.spread(fails, [0])
        assert "in fails" in error.value.__notes__[0]
        with pytest.raises(RuntimeError, match="OddError: 12"):
            pool.spread(fails, [1])
        assert pool.spread(abs, [-3]) == [3]


def test_rounds_may_be_nested(surveys: list[Survey], tmp_path: Path) -> None:
    with Workers(2, str(tmp_path)) as pool:
        done = [step.key for step, _ in pool.perform(surveys[:3]) if pool.spread(abs, [-2, 1]) == [2, 1]]
    assert sorted(done) == sorted(step.key for step in surveys[:3])


def test_a_pool_that_is_left_ends_its_workers_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "GRACE_S", 0.1)
    start = time.monotonic()
    with Workers(1, str(tmp_path)) as pool:
        pool.spread(abs, [1])
        pool.warm(long)
    assert children() == []
    assert time.monotonic() - start < 20


def long() -> None:
    time.sleep(30)


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
