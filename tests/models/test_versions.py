"""A publish step has one version, however often it runs and whoever else publishes meanwhile."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hepfaas.errors import RequestError
from hepfaas.features.spec import FeatureBranch, FeatureSpec
from hepfaas.models import versions
from hepfaas.models.versions import Version
from hepfaas.platform.storage import Store
from hepfaas.platform.stores import open_store

SPEC = FeatureSpec((FeatureBranch("met", jagged=False, low=0.0, high=1.0, width=1),))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path))


def published(store: Store, name: str, claimant: str) -> Version:
    version = versions.claim(store, name, claimant)
    files = {versions.GRAPH: claimant.encode(), versions.SPEC: b'{"branches":[],"surplus":"error","identifiers":[]}'}
    versions.publish(store, version, {"name": name}, files)
    return version


def test_a_doubled_publish_finds_its_own_version(store: Store) -> None:
    assert [str(published(store, "m", who)) for who in ("a", "b", "a", "b", "c")] == ["m/1", "m/2", "m/1", "m/2", "m/3"]


def test_many_at_once_get_a_version_each(store: Store) -> None:
    who = [f"step{number % 8}" for number in range(24)]
    with ThreadPoolExecutor(12) as pool:
        claims = list(pool.map(lambda one: versions.claim(open_store(store.url), "m", one), who))
    assert len({version.number for version in claims}) == len(set(zip(who, claims, strict=True))) == 8


def test_a_version_without_its_card_is_not_there_yet(store: Store) -> None:
    published(store, "m", "a")
    versions.claim(store, "m", "b")
    assert versions.versions(store) == [Version("m", 1)]
    assert versions.load(store, "m").version == Version("m", 1)


def test_the_newest_version_answers_to_the_name_alone(store: Store) -> None:
    for who in "abcdefghijkl":
        published(store, "m", who)
    published(store, "m-2", "x")
    assert versions.load(store, "m").graph == b"l"
    assert versions.load(store, "m/2").graph == b"b"


def test_a_model_that_is_not_there_is_told_with_those_there_are(store: Store) -> None:
    with pytest.raises(RequestError, match="has no model 'm'; it has: none"):
        versions.load(store, "m")
    published(store, "m", "a")
    with pytest.raises(RequestError, match="has no model 'm/7'; it has: m/1"):
        versions.load(store, "m/7")


def test_a_version_is_there_from_its_card_to_its_tombstone(store: Store) -> None:
    visible, claimed = published(store, "m", "a"), versions.claim(store, "m", "b")
    assert (versions.is_there(store, visible), versions.is_there(store, claimed)) == (True, False)
    store.create(f"{visible.prefix}{versions.TOMBSTONE}", b"")  # who deletes it was killed here
    assert not versions.is_there(store, visible)
    assert versions.versions(store) == []


@pytest.mark.parametrize("name", sorted(versions.OWN_FILES))
def test_nobody_adds_a_file_under_a_name_that_means_something(store: Store, name: str) -> None:
    version = published(store, "m", "a")
    with pytest.raises(RequestError, match=f"'{name}' is a name that model versions use themselves"):
        versions.add(store, version, name, b"mine")
    assert versions.find(store, "m") == version


def test_a_file_that_was_added_stays_as_it_is(store: Store) -> None:
    version = published(store, "m", "a")
    versions.add(store, version, "notes.txt", b"mine")
    with pytest.raises(RequestError, match=r"'m/1' has a file 'notes\.txt' already, and a version never changes"):
        versions.add(store, version, "notes.txt", b"others'")
    assert "notes.txt" in versions.files_of(store, version)
