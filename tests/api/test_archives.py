"""A model version of any size as tar.gz, in little memory."""

import io
import tarfile
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hepfaas.api.archives import PIECE_BYTES, archive
from hepfaas.errors import MissingError
from hepfaas.models.versions import Version, publish
from hepfaas.platform.storage import Store
from hepfaas.platform.stores import open_store

LARGE = 12 * PIECE_BYTES + 77


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = open_store(str(tmp_path))
    noise = np.random.default_rng(1).bytes(LARGE)
    publish(store, Version("big", 1), {"name": "big"}, {"model.keras": noise, "empty": b"", "spec.json": b"{}"})
    return store


def test_an_archive_has_all_files_as_they_are(store: Store) -> None:
    data = b"".join(archive(store, Version("big", 1), {"more.json": b"[1]"}))
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:gz") as tar:
        found = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
    assert set(found) == {f"big/{name}" for name in ("card.json", "model.keras", "empty", "spec.json", "more.json")}
    assert found["big/model.keras"] == store.get("models/big/1/model.keras")
    assert (found["big/empty"], found["big/more.json"]) == (b"", b"[1]")


def test_an_archive_is_never_whole_in_memory(store: Store) -> None:
    tracemalloc.start()
    size = sum(map(len, archive(store, Version("big", 1))))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert size > LARGE
    assert peak < 4 * PIECE_BYTES


def test_a_version_that_lacks_a_file_fails_before_the_first_piece(store: Store, tmp_path: Path) -> None:
    class Forgetful:
        url = store.url

        def __getattr__(self, name: str) -> object:
            return getattr(store, name)

        def size_bytes(self, key: str) -> int | None:
            return None if key.endswith(".keras") else store.size_bytes(key)

    with pytest.raises(MissingError):
        archive(Forgetful(), Version("big", 1))  # type: ignore[arg-type]
