"""`python -m hepfaas.learner DESCRIPTOR MEMORY_MB CPUS SCRATCH_MB` confines itself, then runs the learner process.

A limit of 0 means no limit. Modules that start threads, such as NumPy, are imported after the confinement.
"""

from __future__ import annotations

import sys
from pathlib import Path

from hepfaas.sandbox import confinement, limits


def main() -> None:
    """Serve until the function closes its end of the socket."""
    descriptor, memory_mb, cpus, scratch_mb = map(int, sys.argv[1:5])
    confinement.end_with_parent()
    limits.limit(memory_mb, cpus, scratch_mb)
    confinement.confine(Path.cwd())
    if not confinement.landlock_version():
        sys.stdout.write("note: the kernel has no Landlock: a model's code can read what this user can\n")
    from hepfaas.learner.process import serve

    serve(descriptor)


if __name__ == "__main__":
    main()
