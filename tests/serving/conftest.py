"""Fixtures of the tests that send requests to `predict`."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.serving import Served, train


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a trained model, made once."""
    folder = tmp_path_factory.mktemp("trained")
    train(folder)
    return folder


@pytest.fixture(scope="module")
def served(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """`predict` with a copy of that model, which the tests of one module share."""
    folder = tmp_path_factory.mktemp("predict")
    shutil.copytree(trained, folder, dirs_exist_ok=True)
    with Served(folder) as started:
        yield started
