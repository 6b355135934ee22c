"""survey: one entry range of a file -> range, multiplicity and missing values of each branch."""

from __future__ import annotations

from hepfaas.datasets.ranges import EntryRange
from hepfaas.datasets.reading import PLAIN, Reading
from hepfaas.datasets.root import read
from hepfaas.features.branches import survey_of
from hepfaas.platform.storage import Store
from hepfaas.runs.steps import Survey
from hepfaas.steps.objects import encoded


def perform(step: Survey, store: Store, reading: Reading = PLAIN) -> None:
    """Raises: RequestError if the file has changed since the run opened it; UnavailableError."""
    arrays = read(
        step.url, step.file, step.tree, branches=step.branches, entries=EntryRange(*step.entries), reading=reading
    )
    survey = survey_of(step.file, arrays, step.n_events, moments=step.moments, histograms=step.histograms)
    store.create(step.key, encoded(survey.to_json()))
