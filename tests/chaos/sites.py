"""The sites where the functions of a run call the store and the broker, read from their code."""

import ast
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "shared" / "hepfaas"
MODULES = (
    *sorted(path.relative_to(PACKAGE).as_posix() for path in (PACKAGE / "steps").glob("*.py")),
    "orchestration/stepping.py",
    "orchestration/advancing.py",
    "orchestration/records.py",
    "models/versions.py",
)
OTHERS = ("orchestration.intake", "orchestration.rules")
"""Modules of `intake`, which gets the same pings but takes no part in a run: tests/orchestration/test_intake.py"""

STORES = ("store", "_store", "root", "_root")
METHODS = ("get", "get_range", "size_bytes", "create", "keys", "delete")
DELETED_OBJECTS = (
    "orchestration.advancing.Advancing._remake:size_bytes",
    "orchestration.advancing.Advancing._remake:send",
    "orchestration.advancing.Advancing._ask_again:send",
)
"""Calls made only after objects have disappeared."""

FAILING = ("orchestration.records.fail:create", "orchestration.advancing.Advancing._check_failed:size_bytes")
"""Calls made only if a step cannot be done."""

AFTER_A_FAULT = {
    "orchestration.records.trouble:create": (("steps.prepare.perform:create", "request lost"),),
    "orchestration.records.sent_at:get": (("function publish", "broker restarted"),),
    "models.versions.claim:get": (("models.versions.claim:create", "answer lost"),),
    "steps.learning.Learners.holding:get": (("steps.train.perform:create", "killed after"),),
}
"""Calls made only after another error, and the cause."""

NOT_IN_A_RUN = {
    "orchestration.records._write": "submitting, before a run is there",
    "orchestration.records._list": "submitting, before a run is there",
    "orchestration.records.newest": "lists of runs",
    "orchestration.records.is_deleted": "lists of runs",
    "orchestration.records.begin": "a retry by a person: tests/api/test_runs.py",
    "orchestration.records.log_of": "reading the log",
    "orchestration.records.served": "files of others' servers: tests/system/test_reading.py",
    "orchestration.records.served_by": "reading the status",
    "orchestration.records.trouble_at": "a run that is given up: tests/orchestration/test_advancing.py",
    "orchestration.records.troubles": "a run that is given up: tests/orchestration/test_advancing.py",
    "orchestration.records.remove": "runs that were deleted: tests/api/test_runs.py",
    "orchestration.records.deleted_at": "runs that were deleted: tests/api/test_runs.py",
    "orchestration.advancing.Advancing._close:create": "a run with a webhook: tests/orchestration/test_advancing.py",
    "orchestration.advancing.Advancing._untold": "a run with a webhook: tests/orchestration/test_advancing.py",
    "orchestration.advancing.Advancing._tell_webhook": "a run with a webhook: tests/orchestration/test_advancing.py",
    "orchestration.advancing.Advancing._look_at_all:delete": "no run: tests/orchestration/test_advancing.py",
    "orchestration.advancing.Advancing._remove": "runs that were deleted: tests/api/test_runs.py",
    "models.versions._published": "lists of models",
    "models.versions.add": "files that clients of TFaaS add: tests/api/test_mlaas4hep.py",
    "models.versions.card_of": "lists of models",
    "models.versions.files_of": "lists of models",
    "models.versions.read": "predictions: tests/serving/test_api.py",
    "models.versions.delete": "predictions: tests/serving/test_api.py",
    "models.versions._aliased": "predictions: tests/serving/test_api.py",
    "models.versions._numbers_of": "predictions: tests/serving/test_api.py",
    "models.versions.aliases": "predictions: tests/serving/test_api.py",
    "models.versions.set_alias": "predictions: tests/serving/test_api.py",
    "models.versions.write_next": "aliases and the default model: tests/serving/test_tfaas.py",
    "steps.predict.perform": "predictions: tests/serving/test_run_requests.py",
    "steps.objects.open_scores": "predictions: tests/serving/test_run_requests.py",
    "steps.convert.perform": "models that were uploaded: tests/serving/test_uploads.py",
    "steps.register.perform": "models that were uploaded: tests/serving/test_uploads.py",
    "steps.weigh.perform": "runs with event weights: tests/steps/test_selection.py",
    "steps.examine._of_regression": "runs with a target: tests/steps/test_regression.py",
    "steps.regression.examined": "runs with a target: tests/steps/test_regression.py",
    "steps.compare.perform": "runs that a rule began, with a gate: tests/orchestration/test_intake.py",
}
"""Functions, or single calls, that no run of the chaos tests reaches, and the reason."""


def sites() -> set[str]:
    """Return all sites, named as in platform/faults.py without the package's name."""
    return {site for module in MODULES for site in _in_module(module)}


def _in_module(path: str) -> set[str]:
    module = path.removesuffix(".py").replace("/", ".")
    found = set()
    for outer in ast.parse((PACKAGE / path).read_text()).body:
        inside = outer.body if isinstance(outer, ast.ClassDef) else [outer]
        prefix = f"{outer.name}." if isinstance(outer, ast.ClassDef) else ""
        for function in inside:
            if isinstance(function, ast.FunctionDef):
                found |= {f"{module}.{prefix}{function.name}:{method}" for method in _calls(function)}
    return found


def _calls(function: ast.FunctionDef) -> set[str]:
    found = set()
    for node in ast.walk(function):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            target, method = node.func.value, node.func.attr
            name = target.id if isinstance(target, ast.Name) else getattr(target, "attr", "")
            if (name in STORES and method in METHODS) or (name == "_sender" and method == "send"):
                found.add(method)
    return found


def why_not(site: str) -> str | None:
    """Return why no run reaches the site; None if one must."""
    return NOT_IN_A_RUN.get(site, NOT_IN_A_RUN.get(site.partition(":")[0]))


def always() -> set[str]:
    """Return the calls of a run without errors."""
    apart = {*DELETED_OBJECTS, *FAILING, *AFTER_A_FAULT}
    return {site for site in sites() - apart if why_not(site) is None}


def stale() -> set[str]:
    """Return the names listed here that are not in the code."""
    known = sites() | {site.partition(":")[0] for site in sites()}
    return {*NOT_IN_A_RUN, *DELETED_OBJECTS, *FAILING, *AFTER_A_FAULT} - known
