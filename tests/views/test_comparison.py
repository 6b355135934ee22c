"""Comparisons of trainings."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from hepfaas.errors import NotThereError, RequestError
from hepfaas.local import reports
from hepfaas.platform.storage import Store
from hepfaas.platform.stores import open_store
from hepfaas.runs.preprocessing import Cut, Preprocessing
from hepfaas.runs.recipe import LabelledFile
from hepfaas.views import comparison, comparison_page
from hepfaas.views.compared import Comparison
from hepfaas.views.comparison import MOST, MOST_LINES, MOST_SHOWN, best_of
from hypothesis import given
from hypothesis import strategies as st
from support.pages import HOSTILE, check_harmless
from support.reports import CODE, RECIPE, Scores, complete

VALUES = st.lists(st.tuples(st.floats(0, 1), st.floats(0, 0.3)), min_size=2, max_size=5)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path))


@given(VALUES)
def test_the_best_is_marked_only_beyond_the_errors_of_all_others(pairs: list[tuple[float, float]]) -> None:
    values, errors = zip(*pairs, strict=True)
    best = best_of(values, errors)
    winners = [
        one
        for one in range(len(pairs))
        if all(
            values[one] - values[other] > math.sqrt(errors[one] ** 2 + errors[other] ** 2)
            for other in range(len(pairs))
            if other != one
        )
    ]
    assert ([] if best is None else [best]) == winners


@pytest.mark.parametrize("values", [[0.9], [0.9, None], [None, None]])
def test_nothing_is_best_without_values_to_compare_with(values: list[float | None]) -> None:
    assert best_of(values, [0.01] * len(values)) is None


def two(store: Store) -> Comparison:
    """Compare a training with a much better one that has other cuts, files and code."""
    cuts = Preprocessing(cuts=(Cut("MET", "met > 20"),))
    other = replace(RECIPE, epochs=5, preprocessing=cuts, files=(*RECIPE.files, LabelledFile("root://h//c.root", 1)))
    complete(store, scores=Scores(0.3))
    code = {"model.py": CODE["model.py"].replace("0.001", "0.01"), "new.py": "x = 1\n"}
    complete(store, other, scores=Scores(2.0), code=code)
    return comparison.compare(store, ["job-1", "job/2"])


def test_a_comparison_says_what_differs(store: Store) -> None:
    compared = two(store)
    assert compared.settings == {"epochs": [("3",), ("5",)], "cuts": [(), ("MET: met > 20",)]}
    assert compared.facts["learning rate, published epoch"] == [0.001, 0.001]
    assert compared.data["files"] == [2, 3]
    assert compared.data["selected events"] == [4_000, 6_000]
    ((name, has),) = compared.files.items()
    assert (name[:6], has) == ("c.root", [False, True])
    assert [(each.file, each.added, each.removed) for each in compared.code] == [("model.py", 1, 1), ("new.py", 1, 0)]
    assert "-    return build(idim, rate=0.001)" in compared.code[0].lines
    assert compared.notes == [
        "The trainings have different test events: differences of their metrics may be due to them."
    ]
    auc = next(metric for metric in compared.metrics if metric.name == "AUC, test")
    assert auc.best == 1
    assert [round(curve["auc"], 6) for curve in compared.curves] == [round(value or 0, 6) for value in auc.values]
    assert Comparison.from_json(json.loads(json.dumps(compared.to_json()))).metrics == [
        replace(metric, values=list(metric.values), uncertainties=list(metric.uncertainties))
        for metric in compared.metrics
    ]


def test_a_training_compared_with_itself_differs_in_nothing(store: Store) -> None:
    complete(store)
    compared = comparison.compare(store, ["job-1", "job/1"])
    assert (compared.settings, compared.code, compared.files, compared.notes) == ({}, [], {}, [])
    assert not any(metric.best for metric in compared.metrics)


def test_a_comparison_is_written_as_text_page_picture_and_values(store: Store) -> None:
    compared = two(store)
    text = reports.comparison_text(compared)
    assert "AUC, test " in text
    assert "* better than every other" in text
    assert "model.py of job/2: +1 −1 lines" in text
    assert "MET: met > 20" in text
    check_harmless(reports.comparison_file(compared, ".html").decode())
    assert reports.comparison_file(compared, ".png").startswith(b"\x89PNG")
    assert reports.comparison_file(compared, ".pdf").startswith(b"%PDF")
    assert json.loads(reports.comparison_file(compared, ".json"))["names"] == ["job-1", "job/2"]


def test_text_of_users_is_escaped(store: Store) -> None:
    complete(store, RECIPE, names=(HOSTILE, "b"))
    complete(store, replace(RECIPE, tree=HOSTILE), names=(HOSTILE, "b"), code={f"{HOSTILE}.py": HOSTILE})
    compared = comparison.compare(store, ["job-1", "job-2"])
    check_harmless(comparison_page.page(compared, None))
    text = reports.comparison_text(compared)
    assert "alert(1)" in text
    assert all(line.isprintable() for line in text.split("\n"))


def test_long_code_is_not_compared_line_by_line_and_long_differences_are_cut(store: Store) -> None:
    complete(store, code={"model.py": "x = 1\n" * (MOST_LINES + 1)})
    complete(store, code={"model.py": "x = 2\n" * MOST_LINES})
    complete(store, code={"model.py": "\n".join(map(str, range(MOST_LINES)))})
    compared = comparison.compare(store, ["job-1", "job-2", "job-3"])
    assert [len(each.lines) for each in compared.code] == [1, 1]
    (found,) = comparison.compare(store, ["job-2", "job-3"]).code
    assert (found.added, found.removed, len(found.lines)) == (MOST_LINES, MOST_LINES, MOST_SHOWN + 1)


def test_a_comparison_takes_a_few_trainings(store: Store) -> None:
    complete(store)
    for names in (["job-1"], ["job-1"] * (MOST + 1)):
        with pytest.raises(RequestError, match=f"{len(names)} names of .* were given; a comparison takes 2 to 10"):
            comparison.compare(store, names)
    with pytest.raises(NotThereError, match="has no run and no model 'other'"):
        comparison.compare(store, ["job-1", "other"])
    with pytest.raises(RequestError, match="has no known format; its name ends in .html, .png, .pdf, .json"):
        reports.check_comparison_name(Path("x.svg"))
