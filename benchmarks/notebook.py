"""The script that a physicist would write instead of `hepfaas train FOLDER`: python notebook.py FOLDER EPOCHS OUT

It reads all files into memory, pads and scales them, trains by `fit`, and draws as many pictures as hepfaas. Its parts
are those of common tutorials: uproot, awkward, Keras, matplotlib.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import awkward as ak
import keras
import matplotlib as mpl
import numpy as np
import uproot

mpl.use("Agg")
import matplotlib.pyplot as plt

IDENTIFIERS = ("run", "luminosityBlock", "event")


def read(folder: Path) -> list[Any]:
    """Return the events of each file."""
    lines = [line.strip() for line in (folder / "files.txt").read_text().splitlines()]
    return [uproot.open(folder / line)["Events"].arrays() for line in lines if line and not line.startswith("#")]


def matrix(files: list[Any]) -> Any:
    """Return all events as one matrix: each branch scaled to 0 … 1, and jagged ones padded to their longest event."""
    columns: list[Any] = []
    for name in sorted(set(files[0].fields) - set(IDENTIFIERS)):
        branch = ak.values_astype(ak.concatenate([file[name] for file in files]), np.float64)
        low, high = ak.min(branch), ak.max(branch)
        scaled = (branch - low) / (high - low if high > low else 1)
        if branch.ndim == 1:
            columns.append(ak.to_numpy(scaled).astype(np.float32)[:, None])
        else:
            padded = ak.fill_none(ak.pad_none(scaled, int(ak.max(ak.num(branch))), clip=True), 0)
            columns.append(ak.to_numpy(padded).astype(np.float32))
    return np.hstack(columns)


def save(figure: Any, out: Path, name: str) -> None:
    """Save a picture in both formats."""
    figure.savefig(out / f"{name}.png", dpi=150)
    figure.savefig(out / f"{name}.pdf")
    plt.close(figure)


def draw(out: Path, history: dict[str, list[float]], truth: Any, score: Any) -> float:
    """Draw loss, scores, both forms of the ROC curve and the confusion matrix; return the AUC."""
    order = np.argsort(-score)
    signal = np.cumsum(truth[order]) / truth.sum()
    background = np.cumsum(1 - truth[order]) / (1 - truth).sum()
    figure, axes = plt.subplots(figsize=(9, 8))
    for name in ("loss", "val_loss", "auc", "val_auc"):
        axes.plot(history[name], label=name)
    axes.legend()
    save(figure, out, "loss")
    figure, axes = plt.subplots(figsize=(9, 8))
    for label in (0, 1):
        axes.hist(score[truth == label], bins=25, density=True, histtype="step", label=str(label))
    axes.legend()
    save(figure, out, "scores")
    figure, axes = plt.subplots(figsize=(9, 8))
    axes.plot(background, signal)
    save(figure, out, "roc_efficiencies")
    figure, axes = plt.subplots(figsize=(9, 8))
    axes.semilogy(signal, 1 / np.maximum(background, 1e-4))
    save(figure, out, "roc")
    counts = np.histogram2d(truth, score > 0.5, bins=2)[0]
    figure, axes = plt.subplots(figsize=(9, 8))
    axes.imshow(counts / counts.sum(axis=1, keepdims=True), cmap="Blues")
    for (row, column), count in np.ndenumerate(counts):
        axes.text(column, row, int(count), ha="center")
    save(figure, out, "confusion")
    return float(np.trapezoid(signal, background))


def main() -> None:
    """Train on the folder and write model and pictures."""
    folder, epochs, out = Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    files = read(folder)
    x, y = matrix(files), np.repeat([0, 1], [len(file) for file in files])
    part = np.random.default_rng(1).random(len(y))
    training, validation, test = part < 0.64, (part >= 0.64) & (part < 0.8), part >= 0.8
    sys.path.insert(0, str(folder))
    network = __import__("model").model(x.shape[1])
    history = network.fit(
        x[training],
        y[training],
        batch_size=100,
        epochs=epochs,
        validation_data=(x[validation], y[validation]),
        verbose=0,
    ).history
    score = network.predict(x[test], batch_size=4096, verbose=0)[:, 0]
    network.save(out / "model.keras")
    sys.stdout.write(f"AUC {draw(out, history, y[test], score):.4f}, {keras.__version__}\n")


if __name__ == "__main__":
    main()
