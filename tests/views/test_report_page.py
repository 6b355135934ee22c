"""The report of a training as one page: its values, what it loads, and how it escapes text of users."""

import base64
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hepfaas.errors import NotThereError
from hepfaas.evaluation import importance
from hepfaas.evaluation.correlations import correlations
from hepfaas.evaluation.sample import Sample
from hepfaas.evaluation.sculpting import sculpting
from hepfaas.models import versions
from hepfaas.orchestration import records, remarks
from hepfaas.orchestration.records import End
from hepfaas.platform.storage import Store
from hepfaas.platform.stores import open_store
from hepfaas.runs.preprocessing import Cut, NewBranch, Preprocessing
from hepfaas.runs.recipe import LabelledFile
from hepfaas.runs.recipe import Sample as NamedSample
from hepfaas.views import report, report_page
from sklearn.metrics import roc_auc_score
from support.pages import HOSTILE, Page, check_harmless
from support.reports import PNG, RECIPE, Scores, complete


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path))


def page(store: Store, name: str) -> Page:
    return Page(report_page.page(report.named(store, name), store))


def test_the_page_has_the_values_of_the_training(store: Store) -> None:
    scores = Scores()
    run = complete(store, replace(RECIPE, batch_size=77), scores=scores, notes=("params.json: 'hist' has no effect",))
    remarks.tag(store, run, ["baseline"])
    remarks.note(store, run, remarks.Note(1100.0, "AUC is fine", "Emmy"))
    text = page(store, run).text
    test = scores.splits == 2
    auc = roc_auc_score(scores.labels[test], scores.scores[test, 0], sample_weight=scores.weights[test])
    words = text.split()
    assert words[words.index("AUC") + 2] == "±"
    assert float(words[words.index("AUC") + 1]) == pytest.approx(auc, abs=1e-3)
    for wanted in (
        "Model job/1", "run job-1", "1970-01-01T00:16:40Z", "by Ada", "took 60 s", "baseline", "AUC is fine", "Emmy",
        "params.json: 'hist' has no effect", "batch_size", "77", "one lepton", "300 ± 12", "70.0 %", "a.root",
        "root://h//data/a.root", "12,345", "ab" * 32, "def model(idim):", "validation loss", "3 (published)",
        "Working points", "Asimov", "Kolmogorov", "lep_pt",
        "optimizer", "adam", "0.00100",
    ):  # fmt: skip
        assert wanted in text, wanted
    assert page(store, "job/1").text == page(store, "job").text == text


def test_the_pictures_are_in_the_page(store: Store) -> None:
    complete(store, pictures={"roc.png": PNG, "roc.pdf": b"%PDF", "my_picture.png": PNG + b"2", "scores_1.png": PNG})
    found = [attributes for tag, attributes in page(store, "job-1").elements if tag == "img"]
    assert [each["alt"] for each in found] == [
        "Background rejection against signal efficiency",
        "Score by true class (1)",
        "my picture",
    ]
    assert base64.b64decode((found[2]["src"] or "").partition(",")[2]) == PNG + b"2"


def test_text_of_users_is_no_markup_and_hides_nothing(store: Store) -> None:
    recipe = replace(
        RECIPE,
        files=(LabelledFile(f"/tmp/{HOSTILE}.root", 0, HOSTILE), LabelledFile("/tmp/b.root", 1, "b")),
        samples=(NamedSample(name=HOSTILE, weight="1"), NamedSample(name="b")),
        tree=HOSTILE,
        preprocessing=Preprocessing(new=(NewBranch(HOSTILE, "2 * met"),), cuts=(Cut(HOSTILE, "met > 1"),)),
    )
    run = complete(
        store, recipe, names=(HOSTILE, "b"), cuts=(HOSTILE,), branches=(HOSTILE, "met"), notes=(HOSTILE,),
        code={"model.py": HOSTILE, "x.py": "a\u202eb"},
    )  # fmt: skip
    remarks.note(store, run, remarks.Note(1.0, f"{HOSTILE}\n{HOSTILE}", HOSTILE))
    html = report_page.page(report.named(store, run), store)
    check_harmless(html)
    assert html.count("alert(1)") > 10
    assert "{{ 7*7 }}" in html


def test_a_page_without_its_run_shows_what_the_version_knows(store: Store) -> None:
    run = complete(store)
    records.remove(store, run)
    html = report_page.page(report.named(store, "job/1"), store)
    check_harmless(html)
    assert "deleted" in html
    assert "label 0" in html
    assert "a.root" not in html


def test_a_model_that_was_uploaded_has_a_short_page(store: Store) -> None:
    card = {
        "name": "up", "version": 1, "foreign": "keras", "shape": [28, 28, 1], "n_features": 784, "labels": [HOSTILE],
        "outputs": 10, "parameters": 5, "metrics": {}, "best_epoch": None, "data": [], "features": [],
    }  # fmt: skip
    versions.publish(store, versions.Version("up", 1), card, {})
    html = report_page.page(report.named(store, "up"), store)
    check_harmless(html)
    assert "28 × 28 × 1" in html


def test_a_run_without_a_model_has_no_report(store: Store) -> None:
    run = records.create(store, records.Request(RECIPE, 1.0))
    with pytest.raises(NotThereError, match="run 'job-1' has published no model: it is under way"):
        report.named(store, run)
    records.end(store, run, 1, End("completed", 2.0, refused="AUC fell"))
    with pytest.raises(NotThereError, match="AUC fell"):
        report.named(store, run)


@pytest.mark.parametrize("name", ["none", "none/1", "job/7", "../x", "a/b/c", "", "a b"])
def test_a_name_that_nothing_has_gives_one_clear_error(store: Store, name: str) -> None:
    complete(store)
    with pytest.raises(NotThereError, match="no (run|model)"):
        report.named(store, name)


def test_what_a_sample_of_the_test_events_shows_is_in_the_page(store: Store) -> None:
    made = report.named(store, complete(store))
    chooser = np.random.default_rng(1)
    score = chooser.uniform(size=2_000)
    mass = 90 + 20 * score + chooser.normal(size=2_000)
    sample = Sample(
        branches={"met": chooser.normal(size=(2_000, 1)), "pt": score[:, None] + chooser.normal(size=(2_000, 1))},
        scaled={},
        spectators={HOSTILE: mass},
        probabilities=np.stack([1 - score, score], axis=1),
        labels=(chooser.uniform(size=2_000) < score).astype(np.int64),
        weights=np.ones(2_000),
    )
    falls = [importance.importance(importance.Group(name, "branch", (0,)), 0.9, after) for name, after in
             (("less_used", [0.899, 0.9]), ("most_used", [0.7, 0.72]))]  # fmt: skip
    examined = {
        "importance": {"events": 2_000, "auc": 0.9, "groups": falls},
        "sculpting": sculpting(sample, [0.5]),
        "correlations": correlations(sample, ["background", "signal"]),
    }
    html = report_page.page(replace(made, evaluation={**made.evaluation, "examined": examined}), store)
    check_harmless(html)
    text = Page(html).text
    assert text.index(" most_used") < text.index(" less_used")
    assert "0.190 ± 0.014" in text
    assert "Jensen-Shannon" in text
    background = sample.labels == 0
    wanted = np.corrcoef(score[background], mass[background])[0, 1]
    assert f" {wanted:.2f}" in text


def test_a_regression_shows_its_targets(store: Store) -> None:
    run = complete(store)
    made = report.named(store, run)
    target = {"name": "energy", "rmse": 2.5, "rmse_uncertainty": 0.1, "bias": 0.02, "bias_uncertainty": 0.05,
              "resolution": 1.5, "resolution_uncertainty": 0.04, "r2": 0.9}  # fmt: skip
    metrics = {split: {"events": 400, "targets": [target]} for split in ("test", "validation")}
    card = {**made.card, "metrics": metrics, "targets": [["energy"]], "labels": []}
    values = replace(made, card=card, evaluation={"metrics": metrics, "history": [{"loss": 1.0, "val_loss": 2.0}]})
    html = report_page.page(values, store)
    check_harmless(html)
    assert "RMSE of energy" in html
    assert "2.50 ± 0.10" in html
