"""Which version answers a request, loaded once and kept while there is room. Versions never change; names point on."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from functools import cached_property
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import NDArray

from hepfaas.errors import MissingError, RequestError
from hepfaas.models import versions
from hepfaas.models.batching import OverloadedError
from hepfaas.models.inference import Graph
from hepfaas.models.versions import Published, Version
from hepfaas.platform.storage import Store

LOOK_S = 2.0
"""So long what a name points at is believed; a deleted version answers no longer than that."""

MOST_GRAPHS = 128
"""Versions in memory, however small: each has two descriptors."""

Place = tuple[str, str, int]
"""Address of the store, name and number of a version."""


@dataclass(eq=False)
class Served:
    """A version in memory. owner: address of the store that it is in, which tells owners apart."""

    published: Published
    owner: str
    graph: Graph

    @cached_property
    def version(self) -> Version:
        """Which one."""
        return self.published.version

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """Of the features of one event."""
        return self.published.shape

    @cached_property
    def n_features(self) -> int:
        """Numbers of one event."""
        return int(self.published.card["n_features"])

    def fitted(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Features in the model's own shape: those of an image may come as a list of its numbers.

        Raises: RequestError if they are of another one.
        """
        if features.ndim == 2 and features.shape[1] == self.n_features and len(self.shape) > 1:
            return features.reshape(-1, *self.shape)
        what = f"vectors of {self.n_features} features" if len(self.shape) == 1 else "arrays"
        raise RequestError(
            f"model '{self.version}' takes {what}, shape [{', '.join(['events', *map(str, self.shape)])}]; "
            f"what was sent has shape {list(features.shape)}"
        )

    @cached_property
    def outputs(self) -> int:
        """Scores of an event."""
        return int(self.published.card["outputs"])

    @property
    def size_bytes(self) -> int:
        """Of its graph."""
        return self.graph.size_bytes


def graph_of(published: Published) -> Graph:
    """Return the graph of a version, for workers to load."""
    name = f"model '{published.version}'"
    return Graph(published.graph, published.shape, int(published.card["outputs"]), name)


class Loaded:
    """The versions in memory, those used last: of all owners, at most `most_bytes` of graphs. warm: called with each
    before it is used.

    The owner with most of them gives way, and an owner's versions are loaded one after the other: one owner can neither
    drop the models of all others nor fill the memory with those that come. One that is evicted while a request computes
    with it stays until that is done: the request holds it.
    """

    def __init__(self, most_bytes: int, warm: Callable[[Served], Awaitable[object]]) -> None:
        self._most_bytes, self._warm = most_bytes, warm
        self._kept: OrderedDict[Place, Served] = OrderedDict()
        self._named: dict[tuple[str, str, str], tuple[float, Place]] = {}
        self._coming: dict[tuple[str, str, str], asyncio.Task[Served]] = {}
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._coming_bytes: Counter[str] = Counter()
        self.loads = 0

    @property
    def size_bytes(self) -> int:
        """Of all graphs in memory."""
        return sum(served.size_bytes for served in self._kept.values())

    def now(self, store: Store, name: str, number: str = "") -> Served | None:
        """The version if it is known and in memory: the way of nearly every request, without a wait."""
        known = self._named.get((store.url, name, number))
        if known is None or time.monotonic() - known[0] > LOOK_S:
            return None
        served = self._kept.get(known[1])
        if served is not None:
            self._kept.move_to_end(known[1])
        return served

    async def get(self, store: Store, name: str, number: str = "") -> Served:
        """The version of that number or alias; '': the newest. Asked for by many at once, it is loaded once.

        Raises: RequestError if there is none; UnavailableError.
        """
        if served := self.now(store, name, number):
            return served
        asked = (store.url, name, number)
        if asked not in self._coming:
            self._coming[asked] = asyncio.create_task(self._load(store, name, number))
            self._coming[asked].add_done_callback(lambda _: self._coming.pop(asked))
        return await asyncio.shield(self._coming[asked])

    def forget(self, store: Store, name: str) -> None:
        """What a model's names point at has changed just now."""
        self._named = {asked: known for asked, known in self._named.items() if asked[:2] != (store.url, name)}

    async def _load(self, store: Store, name: str, number: str) -> Served:
        try:
            return await self._look(store, name, number)
        except MissingError:  # it was deleted just now: the name points at another one, or at none
            return await self._look(store, name, number)

    async def _look(self, store: Store, name: str, number: str) -> Served:
        began = time.monotonic()
        version = await asyncio.to_thread(versions.find, store, name, number)
        place = (store.url, name, version.number)
        if place not in self._kept:
            async with self._turns.setdefault(store.url, asyncio.Lock()):
                if place not in self._kept:  # it was loaded meanwhile
                    await self._read(store, version, place)
        self._kept.move_to_end(place)
        self._named[store.url, name, number] = (began, place)
        return self._kept[place]

    async def _read(self, store: Store, version: Version, place: Place) -> None:
        size = await asyncio.to_thread(store.size_bytes, version.prefix + versions.GRAPH) or 0
        if self._coming_bytes and self._coming_bytes.total() + size > self._most_bytes:
            raise OverloadedError("other models are being loaded, which take all memory; ask again in a second")
        self._coming_bytes[store.url] += size
        try:
            self._evict()
            served = await asyncio.to_thread(served_of, store, version)
            await self._warm(served)
        finally:
            del self._coming_bytes[store.url]  # it has one turn
        self._kept[place] = served
        self.loads += 1
        self._evict(place)

    def _evict(self, but: Place | None = None) -> None:
        """Drop versions until those that stay and those that come fit: of the owner who has most, the one used longest
        ago. but: stays."""
        while surplus := [place for place in self._kept if place != but]:
            sizes, counts = self._coming_bytes.copy(), Counter(place[0] for place in self._kept)
            for place, served in self._kept.items():
                sizes[place[0]] += served.size_bytes
            if sizes.total() > self._most_bytes:
                amounts = sizes
            elif len(self._kept) > MOST_GRAPHS:
                amounts = counts
            else:
                return
            del self._kept[max(surplus, key=lambda place: amounts[place[0]])]


def served_of(store: Store, version: Version) -> Served:
    """Return a version, read from the store. Raises: MissingError if it was deleted just now."""
    published = versions.read(store, version)
    graph = graph_of(published)
    return Served(replace(published, graph=graph.content()), store.url, graph)
