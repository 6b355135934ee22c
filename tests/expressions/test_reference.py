"""docs/reference/expressions.md: its examples have the stated results, and its tables name every function."""

import re
from pathlib import Path

import awkward as ak
import numpy as np
import pytest
from hepfaas.errors import RequestError
from hepfaas.expressions.expression import parse
from hepfaas.expressions.functions import FUNCTIONS

PAGE = (Path(__file__).parents[2] / "docs/reference/expressions.md").read_text()


def section(title: str) -> str:
    return PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]


def rows(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|\n").split(" |")] for line in text.splitlines() if line[:2] == "| "]


def numbers(cell: str) -> list[float]:
    names = {"true": 1.0, "false": 0.0}
    return [names[word] if word in names else float(word) for word in cell.split(", ") if word]


def table(start: str) -> list[list[str]]:
    lines = section("Examples").split(start)[1].split("\n\n")[0]
    return rows(start + lines)


DATA = table("| event |")
RESULTS = table("| expression |")[1:]


@pytest.mark.parametrize("row", RESULTS, ids=lambda row: row[0])
def test_each_example_has_the_stated_result(row: list[str]) -> None:
    columns = list(zip(*DATA, strict=True))[1:]
    arrays = {name.strip("`"): [numbers(cell) for cell in cells] for name, *cells in columns}
    flat = {"MET_pt": np.ravel(arrays.pop("MET_pt"))}
    result = parse(row[0].strip("`"), "page").evaluate(flat | {name: ak.Array(lists) for name, lists in arrays.items()})
    found = ak.to_list(result) if isinstance(result, ak.Array) else [[number] for number in result]
    for one, wanted in zip(found, row[1:], strict=True):
        np.testing.assert_array_equal(one, numbers(wanted))


def test_the_page_has_every_function_and_no_other() -> None:
    named = {name for row in rows(section("Functions"))[1:] for name in re.findall(r"`(\w+)`", row[0])}
    assert named == set(FUNCTIONS)


@pytest.mark.parametrize("line", re.findall(r"^(\S.*?: .*?): '(.*?)' at (.*)$", section("Errors"), re.MULTILINE))
def test_each_message_of_the_page_is_given(line: tuple[str, str, str]) -> None:
    with pytest.raises(RequestError) as error:
        parse(line[1], line[0]).branches(["Muon_pt", "Muon_phi", "Muon_eta"])
    assert str(error.value) == f"{line[0]}: '{line[1]}' at {line[2]}"


def test_each_expression_of_the_page_can_be_parsed() -> None:
    blocks = re.findall(r"```text\n(.*?)```", PAGE.split("## Errors")[0], re.DOTALL)
    texts = [re.split(r"   +", line)[0] for block in blocks for line in block.splitlines()]
    assert len(texts) == 9
    for text in texts:
        parse(text, "page")
