"""The state and progress of a run at a service."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hepfaas.platform.terminal import visible

ENDED = ("completed", "failed", "cancelled")


@dataclass(frozen=True)
class Status:
    """State and progress of a run. values: the answer of GET /v1/runs/{run}."""

    values: Mapping[str, Any]

    @property
    def run(self) -> str:
        """Name of the run."""
        return str(self.values["run"])

    @property
    def state(self) -> str:
        """One of pending (not started), unfinished, completed, failed and cancelled."""
        return str(self.values["state"])

    @property
    def ended(self) -> bool:
        """Return whether the run is completed, failed or cancelled."""
        return self.state in ENDED

    @property
    def error(self) -> str:
        """Reason of a failure, else ''."""
        return str(self.values.get("error", ""))

    @property
    def model(self) -> str:
        """'<name>/<version>' of the model that a completed run published, else ''."""
        return str(self.values.get("model", ""))

    @property
    def refused(self) -> str:
        """Reason why a completed run published no model, else ''."""
        return str(self.values.get("refused", ""))

    def line(self) -> str:
        """Return the progress on one line for a person, control characters escaped."""
        words = [f"{self.run}: {self.state if self.ended else self.values.get('phase', self.state)}"]
        for unit in ("steps", "events", "files"):
            done, total = self.values.get(f"{unit}_done"), self.values.get(f"{unit}_of_phase")
            if total is not None and not self.ended:
                words.append(f"{done:,} of {total:,} {unit}")
        if "events_per_s" in self.values:
            words.append(f"{self.values['events_per_s']:,.0f} events/s")
        if "eta_s" in self.values:
            words.append(f"ETA {self.values['eta_s']:.0f} s")
        return visible("  ".join(words))
