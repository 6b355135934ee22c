"""What a model's code is kept from: files, other programs and processes, the network, the kernel's rarer parts.

Two walls of Linux, put up by the learner process round itself, for good, before the user's code and TensorFlow are
imported: a seccomp filter says which calls there are, and Landlock which files. Neither needs a privilege. This module
imports nothing that starts threads: both walls hold for the thread that asks for them and those it starts.

Sources: linux/seccomp.h, linux/filter.h, linux/landlock.h, linux/prctl.h; numbers of calls from asm/unistd_64.h
(x86_64) and asm-generic/unistd.h (aarch64), which tests/training/test_confinement.py compares.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import platform
import re
import socket
import stat
import struct
import sys
import termios
from collections.abc import Iterator, Sequence
from pathlib import Path

from hepfaas.errors import RequestError

WHY = "a model's code has no network, no other processes and no files but Python's and those of its own folder"
"""Told where it met a wall."""

MET = re.compile(r"Operation not permitted|Permission ?denied|name resolution|File too large", re.IGNORECASE)

LAST = 451
"""The newest call that the filter knows (Linux 6.5): what came later is not there, nor are the calls of x32."""

REFUSED = """
socket 41 198  connect 42 203  bind 49 200  listen 50 201  accept 43 202  accept4 288 242
fork 57 -  vfork 58 -  execve 59 221  execveat 322 281
ptrace 101 117  process_vm_readv 310 270  process_vm_writev 311 271  process_madvise 440 440
process_mrelease 448 448  kcmp 312 272  pidfd_open 434 434  pidfd_getfd 438 438  pidfd_send_signal 424 424
tkill 200 130  rt_sigqueueinfo 129 138  rt_tgsigqueueinfo 297 240  setpriority 141 140  ioprio_set 251 30
sched_setaffinity 203 122  sched_setparam 142 118  sched_setscheduler 144 119  sched_setattr 314 274
migrate_pages 256 238  move_pages 279 239
sendmsg 46 211  sendmmsg 307 269  splice 275 76  tee 276 77  vmsplice 278 75
memfd_create 319 279  memfd_secret 447 447  shmget 29 194  shmat 30 196  msgget 68 186  semget 64 190
mq_open 240 180
chmod 90 -  fchmod 91 52  fchmodat 268 53  chown 92 -  fchown 93 55  lchown 94 -  fchownat 260 54
setxattr 188 5  lsetxattr 189 6  fsetxattr 190 7  removexattr 197 14  lremovexattr 198 15  fremovexattr 199 16
truncate 76 45  utime 132 -  utimes 235 -  futimesat 261 -  utimensat 280 88  mknod 133 -  mknodat 259 33
inotify_init 253 -  inotify_init1 294 26  fanotify_init 300 262  quotactl 179 60  quotactl_fd 443 443
name_to_handle_at 303 264  open_by_handle_at 304 265
mount 165 40  umount2 166 39  pivot_root 155 41  chroot 161 51  setns 308 268  unshare 272 97
open_tree 428 428  move_mount 429 429  fsopen 430 430  fsconfig 431 431  fsmount 432 432  fspick 433 433
mount_setattr 442 442
bpf 321 280  perf_event_open 298 241  userfaultfd 323 282  io_uring_setup 425 425  io_uring_enter 426 426
io_uring_register 427 427  io_setup 206 0  add_key 248 217  request_key 249 218  keyctl 250 219  personality 135 92
modify_ldt 154 -  iopl 172 -  ioperm 173 -  syslog 103 116  acct 163 89  swapon 167 224  swapoff 168 225
reboot 169 142  kexec_load 246 104  kexec_file_load 320 294  init_module 175 105  finit_module 313 273
delete_module 176 106  settimeofday 164 170  clock_settime 227 112  clock_adjtime 305 266  adjtimex 159 171
sethostname 170 161  setdomainname 171 162  vhangup 153 58  lookup_dcookie 212 18
"""
"""Calls that answer EPERM, each with its number on x86_64 and aarch64. Landlock leaves to this filter: owners, modes
and times of files; sockets that are files; other processes' limits and processors. What holds memory or removed
files where no limit counts them: descriptors that are under way, pages in pipes."""

SOMETIMES = """
kill 62 129  tgkill 234 131  prlimit64 302 261  socketpair 53 199  clone 56 220  close_range 436 436  mmap 9 222
fcntl 72 25  ioctl 16 29
"""
"""Calls that depend on their arguments: `_conditions`."""

NOT_THERE = "clone3 435 435"
"""The filter cannot look into its arguments, and the C library takes `clone` where there is no `clone3`."""

NOT_SUPPORTED = "fallocate 285 47"
"""It takes gigabytes of the disk in a millisecond. Where a file system has it not, the C library writes instead."""

MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
"""Column of a machine in the tables above, and what linux/audit.h calls it."""

LOAD, AND, EQUAL, GREATER, RETURN = 0x20, 0x54, 0x15, 0x25, 0x06
"""Instructions of linux/bpf_common.h: BPF_LD|BPF_W|BPF_ABS, BPF_ALU|BPF_AND, BPF_JMP|BPF_JEQ, |BPF_JGT, BPF_RET."""

INSTRUCTION = struct.Struct("<HBBI")
ALLOW, ERRNO = 0x7FFF0000, 0x00050000
NUMBER_AT, MACHINE_AT, ARGUMENTS_AT = 0, 4, 16
CLONE_FILES, CLONE_THREAD, CLOSE_RANGE_CLOEXEC, TYPE_OF_SOCKET = 0x400, 0x10000, 0x04, 0xF
MAP_SHARED, MAP_ANONYMOUS, MAP_GROWSDOWN = 0x01, 0x20, 0x100
F_OFD_GETLK, F_OFD_SETLK, F_OFD_SETLKW, F_GETPIPE_SZ = 36, 37, 38, 1032
OF_DESCRIPTORS = (
    *(fcntl.F_DUPFD, fcntl.F_DUPFD_CLOEXEC, fcntl.F_GETFD, fcntl.F_SETFD, fcntl.F_GETFL, fcntl.F_SETFL, F_GETPIPE_SZ),
    *(fcntl.F_GETLK, fcntl.F_SETLK, fcntl.F_SETLKW, F_OFD_GETLK, F_OFD_SETLK, F_OFD_SETLKW),
)
"""Commands of fcntl. Not among them: who gets a descriptor's signals, and which; leases."""

TCGETS2 = 0x802C542A
OF_TERMINALS = (termios.TCGETS, TCGETS2, termios.TIOCGWINSZ, termios.TIOCGPGRP)
OF_DEVICES = (*OF_TERMINALS, termios.FIONREAD, termios.FIONBIO, termios.FIOCLEX, termios.FIONCLEX)
"""Commands of ioctl: Python, the C library and TensorFlow need no others. Those answer ENOTTY, as where the file has
them not: among them are ways to take disk space at once, and to say who gets a socket's signals."""
PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS, SECCOMP_MODE_FILTER = 4, 22, 38, 2
CAPABILITY_VERSION_3 = 0x20080522

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
PATH_BENEATH, VERSION_FLAG = 1, 1
WRITE_FILE, READ_FILE, READ_DIR, REFER, TRUNCATE = 1 << 1, 1 << 2, 1 << 3, 1 << 13, 1 << 14
REMOVE_DIR, REMOVE_FILE, MAKE_DIR, MAKE_FILE, MAKE_SYMLINK = 1 << 4, 1 << 5, 1 << 7, 1 << 8, 1 << 12
READ = READ_FILE | READ_DIR
WRITE = READ | WRITE_FILE | REFER | TRUNCATE | REMOVE_DIR | REMOVE_FILE | MAKE_DIR | MAKE_FILE | MAKE_SYMLINK
OF_FILES = READ_FILE | WRITE_FILE | TRUNCATE
"""Rights that a rule for a file may have; the others are of folders."""

SYSTEM = (
    *("/usr", "/lib", "/lib64", "/etc/ld.so.cache", "/etc/localtime", "/etc/ssl/openssl.cnf", "/etc/mime.types"),
    *("/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/sys/devices/system/cpu", "/sys/devices/system/node"),
    *("/proc/self/cmdline", "/proc/self/maps", "/proc/self/stat", "/proc/self/statm", "/proc/self/status"),
    *("/dev/urandom", "/dev/random"),
)
"""What Python, the C library and TensorFlow read beside Python's own files."""

Conditions = Sequence[tuple[int, int, tuple[int, ...]]]
"""Each an argument's place, a mask, and what the masked argument may be."""

_C = ctypes.CDLL(None, use_errno=True)


def confine(scratch: Path | None) -> None:
    """Shuts this process in, for good: no privilege, no call of `REFUSED`, no files but Python's and the scratch's, if
    there is one.

    Raises: OSError if the kernel does not do it.
    """
    _prctl(PR_SET_NO_NEW_PRIVS, 1)
    _drop_capabilities()
    if landlock_version():
        _hide_files(scratch)
    _filter_calls()


def hide() -> None:
    """Hides this process's environment, memory and files from others of its user, and from the next it forks."""
    _prctl(PR_SET_DUMPABLE, 0)


def check(without_landlock: bool) -> None:
    """Raises: RequestError where the kernel has no Landlock, unless the operator does without."""
    if not landlock_version() and not without_landlock:
        raise RequestError(
            "the kernel has no Landlock, which hides files from a model's code; start where it has (Linux 5.13 with "
            "'landlock' among its lsm), or set HEPFAAS_LEARNER_WITHOUT_LANDLOCK=1: a model's code then reads what "
            "this function's user may read"
        )


def landlock_version() -> int:
    """Version of the kernel's Landlock, 0 if it has none."""
    return max(0, int(_C.syscall(*map(ctypes.c_long, (CREATE_RULESET, 0, 0, VERSION_FLAG)))))


def why(error: BaseException | None) -> str:
    """'; ' and what kept the code from what it tried, if that is how the error looks; else nothing."""
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        if MET.search(str(error)):
            return f"; {WHY}"
        seen.append(error)
        error = error.__cause__ or error.__context__
    return ""


def calls(table: str, machine: str) -> dict[str, int]:
    """Names and numbers of the calls of a table that a machine has."""
    words = iter(table.split())
    column = MACHINES[machine][0]
    rows = [(name, numbers[column]) for name, *numbers in zip(words, words, words, strict=True)]
    return {name: int(number) for name, number in rows if number != "-"}


def program(machine: str, process: int) -> bytes:
    """The filter of a machine's calls for the process of this id, as struct sock_filter's."""
    conditions = _conditions(process)
    code = [
        _instruction(LOAD, MACHINE_AT),
        _instruction(EQUAL, MACHINES[machine][1], 1, 0),
        _instruction(RETURN, ERRNO | errno.ENOSYS),
        _instruction(LOAD, NUMBER_AT),
        _instruction(GREATER, LAST, 0, 1),
        _instruction(RETURN, ERRNO | errno.ENOSYS),
    ]
    for table, error in ((NOT_THERE, errno.ENOSYS), (NOT_SUPPORTED, errno.EOPNOTSUPP), (REFUSED, errno.EPERM)):
        for number in calls(table, machine).values():
            code += _if_number(number, [_instruction(RETURN, ERRNO | error)])
    for name, number in calls(SOMETIMES, machine).items():
        error = errno.ENOTTY if name == "ioctl" else errno.EPERM
        code += _if_number(number, [*_only_if(conditions[name], error), _instruction(RETURN, ALLOW)])
    return b"".join([*code, _instruction(RETURN, ALLOW)])


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
    """Landlock: files as `_rules` says; no TCP; signals and sockets without a file to nobody outside."""
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
    """Places and what may be done there, with all below."""
    if scratch:
        yield scratch, WRITE
    yield Path(os.devnull), OF_FILES
    for path in {*SYSTEM, sys.prefix, sys.base_prefix, *filter(None, sys.path)}:
        yield Path(path), READ


def _allow(ruleset: int, path: Path, rights: int) -> None:
    """Adds a rule; none for what is not there.

    A file of /proc is kept open: else the kernel may forget it, and what it finds next time is another to the rule.
    """
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        may = rights if stat.S_ISDIR(os.fstat(place).st_mode) else rights & OF_FILES
        _landlock(ADD_RULE, ruleset, PATH_BENEATH, struct.pack("<Qi", may, place), 0)
    finally:
        if path.parts[1] != "proc":
            os.close(place)


def _landlock(call: int, *arguments: int | bytes) -> int:
    """A system call with 64 bits for each argument."""
    words = [ctypes.c_long(word) if isinstance(word, int) else word for word in (call, *arguments)]
    return _checked(_C.syscall(*words), "Landlock")


def _drop_capabilities() -> None:
    header, none = struct.pack("<Ii", CAPABILITY_VERSION_3, 0), bytes(24)
    _checked(_C.capset(header, none), "capset")


def _prctl(option: int, value: int, more: ctypes.c_void_p | None = None) -> None:
    _checked(_C.prctl(option, ctypes.c_ulong(value), more, *[ctypes.c_ulong(0)] * 2), f"prctl {option}")


def _checked(result: int, what: str) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")
    return result


def _conditions(process: int) -> dict[str, Conditions]:
    """What the arguments of `SOMETIMES` must be: no signal to another process, no limit of another's, pairs of
    sockets that cannot be connected to anything else, threads but no processes, descriptors that all threads share, so
    that scratch.py sees them, no memory that RLIMIT_DATA does not count."""
    whole, thread, mapped = 0xFFFFFFFF, CLONE_THREAD | CLONE_FILES, MAP_SHARED | MAP_ANONYMOUS | MAP_GROWSDOWN
    return {
        "kill": [(0, whole, (process,))],
        "tgkill": [(0, whole, (process,))],
        "prlimit64": [(0, whole, (0, process))],
        "socketpair": [(0, whole, (socket.AF_UNIX,)), (1, TYPE_OF_SOCKET, (socket.SOCK_STREAM,))],
        "clone": [(0, thread, (thread,))],
        "close_range": [(2, whole, (0, CLOSE_RANGE_CLOEXEC))],
        "mmap": [(3, mapped, (0, MAP_SHARED, MAP_ANONYMOUS))],
        "fcntl": [(1, whole, OF_DESCRIPTORS)],
        "ioctl": [(1, whole, OF_DEVICES)],
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
