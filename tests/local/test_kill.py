"""A run that is killed again and again has the same weights, and no finished step is done twice."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hepfaas.cli import main
from hepfaas.models import versions
from hepfaas.orchestration import records
from hepfaas.platform.stores import open_store

pytestmark = pytest.mark.slow

EXAMPLE = Path(__file__).parents[2] / "examples" / "htautau"
PHASES = ("open", "survey", "spec", "prepare", "train", "export", "score", "examine", "evaluate", "publish")
EACH, WRITES = 2, 5
MOST_KILLS, MOST_STORES = 60, 6
LIMIT_S = 120


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample's folder, with more and smaller steps."""
    path = tmp_path_factory.mktemp("kill") / "htautau"
    shutil.copytree(EXAMPLE, path)
    params = json.loads((EXAMPLE / "params.json").read_text())
    (path / "params.json").write_text(json.dumps({**params, "epochs": 4, "range_events": 1000}))
    (path / "folds.json").write_text(json.dumps({**params, "epochs": 2, "range_events": 2500, "folds": 2}))
    return path


def started(folder: Path, store: Path) -> subprocess.Popen[bytes]:
    """Start the command in a process group of its own."""
    command = [sys.executable, "-m", "hepfaas", "train", str(folder), "--store", str(store), "--workers", "2"]
    with (folder.parent / "output").open("wb") as out:
        return subprocess.Popen(command, stdout=out, stderr=out, start_new_session=True)


def finished(process: subprocess.Popen[bytes], folder: Path) -> None:
    """Wait for the end of a run that must succeed."""
    assert process.wait(timeout=LIMIT_S) == 0, (folder.parent / "output").read_text()


def steps_there(store: Path) -> set[str]:
    """Return the keys of the results in the store."""
    return {
        f"steps/{kind}/{name}"
        for kind in names(store / "local" / "steps")
        for name in names(store / "local" / "steps" / kind)
    }


def names(folder: Path) -> list[str]:
    """Return the names in a folder, none if it does not exist. Fast enough to catch phases of milliseconds."""
    try:
        with os.scandir(folder) as entries:
            return [entry.name for entry in entries]
    except FileNotFoundError:
        return []


def half_written(store: Path) -> set[str]:
    """Return the objects that are being written, or were when their writer was killed."""
    return set(names(store / "local" / ".tmp"))


def phase_of(store: Path) -> str:
    """Return the phase of a running process: the first that is not complete."""
    done = {kind: len(names(store / "local" / "steps" / kind)) for kind in (*PHASES, "sum")}
    sums = {"open": 1, "survey": 2, "prepare": 3, "score": 4}
    wanted = {
        "open": 2,
        "survey": 10,
        "spec": 1,
        "prepare": 10,
        "train": 4,
        "export": 1,
        "score": 10,
        "examine": 1,
        "evaluate": 1,
    }
    for phase in PHASES[:-1]:
        if done[phase] < wanted[phase] or done["sum"] < sums.get(phase, 0):
            return phase
    return "publish"


def kill(process: subprocess.Popen[bytes]) -> None:
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(timeout=10)


class Killer:
    """Kills runs at chosen moments, and counts the kills of each."""

    def __init__(self, seed: int) -> None:
        self._chooser = random.Random(seed)
        self.hits: Counter[str] = Counter()
        self.in_writes = 0

    @property
    def is_satisfied(self) -> bool:
        """Whether there were enough kills of each moment."""
        return all(self.hits[phase] >= EACH for phase in PHASES) and self.in_writes >= WRITES

    def strike(self, process: subprocess.Popen[bytes], store: Path) -> bool:
        """Wait for a chosen moment and kill; return False if the run ends first."""
        end = time.monotonic() + LIMIT_S
        left = half_written(store)
        delay = self._chooser.choice([0, 0, 0.002, 0.01, 0.05])
        while process.poll() is None and time.monotonic() < end:
            phase = phase_of(store)
            if self.hits[phase] < EACH or (phase != "open" and self.in_writes < WRITES and half_written(store) - left):
                if phase not in ("spec", "publish") and not half_written(store) - left:
                    time.sleep(delay)
                phase = phase_of(store)
                kill(process)
                self.hits[phase] += 1
                self.in_writes += phase != "open" and bool(half_written(store) - left)
                return True
        return False


@pytest.fixture(scope="module")
def undisturbed(folder: Path) -> str:
    store = folder.parent / "undisturbed"
    finished(started(folder, store), folder)
    return weights(store)


def weights(store: Path) -> str:
    card = versions.card_of(open_store(f"{store}/local"), versions.Version("htautau", 1))
    return str(card["weights"])


def left_running(store: Path) -> list[str]:
    """Return the command lines of processes of this store, and of learners without a parent."""
    commands = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().decode().split("\0")
            parent = int((path.parent / "stat").read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
        if str(store) in words or ("hepfaas.learner" in words and parent == 1):
            commands.append(" ".join(words))
    return commands


def test_kills_at_any_moment_change_nothing(folder: Path, undisturbed: str, capsys: pytest.CaptureFixture[str]) -> None:
    seed = random.SystemRandom().randrange(10_000)
    killer = Killer(seed)
    for number in range(MOST_STORES):
        store = folder.parent / f"killed-{number}"
        before = killed_until_it_ends(folder, store, killer)
        assert weights(store) == undisturbed, f"seed {seed}"
        check_nothing_ran_twice(store, before)
        assert main(["status", "htautau-1", "--verify", "--store", str(store)]) == 0
        assert left_running(store) == []
        if killer.is_satisfied:
            break
    with capsys.disabled():
        sys.stdout.write(f"\n  seed {seed}: killed in {dict(killer.hits)}, {killer.in_writes} of them during writes\n")
    assert killer.is_satisfied
    assert killer.hits.total() >= 20


def n_trained(store: Path) -> int:
    """Return the number of train and export steps that are done."""
    return sum(key.startswith(("steps/train/", "steps/export/")) for key in steps_there(store))


def test_kills_change_no_fold(folder: Path) -> None:
    folder = Path(shutil.copytree(folder, folder.parent / "folds" / folder.name))
    (folder / "folds.json").replace(folder / "params.json")
    whole, store = folder.parent / "whole", folder.parent / "killed"
    finished(started(folder, whole), folder)
    chooser, trained, kills = random.Random(21), 0, 0
    while kills < 5:
        process, end = started(folder, store), time.monotonic() + LIMIT_S
        wanted = trained + chooser.randint(1, 2)
        while process.poll() is None and time.monotonic() < end and n_trained(store) < wanted:
            time.sleep(0.01)
        if process.poll() is not None:
            break
        time.sleep(chooser.random() / 2)
        kill(process)
        trained, kills = n_trained(store), kills + 1
    assert kills >= 2
    finished(started(folder, store), folder)
    assert weights(store) == weights(whole)
    assert main(["status", "htautau-1", "--verify", "--store", str(store)]) == 0


def killed_until_it_ends(folder: Path, store: Path, killer: Killer) -> list[tuple[float, set[str]]]:
    """Repeat the command and return the time of each kill with the steps that were done by then."""
    before: list[tuple[float, set[str]]] = []
    for _ in range(MOST_KILLS):
        process = started(folder, store)
        if not killer.strike(process, store):
            break
        before.append((time.time(), steps_there(store)))
    finished(process, folder)
    return before


def check_nothing_ran_twice(store: Path, before: list[tuple[float, set[str]]]) -> None:
    """Steps that were done at a kill are not repeated."""
    opened = open_store(f"{store}/local")
    (run,) = records.runs(opened)
    done: list[Any] = list(records.log_of(opened, run))
    assert max(Counter(entry.key for entry in done).values()) == 1
    for moment, keys in before:
        assert [entry.key for entry in done if entry.time > moment and entry.key in keys] == []
    assert records.attempt_of(opened, run) == 2
