"""Confines a process: no network, no other processes, few files, and no rare system calls.

A process confines itself, for good, before it imports the user's code and TensorFlow: a seccomp filter limits its
system calls, Landlock limits its files. Neither needs a privilege. This module imports nothing that starts threads,
because both apply to the thread that enables them and to the threads that it starts later.

Sources: linux/seccomp.h, linux/filter.h, linux/landlock.h, linux/prctl.h; numbers of calls from asm/unistd_64.h
(x86_64) and asm-generic/unistd.h (aarch64), which tests/sandbox/test_confinement.py compares.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import functools
import os
import platform
import re
import signal
import socket
import stat
import struct
import sys
import termios
from collections.abc import Iterator, Sequence
from pathlib import Path

from hepfaas.errors import RequestError

WHY = "a model's code has no network, no other processes and no files but Python's and those of its own folder"
"""The explanation after an error that the confinement caused."""

MET = re.compile(r"Operation not permitted|Permission ?denied|name resolution|File too large", re.IGNORECASE)

LAST = 451
"""The newest call that the filter knows (Linux 6.5). Later calls, and those of x32, fail with ENOSYS, for which the C
library has fallbacks."""

ALLOWED = """
read 0 63  readv 19 65  pread64 17 67  preadv 295 69  write 1 64  writev 20 66  pwrite64 18 68  pwritev 296 70
lseek 8 62  open 2 -  openat 257 56  creat 85 -  close 3 57  dup 32 23  dup2 33 -  dup3 292 24  pipe 22 -  pipe2 293 59
stat 4 -  lstat 6 -  fstat 5 80  newfstatat 262 79  statx 332 291  statfs 137 43  fstatfs 138 44
access 21 -  faccessat 269 48  faccessat2 439 439  readlink 89 -  readlinkat 267 78  getdents 78 -  getdents64 217 61
getcwd 79 17  chdir 80 49  fchdir 81 50  umask 95 166  mkdir 83 -  mkdirat 258 34  rmdir 84 -  unlink 87 -
unlinkat 263 35  rename 82 -  renameat 264 38  renameat2 316 276  symlink 88 -  symlinkat 266 36  ftruncate 77 46
fsync 74 82  fdatasync 75 83  flock 73 32  fadvise64 221 223  sendfile 40 71  copy_file_range 326 285
brk 12 214  munmap 11 215  mremap 25 216  mprotect 10 226  msync 26 227
futex 202 98  set_robust_list 273 99  set_tid_address 218 96  rseq 334 293  arch_prctl 158 -
sched_yield 24 124  exit 60 93  exit_group 231 94  restart_syscall 219 128
rt_sigaction 13 134  rt_sigprocmask 14 135  rt_sigreturn 15 139  sigaltstack 131 132
poll 7 -  ppoll 271 73  select 23 -  pselect6 270 72  epoll_create 213 -  epoll_create1 291 20  epoll_ctl 233 21
epoll_wait 232 -  epoll_pwait 281 22  eventfd 284 -  eventfd2 290 19
sendto 44 206  recvfrom 45 207  recvmsg 47 212  shutdown 48 210  getsockname 51 204  getpeername 52 205
nanosleep 35 101  clock_nanosleep 230 115  clock_gettime 228 113  clock_getres 229 114  gettimeofday 96 169
time 201 -  times 100 153  getrandom 318 278  getcpu 309 168
getpid 39 172  getppid 110 173  gettid 186 178  getpgrp 111 -  getuid 102 174  geteuid 107 175  getgid 104 176
getegid 108 177  uname 63 160  sysinfo 99 179  getrusage 98 165  getrlimit 97 163
sched_get_priority_max 146 125  sched_get_priority_min 147 126  sched_getparam 143 121  sched_getscheduler 145 120
"""
"""Allowed calls, each with its number on x86_64 and aarch64: those that Python, NumPy, TensorFlow, Keras and LiteRT
make (strace of the tests), and harmless relatives of them. All others fail with EPERM. No allowed call reaches another
process, an object that outlives the process, or memory that no limit counts."""

SOMETIMES = """
mmap 9 222  madvise 28 233  fcntl 72 25  ioctl 16 29  prctl 157 167  kill 62 129  tgkill 234 131  clone 56 220
close_range 436 436  prlimit64 302 261  socketpair 53 199  getsockopt 55 209  sched_getaffinity 204 123
"""
"""Calls that are allowed with certain arguments: `_conditions`."""

NOT_THERE = "clone3 435 435"
"""Fails with ENOSYS: the filter cannot read its arguments, and the C library then uses `clone`."""

NOT_SUPPORTED = "fallocate 285 47"
"""Fails with EOPNOTSUPP: it allocates gigabytes of disk in a millisecond. The C library then writes instead."""

MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
"""The column of a machine in the tables above, and its number in linux/audit.h."""

LOAD, AND, EQUAL, GREATER, RETURN = 0x20, 0x54, 0x15, 0x25, 0x06
"""Instructions of linux/bpf_common.h: BPF_LD|BPF_W|BPF_ABS, BPF_ALU|BPF_AND, BPF_JMP|BPF_JEQ, |BPF_JGT, BPF_RET."""

INSTRUCTION = struct.Struct("<HBBI")
ALLOW, ERRNO = 0x7FFF0000, 0x00050000
NUMBER_AT, MACHINE_AT, ARGUMENTS_AT = 0, 4, 16
CLOSE_RANGE_CLOEXEC, TYPE_OF_SOCKET = 0x04, 0xF
THREADS = (0x3D0F00, 0x7D0F00)
"""Flags of clone with which glibc and musl start a thread; all threads share descriptors, so scratch.py sees them."""

MAP_SHARED, MAP_ANONYMOUS, MAP_GROWSDOWN, MAP_HUGETLB = 0x01, 0x20, 0x100, 0x40000
F_GETPIPE_SZ = 1032
OF_DESCRIPTORS = (
    *(fcntl.F_DUPFD, fcntl.F_DUPFD_CLOEXEC, fcntl.F_GETFD, fcntl.F_SETFD, fcntl.F_GETFL, fcntl.F_SETFL, F_GETPIPE_SZ),
)
"""Commands of fcntl. Excluded: the owner and kind of a descriptor's signals; leases; locks of byte ranges, which take
kernel memory without limit (flock has one lock a file)."""

OF_MEMORY = (*range(5), 8, 14, 15, 16, 17)
"""Advice of madvise: NORMAL to DONTNEED, FREE, HUGEPAGE, NOHUGEPAGE, DONTDUMP, DODUMP."""

PR_SET_VMA = 0x53564D41
OF_THREADS = (15, 16, 23, PR_SET_VMA)
"""Options of prctl: names of threads and memory, and which capabilities exist."""

OF_SOCKETS = (socket.SO_TYPE, socket.SO_ERROR, socket.SO_DOMAIN, socket.SO_PROTOCOL)
"""Options of getsockopt. Excluded: the process at the other end."""

SIGNALS = tuple(sorted(set(range(65)) - {signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU}))
"""Signals that the process may send to itself: all but those that stop it."""

TCGETS2 = 0x802C542A
OF_TERMINALS = (termios.TCGETS, TCGETS2, termios.TIOCGWINSZ, termios.TIOCGPGRP)
OF_DEVICES = (*OF_TERMINALS, termios.FIONREAD, termios.FIONBIO, termios.FIOCLEX, termios.FIONCLEX)
"""Commands of ioctl that Python, the C library and TensorFlow need. Others fail with ENOTTY, as if the file did not
have them: some allocate disk space at once or choose the receiver of a socket's signals."""
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS = 1, 4, 22, 38
SECCOMP_MODE_FILTER = 2
CAPABILITY_VERSION_3 = 0x20080522

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
PATH_BENEATH, VERSION_FLAG = 1, 1
WRITE_FILE, READ_FILE, READ_DIR, REFER, TRUNCATE = 1 << 1, 1 << 2, 1 << 3, 1 << 13, 1 << 14
REMOVE_DIR, REMOVE_FILE, MAKE_DIR, MAKE_FILE, MAKE_SYMLINK = 1 << 4, 1 << 5, 1 << 7, 1 << 8, 1 << 12
READ = READ_FILE | READ_DIR
WRITE = READ | WRITE_FILE | REFER | TRUNCATE | REMOVE_DIR | REMOVE_FILE | MAKE_DIR | MAKE_FILE | MAKE_SYMLINK
OF_FILES = READ_FILE | WRITE_FILE | TRUNCATE
"""Rights that a rule for a file may have; the others are for folders."""

SYSTEM = (
    *("/usr", "/lib", "/lib64", "/etc/ld.so.cache", "/etc/localtime", "/etc/ssl/openssl.cnf", "/etc/mime.types"),
    *("/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/sys/devices/system/cpu", "/sys/devices/system/node"),
    *("/proc/self/cmdline", "/proc/self/maps", "/proc/self/stat", "/proc/self/statm", "/proc/self/status"),
    *("/dev/urandom", "/dev/random"),
)
"""Files that Python, the C library and TensorFlow read in addition to Python's own."""

Conditions = Sequence[tuple[int, int, tuple[int, ...]]]
"""For each condition: the position of an argument, a mask, and the values that the masked argument may have."""

_C = ctypes.CDLL(None, use_errno=True)


def confine(scratch: Path | None) -> None:
    """Confine this process, for good: no privileges, only the calls in `ALLOWED` and `SOMETIMES`, only the files of
    Python and of the scratch folder, if there is one.

    Raises: OSError if the kernel refuses.
    """
    _prctl(PR_SET_NO_NEW_PRIVS, 1)
    _drop_capabilities()
    if landlock_version():
        _hide_files(scratch)
    _filter_calls()


def hide() -> None:
    """Hide this process's environment, memory and files from other processes of its user, including later forks."""
    _prctl(PR_SET_DUMPABLE, 0)


def end_with_parent() -> None:
    """Kill this process when the thread that started it ends. Call it before `confine`."""
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def check(without_landlock: bool) -> None:
    """Raise RequestError if the kernel has no Landlock, unless the operator permits that."""
    if not landlock_version() and not without_landlock:
        raise RequestError(
            "the kernel has no Landlock, which hides files from a model's code; use one that has it (Linux 5.13 with "
            "'landlock' among its lsm), or set HEPFAAS_LEARNER_WITHOUT_LANDLOCK=1: a model's code can then read what "
            "this function's user can read"
        )


@functools.cache  # the filter refuses the call
def landlock_version() -> int:
    """Return the version of the kernel's Landlock, 0 if it has none."""
    return max(0, int(_C.syscall(*map(ctypes.c_long, (CREATE_RULESET, 0, 0, VERSION_FLAG)))))


def why(error: BaseException | None) -> str:
    """Return '; ' and the reason if the confinement seems to have caused the error, else ''."""
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        if MET.search(str(error)):
            return f"; {WHY}"
        seen.append(error)
        error = error.__cause__ or error.__context__
    return ""


def calls(table: str, machine: str) -> dict[str, int]:
    """Return the names and numbers of the calls of a table on a machine."""
    words = iter(table.split())
    column = MACHINES[machine][0]
    rows = [(name, numbers[column]) for name, *numbers in zip(words, words, words, strict=True)]
    return {name: int(number) for name, number in rows if number != "-"}


def program(machine: str, process: int) -> bytes:
    """Return the filter of a machine's calls for the process with this id, as an array of struct sock_filter."""
    conditions = _conditions(process)
    code = [
        _instruction(LOAD, MACHINE_AT),
        _instruction(EQUAL, MACHINES[machine][1], 1, 0),
        _instruction(RETURN, ERRNO | errno.ENOSYS),
        _instruction(LOAD, NUMBER_AT),
        _instruction(GREATER, LAST, 0, 1),
        _instruction(RETURN, ERRNO | errno.ENOSYS),
    ]
    for name, number in calls(SOMETIMES, machine).items():
        error = errno.ENOTTY if name == "ioctl" else errno.EPERM
        code += _if_number(number, [*_only_if(conditions[name], error), _instruction(RETURN, ALLOW)])
    for table, answer in (
        (ALLOWED, ALLOW),
        (NOT_THERE, ERRNO | errno.ENOSYS),
        (NOT_SUPPORTED, ERRNO | errno.EOPNOTSUPP),
    ):
        for number in calls(table, machine).values():
            code += _if_number(number, [_instruction(RETURN, answer)])
    return b"".join([*code, _instruction(RETURN, ERRNO | errno.EPERM)])


def _filter_calls() -> None:
    machine = platform.machine()
    if machine not in MACHINES or sys.byteorder != "little":
        raise OSError(
            errno.ENOSYS, f"no filter of calls for machine '{machine}'; there is one for {', '.join(MACHINES)}"
        )
    code = ctypes.create_string_buffer(program(machine, os.getpid()))
    whole = _Program(len(code) // INSTRUCTION.size, ctypes.addressof(code))
    _prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.c_void_p(ctypes.addressof(whole)))


class _Program(ctypes.Structure):
    """struct sock_fprog"""

    _fields_ = (("length", ctypes.c_ushort), ("code", ctypes.c_void_p))


def _hide_files(scratch: Path | None) -> None:
    """Enable Landlock: files by `_rules`; no TCP; no signals to, or abstract sockets of, other processes."""
    version = landlock_version()
    files = sum(1 << bit for bit, since in enumerate([1] * 13 + [2, 3, 5]) if since <= version)
    attributes = struct.pack("<QQQ", files, 0b11, 0b11)[: 8 if version < 4 else 16 if version < 6 else 24]
    ruleset = _landlock(CREATE_RULESET, attributes, len(attributes), 0)
    try:
        for path, rights in _rules(scratch):
            _allow(ruleset, path, rights & files)
        _landlock(RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)


def _rules(scratch: Path | None) -> Iterator[tuple[Path, int]]:
    """Return the permitted paths, each with the rights below it."""
    if scratch:
        yield scratch, WRITE
    yield Path(os.devnull), OF_FILES
    for path in {*SYSTEM, sys.prefix, sys.base_prefix, *filter(None, sys.path)}:
        yield Path(path), READ


def _allow(ruleset: int, path: Path, rights: int) -> None:
    """Add a rule for a path that exists.

    A file of /proc stays open: otherwise the kernel may drop its inode, and the rule does not apply to the next one.
    """
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        allowed = rights if stat.S_ISDIR(os.fstat(descriptor).st_mode) else rights & OF_FILES
        _landlock(ADD_RULE, ruleset, PATH_BENEATH, struct.pack("<Qi", allowed, descriptor), 0)
    finally:
        if path.parts[1] != "proc":
            os.close(descriptor)


def _landlock(call: int, *arguments: int | bytes) -> int:
    """Make a system call of Landlock with 64 bits for each argument."""
    words = [ctypes.c_long(word) if isinstance(word, int) else word for word in (call, *arguments)]
    return _checked(_C.syscall(*words), "Landlock")


def _drop_capabilities() -> None:
    header, none = struct.pack("<Ii", CAPABILITY_VERSION_3, 0), bytes(24)
    _checked(_C.capset(header, none), "capset")


def _prctl(option: int, value: int, more: ctypes.c_void_p | None = None) -> None:
    _checked(_C.prctl(option, ctypes.c_ulong(value), more, *[ctypes.c_ulong(0)] * 2), f"prctl {option}")


def _checked(result: int, call: str) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), f"{call}: {os.strerror(ctypes.get_errno())}")
    return result


def _conditions(process: int) -> dict[str, Conditions]:
    """Return the conditions on the arguments of `SOMETIMES`: signals to this process only, its own limits, pairs of
    sockets that cannot connect to anything else, threads but no processes, memory that RLIMIT_DATA counts."""
    whole, mapped = 0xFFFFFFFF, MAP_SHARED | MAP_ANONYMOUS | MAP_GROWSDOWN | MAP_HUGETLB
    return {
        "mmap": [(3, mapped, (0, MAP_SHARED, MAP_ANONYMOUS))],
        "madvise": [(2, whole, OF_MEMORY)],
        "fcntl": [(1, whole, OF_DESCRIPTORS)],
        "ioctl": [(1, whole, OF_DEVICES)],
        "prctl": [(0, whole, OF_THREADS)],
        "kill": [(0, whole, (process,)), (1, whole, SIGNALS)],
        "tgkill": [(0, whole, (process,)), (2, whole, SIGNALS)],
        "clone": [(0, whole, THREADS)],
        "close_range": [(2, whole, (0, CLOSE_RANGE_CLOEXEC))],
        "prlimit64": [(0, whole, (0, process))],
        "socketpair": [(0, whole, (socket.AF_UNIX,)), (1, TYPE_OF_SOCKET, (socket.SOCK_STREAM,))],
        "getsockopt": [(1, whole, (socket.SOL_SOCKET,)), (2, whole, OF_SOCKETS)],
        "sched_getaffinity": [(0, whole, (0, process))],
    }


def _if_number(number: int, then: list[bytes]) -> list[bytes]:
    return [_instruction(EQUAL, number, 0, len(then)), *then]


def _only_if(conditions: Conditions, error: int) -> Iterator[bytes]:
    for argument, mask, values in conditions:
        yield _instruction(LOAD, ARGUMENTS_AT + 8 * argument)
        yield _instruction(AND, mask)
        for place, value in enumerate(values):
            yield _instruction(EQUAL, value, len(values) - place, 0)
        yield _instruction(RETURN, ERRNO | error)


def _instruction(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return INSTRUCTION.pack(code, if_true, if_false, value)
