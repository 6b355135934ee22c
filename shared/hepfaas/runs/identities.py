"""Identities of the events of a file, under which they are split and counted. Pure.

The identity of a file (datasets/file_identity.py) is enough for the tree that a run usually reads. The events of
another tree have the identity '<file>:<tree>': two trees of one file are two samples, and entry 7 of each is another
event.
"""

from __future__ import annotations


def identity_of_events(file: str, tree: str, usual_tree: str) -> str:
    """Return the identity of the events of a tree. usual_tree: that a run reads of files without a tree of their own,
    '' if it is this one."""
    return file if usual_tree in ("", tree) else f"{file}:{tree}"


def file_of(identity: str) -> str:
    """Return the identity of the file with these events."""
    return identity.partition(":")[0]
