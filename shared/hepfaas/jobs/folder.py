"""A job's folder: model.py, params.json, files.txt and labels.txt or samples.json, and submit.json if there is one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from hepfaas.datasets.files import Locations
from hepfaas.datasets.listings import Listing
from hepfaas.jobs.code import Code, code_of
from hepfaas.jobs.data import data_in, sent_listing
from hepfaas.jobs.job import Job, with_data
from hepfaas.jobs.names import chosen_in
from hepfaas.jobs.texts import Texts, texts_in
from hepfaas.runs.recipe import LabelledFile


def job_in(
    folder: Path,
    options: Mapping[str, str],
    *,
    inside: bool = True,
    listing: Listing | None = None,
    with_code: bool = True,
) -> Job:
    """Return the job in a folder.

    options: names that the user gave; they win over those of submit.json, and these over the defaults.
    inside: use no file of this machine that is not in the folder. listing: gives the matches of addresses with
    wildcards; None: only matches that came with the job. with_code: the job needs the file that defines its model.
    Raises: RequestError naming the file and what is wrong with it.
    """
    return job_from(texts_in(folder), folder, options, inside=inside, listing=listing, with_code=with_code)


def job_from(
    texts: Texts,
    folder: Path,
    options: Mapping[str, str],
    *,
    inside: bool = True,
    listing: Listing | None = None,
    with_code: bool = True,
) -> Job:
    """Return the job in the texts of a folder, as `job_in`."""
    chosen = chosen_in(texts, options)
    skips = chosen.params.recipe.get("unreadable_files") == "skip"
    locations = Locations(listing or sent_listing(texts), chosen.params.redirector, folder, inside, skips)
    data = data_in(texts, chosen, locations)
    code = code_of(texts, chosen.names.model, _names_in(folder, data.files)) if with_code else Code({})
    job = Job(
        name=chosen.names.name or folder.resolve().name,
        code=code.files,
        module=chosen.names.model,
        params=chosen.params,
        folder=folder,
        notes=(*chosen.notes, *code.notes),
    )
    return with_data(job, data)


def _names_in(folder: Path, files: Sequence[LabelledFile]) -> set[str]:
    """Return the names below the folder of the files of events that are in it."""
    place = folder.resolve()
    paths = [Path(file.url).resolve() for file in files if "://" not in file.url]
    return {path.relative_to(place).as_posix() for path in paths if path.is_relative_to(place)}
