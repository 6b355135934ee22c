"""A model's code attacks its sandbox and the function that started it. Without TensorFlow: a small process is confined
like the learner process, or answers the client in its place."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hepfaas.errors import RequestError
from hepfaas.learner import scratch
from hepfaas.learner.converter import Converter
from hepfaas.learner.learner import INVALID_MESSAGE, PACKAGES, Learner, LearnerLimits, LearnerProcess, LearnerSettings
from hepfaas.sandbox import confinement, usage, wire
from hepfaas.training.segments import Rows, Slice

MEMORY_MB = 200

SHUT_IN = """
import ctypes, errno, fcntl, mmap, os, resource, signal, socket, struct, sys, threading, time
from pathlib import Path
from hepfaas.sandbox import confinement, limits
DESCRIPTOR, *LIMITS = map(int, sys.argv[1:5])
confinement.end_with_parent()
limits.limit(*LIMITS)
confinement.confine(Path.cwd())
C = ctypes.CDLL(None, use_errno=True)
C.mmap.restype = ctypes.c_void_p
C.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
MB, NOTHING = 1 << 20, ctypes.c_void_p(-1).value
def error_of(attempt):
    try:
        attempt()
    except OSError as error:
        return errno.errorcode.get(error.errno, str(error.errno))
    return "got it"
def call(number, *arguments):
    if C.syscall(*map(ctypes.c_long, (number, *arguments))) < 0:
        raise OSError(ctypes.get_errno(), "")
"""

SPEAKING = (
    SHUT_IN
    + """
import json, math
WIRE = socket.socket(fileno=DESCRIPTOR)
FACTS = {"parameters": 1, "outputs": 2, "loss": "mse", "logits": False, "own_fit": False, "optimizer": "",
         "callbacks": "", "summary": "", "processor": "", "versions": {}}
def zeros(dtype, *shape):
    return dtype, shape
def size_of(dtype, shape):
    return math.prod(shape) * int(dtype[2:])
def raw(text):
    WIRE.sendall(struct.pack("<I", len(text)) + text)
def answer(header, *arrays):
    raw(json.dumps([header, arrays]).encode())
    for array in arrays:
        WIRE.sendall(bytes(size_of(*array)))
def exactly(count):
    return WIRE.recv(count, socket.MSG_WAITALL) if count else b""
def received():
    header, arrays = json.loads(exactly(*struct.unpack("<I", exactly(4))))
    for array in arrays:
        exactly(size_of(*array))
    return header
def attack(asked):
    ATTACK
while True:
    asked = received()
    os.write(1, b"\\n\\0\\n")
    if asked["do"] == "begin":
        answer({})
    elif asked["do"] == "make" and not MAKING:
        answer(FACTS)
    else:
        attack(asked)
        time.sleep(60)
"""
)
"""A process in the place of the learner, which writes to the socket itself. `attack` answers the first request after
`make`, or `make` itself."""


class HostileProcess(LearnerProcess):
    """A process that runs a program in the learner's place."""

    def __init__(self, program: str, limits: LearnerLimits) -> None:
        self._program = program
        super().__init__(limits)

    def _started(self, descriptor: int) -> subprocess.Popen[bytes]:
        limits = [str(limit or 0) for limit in (self.limits.memory_mb, self.limits.cpus, self.limits.scratch_mb)]
        return subprocess.Popen(
            [sys.executable, "-P", "-c", self._program, str(descriptor), *limits],
            cwd=self.scratch,
            env={"PYTHONPATH": str(PACKAGES)},
            pass_fds=[descriptor],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


class Hostile(Learner):
    """The client of a hostile learner process."""

    def __init__(self, attack: str, *, making: bool = False, **limits: Any) -> None:
        body = (attack.strip() or "pass").replace("\n", "\n    ")
        program = SPEAKING.replace("ATTACK", body).replace("MAKING", str(making))
        settings = LearnerSettings(
            code={}, module="model.py", n_features=3, labels=(0, 1), batch_size=100, seed=3, threads=1, xla=False
        )
        bounds = LearnerLimits(**{"memory_mb": MEMORY_MB * 8, "silence_s": 10, **limits})
        process = HostileProcess(program, bounds)
        Learner.__init__(self, settings, on_log=lambda line: None, limits=bounds, started=process)


@pytest.fixture
def folder() -> Iterator[Path]:
    made = scratch.create()
    yield made
    scratch.remove(made)


def started(folder: Path, attack: str, memory_mb: int = MEMORY_MB) -> subprocess.Popen[str]:
    """Start a process that is confined like a learner and then attacks. It ends when its standard input closes."""
    return subprocess.Popen(
        [sys.executable, "-P", "-c", SHUT_IN + attack, "0", str(memory_mb), "0", "50"],
        cwd=folder,
        env={"PYTHONPATH": str(PACKAGES)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def printed(folder: Path, attack: str) -> list[str]:
    with started(folder, attack) as process:
        try:
            return process.communicate(timeout=20)[0].splitlines()
        finally:
            process.kill()


def refusal(attack: str, use: Callable[[Learner], object], **more: Any) -> str:
    """Return the error of a request that a hostile process answers; the process must have ended."""
    with Hostile(attack, **more) as learner:
        if not more.get("making"):
            learner.make()
        with pytest.raises(RequestError) as caught:
            use(learner)
        assert learner.closed
    return str(caught.value)


# memory and threads

PAGE_TABLES = """
taken = 0
while taken < 200_000 * MB:
    at = C.mmap(None, 512 * MB, mmap.PROT_READ, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000, -1, 0)
    if at in (None, NOTHING):
        break
    for page in range(at, at + 512 * MB, 2 * MB):
        ctypes.string_at(page, 1)
    taken += 512 * MB
print(taken // MB, flush=True)
sys.stdin.read()
"""


def test_page_tables_are_bounded_by_the_memory_limit(folder: Path) -> None:
    with started(folder, PAGE_TABLES) as process:
        assert process.stdout is not None
        taken_mb = int(process.stdout.readline())
        status = Path(f"/proc/{process.pid}/status").read_text()
        process.kill()
    assert taken_mb < 20_000
    assert int(re.findall(r"VmPTE:\s+(\d+)", status)[0]) < 50_000


READ_ONLY = """
while True:
    at = C.mmap(None, 20 * MB, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0)
    if at in (None, NOTHING):
        break
    ctypes.memset(at, 1, 20 * MB)
    C.mprotect(ctypes.c_void_p(at), ctypes.c_size_t(20 * MB), mmap.PROT_READ)
"""
FIRST_ENDS = """
def go_on():
    time.sleep(0.5)
    BODY
threading.Thread(target=go_on).start()
C.syscall(93 if os.uname().machine == "aarch64" else 60, 0)
"""


@pytest.mark.parametrize("attack", [READ_ONLY, FIRST_ENDS.replace("BODY", READ_ONLY.strip().replace("\n", "\n    "))])
def test_memory_that_was_written_and_made_read_only_counts(attack: str) -> None:
    """Also if the first thread has ended, so that the kernel reports nothing about it."""
    finding = refusal(attack, Learner.state, memory_mb=MEMORY_MB)
    assert re.search(r"was stopped: it took [\d,]+ MB with page tables; at most 200 MB are allowed", finding)


STACK = """
try:
    resource.setrlimit(resource.RLIMIT_STACK, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
except ValueError:
    pass
print(resource.getrlimit(resource.RLIMIT_STACK)[1])
"""


def test_the_stack_is_bounded(folder: Path) -> None:
    assert printed(folder, STACK) == ["8388608"]


THREADS = """
threading.stack_size(32768)
for _ in range(30_000):
    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
"""


def test_thirty_thousand_threads_are_ended_with_the_reason() -> None:
    finding = refusal(THREADS, Learner.state)
    assert re.search(r"was stopped: it started [\d,]+ threads; at most 2,000 are allowed", finding)


HELD = """
held, taken = [], 0
try:
    while True:
        pair = socket.socketpair()
        held.append(pair)
        for one in pair:
            one.setblocking(False)
            try:
                while True:
                    taken += one.send(bytes(65536))
            except BlockingIOError:
                pass
except OSError as error:
    print(errno.errorcode[error.errno], taken // MB)
"""


def test_buffers_of_sockets_are_bounded(folder: Path) -> None:
    error, taken_mb = printed(folder, HELD)[0].split()
    assert error == "EMFILE"
    assert int(taken_mb) < 100


# the kernel's other objects

SWEEP = f"""
numbers = NUMBERS
for number in range(1, {confinement.LAST + 1}):
    if number not in numbers:
        error = error_of(lambda: call(number, 0, 0, 0, 0, 0, 0))
        if error != "EPERM":
            print(number, error)
"""


def test_all_calls_that_are_not_listed_are_refused(folder: Path) -> None:
    """Among them all calls that reach other processes, System V and POSIX objects by number, or the whole machine."""
    machine = os.uname().machine
    listed = confinement.calls(confinement.ALLOWED + confinement.SOMETIMES, machine)
    other = confinement.calls(confinement.NOT_THERE + " " + confinement.NOT_SUPPORTED, machine)
    assert printed(folder, SWEEP.replace("NUMBERS", repr({*listed.values(), *other.values()}))) == []


BY_NUMBER = {
    **{"shmctl": (31, 195), "shmdt": (67, 197), "msgrcv": (70, 188), "msgsnd": (69, 189), "msgctl": (71, 187)},
    **{"semop": (65, 193), "semtimedop": (220, 192), "semctl": (66, 191), "mq_unlink": (241, 181)},
    **{"mq_timedsend": (242, 182), "mq_timedreceive": (243, 183), "mq_notify": (244, 184), "mq_getsetattr": (245, 185)},
    **{
        "process_madvise": (440, 440),
        "pidfd_open": (434, 434),
        "get_robust_list": (274, 100),
        "timer_create": (222, 107),
    },
    **{"getpriority": (140, 141), "kcmp": (312, 272), "sync": (162, 81), "seccomp": (317, 277), "mlock2": (325, 284)},
}


def test_objects_of_others_are_not_reached_by_their_number(folder: Path) -> None:
    column = int(os.uname().machine == "aarch64")
    numbers = [both[column] for both in BY_NUMBER.values()]
    attack = f"for number in {numbers}: print(error_of(lambda: call(number, 0, 0, 0, 0, 0, 0)))"
    assert dict(zip(BY_NUMBER, printed(folder, attack), strict=True)) == dict.fromkeys(BY_NUMBER, "EPERM")


ATTEMPTS = {
    "locks of bytes": "fcntl.lockf(open('locked', 'wb'), fcntl.LOCK_EX, 1, 7)",
    "stop": "os.kill(os.getpid(), signal.SIGSTOP)",
    "stop as a terminal does": "signal.raise_signal(signal.SIGTSTP)",
    "stop a thread": "signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)",
    "the process at the other end": "socket.socketpair()[0].getsockopt(socket.SOL_SOCKET, 77, 4)",
    "larger buffers": "socket.socketpair()[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)",
    "outlive the function": "C.prctl(1, 0, 0, 0, 0) and call(157 if os.uname().machine == 'x86_64' else 167, 1, 0)",
    "large pages": "mmap.mmap(-1, 2 * MB, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x40000)",
    "merged pages": "mmap.mmap(-1, 4096, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS).madvise(12)",
    "more descriptors": "resource.setrlimit(resource.RLIMIT_NOFILE, (1024, 1024))",
    "signals that wait": "resource.setrlimit(resource.RLIMIT_SIGPENDING, (10_000, 10_000))",
    "processors of another": f"os.sched_getaffinity({os.getpid()})",
}


def test_what_stops_outlives_or_hoards_is_refused(folder: Path) -> None:
    attack = "".join(f"print(error_of(lambda: {attempt}), flush=True)\n" for attempt in ATTEMPTS.values())
    # Python turns EPERM of `setrlimit` above the hard limit into a ValueError
    attack = "setrlimit = resource.setrlimit\n" + attack.replace("resource.setrlimit", "higher")
    attack = (
        "def higher(what, limits):\n    try: setrlimit(what, limits)\n"
        "    except ValueError: raise PermissionError(errno.EPERM, '') from None\n"
    ) + attack
    assert dict(zip(ATTEMPTS, printed(folder, attack), strict=True)) == dict.fromkeys(ATTEMPTS, "EPERM")


MAPPED = """
Path("gone").write_bytes(bytes(4096))
with open("gone", "r+b") as file:
    mapped = mmap.mmap(file.fileno(), 0)
os.unlink("gone")
print("ready", flush=True)
sys.stdin.read()
"""


def test_a_removed_file_is_seen_through_a_symlinked_temporary_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "link"))
    folder = scratch.create()
    with started(folder, MAPPED) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        for path in (folder, tmp_path / "link" / folder.name):
            assert scratch.excess(path, process.pid, 1) == "it maps a file that it removed"
        process.kill()
    scratch.remove(folder)


# messages

BLOCKS = [[Slice("p/0", 0, 5), Slice("p/1", 0, 5)], [Slice("p/2", 0, 10)]]


def rows_of(batch: str) -> Rows:
    assert batch in {"p/0", "p/1", "p/2"}, f"{batch} is another's"
    return Rows(np.zeros((10, 3), dtype=np.float32), np.zeros(10, dtype=np.int64), np.zeros(10, dtype=np.uint64))


def fit(learner: Learner) -> None:
    learner.fit(BLOCKS, rows_of, seed=1, first=True, on_rows=lambda rows: None)


def validate(learner: Learner) -> None:
    learner.validate(BLOCKS, rows_of, lambda rows: None)


def predict(learner: Learner) -> None:
    learner.predict(np.zeros((4, 3), dtype=np.float32))


FITTED = '{"rows": 20, "id_sum": 0, "metrics": {"loss": 1.0}, "learning_rate": 0.0, "compile_s": 0.0, "seconds": 0.0}'
PASSES = {
    "while True: answer({'rows_done': 0})": "more progress than 20 rows in 2 blocks",
    "while True: answer({'rows_done': 1})": "more progress than 20 rows in 2 blocks",
    "answer({'rows_done': 21})": "more progress than 20 rows",
    "answer({'rows_done': -1})": "more progress than 20 rows",
    "answer({'rows_done': True})": "more progress than 20 rows",
    "answer({'rows_done': 1.5})": "more progress than 20 rows",
    "answer({'rows_done': None})": "more progress than 20 rows",
    "answer({'rows_done': 1}, zeros('<f8', 9))": "0 MB of arrays; at most 0 MB|1 arrays; at most 0",
    "answer({'done': 1})": "other values than rows, id_sum",
    f"answer({FITTED.replace('20', '19')})": "19 rows trained of 20",
    f"answer({FITTED.replace('20', 'True')})": "rows 'True'",
    f"answer({FITTED.replace('1.0', '[]')})": "metrics ",
    f"answer({FITTED.replace('loss', chr(92) + 'ud800')})": "metrics ",
}


@pytest.mark.parametrize("attack", PASSES)
def test_progress_is_bounded_by_what_was_asked(attack: str) -> None:
    finding = refusal("answer({'need': []})\n" + attack, fit)
    assert re.search(PASSES[attack], finding), finding


SLOW = {
    "answer({'need': []})\nfor _ in range(3): time.sleep(0.5); answer({'rows_done': 0})": fit,
    "WIRE.send(b'\\0\\x10\\0\\0')\nfor _ in range(1000): time.sleep(0.05); WIRE.send(b'\\1')": Learner.state,
    "raw(b'[{}, [[\"<f4\", [4, 2]]]]')\nfor _ in range(1000): time.sleep(0.3); WIRE.send(b'\\1')": predict,
    "time.sleep(60)": Learner.export,
}


@pytest.mark.parametrize("attack", SLOW)
def test_bytes_and_messages_without_progress_do_not_break_the_silence(attack: str) -> None:
    assert "did not answer for 1 s and was stopped" in refusal(attack, SLOW[attack], silence_s=1.2)


@pytest.mark.parametrize("need", ["['other/0']", "['p/0', 'p/0']", "'p/0'", "[1]", "[['p/0']]", "None"])
def test_rows_of_others_are_not_fetched(need: str) -> None:
    assert "record batch" in refusal(f"answer({{'need': {need}}})", fit)


def test_a_pass_that_is_said_to_be_done_before_it_took_its_rows_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hepfaas.learner.learner.SENDER_END_S", 0.2)
    blocks = [[Slice("p/0", 0, 1)]]

    def large(batch: str) -> Rows:
        return Rows(np.zeros((10, 1_000_000), dtype=np.float32), np.zeros(10, np.int64), np.zeros(10, np.uint64))

    done = FITTED.replace("20", "1")
    finding = refusal(
        f"answer({{'need': ['p/0']}})\nanswer({done})",
        lambda learner: learner.fit(blocks, large, seed=1, first=True, on_rows=lambda rows: None),
    )
    assert "before it took the rows" in finding


MANY = b"[" + b'["<f4", [0]],' * 50_000 + b'["<f4", [0]]]'
MESSAGES = [
    (b"[" * 1_000_000, "recursion"),
    (b"{]", "Expecting property name"),
    (b"1", "int"),
    (b"[{}]", "unpack"),
    (b"[1, []]", "not an object"),
    (b"[{}, 1]", "not an object"),
    (b"[{}, [1]]", "int"),
    (b'[{}, [["<f4", [-1]]]]', "shape"),
    (b'[{}, [["<f4", [true]]]]', "shape"),
    (b'[{}, [["<f4", [1.5]]]]', "shape"),
    (b'[{}, [["<f4", 7]]]', "shape"),
    (b'[{}, [["<f4", ' + json.dumps([1] * 100).encode() + b"]]]", "shape"),
    (b'[{}, [["<f4", [' + b"9" * 4_000 + b"]]]]", "shape"),
    (b'[{}, [["<f4", [' + b"9" * 5_000 + b"]]]]", "digits"),
    (b'[{}, [["<f4", [0, 9000000000000000000]]]]', "[Mm]aximum|too large|too big"),
    (b'[{}, [["<f4", ' + json.dumps([2**60] * 32).encode() + b"]]]", "MB of arrays; at most 200 MB"),
    (b'[{}, [["<f4", [1000000000000]]]]', "4,000,000 MB of arrays; at most 200 MB"),
    (b'[{}, [["<f4", [40000000]], ["<f4", [40000000]]]]', "320 MB of arrays; at most 200 MB"),
    (b'[{}, [["V2000000000", [1]]]]', "only numbers"),
    (b'[{}, [["S4", [1]]]]', "only numbers"),
    (b'[{}, [["O", [1]]]]', "only numbers"),
    (b'[{}, [["f8,O", [1]]]]', "only numbers"),
    (b'[{}, [["(1000000,1000000)f4", [1]]]]', "only numbers"),
    (b'[{}, [[{"names": ["a"], "formats": ["O"]}, [1]]]]', "only numbers"),
    (b"[{}, " + MANY + b"]", "50,001 arrays; at most 2"),
]


@pytest.mark.parametrize(("text", "finding"), MESSAGES)
def test_a_message_is_checked_before_anything_is_allocated(text: bytes, finding: str) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, ThreadPoolExecutor(1) as pool:
        tracemalloc.start()
        pool.submit(theirs.sendall, len(text).to_bytes(4, "little") + text)
        with pytest.raises(INVALID_MESSAGE, match=finding):
            wire.receive(ours, wire.Room(2_000_000, 2, 200e6), time.monotonic() + 5)
        assert tracemalloc.get_traced_memory()[1] < 50_000_000
        tracemalloc.stop()


ANSWERS = [
    ("WIRE.send(b'\\xff\\xff\\xff\\xff')", Learner.state, "a header of 4,294,967,295 bytes; at most 2,000,000"),
    ("WIRE.send(b'\\x02\\0\\0\\0{]')", Learner.state, "an invalid answer"),
    ("answer({'names': []}, *[zeros('|u1', 60 * MB)] * 4)", Learner.state, "251 MB of arrays; at most 200 MB"),
    ("answer({}, zeros('<f4', 4, 3))", predict, "0 MB of arrays; at most 0 MB"),
    ("answer({}, zeros('<i4', 4, 2))", predict, "outputs that are not float32 of shape"),
    ("answer({}, zeros('<f4', 2, 4))", predict, "outputs that are not float32 of shape"),
    ("answer({})", predict, "outputs that are not float32 of shape"),
    ("answer({}, *[zeros('<f4', 0)] * 2)", predict, "2 arrays; at most 1"),
    ("answer({}, zeros('|u1', 9))", Learner.export, "1 arrays, not 2"),
    ("answer({}, zeros('|u1', 9))", lambda learner: learner.load({}), "1 arrays; at most 0"),
]


@pytest.mark.parametrize(("attack", "use", "finding"), ANSWERS)
def test_an_answer_is_limited_by_what_was_asked(attack: str, use: Callable[[Learner], object], finding: str) -> None:
    assert re.search(finding, refusal(attack, use))


class HostileConverter(Hostile, Converter):
    """The client of a converter process that an uploaded model has taken over."""


CONVERTED = "{'shape': SHAPE, 'integers': False, 'outputs': 2, 'parameters': 1, 'processor': '', 'versions': {}}"


@pytest.mark.parametrize(
    ("shape", "finding"),
    [
        ("[10 ** 6] * 3", "takes rows of 1,000,000,000,000,000,000 numbers; at most 10,000,000 are supported"),
        ("[10 ** 100]", "shape"),
        ("[True]", "shape"),
        ("[-1, -4]", "shape"),
        ("'ab'", "shape"),
        ("[3]", "0 arrays, not a graph"),
    ],
)
def test_a_row_of_a_model_that_was_made_elsewhere_is_bounded(shape: str, finding: str) -> None:
    attack = f"answer({CONVERTED.replace('SHAPE', shape)})"
    with HostileConverter(attack, making=True) as learner, pytest.raises(RequestError, match=finding):
        learner.convert()


@pytest.mark.parametrize(
    ("facts", "finding"),
    [
        ("{}", "other values than parameters"),
        ("{**FACTS, 'more': 1}", "other values than parameters"),
        ("{**FACTS, 'outputs': '2'}", "outputs '2'"),
        ("{**FACTS, 'outputs': -2}", "outputs '-2'"),
        ("{**FACTS, 'parameters': 10 ** 4000}", "parameters "),
        ("{**FACTS, 'logits': 1}", "logits '1'"),
        ("{**FACTS, 'versions': ['numpy']}", "versions"),
        ("{**FACTS, 'versions': {'numpy': 1}}", "versions"),
        ("{**FACTS, 'processor': 'x' * 100_000}", "processor"),
        ("{'error': 'x' * 1_900_000}", "characters left out"),
        ("{'error': {'a': ['b']}}", "{'a': \\['b'\\]}"),
        ("{'error': chr(0xD800)}", "^\\?"),
    ],
)
def test_facts_are_of_their_types(facts: str, finding: str) -> None:
    with Hostile(f"answer({facts})", making=True) as learner, pytest.raises(RequestError, match=finding) as caught:
        learner.make()
    assert len(str(caught.value)) < 12_000


@pytest.mark.parametrize(
    "names", ["['a', 'a']", "['a']", "[1, 2]", "[['a'], 'b']", "'ab'", "None", "['a', chr(0xDFFF)]"]
)
def test_a_state_has_a_name_for_each_array(names: str) -> None:
    assert "a state" in refusal(f"answer({{'names': {names}}}, *[zeros('<f8', 3)] * 2)", Learner.state)


def test_a_variable_that_no_checkpoint_holds_is_named() -> None:
    with Hostile("answer({'names': ['a']}, zeros('<c16', 3))") as learner:
        learner.make()
        with pytest.raises(RequestError, match="variable 'a' has type complex128; a checkpoint takes only"):
            learner.state()


def test_a_process_that_ends_by_a_signal_without_a_name_is_told() -> None:
    assert "ended by signal 40 (a real-time signal)" in refusal("os.kill(os.getpid(), 40)", Learner.state)


def test_a_process_that_reads_nothing_does_not_hold_the_function() -> None:
    weights = {"a": np.zeros(10_000_000)}
    with Hostile("", silence_s=1) as learner:
        learner.make()
        learner._process.send_signal(signal.SIGSTOP)
        with pytest.raises(RequestError, match="did not answer for 1 s"):
            learner.load(weights)


ORPHAN = f"""
import sys
sys.path[:0] = {json.dumps([str(Path(__file__).parent)])}
from test_learner import Hostile
learner = Hostile("print(os.getpid(), Path.cwd(), flush=True); ctypes.PyDLL(None).sleep(600)")
learner._on_log = lambda line: print(line, flush=True)
learner.make()
learner.state()
"""


def test_a_process_that_holds_pythons_lock_does_not_outlive_the_function() -> None:
    with subprocess.Popen([sys.executable, "-c", ORPHAN], stdout=subprocess.PIPE, text=True) as function:
        assert function.stdout is not None
        process, folder = function.stdout.readline().split()
        function.kill()
    end = time.monotonic() + 10
    while usage.THREADS.search(_status(process)) and time.monotonic() < end:
        time.sleep(0.01)
    assert not usage.THREADS.search(_status(process))
    scratch.remove(Path(folder))


def _status(process: str) -> str:
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except FileNotFoundError:
        return ""
    return "" if "(zombie)" in status else status
