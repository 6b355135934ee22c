"""Published model versions: their numbers, files and aliases.

models/<name>/<version>/claim       the publish step that has this number
models/<name>/<version>/card.json   written last: a version without it is not published yet
models/<name>/<version>/deleted     a tombstone: the number is never used again
models/<name>/aliases/<alias>/<k>   the version that an alias names, 0 for none; the highest k counts
"""

from __future__ import annotations

import functools
import itertools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hepfaas.errors import ForbiddenError, NotThereError, RequestError
from hepfaas.features.spec import FeatureSpec, InputBranch
from hepfaas.platform.storage import Data, Store

CARD, GRAPH, KERAS, SPEC, EVALUATION = "card.json", "model.tflite", "model.keras", "spec.json", "evaluation.json"
FOLDS = "folds.tflite"
"""Graph with the outputs of the networks of all folds, one after the other."""

CLAIM, TOMBSTONE = "claim", "deleted"
MOST_ALIASES = 100
OWN_FILES = frozenset({CARD, GRAPH, KERAS, SPEC, EVALUATION, FOLDS, CLAIM, TOMBSTONE})
"""Names reserved for files that every version may have."""

PARAMS, LABELS = "params.json", "labels.txt"
"""Files of an uploaded model, for clients only."""


@dataclass(frozen=True)
class Version:
    """One published version of a model."""

    name: str
    number: int

    @property
    def prefix(self) -> str:
        """Prefix of the keys of its files."""
        return f"models/{self.name}/{self.number}/"

    def __str__(self) -> str:
        return f"{self.name}/{self.number}"


@dataclass(frozen=True)
class Published:
    """A version as it is served: its card, its LiteRT graph, and its spec.

    layout: None for an uploaded model, which takes vectors only. graph: with folds that of the mean of all networks.
    """

    version: Version
    card: Mapping[str, Any]
    layout: FeatureSpec | None
    graph: bytes | memoryview

    @property
    def spec(self) -> FeatureSpec:
        """How events become vectors. Raises: RequestError if the model was uploaded without a spec."""
        if self.layout is None:
            raise self._no_spec()
        return self.layout

    @property
    def inputs(self) -> Sequence[InputBranch]:
        """Branches that raw events need; none if the model takes vectors only."""
        return self.layout.inputs if self.layout else ()

    @property
    def columns(self) -> list[str]:
        """Names of the features; none if they are not known."""
        return self.layout.columns if self.layout else []

    @property
    def tree(self) -> str:
        """The TTree of the training. Raises: RequestError if the model was uploaded without a spec."""
        if self.layout is None:
            raise self._no_spec()
        return str(self.card["recipe"]["tree"])

    @functools.cached_property
    def shape(self) -> tuple[int, ...]:
        """Shape of the features of one event: (features,), or (height, width, channels) of an image."""
        return tuple(self.card.get("shape", [self.card["n_features"]]))

    def _no_spec(self) -> RequestError:
        return RequestError(
            f"model '{self.version}' was uploaded without a spec and cannot turn raw events and files into vectors; "
            "send vectors, to /json or as 'features' to /v2"
        )


def claim(store: Store, name: str, claimant: str) -> Version:
    """Return the version of a claimant (the key of a publish step); claims a number with the first call.

    Numbers are tried one by one from 1, so that none is left out: a second call cannot pass the number of the first.
    """
    numbers = {int(match[2]) for key in store.keys(f"models/{name}/") if (match := _CLAIM.fullmatch(key))}
    for number in itertools.count(1):
        key = f"models/{name}/{number}/{CLAIM}"
        if number not in numbers and store.create(key, claimant.encode()):
            break
        if store.get(key).decode() == claimant:
            break
    return Version(name, number)


def publish(store: Store, version: Version, card: Mapping[str, Any], files: Mapping[str, bytes]) -> None:
    """Store the files of a version and then its card, which makes it visible; nothing if it was deleted meanwhile."""
    if store.size_bytes(version.prefix + TOMBSTONE) is not None:
        return
    for name, data in files.items():
        store.create(version.prefix + name, data)
    store.create(version.prefix + CARD, json.dumps(card, indent=1, sort_keys=True).encode())


def add(store: Store, version: Version, name: str, data: Data) -> None:
    """Add a file to a published version. Raises: RequestError if it has one of that name, or the name is reserved."""
    if name in OWN_FILES:
        raise RequestError(f"'{name}' is a name that model versions use themselves; give the file another name")
    if not store.create(f"{version.prefix}{name}", data):
        raise RequestError(f"model version '{version}' has a file '{name}' already, and a version never changes")


def is_there(store: Store, version: Version) -> bool:
    """Return whether a version is published and was not deleted."""
    return version in _published(store, version.prefix)


def versions(store: Store) -> list[Version]:
    """Return all published versions, by name and number."""
    return _published(store, "models/")


def newest(store: Store, name: str) -> int:
    """Return the number of a model's newest version; 0 if there is none."""
    return max((version.number for version in _published(store, f"models/{name}/")), default=0)


def delete(store: Store, version: Version) -> None:
    """Delete a version. Instances that have loaded it may answer for a few seconds longer."""
    store.create(version.prefix + TOMBSTONE, b"")
    for key in [version.prefix + CARD, *list(store.keys(version.prefix))]:
        if key.rpartition("/")[2] not in (TOMBSTONE, CLAIM):
            store.delete(key)


def set_alias(store: Store, name: str, alias: str, number: int) -> None:
    """Let an alias name a version; 0: none. Raises: ForbiddenError if the model has too many aliases."""
    known = {key.split("/")[3] for key in store.keys(f"models/{name}/aliases/")}
    if alias not in known and len(known) >= MOST_ALIASES:
        raise ForbiddenError(
            f"model '{name}' has or had {MOST_ALIASES} aliases, which is the limit; use one of them, also a deleted one"
        )
    write_next(store, f"models/{name}/aliases/{alias}/", str(number))


def write_next(store: Store, prefix: str, text: str) -> None:
    """Store a value under the next number; the highest number counts.

    The value before it stays for readers under way, earlier ones are deleted: so there are two objects at most.
    """
    numbers = sorted(int(key.rpartition("/")[2]) for key in store.keys(prefix))
    following = 1 + max(numbers, default=0)
    while not store.create(f"{prefix}{following}", text.encode()):
        following += 1
    for number in numbers[:-1]:
        store.delete(f"{prefix}{number}")


def aliases(store: Store, name: str) -> dict[str, int]:
    """Return the version that each alias of a model names."""
    prefix = f"models/{name}/aliases/"
    names = {key.removeprefix(prefix).partition("/")[0] for key in store.keys(prefix)}
    numbers = {alias: _aliased(store, name, alias) for alias in sorted(names)}
    return {alias: number for alias, number in numbers.items() if number}


def find(store: Store, name: str, number: str = "") -> Version:
    """Return the version of a number or alias, '' the newest. Raises: NotThereError naming those that exist."""
    published = [version.number for version in _published(store, f"models/{name}/")]
    aliased = 0 if not number or number.isdecimal() else _aliased(store, name, number)
    wanted = str(aliased or number)
    matching = [each for each in published if wanted in ("", str(each))]
    if not matching:
        known = ", ".join(f"{name}/{each}" for each in published) or ", ".join(map(str, versions(store))) or "none"
        missing = f"'{name}/{wanted}'" if wanted else f"'{name}'"
        because = f", which the alias '{number}' names" if aliased else ""
        finding = f"has no model {missing}{because}; it has: {known}"
        raise NotThereError(f"store {store.url} {finding}", outside=f"the store {finding}")
    return Version(name, max(matching))


def read(store: Store, version: Version) -> Published:
    """Return a version as it is served. Raises: MissingError if it was deleted just now."""
    card = card_of(store, version)
    layout = None if "foreign" in card else FeatureSpec.from_json(json.loads(store.get(version.prefix + SPEC)))
    return Published(version, card, layout, store.get(version.prefix + GRAPH))


def card_of(store: Store, version: Version) -> dict[str, Any]:
    """Return the card of a published version."""
    card: dict[str, Any] = json.loads(store.get(version.prefix + CARD))
    return card


def files_of(store: Store, version: Version) -> list[str]:
    """Return the names of the files of a version."""
    names = (key.removeprefix(version.prefix) for key in store.keys(version.prefix))
    return [name for name in names if name != CLAIM]


def load(store: Store, model: str) -> Published:
    """Return the model that a user names, '<name>' (its newest version) or '<name>/<version>'.

    Raises: NotThereError naming those that exist.
    """
    name, _, number = model.partition("/")
    return read(store, find(store, name, number))


def _published(store: Store, prefix: str) -> list[Version]:
    """Return published versions that were not deleted, by name and number."""
    cards: set[tuple[str, int]] = set()
    deleted: set[tuple[str, int]] = set()
    for key in store.keys(prefix):
        if match := _CARD.fullmatch(key):
            (cards if match[3] == CARD else deleted).add((match[1], int(match[2])))
    return [Version(name, number) for name, number in sorted(cards - deleted)]


def _numbers_of(store: Store, name: str, alias: str) -> list[int]:
    return [int(key.rpartition("/")[2]) for key in store.keys(f"models/{name}/aliases/{alias}/")]


def _aliased(store: Store, name: str, alias: str) -> int:
    """Return the version that an alias names; 0: none."""
    last = max(_numbers_of(store, name, alias), default=0)
    return int(store.get(f"models/{name}/aliases/{alias}/{last}")) if last else 0


_CARD = re.compile(rf"models/([^/]+)/([0-9]+)/({re.escape(CARD)}|{TOMBSTONE})")
_CLAIM = re.compile(rf"models/([^/]+)/([0-9]+)/{CLAIM}")
