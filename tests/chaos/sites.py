"""Where the functions of a run call the store and the broker, read from their code."""

import ast
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "shared" / "hepfaas"
MODULES = (
    *sorted(path.relative_to(PACKAGE).as_posix() for path in (PACKAGE / "steps").glob("*.py")),
    "service/stepping.py",
    "service/advancing.py",
    "service/intake.py",
    "platform/records.py",
    "models/versions.py",
)
STORES = ("store", "_store", "root", "_root")
METHODS = ("get", "get_range", "size_bytes", "create", "keys", "delete")

NOT_IN_A_RUN = {
    "steps.predict": "predictions have their own issue",
    "platform.records.start": "the embedded loop alone",
    "platform.records.create": "submitting, before a run is there",
    "platform.records._runs_named": "submitting, before a run is there",
    "platform.records.newest": "lists of runs",
    "platform.records.runs": "lists of runs",
    "platform.records.is_deleted": "lists of runs",
    "platform.records.begin": "a retry by a person",
    "platform.records.log_of": "reading the log",
    "platform.records.fail": "a step that cannot be done ends the run: tests/service/test_runs.py",
    "platform.records.trouble_at": "a run that ends in failure, and its status",
    "platform.records.troubles": "a run that ends in failure, and its status",
    "platform.records.sent_at": "reached only when something was lost: see the random plans",
    "platform.records.trouble": "reached only when something was away: see the random plans",
    "platform.records.remove": "runs that were deleted",
    "platform.records.deleted_at": "runs that were deleted",
    "service.advancing.Advancing._remove": "runs that were deleted",
    "models.versions.claim:get": "two publish steps that want one number",
    "models.versions.versions": "lists of models",
    "models.versions.card_of": "lists of models",
    "models.versions.files_of": "lists of models",
    "models.versions.load": "predictions",
    "service.intake": "new data: tests/service/test_intake.py",
    "service.advancing.Advancing._check_failed": "a run that ends in failure: tests/service/test_runs.py",
    "service.advancing.Advancing._bury": "dead letters: see the random plans",
    "service.stepping.Stepping.handle:send": "an object that was deleted: test_deleted_objects_are_made_again",
    "steps.learning.Learners.holding:get": "a learner that does not hold the checkpoint any more",
    "service.advancing.Advancing._remake": "an object that was deleted: test_deleted_objects_are_made_again",
}
"""Where a run that ends well does not come, and why."""


def sites() -> set[str]:
    """All of them, as platform/faults.py names them."""
    return {site for module in MODULES for site in _in_module(module)}


def _in_module(path: str) -> set[str]:
    module = f"hepfaas.{path.removesuffix('.py').replace('/', '.')}"
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
    """Why a run that ends well does not come there; None if it should."""
    short = site.removeprefix("hepfaas.")
    return next((why for place, why in NOT_IN_A_RUN.items() if short.startswith(place)), None)
