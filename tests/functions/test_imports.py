"""Each function needs what its extra names and nothing else."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from hepfaas.orchestration.events import DOES

ROOT = Path(__file__).parents[2]
FUNCTIONS = sorted(path.parent.name for path in (ROOT / "functions").glob("*/main.py"))
LATER = {
    "predict": [
        "hepfaas.serving.uploads",
        "hepfaas.inputs.images",
        "hepfaas.inputs.raw_events",
        "hepfaas.serving.run_requests",
        "hepfaas.serving.run_results",
    ],
    "predict-grpc": ["hepfaas.inputs.raw_events"],
}
"""Modules that are imported on first use."""

WITHOUT_ARRAYS = ("runs", "advance", "intake")

PROGRAM = """
import importlib.metadata, runpy, sys
from pathlib import Path
name, root, allowed, modules = sys.argv[1], Path(sys.argv[2]), set(sys.argv[3].split(",")), sys.argv[4].split(",")
owners = importlib.metadata.packages_distributions()

class Only:
    def find_spec(self, module, path=None, target=None):
        packages = {package.lower().replace("_", "-") for package in owners.get(module.partition(".")[0], ())}
        if packages and not packages & allowed:
            raise ModuleNotFoundError(f"{module} is of {packages}, which extra '{name}' does not name", name=module)

sys.meta_path.insert(0, Only())
runpy.run_path(str(root / "functions" / name / "main.py"))
print(" ".join(sorted({module.partition(".")[0] for module in sys.modules})))
for module in filter(None, modules):
    importlib.import_module(module)
"""


def packages_of(name: str) -> set[str]:
    lock = (ROOT / "locks" / f"{name}.txt").read_text()
    return {match[1].lower() for match in re.finditer(r"^([A-Za-z0-9._-]+)==", lock, re.M)} | {"hepfaas"}


def imported(name: str, *modules: str) -> set[str]:
    """Return the packages that a function imports in a process with only the packages of its lock."""
    command = [sys.executable, "-c", PROGRAM, name, str(ROOT), ",".join(packages_of(name)), ",".join(modules)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


EVENTS = """
import sys
from types import SimpleNamespace
from hepfaas.features.spec import FeatureBranch, FeatureSpec
from hepfaas.inputs.raw_events import JSON, events_in, vectors_of_events, vectors_of_tensors
from hepfaas.inputs.numbers import from_json
spec = FeatureSpec((FeatureBranch("met", jagged=False, low=0.0, high=4.0, width=1),
    FeatureBranch("pt", jagged=True, low=0.0, high=8.0, width=2)))
served = SimpleNamespace(published=SimpleNamespace(spec=spec))
hold = lambda size: None
events = events_in(served, JSON, b'{"events": {"met": [1, 2], "pt": [[4, 2], []]}}', hold=hold)
assert vectors_of_events(served, events, hold).features.tolist() == [[0.25, 0.5, 0.25], [0.5, 0, 0]]
tensors = {"met": from_json([1.0], "f4", "met"), "pt": from_json([[2.0, None]], "f4", "pt", null=True)}
assert vectors_of_tensors(served, tensors, 1_000).features.tolist() == [[0.25, 0.25, 0]]
print(*{"awkward", "uproot", "pyarrow", "pandas"} & set(sys.modules))
"""


def test_lists_of_events_become_vectors_without_awkward() -> None:
    """Without Awkward a new process answers in half the time."""
    done = subprocess.run([sys.executable, "-c", EVENTS], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "\n"), done.stderr


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_imports_only_what_its_extra_names(name: str) -> None:
    later = [f"hepfaas.steps.{kind}" for kind in DOES.get(name, ())] + LATER.get(name, [])
    found = imported(name, *later)
    assert "tensorflow" not in found
    assert "keras" not in found
    if name.startswith("predict"):
        assert not found & {"uproot", "awkward", "pyarrow"}
    if name in WITHOUT_ARRAYS:
        assert not found & {"uproot", "awkward", "pyarrow"}


def test_every_function_has_its_folder_extra_and_lock() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(FUNCTIONS) == {*DOES, "runs", "advance", "intake", "predict", "predict-grpc"}
    assert set(FUNCTIONS) <= set(extras)
    assert {path.stem for path in (ROOT / "locks").glob("*.txt")} == {*FUNCTIONS, "local", "dev", "docs"}
    for name in FUNCTIONS:
        assert [path.name for path in (ROOT / "functions" / name).iterdir() if path.name != "__pycache__"] == [
            "main.py"
        ]
