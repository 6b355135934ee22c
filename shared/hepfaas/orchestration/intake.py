"""News of files from outside, which rules turn into runs. Nothing waits in memory: the ping looks at the store."""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar
from urllib.parse import unquote_plus

from hepfaas.datasets.formats import ENDINGS, format_named
from hepfaas.datasets.sources import EVERYTHING, Sources
from hepfaas.errors import ForbiddenError, RequestError, UnauthenticatedError, UnavailableError, public_text
from hepfaas.features.spec import FeatureSpec
from hepfaas.jobs.addresses import check_webhook, place_files
from hepfaas.jobs.job import Place, recipe_of
from hepfaas.models import versions
from hepfaas.orchestration import events, records, rules
from hepfaas.orchestration.rules import Batch, File, Outcome, Rule
from hepfaas.orchestration.submitting import Submitting, trace_of
from hepfaas.platform.address import parsed
from hepfaas.platform.cloud_events import CloudEvent, Sender
from hepfaas.platform.identity import Quotas, memberships_of
from hepfaas.platform.roles import Group
from hepfaas.platform.storage import StagedStore, Store, counted_bytes, is_name
from hepfaas.runs.recipe import Earlier, Gate, LabelledFile, Recipe

T = TypeVar("T")

MOST_URL = 2_000
EACH_S, PING_S = 60.0, 120.0
"""Time between two pings, and the longest time that one looks at rules."""


@dataclass(frozen=True)
class Arrived:
    """News of one file. id: of its content, so that the same news twice counts once."""

    url: str
    id: str
    type: str


@dataclass(frozen=True)
class News:
    """Files in a message, and the reason for each one that is ignored."""

    files: tuple[Arrived, ...] = ()
    ignored: tuple[str, ...] = ()


class Intake:
    """Turns news into runs, for all owners. root: the store that holds the owners' stores."""

    def __init__(
        self,
        root: Store,
        store_of: Callable[[str], Store],
        sender: Sender,
        allow_private: bool,
        *,
        clock: Callable[[], float] = time.time,
        quotas: Quotas | None = None,
        sources: Sources = EVERYTHING,
    ) -> None:
        self._root, self._store_of, self._sender = root, store_of, sender
        self._allow_private, self._clock, self._quotas, self._sources = allow_private, clock, quotas, sources
        self._pinging = threading.Lock()

    def store(self, owner: str) -> Store:
        """Return the store of an owner."""
        return self._store_of(owner)

    def put(self, owner: str, rule: Rule, by: Mapping[str, Any] | None = None) -> None:
        """Store a rule. by: the submitter. Raises: RequestError if its job, its files, its gate or its webhook cannot
        work; ForbiddenError if the owner has no room for it."""
        store = self._store_of(owner)
        check_webhook(rule.job_on({}).webhook, self._allow_private)
        prefix = parsed(rule.prefix)
        rule = replace(rule, prefix=str(prefix))
        groups = memberships_of(by or {})
        self._sources.check(prefix, groups, is_prefix=True)
        _placed(rule.sample, self._place(store, groups))
        rules.check_name(store, rule.name)
        self._check_bytes(owner, [len(json.dumps(rules.stored_values(rule, by)))])
        rules.put(store, rule, by)

    def make_token(self, owner: str, name: str) -> str:
        """Return a new token with which an S3 server sends news for a rule. Raises: ForbiddenError at a limit."""
        self._check_bytes(owner, [0])
        return rules.make_token(self._store_of(owner), owner, name)

    def teller(self, token: str) -> tuple[str, str]:
        """Return the owner and the rule of a rule's token. Raises: UnauthenticatedError if it is not valid."""
        parts = token.split("/")
        if len(parts) == 4 and all(map(is_name, parts)):
            _, owner, name, secret = parts
            known = self._root.size_bytes(f"{owner}/{rules.token_key(name, secret)}") is not None
            if known and rules.get(self._store_of(owner), name):
                return owner, name
        raise UnauthenticatedError("the token belongs to no rule; POST /v1/rules/{name}/tokens gives one")

    def take(self, owner: str, news: Sequence[Arrived], trace: str, only: str = "") -> list[str]:
        """Store files to which rules apply, begin the runs that need not wait, and return their names.

        only: the rule that may get them, '' for all. Raises: ForbiddenError if too many files of a rule wait, or the
        owner stores too much; files that arrived before change nothing and are never refused.
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
        """Look at the rules whose files wait, one rule of each owner in turn: no owner can delay the others.

        A ping ends after PING_S, and the next one begins with another owner. A ping that comes during another one does
        nothing, as anybody may send it. Raises: the first failure, after the last look.
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
        """Begin the runs of a rule that are due, claimed batches first; return their names."""
        store = self._store_of(owner)
        claimed, settled = rules.batches(store, name), rules.settled(store, name)
        begun = [self._begin(owner, name, number) for number in claimed if number not in settled]
        number = len(claimed) + 1
        seen = rules.batch(store, name, len(claimed)).used("all")
        waiting = tuple(sorted(set(rules.files(store, name)).difference(seen)))
        newest = rules.newest(store, name)
        if not waiting:
            self._rest(owner, name, seen)
        elif newest and self._is_due(store, newest[1], batch := self._batch(store, *newest, waiting, seen)):
            self._check_bytes(owner, [sum(map(len, batch.used("all")))])
            rules.claim(store, name, number, batch)
            begun.append(self._begin(owner, name, number))
        return [run for run in begun if run]

    def _remember(self, owner: str, name: str, wanted: Sequence[Arrived], trace: str) -> None:
        """Store files for the ping, which may remove the rule from its list meanwhile: so the rule is listed twice."""
        self._check_room(owner, name, {rules.file_key(name, one.url, one.id): len(one.url) for one in wanted})
        waiting = f"waiting/{owner}/{name}"
        self._root.create(waiting, b"")
        for one in wanted:
            rules.arrived(self._store_of(owner), name, File(one.url, self._clock(), trace), one.id)
        self._root.create(waiting, b"")

    def _check_room(self, owner: str, name: str, sizes: Mapping[str, int]) -> None:
        """Raises: ForbiddenError if the new ones among the files of these keys and sizes are too many or too large."""
        store = self._store_of(owner)
        known = set(rules.files(store, name))
        new = [size for key, size in sizes.items() if key not in known]
        if not new:
            return
        waiting = len(known) - len(rules.batch(store, name, len(rules.batches(store, name))).used("all"))
        if waiting + len(new) > rules.MOST_WAITING:
            raise ForbiddenError(
                f"rule '{name}' has {waiting:,} files that wait for a run, and {rules.MOST_WAITING:,} is the limit; "
                "change its 'labels' or 'debounce_s' so that a run begins"
            )
        self._check_bytes(owner, new)

    def _check_bytes(self, owner: str, sizes: Sequence[int]) -> None:
        """Raises: ForbiddenError if the owner may not store objects of these sizes."""
        if self._quotas:
            self._quotas.check_bytes(owner, sum(map(counted_bytes, sizes)))

    def _rest(self, owner: str, name: str, seen: Sequence[str]) -> None:
        """Remove a rule from the ping's list, unless a file has just arrived."""
        self._root.delete(f"waiting/{owner}/{name}")
        if set(rules.files(self._store_of(owner), name)).difference(seen):
            self._root.create(f"waiting/{owner}/{name}", b"")

    def _batch(self, store: Store, number: int, rule: Rule, new: tuple[str, ...], before: tuple[str, ...]) -> Batch:
        """Return the batch that the rule's object of this number would train on now."""
        last = versions.newest(store, rule.model) if rule.gate or rule.files == "continue" else 0
        return Batch(number, new, before, last)

    def _is_due(self, store: Store, rule: Rule, batch: Batch) -> bool:
        """Return whether a batch can begin: no file is younger than `debounce_s`, the files have two labels, and the
        run that makes the model to continue from has ended."""
        if rule.files == "continue" and self._is_under_way(store, rule.name):
            return False
        new = rules.read(store, batch.new)
        if self._clock() - max(file.time for file in new.values()) < rule.debounce_s:
            return False
        before = rules.read(store, set(batch.used(rule.files)).difference(new))
        return len(set(_labelled(rule, {**before, **new}).values())) > 1

    def _is_under_way(self, store: Store, name: str) -> bool:
        """Return whether the run of the rule's last batch goes on."""
        numbers = rules.batches(store, name)
        outcome = rules.outcome(store, name, numbers[-1]) if numbers else None
        run = outcome.run if outcome else ""
        return bool(run) and records.is_there(store, run) and records.last_end(store, run) is None

    def _begin(self, owner: str, name: str, number: int) -> str | None:
        """Return the run of a batch, by the rule as it was then; the same batch twice begins one run."""
        store = self._store_of(owner)
        batch = rules.batch(store, name, number)
        try:
            request = self._request(store, batch, name, number)
        except RequestError as error:
            rules.settle(store, name, number, Outcome(error=public_text(error)))
            return None
        try:
            submitting = Submitting(self._root, store, self._sender, owner, self._quotas)
            run = submitting.submit(request, f"rule {name} {number}")
        except ForbiddenError:  # the owner is at a limit: the batch waits
            raise
        except RequestError as error:
            rules.settle(store, name, number, Outcome(error=public_text(error)))
            return None
        rules.settle(store, name, number, Outcome(run, len(request.recipe.urls)))
        return run

    def _request(self, store: Store, batch: Batch, name: str, number: int) -> records.Request:
        """Return what to submit for a batch; its trace is that of the last file."""
        rule = rules.numbered(store, name, batch.rule)
        assert rule is not None  # a deleted rule claims no batch
        files = rules.read(store, batch.used(rule.files))
        last = max((files[key] for key in batch.new), key=lambda file: (file.time, file.url))
        staged = StagedStore(store)
        by = rules.put_by(store, name, batch.rule)
        place = self._place(staged, memberships_of(by))
        job = rule.job_on(_labelled(rule, files))
        recipe = recipe_of(job, staged, place)
        if batch.last:
            recipe = _after(store, recipe, rule, versions.Version(rule.model, batch.last), place)
        staged.store()
        cause = {"rule": name, "batch": number}
        return records.Request(recipe, self._clock(), job.notes, last.trace, job.webhook, cause, submitter=by)

    def _place(self, store: Store, groups: Collection[Group]) -> Place:
        return place_files(store, self._allow_private, self._sources, groups)


def _in_turn(keys: Iterable[str], turn: int) -> Iterator[str]:
    """Return keys 'waiting/<owner>/<rule>': the first of each owner, then the second of each. turn: where to begin."""
    by_owner = [list(group) for _, group in itertools.groupby(keys, lambda key: key.split("/")[1])]
    rotated = [_rotated(group, turn) for group in _rotated(by_owner, turn)]
    return (key for keys in itertools.zip_longest(*rotated) for key in keys if key)


def _rotated(values: list[T], turn: int) -> list[T]:
    first = turn % max(1, len(values))
    return values[first:] + values[:first]


def _placed(files: Mapping[str, int], place: Place) -> tuple[LabelledFile, ...]:
    return tuple(LabelledFile(place(url, None), label) for url, label in sorted(files.items()))


def _after(store: Store, recipe: Recipe, rule: Rule, last: versions.Version, place: Place) -> Recipe:
    """Return the recipe of a run after a version, to continue from it or to be compared with it."""
    earlier = _earlier(store, last)
    if rule.files == "continue":
        spec = FeatureSpec.from_json(json.loads(store.get(f"{last.prefix}{versions.SPEC}")))
        recipe = replace(
            recipe,
            selected=tuple(spec.names),
            excluded=(),
            identifiers=spec.identifiers,
            preprocessing=spec.preprocessing,
            continues=earlier,
        )
    if rule.gate:
        sample = _placed(rule.sample, place)
        recipe = replace(recipe, gate=Gate(rule.gate.metric, rule.gate.fall, sample, earlier))
    return recipe


def _earlier(store: Store, version: versions.Version) -> Earlier:
    """Return the steps that made a version. Raises: RequestError if its card does not have them."""
    card = versions.card_of(store, version)
    steps = card["steps"]
    if card.get("folds"):
        raise RequestError(
            f"model '{version}' is the mean of the networks of its folds, which no training continues from and no gate "
            "compares with; train again on all files"
        )
    try:
        return Earlier(str(version), steps["spec"], steps["checkpoint"], steps["export"])
    except KeyError as error:
        raise RequestError(
            f"model '{version}' was uploaded or published by an earlier release: its card does not name the steps that "
            "made it; train again on all files"
        ) from error


def news_of(values: Mapping[str, Any]) -> News:
    """Return the news in a notification of an S3 server, in the form of AWS and MinIO. Raises: RequestError."""
    sent = values.get("Records")
    if not isinstance(sent, list):
        raise RequestError("the notification has no 'Records'; S3 servers send them, as AWS does")
    try:
        files = [(_arrived(record), _why_not(record)) for record in sent]
    except (KeyError, TypeError, AttributeError) as error:
        raise RequestError("a record of the notification names no bucket and key") from error
    return _news(files)


def news_in(event: CloudEvent) -> News:
    """Return the news in a CloudEvent: its source is s3://bucket and its subject the key, or its data has 'url'."""
    url = event.data.get("url") or (f"{event.source}/{event.subject}" if event.source.startswith("s3://") else "")
    if not isinstance(url, str) or "://" not in url:
        raise RequestError("the event names no file: it needs source s3://bucket and the key as subject, or 'url'")
    return _news([(Arrived(url, event.id, event.type), "")])


def is_ping(event: CloudEvent) -> bool:
    """Return whether an event is the ping."""
    return event.type == events.PING


def _labelled(rule: Rule, files: Mapping[str, File]) -> dict[str, int]:
    """Return URL and label of the files to which the rule applies; it may have changed since they arrived."""
    labels = ((file.url, rule.label_of(file.url)) for file in files.values())
    return {url: label for url, label in labels if label is not None}


def _news(files: Sequence[tuple[Arrived, str]]) -> News:
    """Return news of files, each with the reason to ignore it or ''."""
    checked = [_normal(file, reason) for file, reason in files]
    ignored = (f"'{file.url[:MOST_URL]}' {reason}" for file, reason in checked if reason)
    return News(tuple(file for file, reason in checked if not reason), tuple(ignored))


def _normal(file: Arrived, reason: str) -> tuple[Arrived, str]:
    """Return a file with the normal form of its address, and the reason to ignore it or ''."""
    reason = reason or _no_events(file.url)
    if reason:
        return file, reason
    try:
        return replace(file, url=str(parsed(file.url))), ""
    except RequestError as error:
        return file, f"cannot be read: {error}"


def _no_events(url: str) -> str:
    """Return why an address cannot be that of a file of events, '' if it can."""
    if len(url) > MOST_URL or not url.isprintable():
        return f"has more than {MOST_URL} characters, or one that cannot be printed"
    return "" if format_named(url) else f"does not end in {', '.join(ENDINGS)}"


def _arrived(record: Mapping[str, Any]) -> Arrived:
    """Return the file of a record; keys are form-encoded."""
    item = record["s3"]["object"]
    id_ = item.get("sequencer") or item.get("versionId") or item.get("eTag") or ""
    url = f"s3://{record['s3']['bucket']['name']}/{unquote_plus(str(item['key']))}"
    return Arrived(url, str(id_), str(record["eventName"]))


def _why_not(record: Mapping[str, Any]) -> str:
    """Return why the file of a record is ignored, '' if it is not."""
    if "ObjectCreated" not in str(record["eventName"]):
        return f"was not created: {str(record['eventName'])[:100]}"
    return "is empty" if record["s3"]["object"].get("size") == 0 else ""
