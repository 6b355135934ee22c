"""Plots exist for any metrics, and equal values give equal bytes."""

import hashlib
import os
import re
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from hepfaas.evaluation import branch_plots, plots
from hepfaas.evaluation.drawings import Pictures
from hepfaas.evaluation.part import part_counts
from hepfaas.evaluation.report import report_of
from hepfaas.runs.plot_labels import PlotLabels
from support.evaluated import HISTORY, all_drawn, measured

NAMES = ["gg→H→ττ", "VBF"]


@pytest.fixture(scope="module")
def of_two() -> Pictures:
    """All files of an evaluation of two classes."""
    return all_drawn(2, NAMES, weighted=True)


@pytest.mark.parametrize(
    ("classes", "own"),
    [
        (2, {"scores", "significance"}),
        (3, {"scores_0", "scores_1", "scores_2"}),
    ],
    ids=["two", "three"],
)
def test_every_picture_is_a_png_and_a_pdf(of_two: Pictures, classes: int, own: set[str]) -> None:
    files = of_two if classes == 2 else all_drawn(3, ["class_0", "class_1", "class_2"])
    figures = {
        "roc", "roc_efficiencies", "loss", "confusion", "calibration", "branches", "branches_scaled", "efficiencies",
        "correlations", "sculpting", "importance",
    } | own  # fmt: skip
    pictures = {f"{figure}.{kind}" for figure in figures for kind in ("png", "pdf")}
    assert set(files) == pictures | {"histograms.root", "classification.txt"}
    for name in pictures:
        assert files[name].startswith(b"\x89PNG" if name.endswith("png") else b"%PDF")
        assert len(files[name]) > 5_000, name
        assert b"CreationDate" not in files[name], name


def test_text_in_pdf_files_can_be_searched(of_two: Pictures) -> None:
    """Each font maps its codes to characters, and its outlines are of a kind that PDF allows."""
    for name in (name for name in of_two if name.endswith(".pdf")):
        assert b"/FontFile2" not in of_two[name], name  # the fonts of the style are not TrueType
    assert set("Threshold on the score S/√B Asimov 0.2468") - {" "} <= _characters(of_two["significance.pdf"])
    assert set("gg→H→ττ VBF") - {" "} <= _characters(of_two["branches.pdf"])


def _characters(pdf: bytes) -> set[str]:
    """Return the characters that the fonts of a PDF file have."""
    streams = [_inflated(data) for data in re.findall(rb"stream\r?\n(.*?)\r?\nendstream", pdf, re.DOTALL)]
    lists = [text for data in streams for text in re.findall(rb"> \[(.*?)\]", data) if b"begincmap" in data]
    codes = [code for text in lists for code in re.findall(rb"<([0-9a-f]+)>", text)]
    return {bytes.fromhex(code.decode()).decode("utf-16-be") for code in codes}


def _inflated(data: bytes) -> bytes:
    try:
        return zlib.decompress(data)
    except zlib.error:
        return b""


def test_equal_values_give_equal_bytes_in_another_process(of_two: Pictures) -> None:
    """With another hash seed: a plot must not depend on the order of a set."""
    code = (
        "import hashlib; from support.evaluated import all_drawn; "
        f"data = all_drawn(2, {NAMES}, weighted=True); "
        "print({name: hashlib.sha256(data[name]).hexdigest() for name in sorted(data)})"
    )
    seed = "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"
    printed = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(Path(__file__).parents[1])},
        capture_output=True,
        check=True,
        text=True,
        timeout=120,
    ).stdout
    assert "histograms.root" in of_two
    assert printed == f"{ {name: hashlib.sha256(of_two[name]).hexdigest() for name in sorted(of_two)} }\n"


@pytest.mark.parametrize(
    "names",
    [
        ["$5", "$\\nosuchsymbol$", "a_b^c{"],
        ["gg→H→ττ", "GluGluHToTauTau_M125_13TeV_powheg_pythia8", "background"],
    ],
    ids=["signs", "long"],
)
def test_a_class_may_have_any_name(names: list[str]) -> None:
    counts, examined = measured(3)
    report = report_of(counts, names)
    assert plots.scores(counts, report["metrics"]["test"]["overtraining"]["curves"], 0, names)
    assert plots.roc(report["curves"], names)
    assert plots.confusion(report["metrics"]["test"], names)
    for name in names:
        assert branch_plots.branches(examined["branches"], names, PlotLabels(name))


def test_luminosity_and_energy_are_shown_if_they_are_known() -> None:
    assert PlotLabels().right == ""
    assert PlotLabels(luminosity=138).right == "138 fb$^{-1}$"
    assert PlotLabels(luminosity=59.74, energy=13.6).right == "59.74 fb$^{-1}$ (13.6 TeV)"
    plain, labelled = (
        plots.history([(HISTORY, 1)], labels)["loss.png"] for labels in (PlotLabels(), PlotLabels("CMS", 138, 13))
    )
    assert hashlib.sha256(plain).digest() != hashlib.sha256(labelled).digest()


def test_accuracy_and_auc_have_a_panel_of_their_own() -> None:
    loss = [{"loss": 1.0, "val_loss": 1.1}, {"loss": 0.5, "val_loss": 0.6}]
    both = [epoch | {"auc": 0.7, "val_auc": 0.6} for epoch in loss]
    low, high = (
        int.from_bytes(plots.history([(epochs, 1)])["loss.png"][20:24]) for epochs in (loss, both)
    )  # PNG's height
    assert high > low


def test_one_epoch_and_one_class_are_drawn_too() -> None:
    plots.history([([{"loss": 0.5, "val_loss": 0.6}], 0)])
    counts = part_counts(
        np.array([[0.3]], dtype=np.float32), np.array([0]), np.array([2]), rows=(0, 0, 1), logits=False
    )
    report = report_of(counts, ["a", "b"])
    plots.roc(report["curves"], ["a", "b"])
    plots.scores(counts, report["metrics"]["test"]["overtraining"]["curves"], 0, ["a", "b"])
    plots.calibration(report["calibration"], ["a", "b"])
    assert plots.significance(report["significance"]) == {}


def test_without_spectators_and_importances_their_pictures_are_left_out() -> None:
    assert branch_plots.sculpting([], ["a", "b"]) == {}
    assert branch_plots.importance({"events": 5, "auc": None, "groups": []}) == {}


def test_many_branches_fill_several_pages_of_one_file() -> None:
    _, examined = measured(2)
    many = [{**examined["branches"][0], "name": f"branch {number}"} for number in range(30)]
    files = branch_plots.branches(many, ["a", "b"])
    assert set(files) == {"branches.png", "branches.pdf"}
    assert files["branches.pdf"].count(b"/Type /Page\n") + files["branches.pdf"].count(b"/Type /Page ") == 3
