"""Folds on the service: trained at the same time with the weights of one machine, and used for the scores of files."""

import json
from pathlib import Path

import httpx
import numpy as np
import pandas as pd
import pytest
from hepfaas import Client
from hepfaas.cli import main
from hepfaas.models import versions
from hepfaas.models.versions import Version
from support.jobs import small_job, write_root
from support.servers import XRootD
from support.system import System

pytestmark = pytest.mark.slow

MOST_S = 300
FOLDS = {"number": 3, "by": "event"}


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_job(tmp_path_factory.mktemp("job") / "folds", seed=31, folds=FOLDS)


@pytest.fixture(scope="module")
def run(system: System, job: Path) -> str:
    """A run with folds that has completed."""
    with Client(system.url) as client:
        run = client.submit(job, name="folds")
        ended = client.wait(run, timeout_s=MOST_S)
        assert ended.state == "completed", ended.error
    return run


def test_the_weights_are_those_of_one_machine(
    system: System, job: Path, run: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", str(job), "--name", "folds", "--store", str(tmp_path), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    card = versions.card_of(system.store(), Version("folds", 1))
    assert card["weights"] == report["weights"]
    with Client(system.url) as client:
        assert client.ledger(run)["holds"]
        epochs = client.status(run).values["epochs"]
    assert [(epoch["fold"], epoch["epoch"]) for epoch in epochs] == [(f, e) for f in (1, 2, 3) for e in (1, 2)]
    losses = {fold: [epoch["val_loss"] for epoch in epochs if epoch["fold"] == fold] for fold in (1, 2, 3)}
    best = [1 + int(np.argmin(losses[fold])) for fold in (1, 2, 3)]
    assert [fold["best_epoch"] for fold in report["folds"]] == best


def test_files_are_scored_by_the_networks_of_their_events_at_once_and_by_runs(
    system: System, run: str, xrootd: XRootD, tmp_path: Path
) -> None:
    file = tmp_path / "folds-unseen.root"
    write_root(file, 77, 0.5, 120)
    out = tmp_path / "scores.parquet"
    assert main(["predict", "folds/1", str(file), "--out", str(out), "--store", system.up.store.url]) == 0
    scores = pd.read_parquet(out)["score"].to_numpy()
    body = {"files": [xrootd.serve(file)]}
    with httpx.Client(base_url=system.url, timeout=60) as http:
        answer = http.post("/v1/models/folds/predict", json=body)
        *lines, last = map(json.loads, answer.text.splitlines())
        assert last["events"] == 120, last
        np.testing.assert_array_equal(np.array([line["score"] for line in lines], dtype=np.float32), scores)
        asked = http.post("/v1/models/folds/predict", json=body, headers={"Prefer": "respond-async"})
        assert asked.status_code == 202, asked.text
        prediction = asked.json()["run"]
        with Client(system.url) as client:
            ended = client.wait(prediction, timeout_s=MOST_S)
            assert ended.state == "completed", ended.error
        *lines, last = map(json.loads, http.get(f"/v1/runs/{prediction}/scores").text.splitlines())
        by_entry = sorted(lines, key=lambda line: line["entry"])
        np.testing.assert_array_equal(np.array([line["score"] for line in by_entry], dtype=np.float32), scores)
        sent = http.post(
            "/v1/models/folds/predict", content=file.read_bytes(), headers={"Content-Type": "application/x-root"}
        )
        mean = np.array(sent.json()["scores"]["score"], dtype=np.float32)
    assert len(mean) == len(scores)
    assert (mean != scores).any()
