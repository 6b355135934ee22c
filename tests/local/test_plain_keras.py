"""Models of our steps are as good as those of plain Keras on the same events."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hepfaas.cli import main
from hepfaas.models import versions
from hepfaas.platform.storage import Store
from hepfaas.platform.stores import open_store
from hepfaas.steps.objects import open_part, result_of

pytestmark = pytest.mark.slow

EXAMPLE = Path(__file__).parents[2] / "examples" / "htautau"

PLAIN = """
import json, sys
sys.path.insert(0, sys.argv[1])
import keras, numpy as np
from model import model
rows = np.load(sys.argv[2])
found = []
for seed in range(4):
    keras.utils.set_random_seed(seed)
    network = model(rows["x0"].shape[1])
    best = keras.callbacks.EarlyStopping(patience=100, restore_best_weights=True)
    usual = dict(batch_size=100, epochs=12, verbose=0)
    network.fit(rows["x0"], rows["y0"], validation_data=(rows["x1"], rows["y1"]), callbacks=[best], **usual)
    found.append(network.predict(rows["x2"], verbose=0).ravel().tolist())
print(json.dumps(found))
"""


def rows_of(store: Store, prepared: str, split: int) -> tuple[np.ndarray, np.ndarray]:
    """Return all features and labels of a split."""
    batches = []
    for facts in result_of(prepared, store)["parts"]:
        part = open_part(facts["key"], facts["size_bytes"], store)
        batches += [part.rows(number) for number in part.facts.batches(split)]
    return np.concatenate([b.features for b in batches]), np.concatenate([b.labels for b in batches])


def auc(scores: list[float], labels: np.ndarray) -> float:
    ranks = np.argsort(np.argsort(scores)) + 1
    signal = labels == 1
    wins = ranks[signal].sum() - signal.sum() * (signal.sum() + 1) / 2
    return float(wins / (signal.sum() * (~signal).sum()))


def test_the_auc_is_that_of_plain_keras_on_the_same_split(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(EXAMPLE, tmp_path / "htautau")
    assert main(["train", str(tmp_path / "htautau"), "--store", str(tmp_path / "store")]) == 0
    store = open_store(f"{tmp_path}/store/local")
    card = versions.card_of(store, versions.Version("htautau", 1))
    rows = [rows_of(store, card["steps"]["data"], split) for split in range(3)]
    arrays = {f"{name}{split}": array for split in range(3) for name, array in zip("xy", rows[split], strict=True)}
    np.savez(tmp_path / "rows.npz", **arrays)
    command = [sys.executable, "-c", PLAIN, str(EXAMPLE), str(tmp_path / "rows.npz")]
    done = subprocess.run(command, capture_output=True, check=True, timeout=240, env={"TF_CPP_MIN_LOG_LEVEL": "3"})
    plain = [auc(scores, rows[2][1]) for scores in json.loads(done.stdout)]
    ours = card["metrics"]["test"]["auc"]
    assert ours > 0.75
    assert ours == pytest.approx(np.mean(plain), abs=0.01), f"plain Keras: {plain}"
