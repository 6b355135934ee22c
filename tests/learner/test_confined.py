"""A model that tries what is not allowed in the learner process: it fails with a reason, and the limits hold."""

import contextlib
import ctypes
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hepfaas.errors import RequestError
from hepfaas.learner import scratch
from hepfaas.learner.learner import Learner, LearnerLimits, LearnerSettings
from hepfaas.sandbox import confinement
from support import probes

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")

MODEL = """
import os, socket, subprocess, time, urllib.request
from pathlib import Path
import keras
import tensorflow as tf
import probes
turn = Path("turn")
now = int(turn.read_text()) if turn.exists() else 0
turn.write_text(str(now + 1))

def network(idim):
    net = keras.Sequential([keras.Input((idim,)), keras.layers.Dense(1)])
    net.compile(loss="mse", optimizer="sgd")
    return net

def probe(idim):
    print("variables", sorted(os.environ))
    probes.FOREIGN, probes.TOKEN, probes.PARENT = Path("FOREIGN"), "TOKEN", os.getppid()
    probes.files(); probes.parent(); probes.signals(); probes.system(); probes.allowed()
    return network(idim)

def one_large_file(idim):
    try:
        with open("large", "wb", buffering=0) as file:
            for _ in range(100):
                file.write(bytes(1_000_000))
    finally:
        Path("large").unlink()  # else it counts as too many bytes in the folder, too

def many_files(idim):
    for number in range(100_000):
        Path(f"part-{number}").write_bytes(bytes(1_000_000))
        time.sleep(0.01)

TURNS = [
    probe,
    lambda idim: socket.create_connection(("192.0.2.1", 80)),
    lambda idim: urllib.request.urlopen("http://example.org/weights.h5"),
    lambda idim: keras.utils.get_file("w.h5", "http://example.org/weights.h5"),
    lambda idim: open("FOREIGN/secret"),
    lambda idim: tf.io.read_file("FOREIGN/secret"),
    lambda idim: subprocess.run(["nvidia-smi"]),
    one_large_file,
    many_files,
]
model = TURNS[now]
"""

WHY = re.escape(confinement.WHY)
WORDS = [
    rf"model.py line \d+, in <lambda>: PermissionError: \[Errno 1\] Operation not permitted; {WHY}$",
    rf"model.py line \d+, in <lambda>: URLError: .*name resolution.*; {WHY}$",
    rf"model.py line \d+, in <lambda>: Exception: URL fetch failure.*name resolution.*; {WHY}$",
    rf"model.py line \d+, in <lambda>: PermissionError: \[Errno 13\] Permission denied: '.*/secret'; {WHY}$",
    rf"model.py line \d+, in <lambda>: PermissionDeniedError: .*/secret; Permission denied; {WHY}$",
    rf"model.py line \d+, in <lambda>: PermissionError: \[Errno 1\] Operation not permitted.*; {WHY}$",
    rf"model.py line \d+, in one_large_file: OSError: \[Errno 27\] File too large; {WHY}$",
    r"model.py: the learner process was stopped: \d+ files with \d+ MB in its folder; at most 20,000 files and 50 MB",
]


@dataclass(frozen=True)
class Tried:
    """Output and refusals of a learner process, its open descriptors, and whether its folder is left."""

    lines: list[str]
    refusals: list[str]
    descriptors: list[str]
    left: bool


@pytest.fixture(scope="module")
def tried(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tried]:
    folder = tmp_path_factory.mktemp("foreign")
    (folder / "secret").write_text("secret")
    with contextlib.suppress(PermissionError):  # not every user may make one
        ACCOUNT.parent.mkdir(parents=True)
        ACCOUNT.write_text("token")
    lines: list[str] = []
    code = MODEL.replace("FOREIGN/", f"{folder}/").replace('"FOREIGN"', f'"{folder}"')
    code = code.replace('TOKEN"', f'{ACCOUNT}"') if ACCOUNT.exists() else code.replace('"TOKEN"', '""')
    files = {"model.py": code.encode(), "probes.py": Path(probes.__file__).read_bytes()}
    settings = LearnerSettings(
        code=files, module="model.py", n_features=6, labels=(0, 1), batch_size=100, seed=3, threads=1, xla=False
    )
    refusals: list[str] = []
    try:
        with Learner(settings, on_log=lines.append, limits=LearnerLimits(scratch_mb=50)) as worker:
            worker.make()
            descriptors = [str(path.readlink()) for path in Path(f"/proc/{worker._process.pid}/fd").iterdir()]
            for _ in WORDS:
                with pytest.raises(RequestError) as caught:
                    worker.make()
                refusals.append(str(caught.value))
            yield Tried(lines, refusals, descriptors, worker._running.scratch.exists())
    finally:
        if ACCOUNT.exists():
            ACCOUNT.unlink()
            ACCOUNT.parent.rmdir()


def test_a_model_gets_nothing_that_is_not_its_own(tried: Tried) -> None:
    results = dict(line.split(": ") for line in tried.lines if re.fullmatch(r"[\w'3_0 -]+: \w+( it)?", line))
    assert len(results) > 60
    allowed = {
        *("threads", "a pair of sockets", "write in its folder", "make folders", "move", "read Python's files"),
        *("read of processors", "signal itself", "random numbers"),
        *("disk space as the C library has it", "locks", "not wait"),
    }
    assert {attempt for attempt, result in results.items() if result == "got it"} == allowed
    assert not any("secret" in line or "AWS" in line for line in tried.lines if line.startswith("variables"))


def test_what_it_tries_is_refused_with_its_line_and_the_reason(tried: Tried) -> None:
    for refusal, words in zip(tried.refusals, WORDS, strict=True):
        assert re.match(words, refusal), refusal


def test_nothing_is_open_in_it_but_its_socket_and_its_log(tried: Tried) -> None:
    kinds = {
        re.sub(r":?\[.*|/proc/\d+/.*", "", name) for name in tried.descriptors if not name.startswith("anon_inode")
    }
    assert kinds <= {"socket", "pipe", "/dev/null", "", "/proc/cpuinfo", "/proc/meminfo", "/proc/stat"}
    assert sum(name.startswith("socket") for name in tried.descriptors) == 1


def test_its_folder_goes_with_it(tried: Tried) -> None:
    assert not tried.left


HOG = """
import ctypes, mmap, os, platform, sys, threading
from pathlib import Path
def keep_removed(size):
    file = open("gone", "wb")
    os.unlink("gone")
    os.write(file.fileno(), bytes(size))
    return file
def map_removed():
    Path("gone").write_bytes(bytes(4096))
    with open("gone", "r+b") as file:
        mapped = mmap.mmap(file.fileno(), 0)
    os.unlink("gone")
    return mapped
def nest(depth):
    for _ in range(depth):
        os.mkdir("in")
        os.chdir("in")
def go_on_without_the_first(size):
    def go_on():
        held = keep_removed(size)
        print("ready", flush=True)
        sys.stdin.read()
    threading.Thread(target=go_on).start()
    ctypes.CDLL(None).syscall(93 if platform.machine() == "aarch64" else 60, 0)  # exit, of this thread alone
def shut():
    os.makedirs("shut/in")
    os.chmod("shut", 0)
held = {call}
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize(
    ("call", "finding"),
    [
        ("Path('small').write_bytes(bytes(900_000))", "^$"),
        ("Path('large').write_bytes(bytes(1_100_000))", "^1 files with 1 MB in its folder; at most 100 files and 1"),
        ("[Path(str(n)).touch() for n in range(101)]", "^101 files with 0 MB in its folder"),
        ("keep_removed(1_100_000)", "^1 files with 1 MB in its folder"),
        ("go_on_without_the_first(1_100_000)", "^1 files with 1 MB in its folder"),
        ("map_removed()", "^it maps a file that it removed"),
        ("nest(1_100)", "^its folder cannot be read: folders are nested too deeply"),
        ("os.symlink('/', 'top')", "^$"),
    ],
)
def test_what_is_hidden_from_a_listing_counts_too(call: str, finding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scratch, "MAX_FILES", 100)
    folder = scratch.create()
    command = [sys.executable, "-c", HOG.replace("{call}", call)]
    with subprocess.Popen(
        command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as hog:
        assert hog.stdout
        assert hog.stdout.readline() == b"ready\n"
        assert re.search(finding, scratch.excess(folder, hog.pid, 1))
        hog.kill()
    scratch.remove(folder)
    assert not folder.exists()


def test_a_folder_that_is_gone_is_no_excess() -> None:
    folder = scratch.create()
    scratch.remove(folder)
    assert scratch.excess(folder, os.getpid(), 1) == ""


KILLED = """
import os
from hepfaas.learner import scratch
folder = scratch.create()
(folder / "left").write_text("")
print(folder, flush=True)
os._exit(0)
"""


def test_folders_of_killed_functions_are_removed_by_the_next() -> None:
    killed = subprocess.run([sys.executable, "-c", KILLED], capture_output=True, text=True, check=True, timeout=60)
    left, old, young = Path(killed.stdout.strip()), scratch.create(), scratch.create()
    scratch.remove(scratch.create())
    assert left.exists(), "another function may be about to hold it"
    for folder in (left, old):
        os.utime(folder, (0, time.time() - scratch.ABANDONED_S - 1))
    try:
        scratch.remove(scratch.create())
        assert (left.exists(), old.exists(), young.exists()) == (False, True, True)
    finally:
        scratch.remove(old)
        scratch.remove(young)


def test_a_function_that_starts_a_learner_is_hidden() -> None:
    confinement.hide()
    assert ctypes.CDLL(None).prctl(3, 0, 0, 0, 0) == 0  # PR_GET_DUMPABLE
