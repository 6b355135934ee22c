"""The data of a job: its files and their labels or samples. Light: clients import it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from hepfaas.datasets.files import Locations, labels_of, listed_files, located, paired
from hepfaas.datasets.listings import Listing, listable
from hepfaas.errors import RequestError
from hepfaas.jobs.names import Chosen
from hepfaas.jobs.samples import JSON_NAME, YAML_NAMES, described, expression, samples_text
from hepfaas.jobs.texts import Texts
from hepfaas.runs.json_values import json_object
from hepfaas.runs.params import Params
from hepfaas.runs.recipe import LabelledFile, Sample

MATCHES = "matches.json"
"""{address with wildcards: [address of each file]}, as the client has found them (client/matches.py)."""

LABELLING = ("label", "targets")
"""Fields of a recipe, set by params.json, that give each event its label or its targets: files need no labels then."""


@dataclass(frozen=True, kw_only=True)
class Data:
    """The files of a job: addresses, or paths on this machine, with their labels. samples: that they belong to.

    luminosity: in 1/pb. label: expression for the label of each event, '': the files have labels. notes: for the user.
    """

    files: tuple[LabelledFile, ...] = ()
    samples: tuple[Sample, ...] = ()
    luminosity: float | None = None
    label: str = ""
    notes: tuple[str, ...] = ()


def data_in(texts: Texts, chosen: Chosen, locations: Locations) -> Data:
    """Return the data of a folder: of its samples, or of its two lists. Raises: RequestError."""
    names, has_labels = chosen.names, not labels_each_event(chosen.params)
    if samples := _samples_name(texts, chosen):
        unused = [name for name in (names.files, names.labels) if name in texts.names]
        notes = tuple(f"{name} has no effect: {samples} names the files" for name in unused)
        data = data_of_samples(samples_text(texts.text(samples), samples), samples, texts, locations, has_labels)
        return replace(data, notes=(*notes, *data.notes))
    if has_labels:
        return data_of_lists(texts.text(names.files), texts.text(names.labels), locations)
    data = data_of_lists(texts.text(names.files), None, locations)
    note = f"{names.labels} has no effect: {names.params} gives each event its label or its targets"
    return replace(data, notes=(*data.notes, note)) if names.labels in texts.names else data


def _samples_name(texts: Texts, chosen: Chosen) -> str:
    """Return the name of the file of samples, '' for the lists of files and labels: a name that the user gave wins."""
    if chosen.names.samples or not {"files", "labels"}.isdisjoint(chosen.options):
        return chosen.names.samples
    usual = [name for name in (JSON_NAME, *YAML_NAMES) if name in texts.names]
    if len(usual) > 1:
        raise RequestError(f"{texts.place} has {' and '.join(usual)}; keep one, or name one with --samples")
    return "".join(usual)


def labels_each_event(params: Params) -> bool:
    """Return whether params.json gives each event its label or its targets."""
    return any(params.recipe.get(name) for name in LABELLING)


def data_of_lists(files: str, labels: str | None, locations: Locations) -> Data:
    """Return the data of a list of files and a list of labels; None: events have labels or targets of their own."""
    numbers = "" if labels is None else labels_of(labels)
    label = expression(numbers, "the list of labels") if isinstance(numbers, str) and numbers else ""
    found = located(paired(listed_files(files), numbers), locations, has_labels=not isinstance(numbers, str))
    return Data(files=found.files, label=label, notes=found.notes)


def data_of_samples(
    values: Mapping[str, Any], place: str, texts: Texts, locations: Locations, has_labels: bool
) -> Data:
    """Return the data of samples, as samples.json has them; `place` names the object in messages."""
    about = described(values, place, texts.text, has_labels)
    found = located(about.files, locations, has_labels)
    return Data(
        files=found.files, samples=about.samples, luminosity=about.luminosity, notes=(*about.notes, *found.notes)
    )


def sent_listing(texts: Texts) -> Listing:
    """Return the matches of wildcards in addresses that came with the job; the service lists no servers."""
    sent = json_object(texts.text(MATCHES), MATCHES) if MATCHES in texts.names else {}

    def matches(pattern: str) -> tuple[str, ...]:
        address = str(listable(pattern))
        urls = sent.get(address)
        if urls is None:
            raise RequestError(
                f"'{address}' has a wildcard, and the service does not list servers; `hepfaas submit` finds the "
                "matches on your machine, or list the files"
            )
        if not isinstance(urls, list) or not urls or not all(isinstance(url, str) and "://" in url for url in urls):
            raise RequestError(f"{MATCHES}: '{address}' takes the addresses of its files in a list")
        return tuple(urls)

    return matches
