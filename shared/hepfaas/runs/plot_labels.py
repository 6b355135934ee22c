"""Texts of the plots of a run: the labels above them and the titles of branches. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class PlotLabels:
    """Texts of plots.

    label: of the experiment. luminosity: integrated, in 1/fb. energy: of the collisions in TeV. titles: text for each
    branch that is not shown by its name. branch_titles: whether the files' titles of other branches are shown.
    """

    label: str = "hepfaas"
    luminosity: float | None = None
    energy: float | None = None
    titles: tuple[tuple[str, str], ...] = ()
    branch_titles: bool = False

    @property
    def right(self) -> str:
        """Luminosity and energy as text, '' without both."""
        luminosity = "" if self.luminosity is None else f"{self.luminosity:.4g} fb$^{{-1}}$"
        energy = "" if self.energy is None else f"({self.energy:.4g} TeV)"
        return f"{luminosity} {energy}".strip()

    def title(self, name: str) -> str:
        """Return the text for a branch or expression."""
        return dict(self.titles).get(name, name)

    @property
    def text(self) -> str:
        """JSON text, equal for equal values."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, values: Mapping[str, Any] | None) -> PlotLabels:
        """Return the labels from the values of `dataclasses.asdict`; None: the usual ones."""
        return cls(**{**values, "titles": tuple(map(tuple, values["titles"]))}) if values else cls()

    @classmethod
    def from_text(cls, text: str) -> PlotLabels:
        """Return the labels of `text`; '': the usual ones."""
        return cls.from_json(json.loads(text) if text else None)


USUAL_LABELS = PlotLabels()
