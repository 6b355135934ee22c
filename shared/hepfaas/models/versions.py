"""Published model versions: who gets which number, what lies under it, and how one is found again.

models/<name>/<version>/claim       the publish step that has this number
models/<name>/<version>/card.json   written last: a version without it is not there yet
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hepfaas.errors import RequestError
from hepfaas.features.spec import Spec
from hepfaas.platform.storage import Store

CARD, GRAPH, KERAS, SPEC = "card.json", "model.tflite", "model.keras", "spec.json"


@dataclass(frozen=True)
class Version:
    """One published version of a model."""

    name: str
    number: int

    @property
    def prefix(self) -> str:
        """Where its files lie."""
        return f"models/{self.name}/{self.number}/"

    def __str__(self) -> str:
        return f"{self.name}/{self.number}"


@dataclass(frozen=True)
class Published:
    """What answering needs of a version: its card, its spec and its LiteRT graph."""

    version: Version
    card: Mapping[str, Any]
    spec: Spec
    graph: bytes


def claim(store: Store, name: str, claimant: str) -> Version:
    """The version that this claimant (the key of a publish step) has or gets: the same each time it asks.

    Numbers are tried one after the other from 1, so that none is left out: a second asker cannot get past the number
    that the first one got.
    """
    numbers = {int(match[2]) for key in store.keys(f"models/{name}/") if (match := _CLAIM.fullmatch(key))}
    for number in itertools.count(1):
        key = f"models/{name}/{number}/claim"
        if number not in numbers and store.create(key, claimant.encode()):
            break
        if store.get(key).decode() == claimant:
            break
    return Version(name, number)


def publish(store: Store, version: Version, card: Mapping[str, Any], files: Mapping[str, bytes]) -> None:
    """Stores the files of a version and then its card, which makes it visible."""
    for name, data in files.items():
        store.create(version.prefix + name, data)
    store.create(version.prefix + CARD, json.dumps(card, indent=1, sort_keys=True).encode())


def versions(store: Store) -> list[Version]:
    """All published versions, by name and number."""
    found = [match for key in store.keys("models/") if (match := _CARD.fullmatch(key))]
    return sorted((Version(match[1], int(match[2])) for match in found), key=lambda one: (one.name, one.number))


def card_of(store: Store, version: Version) -> dict[str, Any]:
    """The card of a published version."""
    card: dict[str, Any] = json.loads(store.get(version.prefix + CARD))
    return card


def files_of(store: Store, version: Version) -> list[str]:
    """Names of the files of a version."""
    names = (key.removeprefix(version.prefix) for key in store.keys(version.prefix))
    return [name for name in names if name != "claim"]


def load(store: Store, model: str) -> Published:
    """The model that a user names, '<name>' (its newest version) or '<name>/<version>'.

    Raises: RequestError if there is none, naming those there are.
    """
    name, _, number = model.partition("/")
    there = versions(store)
    found = [one for one in there if one.name == name and number in ("", str(one.number))]
    if not found:
        known = ", ".join(map(str, there)) or "none"
        raise RequestError(f"store {store.url} has no model '{model}'; it has: {known}")
    version = found[-1]
    spec = Spec.from_json(json.loads(store.get(version.prefix + SPEC)))
    return Published(version, card_of(store, version), spec, store.get(version.prefix + GRAPH))


_CARD = re.compile(r"models/([^/]+)/([0-9]+)/card\.json")
_CLAIM = re.compile(r"models/([^/]+)/([0-9]+)/claim")
