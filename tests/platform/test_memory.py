"""Free memory is returned to the system."""

import subprocess
import sys

import pytest

PROGRAM = """
import sys
from pathlib import Path
from hepfaas.platform.memory import release_free_memory, use_one_arena
use_one_arena()
used = lambda: int(Path("/proc/self/statm").read_text().split()[1]) * 4096
before = used()
crowd = [bytes(50_000) for _ in range(2_000)]
last = bytes(50_000)  # memory at the top keeps the C library from releasing the memory below it by itself
full = used()
del crowd
kept = used()
release_free_memory()
print(full - before, kept - before, used() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc alone keeps memory so")
def test_free_memory_is_returned_to_the_system() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    full, kept, handed_back = map(int, done.stdout.split())
    assert kept > 90_000_000 < full
    assert handed_back < 10_000_000
