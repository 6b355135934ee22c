"""Fixtures of the tests that send requests to `predict`."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.serving import Served, train


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a trained model, made once for all processes of pytest-xdist, whose folders lie side by side."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "trained"
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "reference.root").exists():  # which is written last
            train(folder)
    return folder


@pytest.fixture(scope="module")
def served(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """`predict` with a copy of that model, which the tests of one module share."""
    folder = tmp_path_factory.mktemp("predict")
    shutil.copytree(trained, folder, dirs_exist_ok=True)
    with Served(folder) as started:
        yield started
