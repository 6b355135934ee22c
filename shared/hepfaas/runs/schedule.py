"""Learning rate of each epoch, and the epoch after which a training stops. Pure.

Both follow from the options of the recipe and from the validation losses so far, so a plan finds them again after
every kill.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Name = Literal["cosine", "exponential", "step", "warmup_cosine", "reduce_on_plateau"]

DIGITS = 12
"""Significant digits of a factor: machines may differ in the last digits of a cosine, and a step is a hash."""


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """A learning-rate schedule. Each gives a factor of the first learning rate for every epoch e of E.

    cosine: from 1 at e = 0 to `final` at e = E. warmup_cosine: rises over `warmup` epochs, then as cosine. exponential:
    factor ** e. step: factor ** (e // every). reduce_on_plateau: multiplied by `factor` after `patience` epochs whose
    validation loss is not more than `min_delta` below the best one, not again within `cooldown` epochs, down to
    `least`.
    """

    name: Name
    final: float = 0.0
    warmup: int = 5
    factor: float = 0.1
    every: int = 10
    patience: int = 10
    min_delta: float = 1e-4
    cooldown: int = 0
    least: float = 0.0

    @property
    def follows_results(self) -> bool:
        """Return whether the factors depend on the validation losses."""
        return self.name == "reduce_on_plateau"

    def factors(self, n_epochs: int, losses: Sequence[float]) -> tuple[float, ...]:
        """Return the factor of each epoch. losses: of the epochs so far; after them the last factor stays."""
        if self.name == "reduce_on_plateau":
            factors = self._on_plateau(losses)[:n_epochs]
            return (*factors, *[factors[-1]] * (n_epochs - len(factors)))
        return tuple(_rounded(self._factor(epoch, n_epochs)) for epoch in range(n_epochs))

    def _factor(self, epoch: int, n_epochs: int) -> float:
        match self.name:
            case "exponential":
                return self.factor**epoch
            case "step":
                return self.factor ** (epoch // self.every)
            case "warmup_cosine" if epoch < self.warmup:
                return (epoch + 1) / (self.warmup + 1)
            case "warmup_cosine":
                return self._cosine(epoch - self.warmup, n_epochs - self.warmup)
        return self._cosine(epoch, n_epochs)

    def _cosine(self, epoch: int, n_epochs: int) -> float:
        return self.final + (1 - self.final) * (1 + math.cos(math.pi * epoch / n_epochs)) / 2

    def _on_plateau(self, losses: Sequence[float]) -> list[float]:
        """Return the factor of the first epoch and of the epoch after each loss, as Keras's ReduceLROnPlateau."""
        factors, best, waited, cooldown = [1.0], math.inf, 0, 0
        for loss in losses:
            if cooldown:
                cooldown, waited = cooldown - 1, 0
            if loss < best - self.min_delta:
                best, waited = loss, 0
            elif not cooldown:
                waited += 1
            factor = factors[-1]
            if waited >= self.patience and factor > self.least:
                factor, waited, cooldown = max(_rounded(factor * self.factor), self.least), 0, self.cooldown
            factors.append(factor)
        return factors


def n_epochs_until_stop(losses: Sequence[float], patience: int, min_delta: float) -> int | None:
    """Return after how many epochs a training stops: after `patience` epochs in a row whose validation loss is not more
    than `min_delta` below the best one; None if it does not stop within these losses."""
    best, waited = math.inf, 0
    for n_epochs, loss in enumerate(losses, 1):
        waited += 1
        if loss < best - min_delta:
            best, waited = loss, 0
        if waited >= patience:
            return n_epochs
    return None


def _rounded(factor: float) -> float:
    return float(f"{factor:.{DIGITS}g}")
