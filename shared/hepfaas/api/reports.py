"""The report of a run and the model it published."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

from flask import Response
from markupsafe import Markup, escape
from werkzeug.exceptions import NotFound

from hepfaas.api.archives import archive, file_answer, published
from hepfaas.api.context import Context
from hepfaas.models import versions
from hepfaas.orchestration import records
from hepfaas.platform.browsers import page_policy
from hepfaas.platform.http import json_answer
from hepfaas.platform.routes import Route
from hepfaas.platform.terminal import visible
from hepfaas.runs.prediction import Prediction

STYLE = "body{font:16px sans-serif;max-width:60em;margin:2em auto}img{max-width:100%}td,th{padding-right:2em}"


def run_report(context: Context, run: str) -> Response:
    """Metrics of the model and the addresses of the plots, as JSON or as an HTML page."""
    version = _version_of(context, context.run(run))
    card = versions.card_of(context.store, version)
    names = [name for name in versions.files_of(context.store, version) if name.endswith((".png", ".pdf"))]
    values = {
        "run": run,
        "model": str(version),
        "metrics": card["metrics"],
        "best_epoch": card["best_epoch"],
        "pictures": {name: f"/v1/runs/{run}/report/{name}" for name in names},
    }
    if context.request.accept_mimetypes.best_match(["application/json", "text/html"]) == "text/html":
        return Response(_page(values), mimetype="text/html", headers={"Content-Security-Policy": page_policy(STYLE)})
    return json_answer(values)


def run_picture(context: Context, run: str, name: str) -> Response:
    """One plot of the report."""
    return file_answer(context.store, _version_of(context, context.run(run)), name)


def run_model(context: Context, run: str) -> Response:
    """The model version that the run published, as tar.gz."""
    version = _version_of(context, context.run(run))
    data = archive(context.store, version)
    name = f"{version.name}-{version.number}.tar.gz"
    return Response(data, mimetype="application/gzip", headers={"Content-Disposition": f"attachment; filename={name}"})


def _version_of(context: Context, run: str) -> versions.Version:
    end = records.last_end(context.store, run)
    if end is None or not end.model:
        state = (end.refused or f"it is {end.state}") if end else "it is under way"
        if isinstance(records.request_of(context.store, run).recipe, Prediction):
            state = f"it is a prediction; GET /v1/runs/{run}/scores returns its scores"
        raise NotFound(f"run '{run}' has published no model: {state}")
    name, _, number = end.model.rpartition("/")
    return published(context.store, name, int(number))


def _page(values: Mapping[str, Any]) -> Iterator[str]:
    """Yield the report as HTML: every value is escaped."""
    run, model, best = _escaped(values["run"]), _escaped(values["model"]), _escaped(values["best_epoch"])
    yield f"<!doctype html><html lang=en><meta charset=utf-8><title>{run}</title><style>{STYLE}</style>"
    yield f"<h1>{run}: model {model}</h1>"
    yield from metrics_table(values["metrics"])
    yield f"<p>best epoch: {best}</p>"
    for name, url in values["pictures"].items():
        text, address = _escaped(name), _escaped(quote(url))
        picture = f"<img src='{address}' alt='{text}'>" if name.endswith(".png") else f"<a href='{address}'>{text}</a>"
        yield f"<p>{picture}</p>"


def metrics_table(metrics: Mapping[str, Any]) -> Iterator[str]:
    """Yield the metrics of each sample, or of each sample and target, as an HTML table."""
    is_regression = any("targets" in values for values in metrics.values())
    yield from _predictions(metrics) if is_regression else _scores(metrics)
    yield "</table>"


def _scores(metrics: Mapping[str, Any]) -> Iterator[str]:
    yield "<table><tr><th>sample<th>events<th>loss<th>accuracy<th>AUC"
    for split, values in metrics.items():
        auc = f"{values['auc']:.4f} ± {values['auc_uncertainty']:.4f}" if values["auc"] is not None else "-"
        yield f"<tr><td>{_escaped(split)}<td>{_escaped(values['events'])}"
        yield f"<td>{_number(values['loss'])}<td>{_number(values['accuracy'])}<td>{auc}"


def _predictions(metrics: Mapping[str, Any]) -> Iterator[str]:
    yield "<table><tr><th>sample<th>events<th>target<th>RMSE<th>bias<th>resolution<th>R²"
    for split, values in metrics.items():
        for target in values["targets"]:
            yield f"<tr><td>{_escaped(split)}<td>{_escaped(values['events'])}<td>{_escaped(target['name'])}"
            for name in ("rmse", "bias", "resolution"):
                error = target[f"{name}_uncertainty"]
                yield f"<td>{target[name]:.4g} ± {error:.2g}" if error is not None else f"<td>{_number(target[name])}"
            yield f"<td>{_number(target['r2'])}"


def _number(value: float | None) -> str:
    """Return a metric as text: weights whose sum is not positive leave none."""
    return "-" if value is None else f"{value:.4f}"


def _escaped(value: Any) -> Markup:
    """Return a value as HTML text: no markup, and no character that reorders or hides others."""
    return escape(visible(str(value)))


ROUTES = (
    Route("GET", "/v1/runs/<run>/report", run_report),
    Route("GET", "/v1/runs/<run>/report/<name>", run_picture),
    Route("GET", "/v1/runs/<run>/model", run_model),
)
