"""Commands and logs escape users' text that moves the cursor, hides or reorders text, or starts lines."""

import io
import json
import os
import pty
import re
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from hepfaas import Client
from hepfaas.cli import main
from hepfaas.client import Status
from hepfaas.datasets.branch_choice import Branch
from hepfaas.datasets.summary import TreeSummary
from hepfaas.errors import RequestError
from hepfaas.features.branches import BranchRange
from hepfaas.local import tables
from hepfaas.local.inspection import Sample
from hepfaas.local.progress import Progress, lines_of
from hepfaas.orchestration import records
from hepfaas.orchestration.records import End, Entry
from hepfaas.platform.stores import open_store
from hepfaas.platform.terminal import PRINTED, fault_line, in_columns, visible, visible_lines
from hepfaas.runs.recipe import LabelledFile, Recipe
from hepfaas.views.following import follow_log
from hypothesis import given
from hypothesis import strategies as st
from support import pages
from support.identities import function
from support.reports import complete
from support.servers import LIMIT_S

ESCAPES = ("\x1b[2J\x1b[H", "\x1b]0;title\x07", "\x9b2K", "\r", "\x08", "\x7f", "\x85", "\x0b", "\x0c", "\x1c", "\x00")
BIDI = ("\u202e", "\u202a", "\u2066", "\u2069", "\u200e", "\u200f", "\u061c")
SEPARATORS = ("\u2028", "\u2029")
HIDDEN = ("\u200b", "\u200d", "\u2060", "\ufeff", "\u00ad", "\U000e0041", "\U000e0100", "\ufe0f", "\u3164", "\u115f")
SURROGATES = ("\udcff", "\ud800")  # in this order they are not a pair
HOSTILE = "evil" + "".join((*ESCAPES, *BIDI, *SEPARATORS, *HIDDEN, *SURROGATES)) + "\t|"
HOST = HOSTILE.translate({ord("["): None, ord("]"): None})
"""The same without the characters of an IPv6 address."""

FAKE = "run long-1 completed"
STEP = f"steps/train/{'0' * 64}"


def check_shown(text: str) -> None:
    """Check that there are only printable characters and our own line feeds, and no faked line."""
    assert "evil" in text
    for line in text.split("\n"):
        assert line.isprintable(), ascii(line)
        assert not set(line) & set("".join(HIDDEN)), ascii(line)
        assert not line.startswith(FAKE), line


@pytest.fixture
def store(tmp_path: Path) -> str:
    """Return the store of a run in which every text is hostile."""
    found = open_store(f"{tmp_path}/local")
    recipe = Recipe("long", (LabelledFile(f"root://{HOST}//x.root", 0),), "blobs/x")
    by = {"name": HOSTILE, "subject": f"evil\n{FAKE}"}
    run = records.create(found, records.Request(recipe, 1.0, (HOSTILE, f"evil\n{FAKE}"), submitter=by))
    lines = (HOSTILE, f"evil\n{FAKE}", f"evil\r{FAKE}", f"evil\u2028{FAKE}", f"evil\x85{FAKE}")
    records.log(found, run, Entry(2.0, "train", STEP, 1.0, lines=lines, error=f"{HOSTILE}\n{FAKE}\r\n{FAKE}"))
    records.fail(found, run, 1, STEP, f"{HOSTILE}\n{FAKE}")
    records.end(found, run, 1, End("failed", 3.0, f"{HOSTILE}\n{FAKE}\n\n{FAKE}"))
    return str(tmp_path)


@pytest.mark.parametrize("command", [["log", "long-1"], ["status", "long-1"]])
def test_commands_show_user_text_escaped(command: list[str], store: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command, "--store", store]) == 0
    check_shown(capsys.readouterr().out)


def test_json_of_commands_is_faithful(store: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["log", "long-1", "--store", store, "--json"]) == 0
    out = capsys.readouterr().out
    assert out.isascii()
    assert json.loads(out)[0]["lines"][0] == HOSTILE
    assert main(["status", "long-1", "--store", store, "--json"]) == 0
    assert HOSTILE in json.loads(capsys.readouterr().out)["notes"]


def test_errors_of_commands_are_escaped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    named = f"evil\x1b[2J\u202e\nhepfaas: {FAKE}\n{FAKE}"
    assert main(["status", named, "--store", str(tmp_path)]) == 1
    assert main(["train", f"{tmp_path}/{named}", "--store", str(tmp_path)]) == 1
    assert main(["inspect", f"{tmp_path}/{named}.root"]) == 1
    text = capsys.readouterr().err
    check_shown(text)
    assert [line for line in text.splitlines() if not line.startswith(("hepfaas: ", PRINTED))] == []
    assert f"hepfaas: {FAKE}" not in [line[: len(FAKE) + 9] for line in text.splitlines()]


def broken(folder: Path) -> None:
    """Return the store of a run whose request no release has written, so that reading it is an internal error."""
    recipe = Recipe("x", (LabelledFile("root://h//a", 0),), "blobs/x")
    values = {**records.Request(recipe, 1.0).to_json(), f"evil\x1b[2J\u202e\n{FAKE}": 1}
    open_store(str(folder)).create("runs/x-1/request.json", json.dumps(values).encode())


def test_a_fault_of_ours_shows_no_escapes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken(tmp_path / "local")
    assert main(["status", "x-1", "--store", str(tmp_path)]) == os.EX_SOFTWARE
    check_shown(capsys.readouterr().err)


def test_printed_lines_pass_for_no_line_of_ours(store: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["log", "long-1", "--store", store]) == 0
    local = capsys.readouterr().out.splitlines()
    remote = "".join(follow_log(open_store(f"{store}/local"), "long-1")).splitlines()
    for lines in (local, remote):
        ours = [line for line in lines if not line.startswith(PRINTED)]
        assert re.fullmatch(r"[0-9TZ: -]+  train    000000000000     1.00 s", ours[0])
        assert ours[1].startswith("          failed: evil")
        assert sum(line.startswith(PRINTED) for line in lines) >= 5
    assert [line[:15] for line in remote if not line.startswith(PRINTED)][2:] == ["run long-1 fail"]


def test_the_log_that_a_person_curls_is_escaped(store: str) -> None:
    check_shown("".join(follow_log(open_store(f"{store}/local"), "long-1")))
    check_shown("".join(follow_log(open_store(f"{store}/local"), "long-1", follow=True)))


def test_user_text_that_a_terminal_wraps_keeps_its_mark(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = "evil" + " " * 63 + FAKE
    assert in_columns(f"{PRINTED}{long}", 79).split("\n") == [f"{PRINTED}evil{' ' * 63}", f"{PRINTED}{FAKE}"]
    assert in_columns(f"{PRINTED}{'名' * 40}", 40).split("\n")[1].startswith(PRINTED)
    ours, theirs = pty.openpty()
    monkeypatch.setenv("COLUMNS", "40")
    records.log(open_store(f"{store}/local"), "long-1", Entry(2.5, "train", STEP, 1.0, lines=(long, "")))
    with os.fdopen(theirs, "w") as terminal, monkeypatch.context() as patched:
        patched.setattr("sys.stdout", terminal)
        assert main(["log", "long-1", "--store", store]) == 0
    shown = read(ours)
    rows = shown.replace("\r\n", "\n").split("\n")
    assert not [row for row in rows if row.strip().startswith(FAKE)]
    assert [row for row in rows if row.startswith(PRINTED) and "completed" in row]


def read(terminal: int) -> str:
    """Return everything written to a terminal that is now closed."""
    pieces = b""
    try:
        while piece := os.read(terminal, 65_536):
            pieces += piece
    except OSError:  # EIO: its end
        pass
    os.close(terminal)
    return pieces.decode()


MARKUP = "[red]evil[/red] [link=https://evil.example]x[/link] [/] :warning: [bold"


@pytest.mark.parametrize("is_terminal", [True, False])
def test_progress_lines_are_escaped_and_no_markup(is_terminal: bool) -> None:
    def checked(write: Callable[[Any], None]) -> str:
        if not is_terminal:
            out = io.StringIO()
            write(out)
            return out.getvalue()
        ours, theirs = pty.openpty()
        with os.fdopen(theirs, "w") as terminal:
            write(terminal)
        return read(ours)

    def says(out: Any) -> None:
        with Progress(out) as progress:
            progress.begin("train", 0, 10)
            for text in (MARKUP, HOSTILE, f"evil\n{FAKE}"):
                progress.say(text)

    def waits(out: Any) -> None:
        with lines_of(out) as say:
            for text in (HOSTILE, f"evil\n{FAKE}", MARKUP):
                say(text)
                time.sleep(0.15 if is_terminal else 0)  # rich draws ten times a second

    for write in (says, waits):
        text = checked(write)
        assert "[red]evil[/red]" in text
        assert ":warning:" in text
        for bad in ("\x1b[2J", "\x1b]", "\x9b", "\x07", *BIDI, *SEPARATORS, *HIDDEN):
            assert bad not in text, ascii(bad)
        assert not [line for line in text.split("\n") if line.startswith(FAKE)]


def test_names_of_branches_trees_and_columns_are_escaped() -> None:
    name = f"{HOSTILE}\n{FAKE}"
    branch = Branch(name, True, name, 10)
    tree = TreeSummary(name, name, name, 1, 1, 10, 10, name, (branch,), ((name, name),))
    check_shown(tables.described(tree))
    no_value = BranchRange(jagged=False, n_missing=1)
    check_shown(tables.described(tree, Sample(1, {name: no_value})))
    check_shown(tables.table([{name: name, "other": [name]}], ""))
    check_shown(tables.facts({name: {name: name}, "rows": [{name: name}], "words": [name, name]}))
    check_shown(Status({"run": name, "state": name, "phase": name}).line())


class Lying:
    """A service in which every text is hostile, as of an earlier release without escaping."""

    def __init__(self) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                is_log = "/log" in self.path
                text = f"{PRINTED}{HOSTILE}{FAKE}\n\r".replace("\ud800", "").replace("\udcff", "")
                body = text.encode() if is_log else json.dumps({"error": f"{HOSTILE}\n{FAKE}"}).encode()
                self.send_response(200 if is_log else 422)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *words: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def lying() -> Iterator[str]:
    made = Lying()
    thread = threading.Thread(target=made.server.serve_forever)
    thread.start()
    yield made.url
    made.server.shutdown()
    made.server.server_close()
    thread.join(timeout=LIMIT_S)


def test_a_client_escapes_what_a_service_tells(lying: str, capsys: pytest.CaptureFixture[str]) -> None:
    with Client(lying) as client:
        lines = list(client.log("long-1"))
        check_shown("\n".join(lines))
        with pytest.raises(RequestError) as refused:
            client.status("long-1")
        check_shown(str(refused.value))
    assert main(["log", "long-1", "--url", lying]) == 0
    assert main(["status", "long-1", "--url", lying]) == 1
    found = capsys.readouterr()
    check_shown(found.out)
    check_shown(found.err)


@given(st.text() | st.lists(st.sampled_from([*HOSTILE, "\n", "a", "é", "名"])).map("".join))
def test_any_text_is_shown_on_one_line_and_plain_text_as_it_is(text: str) -> None:
    shown = visible(text)
    assert shown.isprintable()
    assert "\n" not in shown
    assert visible(shown) == shown
    shown.encode()
    for line in visible_lines(text, PRINTED).split("\n")[1:]:
        assert line.startswith(PRINTED)
    assert visible("µ⁺µ⁻ → pt > 20 GeV, 名 Ω é 'x' \\alpha") == "µ⁺µ⁻ → pt > 20 GeV, 名 Ω é 'x' \\alpha"


def test_log_lines_of_functions_are_one_line_of_printable_ascii(tmp_path: Path) -> None:
    path = "/v1/runs/evil%1b%5b2J%e2%80%ae%c2%9b2K%7f"
    with function(tmp_path, "runs", HEPFAAS_OWNER="me") as runs, function(tmp_path, "predict") as predict:
        for process in (runs, predict):
            answer = httpx.get(f"{process.url}{path}", timeout=LIMIT_S)
            assert answer.status_code == 404
            assert answer.text.isprintable()
            assert answer.text.isascii()
    for process in (runs, predict):
        (line,) = [line for line in process.log.read_bytes().splitlines() if b"evil" in line]
        assert line.decode().isprintable()
        assert line.isascii()
        assert json.loads(line)["function"] in ("runs", "predict")


def test_a_traceback_in_the_log_of_a_function_is_one_line() -> None:
    line = fault_line(ValueError(f"{HOSTILE}\n{FAKE}"))
    check_shown(line)
    assert line.isascii()
    assert json.loads(line)["fault"] == repr(ValueError(f"{HOSTILE}\n{FAKE}"))


def test_a_fault_of_a_function_fakes_no_line_of_its_log(tmp_path: Path) -> None:
    broken(tmp_path / "store" / "me")
    with function(tmp_path, "runs", HEPFAAS_OWNER="me") as runs:
        assert httpx.get(f"{runs.url}/v1/runs/x-1", timeout=LIMIT_S).status_code == 500
    lines = runs.log.read_bytes().split(b"\n")
    assert [line for line in lines if b"evil" in line]
    for line in lines:
        assert line.isascii()
        assert not line.startswith(FAKE.encode())
        assert b"\x1b" not in line


def test_text_on_the_pages_of_reports_is_no_markup(tmp_path: Path) -> None:
    store = open_store(f"{tmp_path}/store/me")
    run = complete(store, names=(pages.HOSTILE, "b"), notes=(pages.HOSTILE,), code={"model.py": pages.HOSTILE})
    with function(tmp_path, "runs", HEPFAAS_OWNER="me") as runs:
        for path in (f"/v1/runs/{run}/report", "/v1/models/job/1/report"):
            page = httpx.get(f"{runs.url}{path}", headers={"Accept": "text/html"}, timeout=LIMIT_S)
            assert page.status_code == 200, page.text
            assert "alert(1)" in page.text
            pages.check_harmless(page.text)
            assert "script-src" not in page.headers["Content-Security-Policy"]
            assert "default-src 'none'" in page.headers["Content-Security-Policy"]
