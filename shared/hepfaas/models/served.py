"""Model versions in memory. A version never changes; a name or an alias may point to another version later."""

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
"""Names are looked up again after this time; a deleted version answers no longer than that."""

MOST_GRAPHS = 128
"""Most versions in memory, even small ones: each has two file descriptors."""

Place = tuple[str, str, int]
"""Address of the store, name and number of a version."""


@dataclass(eq=False)
class Served:
    """A version in memory. owner: address of the owner's store, which identifies them."""

    published: Published
    owner: str
    graph: Graph

    @cached_property
    def version(self) -> Version:
        """Name and number."""
        return self.published.version

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """Shape of the features of one event."""
        return self.published.shape

    @cached_property
    def n_features(self) -> int:
        """Number of features of one event."""
        return int(self.published.card["n_features"])

    def fitted(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return features in the model's shape; images may be flat. Raises: RequestError if they do not fit."""
        if features.ndim == 2 and features.shape[1] == self.n_features and len(self.shape) > 1:
            return features.reshape(-1, *self.shape)
        expectation = f"vectors of {self.n_features} features" if len(self.shape) == 1 else "arrays"
        raise RequestError(
            f"model '{self.version}' takes {expectation}, shape [{', '.join(['events', *map(str, self.shape)])}]; "
            f"the request has shape {list(features.shape)}"
        )

    @cached_property
    def outputs(self) -> int:
        """Number of scores of one event."""
        return int(self.published.card["outputs"])

    @property
    def size_bytes(self) -> int:
        """Size of its graph."""
        return self.graph.size_bytes


def graph_of(published: Published) -> Graph:
    """Return the graph of a version, for workers to load."""
    name = f"model '{published.version}'"
    return Graph(published.graph, published.shape, int(published.card["outputs"]), name)


class Loaded:
    """Cache of the versions of all owners, with at most `most_bytes` of graphs.

    Eviction takes the least recently used version of the owner with most bytes, and an owner's versions are loaded one
    at a time: so no owner can evict the models of all others or fill the memory with models that are loading.
    A version that is evicted lives until the requests that use it are done. warm: called with each version before use.
    """

    def __init__(self, most_bytes: int, warm: Callable[[Served], Awaitable[object]]) -> None:
        self._most_bytes, self._warm = most_bytes, warm
        self._kept: OrderedDict[Place, Served] = OrderedDict()
        self._named: dict[tuple[str, str, str], tuple[float, Place]] = {}
        self._loading: dict[tuple[str, str, str], asyncio.Task[Served]] = {}
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._loading_bytes: Counter[str] = Counter()
        self.loads = 0

    @property
    def size_bytes(self) -> int:
        """Size of all graphs in memory."""
        return sum(served.size_bytes for served in self._kept.values())

    def now(self, store: Store, name: str, number: str = "") -> Served | None:
        """Return the version if it is in memory and was looked up a moment ago: the case of nearly every request."""
        known = self._named.get((store.url, name, number))
        if known is None or time.monotonic() - known[0] > LOOK_S:
            return None
        served = self._kept.get(known[1])
        if served is not None:
            self._kept.move_to_end(known[1])
        return served

    async def get(self, store: Store, name: str, number: str = "") -> Served:
        """Return the version of a number or alias, '' the newest. Concurrent requests load it once.

        Raises: RequestError if it does not exist; UnavailableError.
        """
        if served := self.now(store, name, number):
            return served
        key = (store.url, name, number)
        if key not in self._loading:
            self._loading[key] = asyncio.create_task(self._load(store, name, number))
            self._loading[key].add_done_callback(lambda _: self._loading.pop(key))
        return await asyncio.shield(self._loading[key])

    def forget(self, store: Store, name: str) -> None:
        """Look up the names of a model again, since a version was added or deleted just now."""
        self._named = {key: known for key, known in self._named.items() if key[:2] != (store.url, name)}

    async def _load(self, store: Store, name: str, number: str) -> Served:
        try:
            return await self._look(store, name, number)
        except MissingError:  # it was deleted just now: the name points to another one, or to none
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
        if self._loading_bytes and self._loading_bytes.total() + size > self._most_bytes:
            raise OverloadedError("other models are being loaded, which take all memory; ask again in a second")
        self._loading_bytes[store.url] += size
        try:
            self._evict()
            served = await asyncio.to_thread(served_of, store, version)
            await self._warm(served)
        finally:
            del self._loading_bytes[store.url]  # an owner loads one version at a time
        self._kept[place] = served
        self.loads += 1
        self._evict(place)

    def _evict(self, but: Place | None = None) -> None:
        """Drop versions until the others and those that are loading fit: the least recently used of the owner with most
        of them. but: a version to keep."""
        while surplus := [place for place in self._kept if place != but]:
            sizes, counts = self._loading_bytes.copy(), Counter(place[0] for place in self._kept)
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
