"""What comes in from outside: news of files, which rules turn into runs. No timer, no memory: the ping looks again."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote_plus

from hepfaas.errors import RequestError
from hepfaas.platform import records
from hepfaas.platform.cloud_events import CloudEvent, Sender
from hepfaas.platform.storage import Staged, Store
from hepfaas.service import events, rules
from hepfaas.service.api import place_files
from hepfaas.service.folder import recipe_of
from hepfaas.service.rules import Rule
from hepfaas.service.submitting import Submitting, new_trace
from hepfaas.service.uploads import given_names, write_job


@dataclass(frozen=True)
class Arrived:
    """News of one file. id: of this content of it, so that the same news twice is one."""

    url: str
    id: str
    type: str


class Intake:
    """Takes news for one owner after the other. root: the store above the owners' ones."""

    def __init__(
        self,
        root: Store,
        store_of: Callable[[str], Store],
        sender: Sender,
        allow_private: bool,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._root, self._store_of, self._sender = root, store_of, sender
        self._allow_private, self._clock = allow_private, clock

    def take(self, owner: str, news: list[Arrived], trace: str) -> list[str]:
        """Remembers files that rules want, begins the runs that need not wait, and gives their names."""
        store = self._store_of(owner)
        runs: list[str] = []
        for rule in rules.all_rules(store):
            wanted = [one for one in news if rule.label_of(one.url) is not None and rule.type in ("", one.type)]
            if wanted:
                self._root.create(f"waiting/{owner}/{rule.name}", b"")
                for one in wanted:
                    rules.arrived(store, rule, one.url, one.id, self._clock())
                runs += self.look(owner, rule, trace)
        return runs

    def ping(self) -> None:
        """Looks at every rule that waits for its files to settle."""
        for key in list(self._root.keys("waiting/")):
            _, owner, name = key.split("/")
            rule = rules.get(self._store_of(owner), name)
            if rule:
                self.look(owner, rule, "")
            else:
                self._root.delete(key)

    def look(self, owner: str, rule: Rule, trace: str) -> list[str]:
        """Begins the runs of a rule that are due: what was claimed and not begun, then what has settled."""
        store = self._store_of(owner)
        claimed = rules.batches(store, rule.name)
        begun = [self._begin(owner, rule, number, trace) for number in range(1, len(claimed) + 1)]
        there = rules.files(store, rule.name)
        waiting = [key for key in there if not any(key in batch for batch in claimed)]
        if not waiting:
            self._root.delete(f"waiting/{owner}/{rule.name}")
            return [run for run in begun if run]
        quiet = self._clock() - max(there[key].time for key in waiting) >= rule.debounce_s
        used = list(there) if rule.files == "all" else waiting
        if quiet and len({there[key].label for key in used}) > 1:
            number = len(claimed) + 1
            rules.claim(store, rule.name, number, used)
            begun.append(self._begin(owner, rule, number, trace))
        return [run for run in begun if run]

    def _begin(self, owner: str, rule: Rule, number: int, trace: str) -> str | None:
        """The run of a batch, if it has not been begun before; asked for by two at once, it is one run."""
        store = self._store_of(owner)
        if rules.outcome(store, rule.name, number) is not None:
            return None
        there = rules.files(store, rule.name)
        batch = sorted((there[key] for key in rules.batches(store, rule.name)[number - 1]), key=lambda file: file.url)
        latest = {file.url: file for file in batch}.values()
        values = {**rule.job, "files": [file.url for file in latest], "labels": [file.label for file in latest]}
        try:
            request = self._request(store, {"name": rule.name, **values}, trace)
        except RequestError as error:
            rules.settle(store, rule.name, number, {"error": str(error)})
            return None
        run = Submitting(self._root, store, self._sender, owner).submit(request, f"rule {rule.name} {number}")
        rules.settle(store, rule.name, number, {"run": run, "files": len(latest)})
        return run

    def _request(self, store: Store, values: Mapping[str, Any], trace: str) -> records.Request:
        staged = Staged(store)
        with tempfile.TemporaryDirectory(prefix="hepfaas-") as scratch:
            write_job(values, Path(scratch))
            given = given_names(values, ("name", "model"))
            recipe, notes = recipe_of(Path(scratch), given, staged, place_files(staged, self._allow_private))
        staged.store()
        return records.Request(recipe, self._clock(), notes, trace or new_trace(), asked={"rule": values["name"]})


def news_of(values: Mapping[str, Any]) -> list[Arrived]:
    """The files in a notification of an S3 server (AWS's form, which MinIO wraps). Raises: RequestError."""
    found = values.get("Records")
    if not isinstance(found, list):
        raise RequestError("the notification has no 'Records'; S3 servers send them, as AWS does")
    try:
        return list(_created(found))
    except (KeyError, TypeError, AttributeError) as error:
        raise RequestError("a record of the notification names no bucket and key") from error


def news_in(event: CloudEvent) -> list[Arrived]:
    """The file that a CloudEvent tells of: source s3://bucket and subject key, or 'url' in its data."""
    url = event.data.get("url") or (f"{event.source}/{event.subject}" if event.source.startswith("s3://") else "")
    if not isinstance(url, str) or "://" not in url:
        raise RequestError("the event tells of no file: it needs source s3://bucket and the key as subject, or 'url'")
    return [Arrived(url, event.id, event.type)]


def is_ping(event: CloudEvent) -> bool:
    """Whether it is the time to look at what waits."""
    return event.type == events.PING


def _created(found: list[Any]) -> Iterator[Arrived]:
    """Objects that were made; folders, empty ones and deletions are no news."""
    for record in found:
        name, thing = str(record["eventName"]), record["s3"]["object"]
        key = unquote_plus(str(thing["key"]))
        if "ObjectCreated" not in name or key.endswith("/") or thing.get("size") == 0:
            continue
        mark = thing.get("sequencer") or thing.get("versionId") or thing.get("eTag") or ""
        yield Arrived(f"s3://{record['s3']['bucket']['name']}/{key}", str(mark), name)
