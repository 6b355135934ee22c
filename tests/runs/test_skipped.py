"""Files that cannot be read are left out of the plan if the recipe says so, and only where nothing is falsified by
it."""

import itertools
from dataclasses import replace
from typing import Any

import pytest
from hepfaas.errors import RequestError
from hepfaas.runs import plan, preparation
from hepfaas.runs.opened import joined
from hepfaas.runs.phases import Ready
from hepfaas.runs.recipe import LabelledFile, Recipe, Sample
from hepfaas.runs.results import headers_of
from hepfaas.runs.skipped import Skipped, notes, read_files, skipped_files
from hepfaas.runs.steps import Open

FILES = tuple(LabelledFile(f"{name}.root", label) for name, label in (("a", 0), ("b", 0), ("c", 1), ("d", 1)))
RECIPE = Recipe(name="m", files=FILES, code="blobs/code", n_events=20, unreadable_files="skip")


def opened(url: str, is_skipped: bool) -> dict[str, Any]:
    nothing = {"identity": "", "fingerprint": "", "entries": 0, "ranges": [], "features": []}
    rest = {"identifiers": [], "left_out": []}
    if is_skipped:
        return {**nothing, **rest, "skipped": f"file '{url}' does not exist"}
    found = {"identity": url, "fingerprint": url, "entries": 20, "ranges": [[0, 8], [8, 20]]}
    return {**found, "features": [["met", False]], **rest}


def coming(recipe: Recipe, lost: str) -> Ready:
    """Return what comes after the files are opened. lost: letters of the files that cannot be read."""
    levels = preparation.open_levels(recipe, "m-1/1")
    results = {levels[-1][0].key: joined([opened(file.url, file.url[0] in lost) for file in recipe.files])}
    ready = plan.next_steps(recipe, "m-1/1", results.get)
    assert isinstance(ready, Ready)
    return ready


@pytest.mark.parametrize("lost", ["", "a", "b", "c", "d", "ac", "bd", "ad"])
def test_the_steps_after_open_are_those_of_a_list_without_the_lost_files(lost: str) -> None:
    without = replace(RECIPE, files=tuple(file for file in FILES if file.url[0] not in lost))
    assert coming(RECIPE, lost).levels == coming(without, "").levels
    fails = replace(without, unreadable_files="fail")
    assert coming(fails, "").levels == coming(without, "").levels


def test_only_a_run_that_skips_opens_files_in_another_way() -> None:
    def skips(recipe: Recipe) -> set[bool]:
        steps = preparation.open_levels(recipe, "m-1/1")[0]
        return {step.skips for step in steps if isinstance(step, Open)}

    assert skips(RECIPE) == {True}
    assert skips(replace(RECIPE, unreadable_files="fail")) == {False}


def test_a_class_or_a_sample_that_is_lost_fails_the_run() -> None:
    for lost in map("".join, itertools.chain(itertools.combinations("abcd", 2), itertools.combinations("abcd", 3))):
        if {"a", "b"} <= set(lost) or {"c", "d"} <= set(lost):
            label = 0 if {"a", "b"} <= set(lost) else 1
            with pytest.raises(RequestError, match=rf"no file of label {label} can be read: file '.\.root' does not"):
                coming(RECIPE, lost)
            coming(replace(RECIPE, label="isSignal"), lost)
    with pytest.raises(RequestError, match=r"none of the 4 files can be read: file 'a\.root' does not exist; file 'b"):
        coming(RECIPE, "abcd")
    files = (*FILES[:3], replace(FILES[3], sample="rare"), LabelledFile("e.root", 1))
    with pytest.raises(RequestError, match=r"no file of sample 'rare' can be read: file 'd\.root' does not exist"):
        coming(replace(RECIPE, files=files), "d")


def test_a_sum_of_weights_that_counts_lost_events_fails_the_run() -> None:
    files = tuple(replace(file, sample="s" if file.label else "b") for file in FILES)
    sample = Sample(name="s", cross_section=2.0, sum_of_weights=400.0)
    recipe = replace(RECIPE, files=files, samples=(sample, Sample(name="b", cross_section=1.0)), n_events=-1)
    with pytest.raises(RequestError, match="files of sample 's' cannot be read, whose events its 'sum_of_weights' co"):
        coming(recipe, "c")
    coming(recipe, "a")
    coming(replace(recipe, samples=(replace(sample, sum_of_weights="Runs/sum"), recipe.samples[1])), "c")


def test_the_lost_files_are_listed_with_their_reasons() -> None:
    headers = headers_of(joined([opened(file.url, file.url[0] in "bd") for file in FILES]))
    skipped = skipped_files(RECIPE, headers)
    assert skipped == [Skipped(f"{name}.root", f"file '{name}.root' does not exist") for name in "bd"]
    assert [file.url for file, _ in read_files(RECIPE, headers)] == ["a.root", "c.root"]
    (note,) = notes(skipped)
    assert note.startswith(
        "2 files are skipped, since 'unreadable_files' is 'skip': file 'b.root' does not exist; file"
    )
    assert notes([]) == skipped_files(RECIPE, []) == []
    assert notes(skipped * 10)[0].endswith("; and 10 more")
