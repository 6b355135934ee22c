"""What comes in from outside: news of files, which rules turn into runs. No timer, no memory: the ping looks again."""

from __future__ import annotations

import itertools
import json
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote_plus

from hepfaas.datasets.sources import EVERYTHING, Sources
from hepfaas.errors import ForbiddenError, RequestError, UnauthenticatedError, UnavailableError, public_text
from hepfaas.features.spec import Spec
from hepfaas.jobs.addresses import check_webhook, place_files
from hepfaas.jobs.folder import recipe_of
from hepfaas.jobs.uploads import given_names, write_job
from hepfaas.models import versions
from hepfaas.orchestration import events, records, rules
from hepfaas.orchestration.rules import Batch, File, Rule
from hepfaas.orchestration.submitting import Submitting, trace_of
from hepfaas.platform.address import parsed
from hepfaas.platform.cloud_events import CloudEvent, Sender
from hepfaas.platform.identity import Quotas, memberships_of
from hepfaas.platform.roles import Group
from hepfaas.platform.storage import StagedStore, Store, counted_bytes, is_name
from hepfaas.runs.recipe import Earlier, Gate, LabelledFile, Recipe

MOST_URL = 2_000
EACH_S, PING_S = 60.0, 120.0
"""Pings come so often; one looks at rules for so long."""


@dataclass(frozen=True)
class Arrived:
    """News of one file. id: of this content of it, so that the same news twice is one."""

    url: str
    id: str
    type: str


@dataclass(frozen=True)
class News:
    """What a message tells: files, and for everything else why it is none."""

    files: tuple[Arrived, ...] = ()
    ignored: tuple[str, ...] = ()


class Intake:
    """Takes news for one owner after the other. root: the store above the owners' ones."""

    def __init__(
        self,
        root: Store,
        store_of: Callable[[str], Store],
        sender: Sender,
        allow_private: bool,
        clock: Callable[[], float] = time.time,
        quotas: Quotas | None = None,
        sources: Sources = EVERYTHING,
    ) -> None:
        self._root, self._store_of, self._sender = root, store_of, sender
        self._allow_private, self._clock, self._quotas, self._sources = allow_private, clock, quotas, sources
        self._pinging = threading.Lock()

    def store(self, owner: str) -> Store:
        """What is an owner's."""
        return self._store_of(owner)

    def put(self, owner: str, rule: Rule, by: Mapping[str, Any] | None = None) -> None:
        """The rule from now on; `by`: who says so. Raises: RequestError if its job, its files, its gate or its webhook
        can never be."""
        store = self._store_of(owner)
        check_webhook(_webhook_of(rule), self._allow_private)
        prefix = parsed(rule.prefix)
        rule = replace(rule, prefix=str(prefix))
        self._recipe(StagedStore(store), rule)
        groups = memberships_of(by or {})
        self._sources.check(prefix, groups, is_prefix=True)
        self._placed(StagedStore(store), rule.sample, groups)
        rules.check_name(store, rule.name)
        self._check_bytes(owner, [len(json.dumps(rules.stored_values(rule, by)))])
        rules.put(store, rule, by)

    def make_token(self, owner: str, name: str) -> str:
        """A token that lets an S3 server tell news for a rule. Raises: ForbiddenError if there may be no more."""
        self._check_bytes(owner, [0])
        return rules.make_token(self._store_of(owner), owner, name)

    def teller(self, token: str) -> tuple[str, str]:
        """Owner and rule whose news a rule's token lets tell. Raises: UnauthenticatedError if it is none."""
        parts = token.split("/")
        if len(parts) == 4 and all(map(is_name, parts)):
            _, owner, name, secret = parts
            known = self._root.size_bytes(f"{owner}/{rules.token_key(name, secret)}") is not None
            if known and rules.get(self._store_of(owner), name):
                return owner, name
        raise UnauthenticatedError("the token is of no rule; POST /v1/rules/{name}/tokens gives one")

    def take(self, owner: str, news: Sequence[Arrived], trace: str, only: str = "") -> list[str]:
        """Remembers files that rules want, begins the runs that need not wait, and gives their names. only: a rule.

        Raises: ForbiddenError if a rule has too many files that wait, or its owner stores too much; files that are
        known already change nothing, and are never refused.
        """
        store = self._store_of(owner)
        trace = trace_of(trace)
        at_once = []
        for rule in (rule for rule in rules.all_rules(store) if only in ("", rule.name)):
            wanted = [one for one in news if rule.label_of(one.url) is not None and rule.type in ("", one.type)]
            if wanted:
                self._remember(owner, rule.name, wanted, trace)
                at_once += [rule.name] if rule.debounce_s == 0 else []
        return [run for name in at_once for run in self.look(owner, name)]

    def ping(self) -> None:
        """Looks at rules that wait for their files to settle, at one of each owner in turn, so that no number of rules
        or files of one keeps another's from beginning. It ends after PING_S; the next ping begins with another owner.
        One goes on at a time: another one that comes meanwhile does nothing, as anybody may send it.

        Raises: the first failure, after the last look.
        """
        if not self._pinging.acquire(blocking=False):
            return
        try:
            failures = []
            began = self._clock()
            for key in _in_turn(self._root.keys("waiting/"), int(began / EACH_S)):
                if self._clock() - began > PING_S:
                    break
                _, owner, name = key.split("/")
                try:
                    if rules.get(self._store_of(owner), name):
                        self.look(owner, name)
                    else:
                        self._root.delete(key)
                except (RequestError, UnavailableError) as error:
                    failures.append(error)
        finally:
            self._pinging.release()
        if failures:
            raise failures[0]

    def look(self, owner: str, name: str) -> list[str]:
        """Begins the runs of a rule that are due: what was claimed and not begun, then what has settled."""
        store = self._store_of(owner)
        claimed, settled = rules.batches(store, name), rules.settled(store, name)
        begun = [self._begin(owner, name, number) for number in claimed if number not in settled]
        number = len(claimed) + 1
        seen = rules.batch(store, name, len(claimed)).used("all")
        waiting = tuple(sorted(set(rules.files(store, name)).difference(seen)))
        found = rules.newest(store, name)
        if not waiting:
            self._rest(owner, name, seen)
        elif found and self._is_due(store, found[1], batch := self._batch(store, *found, waiting, seen)):
            self._check_bytes(owner, [sum(map(len, batch.used("all")))])
            rules.claim(store, name, number, batch)
            begun.append(self._begin(owner, name, number))
        return [run for run in begun if run]

    def _remember(self, owner: str, name: str, wanted: Sequence[Arrived], trace: str) -> None:
        """Keeps files for the ping to find. It may take the rule off its list meanwhile: so it is put there again."""
        self._check_room(owner, name, {rules.file_key(name, one.url, one.id): len(one.url) for one in wanted})
        waiting = f"waiting/{owner}/{name}"
        self._root.create(waiting, b"")
        for one in wanted:
            rules.arrived(self._store_of(owner), name, File(one.url, self._clock(), trace), one.id)
        self._root.create(waiting, b"")

    def _check_room(self, owner: str, name: str, sizes: Mapping[str, int]) -> None:
        """Raises: ForbiddenError if files of these keys and sizes, those that are new, are too many or too much."""
        store = self._store_of(owner)
        known = set(rules.files(store, name))
        new = [size for key, size in sizes.items() if key not in known]
        if not new:
            return
        waiting = len(known) - len(rules.batch(store, name, len(rules.batches(store, name))).used("all"))
        if waiting + len(new) > rules.MOST_WAITING:
            raise ForbiddenError(
                f"rule '{name}' has {waiting:,} files that no run has taken, and {rules.MOST_WAITING:,} is the most; "
                "put its 'labels' or 'debounce_s' so that a run begins"
            )
        self._check_bytes(owner, new)

    def _check_bytes(self, owner: str, sizes: Sequence[int]) -> None:
        """Raises: ForbiddenError if the owner may not store objects of these sizes."""
        if self._quotas:
            self._quotas.check_bytes(owner, sum(map(counted_bytes, sizes)))

    def _rest(self, owner: str, name: str, seen: Sequence[str]) -> None:
        """Takes a rule off the ping's list, unless a file came just now."""
        self._root.delete(f"waiting/{owner}/{name}")
        if set(rules.files(self._store_of(owner), name)).difference(seen):
            self._root.create(f"waiting/{owner}/{name}", b"")

    def _batch(self, store: Store, number: int, rule: Rule, new: tuple[str, ...], before: tuple[str, ...]) -> Batch:
        """What would be trained now, by the rule's object of this number."""
        last = versions.newest(store, rule.model) if rule.gate or rule.files == "continue" else 0
        return Batch(number, new, before, last)

    def _is_due(self, store: Store, rule: Rule, batch: Batch) -> bool:
        """Whether the files have settled, two classes are among those to train on, and the model to continue from is
        there: none is in the making."""
        if rule.files == "continue" and self._is_under_way(store, rule.name):
            return False
        new = rules.read(store, batch.new)
        if self._clock() - max(file.time for file in new.values()) < rule.debounce_s:
            return False
        before = rules.read(store, set(batch.used(rule.files)).difference(new))
        return len(set(_labelled(rule, {**before, **new}).values())) > 1

    def _is_under_way(self, store: Store, name: str) -> bool:
        """Whether the run of the rule's last batch goes on."""
        numbers = rules.batches(store, name)
        outcome = rules.outcome(store, name, numbers[-1]) if numbers else None
        run = outcome.get("run") if outcome else None
        return bool(run) and records.is_there(store, str(run)) and records.last_end(store, str(run)) is None

    def _begin(self, owner: str, name: str, number: int) -> str | None:
        """The run of a batch, by the rule of its time; asked for by two at once, or again, it is one run."""
        store = self._store_of(owner)
        batch = rules.batch(store, name, number)
        try:
            request = self._request(store, batch, name, number)
        except RequestError as error:
            rules.settle(store, name, number, {"error": public_text(error)})
            return None
        try:
            submitting = Submitting(self._root, store, self._sender, owner, self._quotas)
            run = submitting.submit(request, f"rule {name} {number}")
        except ForbiddenError:  # the owner has too much now: the batch waits
            raise
        except RequestError as error:
            rules.settle(store, name, number, {"error": public_text(error)})
            return None
        rules.settle(store, name, number, {"run": run, "files": len(request.recipe.urls)})
        return run

    def _request(self, store: Store, batch: Batch, name: str, number: int) -> records.Request:
        """What to submit for a batch; its trace is that of the last file."""
        rule = rules.numbered(store, name, batch.rule)
        assert rule is not None  # a deleted one claims nothing
        there = rules.read(store, batch.used(rule.files))
        last = max((there[key] for key in batch.new), key=lambda file: (file.time, file.url))
        staged = StagedStore(store)
        recipe, notes = self._recipe(staged, rule)
        by = rules.put_by(store, name, batch.rule)
        files = self._placed(staged, _labelled(rule, there), memberships_of(by))
        recipe = replace(recipe, files=files)
        if batch.last:
            last_version = versions.Version(rule.model, batch.last)
            recipe = self._after(staged, recipe, rule, last_version, memberships_of(by))
        staged.store()
        asked = {"rule": name, "batch": number}
        return records.Request(recipe, self._clock(), notes, last.trace, _webhook_of(rule), asked, submitter=by)

    def _placed(self, store: Store, labelled: Mapping[str, int], groups: Collection[Group]) -> tuple[LabelledFile, ...]:
        place = place_files(store, self._allow_private, self._sources, groups)
        return tuple(LabelledFile(place(url, Path()), label) for url, label in sorted(labelled.items()))

    def _after(
        self, store: Store, recipe: Recipe, rule: Rule, last: versions.Version, groups: Collection[Group]
    ) -> Recipe:
        """The recipe of a run that has a version before it, to continue from or to be measured against."""
        earlier = _earlier(store, last)
        if rule.files == "continue":
            spec = Spec.from_json(json.loads(store.get(f"{last.prefix}{versions.SPEC}")))
            names = tuple(branch.name for branch in spec.branches)
            recipe = replace(recipe, selected=names, excluded=(), identifiers=spec.identifiers, continues=earlier)
        if rule.gate:
            sample = self._placed(store, rule.sample, groups)
            recipe = replace(recipe, gate=Gate(rule.gate.metric, rule.gate.fall, sample, earlier))
        return recipe

    def _recipe(self, store: Store, rule: Rule) -> tuple[Recipe, tuple[str, ...]]:
        """The recipe of a rule's job, with a file of no meaning for each label."""
        labels = sorted(set(rule.labels.values()))
        urls = [f"s3://files/{label}.root" for label in labels]
        values = {"name": rule.name, **rule.job, "files": urls, "labels": labels}
        with tempfile.TemporaryDirectory(prefix="hepfaas-") as scratch:
            write_job(values, Path(scratch))
            return recipe_of(Path(scratch), given_names(values, ("name", "model")), store)


def _in_turn(keys: Iterable[str], turn: int) -> Iterator[str]:
    """Return keys 'waiting/<owner>/<rule>': one of each owner, then the second of each. turn: who and what is first."""
    of_owners = [list(those) for _, those in itertools.groupby(keys, lambda key: key.split("/")[1])]
    first = turn % max(1, len(of_owners))
    begun = [those[turn % len(those) :] + those[: turn % len(those)] for those in of_owners[first:] + of_owners[:first]]
    return (key for some in itertools.zip_longest(*begun) for key in some if key)


def _webhook_of(rule: Rule) -> str:
    """Who is told how the rule's runs end. It was checked when the rule was put, and is again when it is told."""
    return str(rule.job.get("webhook") or "")


def _earlier(store: Store, version: versions.Version) -> Earlier:
    """What made a version. Raises: RequestError if its card does not tell."""
    steps = versions.card_of(store, version)["steps"]
    try:
        return Earlier(str(version), steps["spec"], steps["checkpoint"], steps["export"])
    except KeyError as error:
        raise RequestError(
            f"model '{version}' was uploaded or published by an earlier release: its card does not tell what made it; "
            "train anew on all files"
        ) from error


def news_of(values: Mapping[str, Any]) -> News:
    """The files in a notification of an S3 server (AWS's form, which MinIO wraps). Raises: RequestError."""
    found = values.get("Records")
    if not isinstance(found, list):
        raise RequestError("the notification has no 'Records'; S3 servers send them, as AWS does")
    try:
        told = [(_arrived(record), _why_not(record)) for record in found]
    except (KeyError, TypeError, AttributeError) as error:
        raise RequestError("a record of the notification names no bucket and key") from error
    return _news(told)


def news_in(event: CloudEvent) -> News:
    """The file that a CloudEvent tells of: source s3://bucket and subject key, or 'url' in its data."""
    url = event.data.get("url") or (f"{event.source}/{event.subject}" if event.source.startswith("s3://") else "")
    if not isinstance(url, str) or "://" not in url:
        raise RequestError("the event tells of no file: it needs source s3://bucket and the key as subject, or 'url'")
    return _news([(Arrived(url, event.id, event.type), "")])


def is_ping(event: CloudEvent) -> bool:
    """Whether it is the time to look at what waits."""
    return event.type == events.PING


def _labelled(rule: Rule, files: Mapping[str, File]) -> dict[str, int]:
    """URLs and labels of the files that are the rule's; it may have been changed since they came."""
    labels = ((file.url, rule.label_of(file.url)) for file in files.values())
    return {url: label for url, label in labels if label is not None}


def _news(told: Sequence[tuple[Arrived, str]]) -> News:
    whys = [_normal(one, why) for one, why in told]
    files = tuple(one for one, why in whys if not why)
    return News(files, tuple(f"'{one.url[:MOST_URL]}' {why}" for one, why in whys if why))


def _normal(one: Arrived, why: str) -> tuple[Arrived, str]:
    """A file by the normal form of its address, and why it is none."""
    why = why or _no_file(one.url)
    if why:
        return one, why
    try:
        return replace(one, url=str(parsed(one.url))), ""
    except RequestError as error:
        return one, f"cannot be read: {error}"


def _no_file(url: str) -> str:
    """Why an address cannot be that of a ROOT file."""
    if len(url) > MOST_URL or not url.isprintable():
        return f"has more than {MOST_URL} characters, or one that cannot be printed"
    return "" if url.partition("?")[0].endswith(".root") or url.endswith(".root") else "does not end in .root"


def _arrived(record: Mapping[str, Any]) -> Arrived:
    """What a record tells of; keys come form-encoded."""
    thing = record["s3"]["object"]
    mark = thing.get("sequencer") or thing.get("versionId") or thing.get("eTag") or ""
    url = f"s3://{record['s3']['bucket']['name']}/{unquote_plus(str(thing['key']))}"
    return Arrived(url, str(mark), str(record["eventName"]))


def _why_not(record: Mapping[str, Any]) -> str:
    if "ObjectCreated" not in str(record["eventName"]):
        return f"was not made: {str(record['eventName'])[:100]}"
    return "is empty" if record["s3"]["object"].get("size") == 0 else ""
