"""Progress of long work: a bar on a terminal, lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, TextIO

from hepfaas.platform.terminal import visible

LINE_EVERY_S = 5.0


@dataclass
class Progress:
    """Events, files and bytes of the present phase that are done, with rates and the time left.

    out: standard error, so that a command's standard output has its result alone.
    """

    out: TextIO = field(default_factory=lambda: sys.stderr)
    clock: Callable[[], float] = time.monotonic
    phase: str = ""
    events: int = 0
    events_total: int = 0
    size_bytes: float = 0.0
    files: int = 0
    files_total: int = 0
    _began: float = 0.0
    _last_line: float = 0.0
    _bar: Any = None

    def __enter__(self) -> Progress:
        if self.out.isatty():
            self._bar = _bar(self.out)
            self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._bar:
            self._bar.stop()

    def begin(self, phase: str, events: int, events_total: int, files_total: int = 0) -> None:
        """Begin a phase of which `events` are done already."""
        self._end_of_phase()
        self.phase, self.events, self.events_total = phase, events, events_total
        self.size_bytes, self.files, self.files_total = 0.0, 0, files_total
        self._began = self._last_line = self.clock()
        self._start_events = events
        if self._bar:
            for task in self._bar.task_ids:
                self._bar.remove_task(task)
            self._bar.add_task(phase, total=events_total or None, completed=events, detail="")

    def advance(self, events: int, size_bytes: float = 0.0, files: int = 0) -> None:
        """Add what was done since the last call."""
        self.events += events
        self.size_bytes += size_bytes
        self.files += files
        if self._bar:
            self._bar.update(self._bar.task_ids[-1], completed=self.events, detail=self._detail())
        elif self.events_total and self.clock() - self._last_line >= LINE_EVERY_S:
            self.say(f"{self.phase}: {self._line()}")
            self._last_line = self.clock()

    def say(self, text: str) -> None:
        """Write one line, escaped: it may contain names of files and branches."""
        if self._bar:
            from rich.text import Text  # without markup and emoji codes

            self._bar.console.print(Text(visible(text)))
        else:
            self.out.write(f"{visible(text)}\n")
            self.out.flush()

    def finish(self) -> None:
        """End the last phase."""
        self._end_of_phase()
        self.phase = ""

    def _end_of_phase(self) -> None:
        seconds = self.clock() - self._began
        if self.phase and self.events > self._start_events:
            self.events_total = min(self.events_total, self.events)  # nothing is left, even of a training that stopped
            self.say(f"{self.phase:<9} {self._line()}  in {seconds:.1f} s")

    def _line(self) -> str:
        return f"{self.events:,} of {self.events_total:,} events{self._detail()}"

    def _detail(self) -> str:
        seconds = max(self.clock() - self._began, 1e-3)
        rate = (self.events - self._start_events) / seconds
        parts = [f"{rate:,.0f} events/s"]
        if self.size_bytes:
            parts.append(f"{self.size_bytes / 1e6 / seconds:,.1f} MB/s")
        if self.files_total:
            parts.append(f"{self.files} of {self.files_total} files")
        left = self.events_total - self.events
        if rate and left > 0:
            parts.append(f"ETA {left / rate:.0f} s")
        return "  " + "  ".join(parts)


@contextmanager
def lines_of(out: TextIO) -> Iterator[Callable[[str], None]]:
    """Yield a function that shows one line: replaced in its place on a terminal, written at each change elsewhere."""
    if out.isatty():
        from rich.console import Console
        from rich.text import Text  # without markup and emoji codes

        with Console(file=out).status("") as status:
            yield lambda text: status.update(Text(visible(text)))
        return
    last = [""]

    def say(text: str) -> None:
        if text != last[0]:
            out.write(f"{visible(text)}\n")
            out.flush()
            last[0] = text

    yield say


def _bar(out: TextIO) -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("[bold]{task.description:<9}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("events{task.fields[detail]}"),
    )
    return Bar(*columns, console=Console(file=out), transient=True)
