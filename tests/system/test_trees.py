"""Trees of one file as samples on the service, and a run that goes on without a file that its server does not have."""

import json
from pathlib import Path

import numpy as np
import pytest
import uproot
from hepfaas import Client
from hepfaas.cli import main
from support.jobs import MODEL, PARAMS
from support.servers import XRootD
from support.system import System

pytestmark = pytest.mark.slow

MOST_S = 300
N = 300


def test_a_run_of_two_trees_without_a_missing_file_has_the_weights_of_one_machine(
    system: System, xrootd: XRootD, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = tmp_path / "trees"
    job.mkdir()
    rng = np.random.default_rng(3)
    with uproot.recreate(job / "both.root") as file:
        for name, shift in (("Signal", 1.0), ("Background", 0.0)):
            branches = {"met": rng.normal(shift, 1, N).astype(np.float32), "event": np.arange(N)}
            file.mktree(name, {branch: values.dtype for branch, values in branches.items()}).extend(branches)
    remote, missing = xrootd.serve(job / "both.root", "two-trees.root"), xrootd.url("no-such-trees.root")
    (job / "files.txt").write_text("both.root:Signal\nboth.root:Background\n" + f"{missing}:Signal\n")
    (job / "labels.txt").write_text("1\n0\n1\n")
    (job / "model.py").write_text(MODEL)
    (job / "params.json").write_text(json.dumps({**PARAMS, "unreadable_files": "skip"}))
    with Client(system.url) as client:
        run = client.submit(job, name="trees")
        ended = client.wait(run, timeout_s=MOST_S)
        assert ended.state == "completed", ended.error
        status, ledger, report = client.status(run).values, client.ledger(run), client.report(run)
        scores = client.predict("trees", [f"{remote}:Background"], "", lambda status: None)
        assert sum(len(columns["entry"]) for columns in scores) == N
    for listed in (status["skipped_files"], ledger["skipped"], report["skipped_files"]):
        assert [one["file"] for one in listed] == [f"{missing}:Signal"]
        assert "does not exist" in listed[0]["reason"]
    assert (ledger["holds"], ledger["files"], ledger["events"]) == (True, 2, 2 * N)
    assert main(["train", str(job), "--name", "trees", "--store", str(tmp_path / "store"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["weights"] == report["weights"]
