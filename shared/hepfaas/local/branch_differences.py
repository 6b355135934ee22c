"""What differs between the trees and branches of several files, which a training on all of them would refuse."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hepfaas.datasets.summary import TreeSummary

ABSENT = "absent"


@dataclass(frozen=True)
class Difference:
    """A branch whose type is not the same in all files, or a tree (branch: '') that some do not have.

    files: the names of the files by the type of the branch in them, as 'flat float32', or 'absent'; by 'there' or
    'absent' for a tree.
    """

    tree: str
    branch: str
    files: Mapping[str, Sequence[str]]


def differences(files: Mapping[str, Sequence[TreeSummary]]) -> list[Difference]:
    """Return the differences between files, given by their names and trees. A branch counts in files with its tree."""
    trees = {name: {tree.name: _types(tree) for tree in of_file} for name, of_file in files.items()}
    different = []
    for tree in dict.fromkeys(name for of_file in trees.values() for name in of_file):
        branches = {file: of_file[tree] for file, of_file in trees.items() if tree in of_file}
        presence = {file: "there" if file in branches else ABSENT for file in trees}
        different += _different(tree, "", presence)
        for branch in dict.fromkeys(name for types in branches.values() for name in types):
            different += _different(tree, branch, {file: types.get(branch, ABSENT) for file, types in branches.items()})
    return different


def _different(tree: str, branch: str, kinds: Mapping[str, str]) -> list[Difference]:
    files: dict[str, list[str]] = {}
    for file, kind in kinds.items():
        files.setdefault(kind, []).append(file)
    return [Difference(tree, branch, files)] if len(files) > 1 else []


def _types(tree: TreeSummary) -> dict[str, str]:
    """Return the form and type of each branch; a branch that is left out may have the name of one that is read."""
    read = {branch.name: f"{'jagged' if branch.jagged else 'flat'} {branch.type}" for branch in tree.branches}
    return {**{name: f"left out ({why})" for name, why in tree.left_out}, **read}
