"""Progress of long work, in plain lines where there is no terminal."""

import errno
import io
import os
import pty

from hepfaas.local.progress import LINE_EVERY_S, Progress


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_phase_is_shown_at_intervals_and_at_its_end() -> None:
    out, clock = io.StringIO(), Clock()
    with Progress(out, clock) as progress:
        progress.begin("survey", 0, 4_000, files_total=2)
        for _ in range(4):
            clock.now += LINE_EVERY_S / 2
            progress.advance(1_000, 2e6, files=0)
        progress.advance(0, 0, files=2)
        progress.begin("train", 0, 0)
    assert out.getvalue().splitlines() == [
        "survey: 2,000 of 4,000 events  400 events/s  0.8 MB/s  0 of 2 files  ETA 5 s",
        "survey: 4,000 of 4,000 events  400 events/s  0.8 MB/s  0 of 2 files",
        "survey    4,000 of 4,000 events  400 events/s  0.8 MB/s  2 of 2 files  in 10.0 s",
    ]


def test_what_was_there_before_counts_as_done_but_not_as_speed() -> None:
    out, clock = io.StringIO(), Clock()
    with Progress(out, clock) as progress:
        progress.begin("train", 9_000, 10_000)
        clock.now += 10
        progress.advance(500)
    assert out.getvalue() == "train: 9,500 of 10,000 events  50 events/s  ETA 10 s\n"


def whole(terminal: int) -> str:
    """Return everything written to a terminal that is closed now; its end is EIO."""
    shown = b""
    try:
        while piece := os.read(terminal, 65_536):
            shown += piece
    except OSError as error:
        if error.errno != errno.EIO:
            raise
    return shown.decode()


def test_a_terminal_gets_a_bar() -> None:
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "w") as terminal, Progress(terminal) as progress:
        progress.begin("prepare", 0, 1_000)
        progress.advance(1_000)
        progress.say("a note")
        progress.finish()
    shown = whole(ours)
    os.close(ours)
    assert "prepare" in shown
    assert "a note" in shown
