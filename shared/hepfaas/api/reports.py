"""The report of a run and the model it published, and the comparison of several."""

from __future__ import annotations

from flask import Response

from hepfaas.api.archives import archive, file_answer, published
from hepfaas.api.context import Context
from hepfaas.platform.browsers import page_policy
from hepfaas.platform.http import json_answer
from hepfaas.platform.routes import Route
from hepfaas.views import comparison, document, report, report_page
from hepfaas.views.report import Report


def run_report(context: Context, run: str) -> Response:
    """Metrics of the model, what it was made of, and the addresses of the plots, as JSON or as one HTML page."""
    return _answer(context, report.of_run(context.store, context.run(run)), f"/v1/runs/{run}/report")


def version_report(context: Context, name: str, number: int) -> Response:
    """The same of a model version."""
    version = published(context.store, name, number)
    return _answer(context, report.of_version(context.store, version), f"/v1/models/{name}/{number}")


def compare_reports(context: Context) -> Response:
    """Metrics, settings, data and ROC curves of 2 to 10 trainings: ?of=RUN or ?of=MODEL/VERSION for each."""
    return json_answer(comparison.compare(context.store, context.request.args.getlist("of")).to_json())


def run_picture(context: Context, run: str, name: str) -> Response:
    """One plot of the report."""
    return file_answer(context.store, report.version_of(context.store, context.run(run)), name)


def run_model(context: Context, run: str) -> Response:
    """The model version that the run published, as tar.gz."""
    version = report.version_of(context.store, context.run(run))
    data = archive(context.store, version)
    name = f"{version.name}-{version.number}.tar.gz"
    return Response(data, mimetype="application/gzip", headers={"Content-Disposition": f"attachment; filename={name}"})


def _answer(context: Context, made: Report, address: str) -> Response:
    if context.request.accept_mimetypes.best_match(["application/json", "text/html"]) == "text/html":
        headers = {"Content-Security-Policy": page_policy(document.STYLE)}
        return Response(report_page.page(made, context.store), mimetype="text/html", headers=headers)
    pictures = {name: f"{address}/{name}" for name in made.pictures}
    return json_answer({**made.to_json(), "pictures": pictures})


OF = {"type": "array", "items": {"type": "string"}, "minItems": 2, "maxItems": comparison.MOST}

ROUTES = (
    Route("GET", "/v1/runs/<run>/report", run_report),
    Route("GET", "/v1/runs/<run>/report/<name>", run_picture),
    Route("GET", "/v1/runs/<run>/model", run_model),
    Route("GET", "/v1/models/<name>/<int(max=999999):number>/report", version_report),
    Route("GET", "/v1/comparison", compare_reports, query={"of": OF}, is_query_required=True),
)
