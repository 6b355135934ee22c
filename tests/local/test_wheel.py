"""A wheel built from the repository works in an empty environment, outside the repository."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from support.servers import server_binary

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
IS_COMPLETE = """
from importlib.resources import files
from hepfaas.local.up import functions_folder
assert str(files("hepfaas")).startswith(SITE_PACKAGES)
assert files("hepfaas").joinpath("py.typed").is_file()
assert files("hepfaas").joinpath("views/templates/document.html").is_file()
assert str(functions_folder()).startswith(SITE_PACKAGES)
assert (functions_folder() / "predict" / "main.py").is_file()
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment that has the wheel, and reads the packages it requires from the present one."""
    folder = tmp_path_factory.mktemp("wheel")
    uv = ROOT / ".cache" / "uv" / "bin" / "uv"
    program = str(uv) if uv.exists() else server_binary("uv", "PyPI uv")

    def run(*words: object) -> None:
        subprocess.run([program, *map(str, words)], check=True, capture_output=True, text=True)

    run("build", "--wheel", "--offline", "--out-dir", folder, ROOT)  # `make` has put hatchling into uv's cache
    (wheel,) = folder.glob("hepfaas-*.whl")
    run("venv", "--python", sys.executable, folder / "env")
    run("pip", "install", "--no-deps", "--python", folder / "env", wheel)
    (folder / "site_packages.pth").write_text(sysconfig.get_path("purelib"))
    shutil.move(folder / "site_packages.pth", site_packages(folder / "env"))
    return folder / "env"


def site_packages(environment: Path) -> Path:
    return Path(sysconfig.get_path("purelib", vars={"base": str(environment)}))


def run(folder: Path, *command: object) -> subprocess.CompletedProcess[str]:
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        list(map(str, command)), cwd=folder, env=variables, capture_output=True, text=True, check=False
    )


def test_the_wheel_has_the_functions_and_is_typed(environment: Path, tmp_path: Path) -> None:
    code = f"SITE_PACKAGES = {str(site_packages(environment))!r}{IS_COMPLETE}"
    process = run(tmp_path, environment / "bin" / "python", "-c", code)
    assert process.returncode == 0, process.stderr


@pytest.mark.timeout(300)
def test_the_sample_is_learned_from_the_wheel(environment: Path, tmp_path: Path) -> None:
    job = tmp_path / "htautau"
    shutil.copytree(ROOT / "examples" / "htautau", job)
    params = json.loads((job / "params.json").read_text())
    (job / "params.json").write_text(json.dumps({**params, "epochs": 2}))
    store = tmp_path / "store"
    process = run(tmp_path, environment / "bin" / "hepfaas", "train", "htautau", "--store", store, "--json")
    assert process.returncode == 0, process.stderr
    report = json.loads(process.stdout)
    assert report["model"] == "htautau/1"
    assert report["metrics"]["test"]["auc"] > 0.6
    unseen = run(tmp_path, environment / "bin" / "hepfaas", "predict", "htautau", job / "unseen.root", "--store", store)
    assert "1,000 events" in unseen.stdout, unseen.stderr
