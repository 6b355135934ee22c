"""`hepfaas export-specs`: the ranges of a model's branches as MLaaS4HEP wrote them."""

from __future__ import annotations

from typing import Any

from hepfaas.errors import RequestError
from hepfaas.features.old_specs import old_specs
from hepfaas.platform.storage import Store


def exported(store: Store, name: str) -> dict[str, Any]:
    """Return the ranges of a run or model in the form of global-specs.json.

    If the run of the model was deleted, its files are not known any more, and the form is that of specs-<file>.json.
    Raises: RequestError if there is no such run or model, or it was not trained here.
    """
    from hepfaas.views import report

    made = report.named(store, name)
    if made.spec is None:
        raise RequestError(f"model '{made.version}' was uploaded, so it has no ranges of branches")
    return old_specs(made.spec, {file.name: file.entries for file in made.files if file.name and file.entries})
