"""Versions in memory: each loaded once, those used last stay, a name points elsewhere a little later at most."""

import asyncio
import json
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from hepfaas.errors import NotThereError
from hepfaas.features.spec import FeatureBranch, FeatureSpec
from hepfaas.models import served, versions
from hepfaas.models.served import Loaded, Served
from hepfaas.models.versions import Published, Version
from hepfaas.platform.storage import Store
from hepfaas.platform.stores import open_store

SPEC = FeatureSpec((FeatureBranch("met", jagged=False, low=0.0, high=1.0, width=1),))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store with versions a/1, a/2, b/1 of 100 bytes, which compute nothing here."""
    store = open_store(str(tmp_path))
    for name, number in (("a", 1), ("a", 2), ("b", 1)):
        files = {versions.SPEC: json.dumps(SPEC.to_json()).encode(), versions.GRAPH: b"x" * 100}
        versions.publish(store, Version(name, number), {"name": name, "n_features": 1, "outputs": 1}, files)
    return store


async def warm(served: Served) -> None:
    """What these versions compute does not matter here."""


def done(work: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    return asyncio.run(work())


def test_asked_for_by_many_at_once_a_version_is_loaded_once(store: Store) -> None:
    async def work() -> Loaded:
        loaded = Loaded(1_000, warm)
        versions_found = await asyncio.gather(*(loaded.get(store, "a") for _ in range(20)))
        assert len({id(one) for one in versions_found}) == 1
        assert versions_found[0].version == Version("a", 2)
        assert loaded.now(store, "a") is versions_found[0]
        return loaded

    assert done(work).loads == 1


def test_the_models_used_last_stay_in_memory(store: Store) -> None:
    async def work() -> None:
        loaded = Loaded(250, warm)
        first = await loaded.get(store, "a", "1")
        await loaded.get(store, "a", "2")
        assert loaded.now(store, "a", "1") is first
        await loaded.get(store, "b")
        assert loaded.now(store, "a", "1") is first
        assert loaded.now(store, "a", "2") is None
        assert loaded.size_bytes == 200

    done(work)


def test_one_that_is_larger_than_all_that_may_stay_is_served_all_the_same(store: Store) -> None:
    async def work() -> None:
        loaded = Loaded(10, warm)
        assert (await loaded.get(store, "a")).version == Version("a", 2)
        assert (await loaded.get(store, "b")).version == Version("b", 1)
        assert loaded.size_bytes == 100

    done(work)


def test_a_name_points_elsewhere_once_it_is_looked_at_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        loaded = Loaded(1_000, warm)
        versions.set_alias(store, "a", "best", 2)
        assert (await loaded.get(store, "a", "best")).version == Version("a", 2)
        versions.set_alias(store, "a", "best", 1)
        assert (await loaded.get(store, "a", "best")).version == Version("a", 2)
        monkeypatch.setattr(served, "LOOK_S", 0.0)
        assert (await loaded.get(store, "a", "best")).version == Version("a", 1)
        versions.delete(store, Version("a", 1))
        for number, because in (("best", ", which the alias 'best' names"), ("1", "")):
            with pytest.raises(NotThereError, match=f"no model 'a/1'{because}; it has: a/2"):
                await loaded.get(store, "a", number)

    done(work)


def test_one_that_is_deleted_while_it_is_read_gives_way_to_the_one_before(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = versions.read

    def late(store: Store, version: Version) -> Published:
        monkeypatch.setattr(versions, "read", read)
        versions.delete(store, version)
        return read(store, version)

    monkeypatch.setattr(versions, "read", late)

    async def work() -> None:
        assert (await Loaded(1_000, warm).get(store, "a")).version == Version("a", 1)

    done(work)
