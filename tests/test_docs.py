"""What the documents say of tests and keys is true."""

import re
import tomllib
from dataclasses import fields
from pathlib import Path

from hepfaas.orchestration import rules
from hepfaas.runs import params

TOP = Path(__file__).parents[1]


def test_every_capability_that_is_done_names_a_test_that_exists() -> None:
    rows = re.findall(
        r"^\| (\d+) \|.*\| \*\*done\*\* \|[^|]*\| (.*) \|$", (TOP / "docs/appendix-capabilities.md").read_text(), re.M
    )
    assert len(rows) > 50
    for number, shown in rows:
        path, _, name = shown.split(";")[0].partition(": ")
        assert (TOP / path).exists(), f"row {number}: no {path}"
        assert f"def {name}(" in (TOP / path).read_text() or not name, f"row {number}: {path} has no {name}"


def test_every_capability_of_the_old_systems_has_a_row() -> None:
    numbers = re.findall(r"^\| (\d+) \|", (TOP / "docs/appendix-capabilities.md").read_text(), re.M)
    assert [int(number) for number in numbers] == list(range(1, 173))


def test_every_test_that_the_guide_to_migration_names_exists() -> None:
    shown = re.findall(r"`(tests/[\w/]+\.py): (\w+)` \|$", (TOP / "docs/how-to/migrate.md").read_text(), re.M)
    assert len(shown) == 38
    for path, name in shown:
        assert f"def {name}(" in (TOP / path).read_text(), f"{path} has no {name}"


def test_every_key_of_params_json_is_documented() -> None:
    text = (TOP / "docs/reference/params.md").read_text()
    assert [key for key in params._KEYS if f"`{key}`" not in text] == []


def test_every_key_of_a_rule_is_documented() -> None:
    text = (TOP / "docs/reference/events.md").read_text()
    names = [field.name for kind in (rules.Rule, rules.Gate) for field in fields(kind) if field.name != "name"]
    assert [name for name in names if f"`{name}`" not in text and f'"{name}"' not in text] == []


def test_every_module_that_the_documents_name_exists() -> None:
    for name in ("ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md"):
        for path in re.findall(r"`(?:shared/hepfaas/)?(\w+/\w+\.py)`", (TOP / name).read_text()):
            assert any((TOP / above / path).exists() for above in ("shared/hepfaas", "tests", ".")), f"{name}: {path}"


def test_the_layers_of_the_architecture_are_those_of_import_linter() -> None:
    contracts = tomllib.loads((TOP / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    rows = re.findall(r"^\| \d+ \| ([^|]*) \|", (TOP / "ARCHITECTURE.md").read_text(), re.M)
    layers = [set(re.findall(r"hepfaas\.(\w+)", layer)) for layer in contracts[0]["layers"]]
    assert [set(re.findall(r"`(\w+)`", row)) for row in rows] == layers


def test_links_between_files_of_the_repository_lead_somewhere() -> None:
    for page in (*TOP.glob("*.md"), *TOP.glob("docs/**/*.md"), *TOP.glob("examples/*/*.md")):
        for target in re.findall(r"\]\((?!https?:)([^)#]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page}: {target}"
