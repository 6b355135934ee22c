"""The metrics of a training as a table of text."""

from typing import Any

from hepfaas.local.tables import metrics_text


def metrics(**other: Any) -> dict[str, Any]:
    values = {"rmse": 4.25, "bias": -0.125, "resolution": 3.5, "r2": 0.875, **other}
    errors = {f"{name}_uncertainty": 0.015 for name in ("rmse", "bias", "resolution")}
    return {"test": {"events": 1200, "targets": [{"name": "gen_<pt>", **errors, **values}]}}


def test_a_regression_shows_the_metrics_of_each_target() -> None:
    text = metrics_text({"metrics": metrics(), "model": "m/1", "best_epoch": 3})
    assert text.splitlines()[0].split() == ["sample", "events", "target", "rmse", "bias", "resolution", "R²"]
    row = text.splitlines()[1].replace(" ± ", "±").split()
    assert row == ["test", "1,200", "gen_<pt>", "4.25±0.015", "-0.125±0.015", "3.5±0.015", "0.875"]
    assert text.endswith("model m/1 (best epoch 3)")


def test_weights_without_a_positive_sum_leave_no_metric() -> None:
    none = dict.fromkeys(("rmse", "bias", "resolution", "r2"))
    none |= {f"{name}_uncertainty": None for name in ("rmse", "bias", "resolution")}
    text = metrics_text({"metrics": metrics(**none), "model": "m/1", "best_epoch": 3})
    assert text.splitlines()[1].split() == ["test", "1,200", "gen_<pt>", "-", "-", "-", "-"]


def test_a_classifier_shows_loss_accuracy_and_auc() -> None:
    values = {"test": {"events": 50, "loss": 0.25, "accuracy": 0.75, "auc": 0.875, "auc_uncertainty": 0.02}}
    text = metrics_text({"metrics": values, "model": "m/1", "best_epoch": 3})
    assert text.splitlines()[1].replace(" ± ", "±").split() == ["test", "50", "0.25", "0.75", "0.8750±0.0200"]
