"""Rules: which new files start which training. A rule is a sequence of numbered objects; the newest one holds.

rules/<name>/<n>.json           the rule as the user put it; null: deleted
rules/<name>/files/<hash>       a file that arrived: URL, time, and the trace of the notification
rules/<name>/batches/<k>        the files of the k-th run, and the number of the rule's object; created once
rules/<name>/runs/<k>           the run of the batch, or the error
rules/<name>/tokens/<hash>      a token with which an S3 server sends notifications for the rule

Files and batches stay when the rule is changed or deleted: each file is new in one batch only.
"""

from __future__ import annotations

import difflib
import functools
import hashlib
import itertools
import json
import secrets
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from hepfaas.datasets.files import MOST_LABEL
from hepfaas.errors import ForbiddenError, RequestError
from hepfaas.jobs.job import DATA_KEYS, Job, job_without_files
from hepfaas.platform.address import parsed
from hepfaas.platform.storage import Store
from hepfaas.runs.recipe import LabelledFile

TOKEN_PREFIX = "hepfaas/"
METRICS = ("auc", "accuracy")

MOST_RULES, MOST_TOKENS = 200, 100
"""Rules of an owner, deleted ones included: each notification reads them all. Valid tokens of a rule."""

MOST_WAITING = 10_000
"""Files of a rule that are in no batch: each new file reads them all."""


@dataclass(frozen=True)
class Gate:
    """Condition to publish a model: on the test events of these files, `metric` is at most `fall` less than that of the
    last version."""

    files: tuple[str, ...]
    fall: float
    metric: Literal["auc", "accuracy"] = "auc"


@dataclass(frozen=True)
class Rule:
    """Starts a run when files arrive.

    prefix: start of the files' URLs. labels: label of a file by a part of its URL; the first match counts. job: as
    POST /v1/runs takes it, without files, labels and samples. type: CloudEvent type of the notifications, '' for any.
    debounce_s: time without new files before a run begins. files: train on the new files ('new'), on all files
    ('all'), or on the new files from the weights and with the spec of the last version ('continue').
    """

    name: str
    prefix: str
    labels: Mapping[str, int]
    job: Mapping[str, Any]
    type: str = ""
    debounce_s: float = 0.0
    files: Literal["new", "all", "continue"] = "new"
    gate: Gate | None = None

    @property
    def model(self) -> str:
        """Name of the models that the rule trains."""
        return str(self.job.get("name") or self.name)

    def job_on(self, files: Mapping[str, int]) -> Job:
        """Return the job that trains on these files: URLs and labels. Raises: RequestError if 'job' cannot be one."""
        labelled = tuple(LabelledFile(url, label) for url, label in sorted(files.items()))
        return replace(job_without_files({**self.job, "name": self.job.get("name") or self.name}), files=labelled)

    @property
    def sample(self) -> dict[str, int]:
        """URL and label of each file of the gate."""
        labels = ((url, self.label_in(url)) for url in (self.gate.files if self.gate else ()))
        return {url: label for url, label in labels if label is not None}

    def label_of(self, url: str) -> int | None:
        """Return the label of a file; None if the rule does not apply to it."""
        return self.label_in(url) if url.startswith(_normal(self.prefix)) else None

    def label_in(self, url: str) -> int | None:
        """Return the label of a URL, whatever its prefix; None if no part of it has one."""
        return next((label for part, label in self.labels.items() if part in url), None)

    def to_json(self) -> dict[str, Any]:
        """Return the rule as JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class File:
    """A file that arrived, the time (seconds since 1970), and the W3C trace context of the notification."""

    url: str
    time: float
    trace: str


@dataclass(frozen=True)
class Batch:
    """Files that start one run. new, before: keys of the new files, and of all that arrived before.

    rule: number of the rule's object. last: number of the last version of its model at that time, 0: none.
    """

    rule: int
    new: tuple[str, ...]
    before: tuple[str, ...]
    last: int = 0

    def used(self, files: str) -> tuple[str, ...]:
        """Return the keys of the files to train on."""
        return (*self.before, *self.new) if files == "all" else self.new


@dataclass(frozen=True)
class Outcome:
    """Result of a batch: a run with this number of files, or an error."""

    run: str = ""
    files: int = 0
    error: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the outcome as JSON values."""
        return {"error": self.error} if self.error else {"run": self.run, "files": self.files}


def rule_of(name: str, values: Mapping[str, Any]) -> Rule:
    """Return the rule in a JSON object. Raises: RequestError naming the key and what it takes."""
    known = [key for key in Rule.__dataclass_fields__ if key != "name"]
    for key in values:
        if key not in known:
            similar = difflib.get_close_matches(str(key), known, 1) or known
            raise RequestError(f"rule '{name}' has the unknown key '{key}'; closest: {', '.join(similar)}")
    gate = _gate_of(name, values.get("gate"))
    rule = Rule(**{"name": name, "prefix": "", "labels": {}, "job": {}, **values, "gate": gate})
    labels, job, wait_s = rule.labels, rule.job, rule.debounce_s
    are_labels = isinstance(labels, dict) and all(
        type(label) is int and abs(label) <= MOST_LABEL for label in labels.values()
    )
    checks = {
        "'prefix': the start of URLs, e.g. s3://bucket/x/": isinstance(rule.prefix, str) and "://" in rule.prefix,
        f"'labels': an object from a part of the URL to a label up to {MOST_LABEL}, and two labels or more": are_labels
        and len(set(labels.values())) > 1,
        "'job': as POST /v1/runs, without files, labels and samples": isinstance(job, dict)
        and set(DATA_KEYS).isdisjoint(job),
        "'type': the type of the CloudEvents about files": isinstance(rule.type, str),
        "'debounce_s': seconds up to a day": type(wait_s) in (int, float) and 0 <= wait_s <= 86_400,
        "'files': 'new', 'all' or 'continue'": rule.files in ("new", "all", "continue"),
    }
    for needs, is_met in checks.items():
        if not is_met:
            raise RequestError(f"rule '{name}' needs {needs}")
    params = job.get("params")
    if gate and isinstance(params, dict) and "target" in params:
        raise RequestError(f"rule '{name}': 'gate' compares classifiers, and the job has a 'target'; leave one out")
    if (gate or values.get("files") == "continue") and isinstance(params, dict) and "folds" in params:
        key = "gate" if gate else "files"
        raise RequestError(
            f"rule '{name}': '{key}' needs events that no network has learned, and with the job's 'folds' some network "
            "learns each event; leave one out"
        )
    if gate and (len(rule.sample) < len(set(gate.files)) or set(rule.sample.values()) != set(rule.labels.values())):
        raise RequestError(
            f"rule '{name}': 'gate' needs files of every label, and each of its files must have one, given by 'labels' "
            "for a part of the URL"
        )
    return rule


@functools.lru_cache(1_000)
def _normal(prefix: str) -> str:
    """Return the normal form of a prefix; earlier releases stored it as it was sent."""
    try:
        return str(parsed(prefix))
    except RequestError:
        return prefix


def put(store: Store, rule: Rule, by: Mapping[str, Any] | None = None) -> None:
    """Store a rule, unless it is stored already. by: the submitter."""
    values, numbers = stored_values(rule, by), _numbers(store, rule.name)
    if not numbers or json.loads(store.get(f"rules/{rule.name}/{numbers[-1]}.json")) != json.loads(json.dumps(values)):
        _write(store, rule.name, values)


def stored_values(rule: Rule, by: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return a rule with its submitter, as it is stored."""
    return {**rule.to_json(), "put_by": by or {}}


def check_name(store: Store, name: str) -> None:
    """Raises: ForbiddenError if the name is new and the owner has as many rules as allowed."""
    names = set(itertools.islice(_names(store), MOST_RULES))
    if len(names) >= MOST_RULES and name not in names and not _numbers(store, name):
        raise ForbiddenError(
            f"there are {MOST_RULES} rules, deleted ones included, which is the limit; reuse the name of one of them"
        )


def delete(store: Store, name: str) -> None:
    """Delete a rule."""
    _write(store, name, None)


def newest(store: Store, name: str) -> tuple[int, Rule] | None:
    """Return the rule of a name and the number of its object."""
    numbers = _numbers(store, name)
    rule = numbered(store, name, numbers[-1]) if numbers else None
    return (numbers[-1], rule) if rule else None


def get(store: Store, name: str) -> Rule | None:
    """Return the rule of a name."""
    numbered_rule = newest(store, name)
    return numbered_rule[1] if numbered_rule else None


def numbered(store: Store, name: str, number: int) -> Rule | None:
    """Return the rule in the object of this number; None if that deleted it."""
    values = json.loads(store.get(f"rules/{name}/{number}.json"))
    return rule_of(name, {key: values[key] for key in values if key not in ("name", "put_by")}) if values else None


def put_by(store: Store, name: str, number: int) -> dict[str, Any]:
    """Return the submitter of the rule in the object of this number."""
    submitter: dict[str, Any] = json.loads(store.get(f"rules/{name}/{number}.json")).get("put_by", {})
    return submitter


def token_key(name: str, secret: str) -> str:
    """Return the key of a rule's token by its secret."""
    return f"rules/{name}/tokens/{hashlib.sha256(secret.encode()).hexdigest()}"


def make_token(store: Store, owner: str, name: str) -> str:
    """Return a new token with which an S3 server sends notifications for a rule; it is valid until it is deleted.

    Raises: ForbiddenError if the rule has as many tokens as allowed.
    """
    if sum(1 for _ in store.keys(f"rules/{name}/tokens/")) >= MOST_TOKENS:
        raise ForbiddenError(f"rule '{name}' has {MOST_TOKENS} tokens; DELETE /v1/rules/{name}/tokens deletes them all")
    secret = secrets.token_urlsafe(32)
    store.create(token_key(name, secret), b"")
    return f"{TOKEN_PREFIX}{owner}/{name}/{secret}"


def delete_tokens(store: Store, name: str) -> None:
    """Delete all tokens of a rule."""
    for key in list(store.keys(f"rules/{name}/tokens/")):
        store.delete(key)


def all_rules(store: Store) -> list[Rule]:
    """Return all rules of an owner."""
    return [rule for name in _names(store) if (rule := get(store, name))]


def arrived(store: Store, name: str, file: File, id_: str) -> bool:
    """Store that a file arrived; return False if this content of it had arrived before."""
    return store.create(file_key(name, file.url, id_), json.dumps(asdict(file)).encode())


def file_key(name: str, url: str, id_: str) -> str:
    """Return the key of a file that arrived. id_: of its content."""
    mark = hashlib.sha256(f"{url}\n{id_}".encode(errors="surrogatepass")).hexdigest()[:32]
    return f"rules/{name}/files/{mark}"


def files(store: Store, name: str) -> list[str]:
    """Return the keys of all files that arrived."""
    return list(store.keys(f"rules/{name}/files/"))


def read(store: Store, keys: Collection[str]) -> dict[str, File]:
    """Return the file of each key."""
    return {key: File(**json.loads(store.get(key))) for key in keys}


def batches(store: Store, name: str) -> list[int]:
    """Return the numbers of all batches, from 1 on."""
    return list(range(1, 1 + sum(1 for _ in store.keys(f"rules/{name}/batches/"))))


def batch(store: Store, name: str, number: int) -> Batch:
    """Return the batch of a number; batch 0 has no files."""
    if number == 0:
        return Batch(0, (), ())
    values = json.loads(store.get(f"rules/{name}/batches/{number}"))
    return Batch(values["rule"], tuple(values["new"]), tuple(values["before"]), values.get("last", 0))


def claim(store: Store, name: str, number: int, batch: Batch) -> bool:
    """Store the batch of a number; return False if there is one already."""
    return store.create(f"rules/{name}/batches/{number}", json.dumps(asdict(batch)).encode())


def settled(store: Store, name: str) -> set[int]:
    """Return the numbers of the batches with an outcome."""
    return {int(key.rpartition("/")[2]) for key in store.keys(f"rules/{name}/runs/")}


def outcome(store: Store, name: str, number: int) -> Outcome | None:
    """Return the outcome of a batch; None if it has not begun."""
    key = f"rules/{name}/runs/{number}"
    return Outcome(**json.loads(store.get(key))) if store.size_bytes(key) is not None else None


def settle(store: Store, name: str, number: int, outcome: Outcome) -> None:
    """Store the outcome of a batch, unless it has one."""
    store.create(f"rules/{name}/runs/{number}", json.dumps(outcome.to_json()).encode())


def _gate_of(name: str, values: Any) -> Gate | None:
    if values is None:
        return None
    needs = (
        f"rule '{name}' needs 'gate': {{'files': URLs of a fixed sample, 'fall': how much less the metric may be, 0 to "
        f"1, 'metric': {' or '.join(METRICS)}}}"
    )
    try:
        gate = Gate(**{**values, "files": tuple(values["files"])})
    except (TypeError, KeyError) as error:
        raise RequestError(needs) from error
    are_urls = bool(gate.files) and all(isinstance(url, str) and "://" in url for url in gate.files)
    if not are_urls or type(gate.fall) not in (int, float) or not 0 <= gate.fall <= 1 or gate.metric not in METRICS:
        raise RequestError(needs)
    return gate


def _numbers(store: Store, name: str) -> list[int]:
    """Return the numbers of a rule's own objects, which sort before its many files and batches."""
    keys = (key.split("/") for key in store.keys(f"rules/{name}/"))
    return sorted(int(parts[2].removesuffix(".json")) for parts in itertools.takewhile(lambda it: len(it) == 3, keys))


def _names(store: Store) -> Iterator[str]:
    """Yield the names of all rules, deleted ones included; each takes one listing after the name before."""
    after = ""
    while key := next(iter(store.keys("rules/", after)), None):
        name = key.split("/")[1]
        yield name
        after = f"rules/{name}0"  # '0' follows '/'


def _write(store: Store, name: str, values: Mapping[str, Any] | None) -> None:
    number = max(_numbers(store, name), default=0) + 1
    while not store.create(f"rules/{name}/{number}.json", json.dumps(values).encode()):
        number += 1
