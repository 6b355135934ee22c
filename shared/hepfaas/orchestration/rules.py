"""Rules: which new data start which training. A rule is numbered objects, the newest counts; so are its batches.

rules/<name>/<n>.json           what the user put; null: deleted
rules/<name>/files/<hash>       a file that arrived: its URL, when, and the trace of the news
rules/<name>/batches/<k>        the files of the k-th run, and by which <n>.json; whoever creates it decides
rules/<name>/runs/<k>           the run that came of it, or why none did
rules/<name>/tokens/<hash>      a token that lets an S3 server tell news for the rule

What arrived and what it became outlasts a change of the rule and its deletion: a file trains once, whatever is put.
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

from hepfaas.errors import ForbiddenError, RequestError
from hepfaas.jobs.job import Job, job_without_files
from hepfaas.platform.address import parsed
from hepfaas.platform.storage import Store
from hepfaas.runs.recipe import LabelledFile

TOKEN_PREFIX = "hepfaas/"
METRICS = ("auc", "accuracy")

MOST_RULES, MOST_TOKENS = 200, 100
"""Names of rules that an owner has or had: each is looked at when news come. Tokens of a rule that hold."""

MOST_WAITING = 10_000
"""Files of a rule that no run has taken yet: all are looked at when another one comes."""


@dataclass(frozen=True)
class Gate:
    """What a model must be worth to be published: on the test events of these files `metric` may fall by at most `fall`
    below that of the last version."""

    files: tuple[str, ...]
    fall: float
    metric: Literal["auc", "accuracy"] = "auc"


@dataclass(frozen=True)
class Rule:
    """What starts a run. labels: the label of a file by what its URL contains, the first that fits.

    prefix: files whose URLs start so. type: of the CloudEvents that tell of files, '' for any. job: as POST /v1/runs
    takes it, without files and labels. debounce_s: quiet time before a run begins. files: train on the new ones alone,
    with all that came before, or on the new ones from the weights of the last version, keeping its spec.
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
        """URLs and labels of the gate's files."""
        labels = ((url, self.label_in(url)) for url in (self.gate.files if self.gate else ()))
        return {url: label for url, label in labels if label is not None}

    def label_of(self, url: str) -> int | None:
        """The label of a file of this rule; None if it is none of its files."""
        return self.label_in(url) if url.startswith(_normal(self.prefix)) else None

    def label_in(self, url: str) -> int | None:
        """The label that a URL tells, wherever it is."""
        return next((label for part, label in self.labels.items() if part in url), None)

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class File:
    """A file that arrived, when (seconds since 1970), and the W3C trace context of the news."""

    url: str
    time: float
    trace: str


@dataclass(frozen=True)
class Batch:
    """Keys of files that settled together, and of all that had arrived earlier. rule: number of the rule's object.
    last: number of the last version of its model then, 0: there was none."""

    rule: int
    new: tuple[str, ...]
    before: tuple[str, ...]
    last: int = 0

    def used(self, files: str) -> tuple[str, ...]:
        """Keys of those that it trains on."""
        return (*self.before, *self.new) if files == "all" else self.new


def rule_of(name: str, values: Mapping[str, Any]) -> Rule:
    """The rule that was sent. Raises: RequestError naming the key and what it takes."""
    known = [key for key in Rule.__dataclass_fields__ if key != "name"]
    for key in values:
        if key not in known:
            close = difflib.get_close_matches(str(key), known, 1) or known
            raise RequestError(f"rule '{name}' has the unknown key '{key}'; closest: {', '.join(close)}")
    gate = _gate_of(name, values.get("gate"))
    rule = Rule(**{"name": name, "prefix": "", "labels": {}, "job": {}, **values, "gate": gate})
    labels, job, wait = rule.labels, rule.job, rule.debounce_s
    numbers = isinstance(labels, dict) and all(type(label) is int for label in labels.values())
    checks = (
        (
            isinstance(rule.prefix, str) and "://" in str(rule.prefix),
            "'prefix': the start of URLs, e.g. s3://bucket/x/",
        ),
        (
            numbers and len(set(labels.values())) > 1,
            "'labels': an object from a part of the URL to a label, two or more",
        ),
        (
            isinstance(job, dict) and not {"files", "labels"} & set(job),
            "'job': as POST /v1/runs, without files and labels",
        ),
        (isinstance(rule.type, str), "'type': the type of CloudEvents that tell of files"),
        (type(wait) in (int, float) and 0 <= wait <= 86_400, "'debounce_s': seconds up to a day"),
        (rule.files in ("new", "all", "continue"), "'files': 'new', 'all' or 'continue'"),
    )
    for holds, wanted in checks:
        if not holds:
            raise RequestError(f"rule '{name}' needs {wanted}")
    if gate and (len(rule.sample) < len(set(gate.files)) or set(rule.sample.values()) != set(rule.labels.values())):
        raise RequestError(
            f"rule '{name}': the files of 'gate' must be of every label, and each must have one; 'labels' tells it by "
            "a part of the URL"
        )
    return rule


@functools.lru_cache(1_000)
def _normal(prefix: str) -> str:
    """The normal form of a prefix, also of a rule that an earlier release has stored as it was sent."""
    try:
        return str(parsed(prefix))
    except RequestError:
        return prefix


def put(store: Store, rule: Rule, by: Mapping[str, Any] | None = None) -> None:
    """The rule from now on, unless it is just so. by: who says so."""
    values, numbers = stored_values(rule, by), _numbers(store, rule.name)
    if not numbers or json.loads(store.get(f"rules/{rule.name}/{numbers[-1]}.json")) != json.loads(json.dumps(values)):
        _write(store, rule.name, values)


def stored_values(rule: Rule, by: Mapping[str, Any] | None) -> dict[str, Any]:
    """A rule as it is stored, and who put it."""
    return {**rule.to_json(), "put_by": by or {}}


def check_name(store: Store, name: str) -> None:
    """Raises: ForbiddenError if the owner has no rule of this name and may have no more."""
    names = set(itertools.islice(_names(store), MOST_RULES))
    if len(names) >= MOST_RULES and name not in names and not _numbers(store, name):
        raise ForbiddenError(
            f"there are or were {MOST_RULES} rules, and no more may be; put one of them anew, also one that was deleted"
        )


def delete(store: Store, name: str) -> None:
    """No rule of this name from now on."""
    _write(store, name, None)


def newest(store: Store, name: str) -> tuple[int, Rule] | None:
    """The rule of a name and the number of its object."""
    numbers = _numbers(store, name)
    rule = numbered(store, name, numbers[-1]) if numbers else None
    return (numbers[-1], rule) if rule else None


def get(store: Store, name: str) -> Rule | None:
    """The rule of a name."""
    found = newest(store, name)
    return found[1] if found else None


def numbered(store: Store, name: str, number: int) -> Rule | None:
    """The rule as it was put that time; None if it was deleted then."""
    values = json.loads(store.get(f"rules/{name}/{number}.json"))
    return rule_of(name, {key: values[key] for key in values if key not in ("name", "put_by")}) if values else None


def put_by(store: Store, name: str, number: int) -> dict[str, Any]:
    """Who put it that time."""
    found: dict[str, Any] = json.loads(store.get(f"rules/{name}/{number}.json")).get("put_by", {})
    return found


def token_key(name: str, secret: str) -> str:
    """Where it is remembered that this secret lets tell news for a rule."""
    return f"rules/{name}/tokens/{hashlib.sha256(secret.encode()).hexdigest()}"


def make_token(store: Store, owner: str, name: str) -> str:
    """A token that lets an S3 server tell news for a rule and do nothing else; it holds until it is deleted. Raises:
    ForbiddenError if the rule has many already."""
    if sum(1 for _ in store.keys(f"rules/{name}/tokens/")) >= MOST_TOKENS:
        raise ForbiddenError(f"rule '{name}' has {MOST_TOKENS} tokens; DELETE /v1/rules/{name}/tokens ends all of them")
    secret = secrets.token_urlsafe(32)
    store.create(token_key(name, secret), b"")
    return f"{TOKEN_PREFIX}{owner}/{name}/{secret}"


def delete_tokens(store: Store, name: str) -> None:
    """None of the rule's tokens holds any more."""
    for key in list(store.keys(f"rules/{name}/tokens/")):
        store.delete(key)


def all_rules(store: Store) -> list[Rule]:
    """All rules of an owner."""
    return [rule for name in _names(store) if (rule := get(store, name))]


def arrived(store: Store, name: str, file: File, id_: str) -> bool:
    """Remembers a file; False if this content of it was known: told twice, it counts once."""
    return store.create(file_key(name, file.url, id_), json.dumps(asdict(file)).encode())


def file_key(name: str, url: str, id_: str) -> str:
    """Where a file is remembered that arrived. id_: of this content of it."""
    mark = hashlib.sha256(f"{url}\n{id_}".encode(errors="surrogatepass")).hexdigest()[:32]
    return f"rules/{name}/files/{mark}"


def files(store: Store, name: str) -> list[str]:
    """Keys of all files that arrived."""
    return list(store.keys(f"rules/{name}/files/"))


def read(store: Store, keys: Collection[str]) -> dict[str, File]:
    """The files of these keys."""
    return {key: File(**json.loads(store.get(key))) for key in keys}


def batches(store: Store, name: str) -> list[int]:
    """Numbers of all batches, from 1 on."""
    return list(range(1, 1 + sum(1 for _ in store.keys(f"rules/{name}/batches/"))))


def batch(store: Store, name: str, number: int) -> Batch:
    """One of them; the 0th has no files."""
    if number == 0:
        return Batch(0, (), ())
    values = json.loads(store.get(f"rules/{name}/batches/{number}"))
    return Batch(values["rule"], tuple(values["new"]), tuple(values["before"]), values.get("last", 0))


def claim(store: Store, name: str, number: int, what: Batch) -> bool:
    """Makes this the batch of that number; False if somebody was first."""
    return store.create(f"rules/{name}/batches/{number}", json.dumps(asdict(what)).encode())


def settled(store: Store, name: str) -> set[int]:
    """Numbers of the batches that became a run, or never will."""
    return {int(key.rpartition("/")[2]) for key in store.keys(f"rules/{name}/runs/")}


def outcome(store: Store, name: str, number: int) -> Mapping[str, Any] | None:
    """The run of a batch, or why there is none; None while nobody has begun it."""
    key = f"rules/{name}/runs/{number}"
    return dict(json.loads(store.get(key))) if store.size_bytes(key) is not None else None


def settle(store: Store, name: str, number: int, what: Mapping[str, Any]) -> None:
    """Says what became of a batch."""
    store.create(f"rules/{name}/runs/{number}", json.dumps(what).encode())


def _gate_of(name: str, values: Any) -> Gate | None:
    if values is None:
        return None
    wanted = (
        f"rule '{name}' needs 'gate': {{'files': URLs of a fixed sample, 'fall': most that the metric may fall, "
        f"'metric': {' or '.join(METRICS)}}}"
    )
    try:
        gate = Gate(**{**values, "files": tuple(values["files"])})
    except (TypeError, KeyError) as error:
        raise RequestError(wanted) from error
    urls = bool(gate.files) and all(isinstance(url, str) and "://" in url for url in gate.files)
    if not urls or type(gate.fall) not in (int, float) or not 0 <= gate.fall <= 1 or gate.metric not in METRICS:
        raise RequestError(wanted)
    return gate


def _numbers(store: Store, name: str) -> list[int]:
    """Numbers of a rule's own objects: they sort before the folders of what came of it, which may be long."""
    keys = (key.split("/") for key in store.keys(f"rules/{name}/"))
    return sorted(int(parts[2].removesuffix(".json")) for parts in itertools.takewhile(lambda it: len(it) == 3, keys))


def _names(store: Store) -> Iterator[str]:
    """Names that a rule has or had, each found by one look behind the one before."""
    after = ""
    while key := next(iter(store.keys("rules/", after)), None):
        name = key.split("/")[1]
        yield name
        after = f"rules/{name}0"  # '0' follows '/'


def _write(store: Store, name: str, values: Mapping[str, Any] | None) -> None:
    number = max(_numbers(store, name), default=0) + 1
    while not store.create(f"rules/{name}/{number}.json", json.dumps(values).encode()):
        number += 1
