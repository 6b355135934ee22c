"""Attempts of a model's code to break out. Prints each attempt with 'got it' or the error's name. Standard library.

Used as the text of a program that sets FOREIGN, a folder of the test with a file 'secret', TOKEN, the path of a service
account's token or '', and PARENT, the process that started it.
"""

import ctypes
import errno
import fcntl
import mmap
import os
import platform
import resource
import socket
import struct
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

FOREIGN, TOKEN, PARENT = Path("/"), "", 1

C = ctypes.CDLL(None, use_errno=True)
ARM = platform.machine() == "aarch64"


def tried(name: str, attempt: Callable[[], object]) -> None:
    try:
        attempt()
    except OSError as error:
        result = errno.errorcode[error.errno or 0]
    except ValueError as error:
        result = type(error).__name__
    else:
        result = "got it"
    print(f"{name}: {result}", flush=True)  # noqa: T201  # the output of the program


def call(number: int, *arguments: int) -> int:
    """Make a system call without a wrapper of the C library."""
    result: int = C.syscall(*map(ctypes.c_long, (number, *arguments)))
    if result < 0:
        raise OSError(ctypes.get_errno(), "")
    return result


def call_of(x86_64: int, aarch64: int, *arguments: int) -> int:
    return call(aarch64 if ARM else x86_64, *arguments)


def read_one(path: str) -> bytes:
    with Path(path).open("rb") as file:
        return file.read(1)


def listed(folder: Path | str) -> list[Path]:
    return list(Path(folder).iterdir())


def fork() -> None:
    child = os.fork()
    if not child:
        os._exit(0)
    os.waitpid(child, 0)


def thread() -> None:
    one = threading.Thread(target=str)
    one.start()
    one.join()


def higher_limits() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard + 1))


def own_by(command: int) -> None:
    """Direct the signals of a socket to the parent, by ioctl."""
    fcntl.ioctl(socket.socketpair()[0], command, struct.pack("i", PARENT))


def hand_over() -> None:
    one, other = socket.socketpair()
    socket.send_fds(one, [b"x"], [other.fileno()])


def reserve_by_ioctl() -> None:
    with Path("space").open("wb") as file:
        fcntl.ioctl(file, 0x40305828, struct.pack("hh4xqq24x", 0, 0, 0, 4096))  # FS_IOC_RESVSP of linux/falloc.h


def reserve(how: Callable[[int, int, int], object]) -> None:
    with Path("space").open("wb") as file:
        how(file.fileno(), 0, 4096)


def lock() -> None:
    with Path("locked").open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)


def lock_bytes() -> None:
    """Lock one byte; a file may have any number of such locks, and each takes kernel memory."""
    with Path("locked").open("wb") as file:
        fcntl.lockf(file, fcntl.LOCK_EX, 1, 7)


def wait_not() -> None:
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    socket.socketpair()[0].setblocking(False)
    os.isatty(writer)
    os.close(os.dup(reader))


def in_the_old_way() -> None:
    """Make a call by 'int 0x80', which has other numbers: 20 is getpid."""
    code = mmap.mmap(-1, 4096, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    code.write(bytes.fromhex("b814000000cd80c3"))
    result = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))()
    if result < 0:
        raise OSError(-result, "")


def files() -> None:
    """Try to reach files of others; harmless if allowed."""
    tried("read a file", lambda: (FOREIGN / "secret").read_text())
    tried("list a folder", lambda: listed(FOREIGN))
    if TOKEN:
        tried("read the service account", lambda: Path(TOKEN).read_text())
    tried("list homes", lambda: listed("/home" if os.geteuid() else "/root"))
    tried("list temporary files", lambda: listed(FOREIGN.parent))
    tried("read users", lambda: Path("/etc/passwd").read_text())
    tried("list processes", lambda: listed("/proc"))
    tried("read the words of a process", lambda: Path(f"/proc/{PARENT}/cmdline").read_text())
    tried("read connections", lambda: Path("/proc/self/net/tcp").read_text())
    tried("write a file", lambda: (FOREIGN / "mine").write_text("x"))
    tried("change a file", lambda: (FOREIGN / "secret").open("a").close())
    tried("make a folder", lambda: (FOREIGN / "folder").mkdir())
    tried("write to shared memory", lambda: Path(f"/dev/shm/hepfaas-{os.getpid()}").write_text(""))
    tried("link to a file", lambda: os.link(FOREIGN / "secret", "linked"))
    Path("symlink").symlink_to(FOREIGN / "secret")
    tried("read by a symbolic link", Path("symlink").read_text)
    tried("remove a file", lambda: (FOREIGN / "mine").unlink())


def parent() -> None:
    """Try to reach the parent, which is hidden even from processes of the same user."""
    for name in ("environ", "mem", "maps"):
        tried(f"read the parent's {name}", lambda name=name: read_one(f"/proc/{PARENT}/{name}"))
    tried("see the parent's descriptors", lambda: Path(f"/proc/{PARENT}/fd/0").readlink())
    tried("see the parent's folder", lambda: Path(f"/proc/{PARENT}/cwd").readlink())
    tried("enter the parent's root", lambda: listed(f"/proc/{PARENT}/root"))
    tried("copy the parent's memory", lambda: call_of(310, 270, PARENT, 0, 0, 0, 0, 0))
    tried("trace the parent", lambda: call_of(101, 117, 16, PARENT, 0, 0))
    tried("signal the parent", lambda: os.kill(PARENT, 0))
    tried("signal the group", lambda: os.kill(0, 0))
    tried("hold the parent", lambda: os.pidfd_open(PARENT))
    tried("limit the parent", lambda: resource.prlimit(PARENT, resource.RLIMIT_CORE, (0, 0)))
    tried("slow the parent down", lambda: os.setpriority(os.PRIO_PROCESS, PARENT, 1))
    tried("be traced", lambda: call_of(101, 117, 0, 0, 0, 0))


def signals() -> None:
    """Try to direct a socket's signals to the parent; none is sent."""
    tried("give it the signals of a socket", lambda: fcntl.fcntl(socket.socketpair()[0], fcntl.F_SETOWN, PARENT))
    tried("choose the signal", lambda: fcntl.fcntl(socket.socketpair()[0], 10, 9))
    owner = struct.pack("ii", 1, PARENT)
    tried("give it the signals in the new way", lambda: fcntl.fcntl(socket.socketpair()[0], 15, owner))
    tried("give it the signals by FIOSETOWN", lambda: own_by(0x8901))
    tried("give it the signals by SIOCSPGRP", lambda: own_by(0x8902))


def system() -> None:
    """Try the network, programs, and calls that no model needs."""
    for family in ("AF_INET", "AF_INET6", "AF_NETLINK", "AF_PACKET", "AF_UNIX"):
        kind = socket.SOCK_RAW if family in ("AF_NETLINK", "AF_PACKET") else socket.SOCK_STREAM
        tried(family, lambda family=family, kind=kind: socket.socket(getattr(socket, family), kind).close())
    tried("pair of datagram sockets", lambda: socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM))
    tried("connect", lambda: socket.socketpair()[0].connect("\0abstract"))
    tried("fork", fork)
    tried("run a program", lambda: subprocess.run(["true"], check=True))
    tried("become a program", lambda: os.execv("/nowhere", ["nowhere"]))
    tried("clone3", lambda: call(435, 0, 0))
    tried("io_uring", lambda: call(425, 1, 0))
    tried("bpf", lambda: call_of(321, 280, 99, 0, 0))
    tried("keys", lambda: call_of(250, 219, 0, -3, 0))
    tried("a namespace", lambda: call_of(272, 97, 0x10000000))
    tried("mount", lambda: C.mount(b"none", b".", b"tmpfs", 0, None) and call_of(165, 40, 0, 0, 0, 0, 0))
    tried("a file in memory", lambda: os.close(os.memfd_create("x")))
    tried("shared memory", lambda: mmap.mmap(-1, 4096).close())
    tried("memory that grows", lambda: mmap.mmap(-1, 4096, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x100).close())
    tried("pages in a pipe", lambda: call_of(278, 75, os.pipe()[1], 0, 0, 0))
    tried("asynchronous reads", lambda: call_of(206, 0, 1, 0))
    tried("a lease", lambda: reserve(lambda file, *_: fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)))
    tried("locks of bytes", lock_bytes)
    tried("disk space at once", lambda: reserve(lambda *where: call_of(285, 47, where[0], 0, *where[1:])))
    tried("disk space by ioctl", reserve_by_ioctl)
    tried("hand over a descriptor", hand_over)
    tried("descriptors of one thread", lambda: call(436, 1000, 1000, 2))
    tried("a thread with descriptors of its own", lambda: call_of(56, 220, 0x10000, 0, 0, 0, 0))
    tried("change a mode", lambda: Path("symlink").chmod(0o600))
    tried("a pipe with a name", lambda: os.mkfifo("pipe"))
    tried("other processors", lambda: os.sched_setaffinity(0, os.sched_getaffinity(0)))
    tried("higher limits", higher_limits)
    tried("a call to come", lambda: call(463, 0))
    if not ARM:
        tried("a call of x32", lambda: call(0x40000000 + 39))
        tried("a call of the old way", in_the_old_way)


def allowed() -> None:
    """Try what a model is allowed to do."""
    tried("threads", thread)
    tried("a pair of sockets", lambda: [one.close() for one in socket.socketpair()])
    tried("write in its folder", lambda: Path("mine").write_text("x"))
    tried("make folders", lambda: (Path("a") / "b").mkdir(parents=True))
    tried("move", lambda: Path("mine").rename("a/b/mine"))
    tried("read Python's files", lambda: Path(os.__file__).read_text())
    tried("read of processors", lambda: Path("/proc/cpuinfo").read_text())
    tried("disk space as the C library has it", lambda: reserve(os.posix_fallocate))
    tried("locks", lock)
    tried("not wait", wait_not)
    tried("signal itself", lambda: os.kill(os.getpid(), 0))
    tried("random numbers", lambda: read_one("/dev/urandom"))
