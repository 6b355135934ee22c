"""The confinement of a model's code, tried from inside; the learner in it: tests/learner/test_confined.py."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hepfaas.sandbox import confinement
from support import probes

LANDLOCK = pytest.mark.skipif(not confinement.landlock_version(), reason="the kernel has no Landlock")
CONFINED = "from hepfaas.sandbox import confinement\nconfinement.confine(Path.cwd())\n"
NO_LANDLOCK = """
import ctypes, errno, os
from hepfaas.sandbox import confinement as it
code = [it._instruction(it.LOAD, it.NUMBER_AT)]
code += it._if_number(it.CREATE_RULESET, [it._instruction(it.RETURN, it.ERRNO | errno.ENOSYS)])
code = ctypes.create_string_buffer(b"".join([*code, it._instruction(it.RETURN, it.ALLOW)]))
it._prctl(it.PR_SET_NO_NEW_PRIVS, 1)
whole = it._Program(len(code) // 8, ctypes.addressof(code))
it._prctl(it.PR_SET_SECCOMP, it.SECCOMP_MODE_FILTER, ctypes.c_void_p(ctypes.addressof(whole)))
"""
"""Makes the kernel answer as if it was built without Landlock."""

MAIN = Path(__file__).parents[2] / "functions" / "train" / "main.py"


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    folder = tmp_path / "foreign"
    folder.mkdir()
    (folder / "secret").write_text("secret")
    return folder


def done(scratch: Path, program: str, **variables: str) -> str:
    """Return the output of a program that runs in a scratch folder, in its own session."""
    scratch.mkdir(exist_ok=True)
    result = subprocess.run(
        [sys.executable, "-c", program],
        cwd=scratch,
        env={"PYTHONPATH": str(Path(confinement.__file__).parents[2]), "PATH": "/usr/bin:/bin", **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        start_new_session=True,
    )
    return result.stdout


def probed(foreign: Path, walls: str, *parts: str) -> dict[str, str]:
    """Return the result of each attempt."""
    program = Path(probes.__file__).read_text()
    at = program.index('FOREIGN, TOKEN, PARENT = Path("/"), "", 1')
    names = f"\nFOREIGN, PARENT = Path({str(foreign)!r}), {os.getpid()}\n"
    head, tail = program[:at], program[at:].partition("\n")
    whole = [head, tail[0], names, walls, tail[2], *(f"\n{part}()" for part in parts)]
    output = done(foreign.parent / "scratch", "".join(whole))
    results = dict(line.split(": ") for line in output.splitlines() if re.fullmatch(r"[\w'3_0 -]+: \w+( it)?", line))
    assert len(results) == len(output.splitlines()), output
    return results


def test_without_confinement_the_attempts_succeed(foreign: Path) -> None:
    """Without confinement the attempts succeed, so the tests below can fail."""
    got = probed(foreign, "", "files", "signals", "system", "allowed")
    refused = {what for what, result in got.items() if result != "got it"}
    assert refused <= {
        *("clone3", "io_uring", "bpf", "keys", "connect", "become a program"),  # the arguments are wrong
        *("asynchronous reads", "a thread with descriptors of its own"),  # here too
        *("a call to come", "a call of x32", "a call of the old way"),  # where the kernel has none
        *("a namespace", "mount", "AF_PACKET", "higher limits", "read connections"),  # where the user is not root
    }
    assert got["io_uring"] != "EPERM"


@LANDLOCK
def test_with_confinement_no_attempt_succeeds(foreign: Path) -> None:
    confinement.hide()
    got = probed(foreign, CONFINED, "files", "parent", "signals", "system")
    assert len(got) > 50
    assert {what: result for what, result in got.items() if result == "got it"} == {}
    assert sorted(path.name for path in foreign.iterdir()) == ["secret"]
    for error, attempts in {
        "EACCES": (
            "read a file",
            "list a folder",
            "read by a symbolic link",
            "write a file",
            "read the parent's environ",
        ),
        "EPERM": (
            *("AF_INET", "AF_UNIX", "fork", "run a program", "io_uring", "trace the parent", "signal the parent"),
            *("give it the signals of a socket", "hand over a descriptor", "a thread with descriptors of its own"),
        ),
        "ENOSYS": ("clone3", "a call to come"),
        "ENOTSUP": ("disk space at once",),
        "ENOTTY": ("disk space by ioctl", "give it the signals by FIOSETOWN"),
    }.items():
        assert {got[what] for what in attempts} == {error}


@LANDLOCK
def test_with_confinement_a_model_has_what_it_needs(foreign: Path) -> None:
    assert set(probed(foreign, CONFINED, "allowed").values()) == {"got it"}


def test_without_landlock_only_files_are_open(foreign: Path) -> None:
    confinement.hide()
    got = probed(foreign, NO_LANDLOCK + CONFINED, "parent", "signals", "system", "allowed")
    may = {what for what, result in got.items() if result == "got it"}
    assert may == set(probed(foreign, CONFINED, "allowed"))
    assert probed(foreign, NO_LANDLOCK + CONFINED, "files")["read a file"] == "got it"


def test_the_function_refuses_to_start_without_landlock_unless_it_may(tmp_path: Path) -> None:
    program = f"import runpy\n{NO_LANDLOCK}\nrunpy.run_path({str(MAIN)!r})\nprint('started')"
    home = {"HOME": str(tmp_path)}
    output = done(tmp_path, program, **home)
    assert "RequestError: the kernel has no Landlock, which hides files from a model's code" in output
    assert "set HEPFAAS_LEARNER_WITHOUT_LANDLOCK=1" in output
    assert done(tmp_path, program, HEPFAAS_LEARNER_WITHOUT_LANDLOCK="1", **home) == "started\n"


def test_a_machine_without_a_filter_is_refused() -> None:
    with pytest.raises(KeyError):
        confinement.program("riscv64", 1)


@pytest.mark.parametrize(
    ("machine", "header"),
    [("x86_64", "x86_64-linux-gnu/asm/unistd_64.h"), ("aarch64", "asm-generic/unistd.h")],
)
def test_the_numbers_are_those_of_the_kernel(machine: str, header: str) -> None:
    path = Path("/usr/include") / header
    if not path.exists():
        pytest.skip(f"no {path} (Debian linux-libc-dev)")
    numbers = {
        name: int(number) for name, number in re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)\s", path.read_text())
    }
    numbers.setdefault("newfstatat", numbers.get("fstatat", -1))  # asm-generic has it by this name
    table = "  ".join((confinement.ALLOWED, confinement.SOMETIMES, confinement.NOT_THERE, confinement.NOT_SUPPORTED))
    assert {name: numbers.get(name) for name in confinement.calls(table, machine)} == confinement.calls(table, machine)
    missing = set(re.findall(r"[a-z]\w+", table)) - set(confinement.calls(table, machine))
    assert not missing & set(numbers)


def test_only_errors_of_the_confinement_are_explained() -> None:
    assert confinement.why(PermissionError(1, "Operation not permitted")) == f"; {confinement.WHY}"
    error = ValueError("no weights")
    error.__cause__ = OSError("[Errno -3] Temporary failure in name resolution")
    assert confinement.why(error) == f"; {confinement.WHY}"
    assert confinement.why(ValueError("no")) == ""
