"""Rules: which new data start which training. A rule is numbered objects, the newest counts; so are its batches.

rules/<name>/<n>.json           what the user put; null: deleted
rules/<name>/files/<hash>       a file that arrived: its URL, its label and when
rules/<name>/batches/<k>        the files that the k-th run trains on; whoever creates it decides
rules/<name>/runs/<k>           the run that came of it, or why none did
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from hepfaas.errors import RequestError
from hepfaas.platform.storage import Store

ALSO = ("continue", "gate")
"""Asked for in the plan and not there yet."""


@dataclass(frozen=True)
class Rule:
    """What starts a run. labels: the label of a file by what its URL contains, the first that fits.

    prefix: files whose URLs start so. type: of the CloudEvents that tell of files, '' for any. job: as POST /v1/runs
    takes it, without files and labels. debounce_s: quiet time before a run begins. files: train on the new ones alone,
    or with all that came before.
    """

    name: str
    prefix: str
    labels: Mapping[str, int]
    job: Mapping[str, Any]
    type: str = ""
    debounce_s: float = 0.0
    files: Literal["new", "all"] = "new"

    def label_of(self, url: str) -> int | None:
        """The label of a file of this rule; None if it is none of its files."""
        if not url.startswith(self.prefix):
            return None
        return next((label for part, label in self.labels.items() if part in url), None)

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class File:
    """A file that arrived, and when (seconds since 1970)."""

    url: str
    label: int
    time: float


def rule_of(name: str, values: Mapping[str, Any]) -> Rule:
    """The rule that was sent. Raises: RequestError naming the key and what it takes."""
    known = [key for key in Rule.__dataclass_fields__ if key != "name"]
    for key in values:
        if key in ALSO:
            raise RequestError(f"rule '{name}': '{key}' is not there yet; files takes 'new' or 'all'")
        if key not in known:
            close = difflib.get_close_matches(str(key), known, 1) or known
            raise RequestError(f"rule '{name}' has the unknown key '{key}'; closest: {', '.join(close)}")
    rule = Rule(**{"name": name, "prefix": "", "labels": {}, "job": {}, **values})
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
        (rule.files in ("new", "all"), "'files': 'new' or 'all'"),
    )
    for holds, wanted in checks:
        if not holds:
            raise RequestError(f"rule '{name}' needs {wanted}")
    return rule


def put(store: Store, rule: Rule) -> None:
    """The rule from now on."""
    _write(store, rule.name, rule.to_json())


def delete(store: Store, name: str) -> None:
    """No rule of this name from now on."""
    _write(store, name, None)


def get(store: Store, name: str) -> Rule | None:
    """The rule of a name."""
    numbers = _numbers(store, name)
    values = json.loads(store.get(f"rules/{name}/{numbers[-1]}.json")) if numbers else None
    return Rule(**values) if values else None


def all_rules(store: Store) -> list[Rule]:
    """All rules of an owner."""
    names = sorted({key.split("/")[1] for key in store.keys("rules/")})
    return [rule for name in names if (rule := get(store, name))]


def arrived(store: Store, rule: Rule, url: str, id_: str, time: float) -> bool:
    """Remembers a file; False if it was known: told twice, it counts once."""
    label = rule.label_of(url)
    name = hashlib.sha256(f"{url}\n{id_}".encode()).hexdigest()[:32]
    return store.create(f"rules/{rule.name}/files/{name}", json.dumps(asdict(File(url, label or 0, time))).encode())


def files(store: Store, name: str) -> dict[str, File]:
    """All files that arrived, by their keys."""
    return {key: File(**json.loads(store.get(key))) for key in store.keys(f"rules/{name}/files/")}


def batches(store: Store, name: str) -> list[list[str]]:
    """Keys of the files of each batch, in order."""
    count = sum(1 for _ in store.keys(f"rules/{name}/batches/"))
    return [json.loads(store.get(f"rules/{name}/batches/{number}")) for number in range(1, count + 1)]


def claim(store: Store, name: str, number: int, keys: Sequence[str]) -> bool:
    """Makes these files the batch of that number; False if somebody was first."""
    return store.create(f"rules/{name}/batches/{number}", json.dumps(sorted(keys)).encode())


def outcome(store: Store, name: str, number: int) -> Mapping[str, Any] | None:
    """The run of a batch, or why there is none; None while nobody has begun it."""
    key = f"rules/{name}/runs/{number}"
    return dict(json.loads(store.get(key))) if store.size_bytes(key) is not None else None


def settle(store: Store, name: str, number: int, what: Mapping[str, Any]) -> None:
    """Says what became of a batch."""
    store.create(f"rules/{name}/runs/{number}", json.dumps(what).encode())


def _numbers(store: Store, name: str) -> list[int]:
    keys = (key.split("/") for key in store.keys(f"rules/{name}/"))
    return sorted(int(parts[2].removesuffix(".json")) for parts in keys if len(parts) == 3)


def _write(store: Store, name: str, values: Mapping[str, Any] | None) -> None:
    number = max(_numbers(store, name), default=0) + 1
    while not store.create(f"rules/{name}/{number}.json", json.dumps(values).encode()):
        number += 1
