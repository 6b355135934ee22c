"""The command line: exit codes, commands for a service, text for people and JSON for programs, times."""

import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hepfaas import cli
from hepfaas.errors import UnavailableError
from hepfaas.platform.stores import open_store
from hepfaas.views import comparison
from support.reports import RECIPE, complete
from support.service import Service, arrow_stream

COMMANDS = (
    "inspect", "train", "up", "submit", "cancel", "retry", "report", "compare", "runs", "tag", "note", "models",
    "status", "log", "predict",
)  # fmt: skip
METRICS = {"test": {"events": 20, "loss": 0.5, "accuracy": 0.75, "auc": 0.8, "auc_uncertainty": 0.01}}
REPORT = {
    "metrics": METRICS,
    "model": "job/1",
    "best_epoch": 2,
    "pictures": {"roc.png": "/v1/runs/job-1/report/roc.png"},
}
RUN = {"run": "job-1", "state": "completed", "created": "2026-01-31T12:00:00Z", "model": "job/1"}
LOG_LINE = "2026-01-31T12:00:00Z  train    0123456789ab     1.00 s"


class Result:
    """Exit code and output of a command."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


@pytest.fixture
def hepfaas(capsys: pytest.CaptureFixture[str], service: Service) -> Any:
    """Run a command at the service."""

    def run(*words: object) -> Result:
        code = cli.main([*map(str, words), "--url", service.url])
        return Result(code, *capsys.readouterr())

    return run


@pytest.fixture
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A time zone one hour ahead of UTC in winter."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "Europe/Berlin")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.parametrize("command", [(), *((name,) for name in COMMANDS)])
def test_each_command_has_a_help(command: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main([*command, "--help"])
    assert ended.value.code == 0
    out = capsys.readouterr().out
    assert out.startswith("usage: hepfaas ")
    if not command:
        assert all(f"    {name} " in out for name in COMMANDS)


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (
            UnavailableError("store s3://x does not answer"),
            75,
            "hepfaas: store s3://x does not answer\nNothing is lost: ",
        ),
        (KeyboardInterrupt(), 130, "\nhepfaas: stopped; run the same command again to continue."),
        (ValueError("evil\x1b"), 70, "hepfaas: internal error\n          | Traceback"),
    ],
)
def test_exit_codes_and_their_messages(
    error: BaseException, code: int, text: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(*_: object) -> None:
        raise error

    monkeypatch.setattr(cli, "_store", fails)
    assert cli.main(["runs"]) == code
    err = capsys.readouterr().err
    assert err.startswith(text)
    assert "\x1b" not in err


@pytest.mark.parametrize("count", ["0", "-1", "two"])
def test_a_wrong_number_of_processes_is_refused(count: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["train", "x", f"--workers={count}"])
    assert f"'{count}' is not a number of processes; give 1 or more" in capsys.readouterr().err


def test_a_submission_names_the_next_command(service: Service, hepfaas: Any, tmp_path: Path) -> None:
    service.answers["/v1/runs"] = [(200, {"run": "job-1"})]
    (tmp_path / "files.txt").touch()
    result = hepfaas("submit", tmp_path, "--name", "mine", "--model", "net.py")
    assert (result.code, result.err) == (0, f"run job-1 at {service.url}\n")
    assert result.out == f"Next: hepfaas status job-1 --url {service.url}\n"
    assert service.requests[0][1] == f"/v1/runs?model=net.py&name=mine&folder={tmp_path.name}"
    assert json.loads(hepfaas("submit", tmp_path, "--json").out) == {"run": "job-1"}


def test_a_submission_that_waits_shows_the_report_or_the_failure(
    service: Service, hepfaas: Any, tmp_path: Path
) -> None:
    service.answers["/v1/runs"] = [(200, {"run": "job-1"})]
    service.answers["/v1/runs/job-1/report"] = [(200, REPORT)]
    service.answers["/v1/runs/job-1"] = [(200, {**RUN, "state": "unfinished", "phase": "train"}), (200, RUN)]
    result = hepfaas("submit", tmp_path, "--wait")
    assert (result.code, "job-1: train\n" in result.err) == (0, True)
    assert result.out.endswith("model job/1 (best epoch 2)\n")
    assert "0.8000 ± 0.0100" in result.out
    service.answers["/v1/runs/job-1"] = [(200, {**RUN, "state": "failed", "error": "no such branch"})]
    result = hepfaas("submit", tmp_path, "--wait")
    assert (result.code, "hepfaas: run 'job-1' failed: no such branch\n" in result.err) == (1, True)


def test_a_run_is_cancelled_and_retried(service: Service, hepfaas: Any) -> None:
    service.answers["/v1/runs/job-1/cancel"] = [(200, {"state": "cancelled"})]
    service.answers["/v1/runs/job-1/retry"] = [(200, {"attempt": 2})]
    assert hepfaas("cancel", "job-1").out == "run 'job-1' is cancelled\n"
    assert hepfaas("retry", "job-1").out == "run 'job-1': attempt 2\n"
    assert json.loads(hepfaas("retry", "job-1", "--json").out) == {"attempt": 2}


def test_a_report_is_saved_as_a_page_or_with_its_plots(service: Service, hepfaas: Any, tmp_path: Path) -> None:
    service.answers["/v1/runs/job-1/report"] = [(200, REPORT), (200, b"<html>"), (200, REPORT), (200, b"<html>")]
    service.answers["/v1/runs/job-1/report/roc.png"] = [(200, b"\x89PNG")]
    result = hepfaas("report", "job-1", "--out", tmp_path / "report.html")
    assert (tmp_path / "report.html").read_bytes() == b"<html>"
    assert result.out.endswith(f"the report is in {tmp_path / 'report.html'}\n")
    assert [headers.get("accept") for _, _, headers, _ in service.requests] == ["*/*", "text/html"]
    assert hepfaas("report", "job-1", "--out", tmp_path / "plots").code == 0
    assert (tmp_path / "plots" / "roc.png").read_bytes() == b"\x89PNG"
    assert (tmp_path / "plots" / "report.html").read_bytes() == b"<html>"


def test_a_report_is_that_of_a_run_a_version_or_the_newest_version(service: Service, hepfaas: Any) -> None:
    service.answers["/v1/models/job/2/report"] = [(200, REPORT)]
    service.answers["/v1/runs/job/report"] = [(404, {"error": "there is no run 'job'"})]
    service.answers["/v1/models"] = [(200, {"models": [{"model": name} for name in ("job/1", "job/2", "jobs/3")]})]
    assert json.loads(hepfaas("report", "job/2", "--json").out) == REPORT
    assert json.loads(hepfaas("report", "job", "--json").out) == REPORT
    service.answers["/v1/models"] = [(200, {"models": []})]
    assert hepfaas("report", "job").err == "hepfaas: there is no run 'job'\n"


def test_tags_and_notes_are_sent(service: Service, hepfaas: Any, tmp_path: Path) -> None:
    service.answers["/v1/runs/job-1"] = [(200, {**RUN, "tags": ["a", "b"]})]
    service.answers["/v1/runs/job-1/notes"] = [(200, {"time": RUN["created"], "text": "one\ntwo", "by": "Ada"})]
    assert hepfaas("tag", "job-1", "a", "b", "--remove", "c").out == "a, b\n"
    result = hepfaas("note", "job-1", "one\ntwo")
    assert result.out.endswith("  Ada\n          | one\n          | two\n")
    sent = [(method, path, body) for method, path, _, body in service.requests]
    assert [each[:2] for each in sent if each[0] != "GET"] == [
        ("DELETE", "/v1/runs/job-1/tags/c"),
        ("PUT", "/v1/runs/job-1/tags/a"),
        ("PUT", "/v1/runs/job-1/tags/b"),
        ("POST", "/v1/runs/job-1/notes"),
    ]
    assert json.loads(sent[-1][2]) == {"text": "one\ntwo"}
    service.requests.clear()
    assert hepfaas("submit", tmp_path, "--tag", "not a tag").code == 1
    assert service.requests == []


def test_a_comparison_of_a_service_is_shown_and_written(service: Service, hepfaas: Any, tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    for weight in ("", "w"):
        complete(store, replace(RECIPE, weight=weight))
    service.answers["/v1/comparison"] = [(200, comparison.compare(store, ["job-1", "job/2"]).to_json())]
    result = hepfaas("compare", "job-1", "job/2", "--out", tmp_path / "c.html")
    assert "AUC, test" in result.out
    assert result.out.endswith(f"the comparison is in {tmp_path / 'c.html'}\n")
    assert "data:image/png" in (tmp_path / "c.html").read_text()
    assert service.requests[0][1] == "/v1/comparison?of=job-1&of=job%2F2"
    assert hepfaas("compare", "a", "b", "--out", "c.svg").err.startswith("hepfaas: 'c.svg' has no known format")


def test_commands_for_a_service_need_the_packages_of_the_client_alone(service: Service, tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    run = complete(store)
    service.answers["/v1/comparison"] = [(200, comparison.compare(store, [run, run]).to_json())]
    service.answers[f"/v1/runs/{run}/report"] = [(200, REPORT)]
    code = (
        "import sys\n"
        "for name in ('jinja2', 'markupsafe', 'flask', 'safetensors', 'matplotlib', 'uproot', 'awkward'):\n"
        "    sys.modules[name] = None\n"
        "from hepfaas.cli import main\n"
        "sys.exit(main(sys.argv[1:]))"
    )

    def exits(*words: str) -> tuple[int, str]:
        command = [sys.executable, "-c", code, *words, "--url", service.url]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
        return done.returncode, done.stderr

    assert exits("compare", run, run, "--out", "c.json") == (0, "")
    assert exits("report", run) == (0, "")
    code_, error = exits("compare", run, run, "--out", "c.png")
    assert (code_, "is not installed; install hepfaas[local], or write .json" in error) == (1, True), error


def test_a_store_has_the_same_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = open_store(f"{tmp_path}/local")
    for weight in ("", "w"):
        complete(store, replace(RECIPE, weight=weight))

    def run(*words: str) -> str:
        code = cli.main([*words, "--store", str(tmp_path)])
        out, err = capsys.readouterr()
        assert code == 0, err
        return str(out)

    assert run("tag", "job-1", "good") == "good\n"
    assert "\n          | look\n" in run("note", "job-1", "look")
    assert "look" in run("note", "job-1")
    shown = run("runs")
    assert [word in shown for word in ("good", "look", "weight=none", "weight=w")] == [True] * 4
    assert "job-2" not in run("runs", "--tag", "good")
    assert run("runs", "--tag", "bad") == "no run has the tag 'bad'\n"
    assert "model job/2" in run("report", "job", "--out", str(tmp_path / "r.html"))
    assert (tmp_path / "r.html").read_text().startswith("<!doctype html>")
    assert "weight" in run("compare", "job-1", "job-2")
    assert cli.main(["tag", "none-1", "good", "--store", str(tmp_path)]) == 1
    assert "has no run 'none-1'" in capsys.readouterr().err


@pytest.mark.usefixtures("berlin")
def test_people_read_their_own_time_and_programs_utc(service: Service, hepfaas: Any) -> None:
    service.answers["/v1/runs"] = [(200, {"runs": [RUN, {**RUN, "created": "2026-01-31 12:00:00"}], "after": None})]
    service.answers["/v1/runs/job-1"] = [(200, RUN)]
    service.answers["/v1/runs/job-1/log"] = [(200, f"{LOG_LINE}\n          | {LOG_LINE}\n".encode())]
    runs = hepfaas("runs").out
    assert "2026-01-31 13:00:00" in runs
    assert "2026-01-31 12:00:00" in runs  # an older service sends its own local time
    assert "created  2026-01-31 13:00:00" in hepfaas("status", "job-1").out
    log = hepfaas("log", "job-1").out.splitlines()
    assert log == ["2026-01-31 13:00:00  train    0123456789ab     1.00 s", f"          | {LOG_LINE}"]
    assert json.loads(hepfaas("runs", "--json").out)[0]["created"] == RUN["created"]
    assert json.loads(hepfaas("status", "job-1", "--json").out)["created"] == RUN["created"]


def test_models_and_an_empty_list_are_tables(service: Service, hepfaas: Any) -> None:
    service.answers["/v1/models"] = [(200, {"models": []}), (200, {"models": [{"model": "job/1", "AUC": 0.81234}]})]
    assert hepfaas("models").out == "no model yet: hepfaas train FOLDER\n"
    assert hepfaas("models").out == "model     AUC\njob/1  0.8123\n"


def test_a_ledger_that_does_not_hold_is_an_error(service: Service, hepfaas: Any) -> None:
    ledger = {"holds": False, "events": 9, "findings": ["entry 3 is missing"]}
    service.answers["/v1/runs/job-1"] = [(200, RUN)]
    service.answers["/v1/runs/job-1/ledger"] = [(200, ledger)]
    result = hepfaas("status", "job-1", "--verify", "--json")
    assert json.loads(result.out)["ledger"] == ledger
    assert (result.code, result.err) == (
        1, "hepfaas: the ledger of run 'job-1' does not hold: entry 3 is missing\n",
    )  # fmt: skip


def test_the_log_as_json_has_the_steps(service: Service, hepfaas: Any) -> None:
    events = 'event: step\nid: 1\ndata: {"kind": "open"}\n\nevent: end\ndata: {}\n\n'
    service.answers["/v1/runs/job-1/events"] = [(200, events.encode())]
    assert json.loads(hepfaas("log", "job-1", "--json").out) == [{"kind": "open"}]


def test_scores_of_a_service_are_summarised_and_written(service: Service, hepfaas: Any, tmp_path: Path) -> None:
    service.answers["/v1/models/job/predict"] = [(200, arrow_stream([0.25, 0.75]))]
    out = tmp_path / "scores.csv"
    result = hepfaas("predict", "job", "root://h//a.root", "--out", out)
    assert result.out.splitlines()[:2] == ["model job: 2 events", "mean score: 0.5000"]
    assert out.read_text().split() == ["entry,score", "0,0.25", "1,0.75"]
    summary = json.loads(hepfaas("predict", "job", "a.root", "--json").out)
    assert (summary["events"], summary["mean"]) == (2, {"score": 0.5})


def test_requests_carry_the_token_and_the_group_of_the_settings(
    service: Service, hepfaas: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text("of-file\n")
    monkeypatch.setenv("HEPFAAS_GROUP", "higgs")
    monkeypatch.setenv("HEPFAAS_TOKEN_FILE", str(tmp_path / "token"))
    assert hepfaas("models").code == 0
    headers = service.requests[-1][2]
    assert (headers["authorization"], headers["hepfaas-group"]) == ("Bearer of-file", "higgs")
    monkeypatch.setenv("HEPFAAS_TOKEN", "of-variable")
    assert hepfaas("models").code == 0
    assert service.requests[-1][2]["authorization"] == "Bearer of-variable"


def test_a_reader_that_has_gone_is_not_an_error(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with io.TextIOWrapper(io.FileIO(writing, "w"), write_through=True) as out:
        monkeypatch.setattr("sys.stdout", out)
        assert cli.main(["models", "--url", service.url]) == 0
