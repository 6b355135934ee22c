"""Parquet, Avro, JSON lines and CSV are read like ROOT files: the same events give the same numbers."""

import gzip
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import awkward as ak
import fastavro
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hepfaas.datasets.formats import Form
from hepfaas.datasets.opened import OpenedFile, opened, read
from hepfaas.datasets.ranges import EntryRange, planned
from hepfaas.datasets.reading import Reading
from hepfaas.datasets.summary import trees_of
from hepfaas.datasets.tables import lines
from hepfaas.datasets.tables.avro import AvroTable
from hepfaas.datasets.tables.csv import CsvTable
from hepfaas.datasets.tables.json_lines import JsonTable
from hepfaas.datasets.tables.parquet import ParquetTable
from hepfaas.datasets.tables.table import Data, Table
from hepfaas.errors import RequestError
from hepfaas.features.branches import survey_of
from hepfaas.features.jagged import Values, values_and_counts
from hepfaas.features.matrix import matrix
from hepfaas.features.scaling import feature_branch
from hepfaas.features.spec import FeatureSpec
from hepfaas.runs.feature_rules import FeatureRules
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from support.servers import XRootD
from support.tables import WRITERS, csv_bytes, events, flat, json_text, write

N = 150
BRANCHES = events(N)


class Bytes(Data):
    """A file in memory that counts what is read of it."""

    def __init__(self, data: bytes) -> None:
        self.size_bytes, self._data, self.n_read = len(data), data, 0

    def read(self, start: int, stop: int) -> memoryview:
        part = memoryview(self._data)[start:stop]
        self.n_read += len(part)
        return part


def all_of(file: OpenedFile, entries: EntryRange | None = None) -> dict[str, Values]:
    names = [branch.name for branch in file.branches]
    place = (file.url, file.identity, file.tree)
    return read(*place, branches=names, entries=entries or EntryRange(0, file.entries), layout=file.layout)


def is_same(values: Values, expected: Any) -> bool:
    numbers, counts = values_and_counts(values)
    if counts is None:
        return bool(np.array_equal(numbers, expected, equal_nan=True))
    array = ak.Array(expected)
    return bool(np.array_equal(numbers, ak.to_numpy(ak.flatten(array)), equal_nan=True)) and bool(
        np.array_equal(counts, ak.to_numpy(ak.num(array)))
    )


def matrix_of(identity: str, arrays: dict[str, Values]) -> NDArray[np.float32]:
    """Return the features of all branches as a training makes them."""
    ranges, rules = survey_of(identity, arrays, N).branches, FeatureRules().of(sorted(arrays))
    return matrix(
        arrays, FeatureSpec(tuple(feature_branch(name, ranges[name], rules[name]) for name in sorted(arrays)))
    )


def test_the_same_events_give_the_same_matrix_in_every_format(tmp_path: Path) -> None:
    made: dict[str, Any] = {}
    for path in write(tmp_path, list(WRITERS), BRANCHES):
        file = opened(str(path), "Events")
        arrays = all_of(file)
        expected = flat(BRANCHES) if ".csv" in path.name else BRANCHES
        assert file.entries == N
        assert {branch.name: branch.type for branch in file.branches if branch.name in expected} == {
            name: "float64" if name in ("met", "weight", "pt") else "int64" for name in expected
        }
        assert all(is_same(arrays[name], values) for name, values in expected.items()), path.name
        arrays.pop("npt", None)  # uproot counts the values
        names = [name for name in arrays if name != "pt"]
        made[path.name] = matrix_of(file.identity, {name: arrays[name] for name in names})
        if "pt" in arrays:
            made[f"{path.name} with pt"] = matrix_of(file.identity, arrays)
    first = made["tree.root"].tobytes()
    assert {name for name, one in made.items() if "pt" not in name and one.tobytes() != first} == set()
    assert {one.tobytes() for name, one in made.items() if "pt" in name} == {made["tree.root with pt"].tobytes()}


@pytest.mark.parametrize("name", ["events.parquet", "events.avro", "events.jsonl", "events.json.gz", "events.csv"])
def test_a_file_on_a_server_is_read_by_ranges(name: str, xrootd: XRootD, tmp_path: Path) -> None:
    (path,) = write(tmp_path, [name], BRANCHES)
    url, local, by_ranges = xrootd.serve(path), opened(str(path), ""), Reading(hashed_bytes=0)
    remote = opened(url, "", by_ranges)
    assert remote.identity.startswith("address-")
    assert (remote.branches, remote.entries, remote.edges) == (local.branches, local.entries, local.edges)
    names, entries = [branch.name for branch in local.branches], EntryRange(17, 131)
    for layout in (remote.layout, ""):
        values = read(url, remote.identity, "", branches=names, entries=entries, reading=by_ranges, layout=layout)
        assert all(is_same(values[name], BRANCHES[name][17:131]) for name in names)


def table_of(name: str, data: bytes, layout: Mapping[str, Any] | None = None) -> tuple[Table, Bytes]:
    source = Bytes(data)
    kinds: Mapping[str, Any] = {"parquet": ParquetTable, "avro": AvroTable, "jsonl": JsonTable, "gz": JsonTable}
    return kinds.get(name.rpartition(".")[2], CsvTable)(source, name, layout or {}), source


@pytest.fixture(scope="module")
def contents(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    names = ["events.parquet", "events.avro", "events.jsonl", "events.json.gz", "events.csv"]
    return {path.name: path.read_bytes() for path in write(tmp_path_factory.mktemp("contents"), names, BRANCHES)}


@settings(max_examples=12, deadline=None)
@given(st.integers(0, N), st.integers(0, N), st.integers(100, 5_000))
def test_any_range_of_any_blocks_has_its_events(contents: dict[str, bytes], one: int, other: int, block: int) -> None:
    start, stop = sorted((one, other))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines, "BLOCK_BYTES", block)
        patch.setattr("hepfaas.datasets.tables.avro.PART_BYTES", block)
        patch.setattr("hepfaas.datasets.tables.parquet.BATCH_EVENTS", block // 50)
        for name, data in contents.items():
            table, _ = table_of(name, data)
            assert table.edges[0] == 0
            assert table.edges[-1] == N
            again, _ = table_of(name, data, json.loads(json.dumps(table.layout())))
            for each in (table, again):
                values = each.read(list(table.branches), start, stop)
                assert all(is_same(values[branch], BRANCHES[branch][start:stop]) for branch in table.branches), name


@pytest.mark.parametrize("name", ["events.avro", "events.jsonl", "events.csv"])
def test_with_its_layout_only_the_range_is_read(
    contents: dict[str, bytes], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines, "BLOCK_BYTES", 1_000)
    monkeypatch.setattr("hepfaas.datasets.tables.avro.PART_BYTES", 1_000)
    monkeypatch.setattr("hepfaas.datasets.tables.table.BUFFER_BYTES", 100)
    data = contents[name]
    layout = table_of(name, data)[0].layout()
    table, source = table_of(name, data, json.loads(json.dumps(layout)))
    table.read(["met"], 60, 70)
    assert 0 < source.n_read < len(data) / 2


def test_ranges_are_row_groups(tmp_path: Path) -> None:
    (path,) = write(tmp_path, ["events.parquet"], BRANCHES)
    file = opened(str(path), "")
    assert planned(file.baskets(["met"]), file.entries, 50) == ((0, 40), (40, 80), (80, 120), (120, 150))
    (summary,) = trees_of(str(path))
    assert (summary.kind, summary.entries, summary.clusters, summary.compression) == ("Parquet", N, 4, "snappy")


def read_text(tmp_path: Path, name: str, text: str | bytes, dtype: str = "") -> tuple[OpenedFile, dict[str, Any]]:
    path = tmp_path / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    file = opened(str(path), "", form=Form(dtype))
    return file, {name: values.tolist() for name, values in all_of(file).items()}  # type: ignore[union-attr]


NAN = pytest.approx(np.nan, nan_ok=True)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("b,a\n1,2\n3,4\n", {"b": [1, 3], "a": [2, 4]}),  # by name, not by the alphabet
        ("a;b\n1;2.5\n", {"a": [1], "b": [2.5]}),
        ("a\tb\r\n1\t2\r\n\r\n", {"a": [1], "b": [2]}),
        ("# a b\n1.0 2.0\n", {"a": [1.0], "b": [2.0]}),  # numpy.savetxt
        (b"\xef\xbb\xbfa\n1\n", {"a": [1]}),
        ('"pt [GeV]","x,y"\n1,2\n', {"pt [GeV]": [1], "x,y": [2]}),
        (",a\n0,1\n1,2\n", {"a": [1, 2]}),  # the index that pandas writes
        ("a,a,b\n1,2,3\n", {"a": [1], "b": [3]}),
        ("a,b\n1,\n,2\n", {"a": [1, NAN], "b": [NAN, 2]}),
        ("a,b\n1,nan\n2,-inf\n", {"a": [1, 2], "b": [NAN, -np.inf]}),
        ("t\n9007199254740993\n", {"t": [9007199254740993]}),
        ("a,is_muon\n1,true\n2,False\n", {"a": [1, 2], "is_muon": [True, False]}),
        ("a,b\n", {"a": [], "b": []}),
    ],
)
def test_csv_as_people_write_it(tmp_path: Path, text: str | bytes, values: dict[str, Any]) -> None:
    assert read_text(tmp_path, "x.csv", text)[1] == values


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ('{"a": 1, "b": 2.5}\n\n{"b": 1, "a": 2}\n', {"a": [1, 2], "b": [2.5, 1]}),
        ('{"a": 1}\n{"a": 2.5}\n', {"a": [1, 2.5]}),
        ('{"a": NaN}\n{"a": 1}\n', {"a": [NAN, 1]}),
        ('{"pt": [1, 2.5]}\n{"pt": []}\n{"pt": null}\n', {"pt": [[1, 2.5], [], []]}),
        ('{"pt": []}\n{"pt": [true]}\n', {"pt": [[], [True]]}),
        (
            '{"met": {"pt": 1, "phi": 2}, "jets": [{"pt": 5}, {"pt": 6}]}\n',
            {"met.pt": [1], "met.phi": [2], "jets.pt": [[5, 6]]},
        ),
        ('{"a": true}\n{"a": null}\n', {"a": [1.0, NAN]}),
        ('{"n": [1, null]}\n', {"n": [[1.0, NAN]]}),
    ],
)
def test_json_lines_as_people_write_them(tmp_path: Path, text: str, values: dict[str, Any]) -> None:
    assert read_text(tmp_path, "x.json", text)[1] == values


def test_keys_that_appear_and_disappear_are_named_with_the_first_event(tmp_path: Path) -> None:
    text = '{"a": 1, "b": 1}\n{"a": 2}\n{"a": 3, "c": [7]}\n'
    file, values = read_text(tmp_path, "x.json", text)
    assert values == {"a": [1, 2, 3], "b": [1, NAN, NAN], "c": [[], [], [7]]}
    assert file.notes == (
        "column 'b' has no value in 2 of 3 events, the first of them entry 1; it is NaN there",
        "column 'c' has no value in 2 of 3 events, the first of them entry 0; it is an empty list there",
    )


@pytest.mark.parametrize(
    ("name", "text", "left_out"),
    [
        ("x.csv", "a,b\n1,2\n3,x\n", ("b", "text, such as 'x' in entry 1")),
        ("x.csv", "a,when\n1,2026-01-01\n", ("when", "date32[day]")),
        ("x.json", '{"a": 1, "s": "x"}\n', ("s", "string")),
        ("x.json", '{"a": 1, "m": [[1]]}\n', ("m", "list<item: int64>")),
        ("x.json", '{"a": 1, "e": []}\n', ("e", "no values")),
    ],
)
def test_a_column_that_is_not_numbers_is_left_out_and_named(
    tmp_path: Path, name: str, text: str, left_out: tuple[str, str]
) -> None:
    file, values = read_text(tmp_path, name, text)
    assert list(values) == ["a"]
    assert file.left_out == (left_out,)


def test_every_kind_of_column_of_parquet(tmp_path: Path) -> None:
    path = tmp_path / "kinds.parquet"
    columns = {
        "whole": pa.array([1, None, 3]),
        "half": pa.array([1.5, 2.5, 3.5], pa.float16()),
        "dictionary": pa.array([1.5, 1.5, 2.5]).dictionary_encode(),
        "lists": pa.array([[1, None], None, []]),
        "fixed": pa.array([[1.0, 2.0]] * 3, pa.list_(pa.float32(), 2)),
        "met": pa.array([{"pt": 1.0, "sig": [1]}, None, {"pt": 3.0, "sig": []}]),
        "jets": pa.array([[{"pt": 1.0, "n": 2}], [], [{"pt": 3.0, "n": 4}, {"pt": 5.0, "n": 6}]]),
        "name": pa.array(["x", "y", "z"]),
        "price": pa.array([1, 2, 3]).cast(pa.decimal128(20, 0)),
    }
    pq.write_table(pa.table(columns), path, row_group_size=2)
    file = opened(str(path), "")
    values = {name: branch.tolist() for name, branch in all_of(file).items()}  # type: ignore[union-attr]
    assert values == {
        "whole": [1, NAN, 3],
        "half": [1.5, 2.5, 3.5],
        "dictionary": [1.5, 1.5, 2.5],
        "lists": [[1, NAN], [], []],
        "fixed": [[1, 2]] * 3,
        "met.pt": [1, NAN, 3],
        "met.sig": [[1], [], []],
        "jets.pt": [[1], [], [3, 5]],
        "jets.n": [[2], [], [4, 6]],
    }
    assert file.left_out == (("name", "string"), ("price", "decimal128(20, 0)"))


def test_every_kind_of_field_of_avro(tmp_path: Path) -> None:
    path = tmp_path / "kinds.avro"
    jet = {"type": "record", "name": "Jet", "fields": [{"name": "pt", "type": "float"}]}
    fields = [
        {"name": "f", "type": "float"},
        {"name": "i", "type": ["null", "int"]},
        {"name": "b", "type": "boolean"},
        {"name": "s", "type": "string"},
        {"name": "when", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "lead", "type": jet},
        {"name": "jets", "type": {"type": "array", "items": "Jet"}},
        {"name": "n", "type": ["null", {"type": "array", "items": "long"}]},
        {"name": "map", "type": {"type": "map", "values": "long"}},
    ]
    event = {"f": 0.5, "i": 1, "b": True, "s": "x", "when": 5, "lead": {"pt": 1.5}, "jets": [{"pt": 2.5}], "n": [7]}
    records = [{**event, "map": {}}, {**event, "i": None, "jets": [], "n": None, "map": {"k": 1}}]
    with path.open("wb") as out:
        fastavro.writer(out, {"type": "record", "name": "Event", "fields": fields}, records)
    file = opened(str(path), "")
    values = {name: branch.tolist() for name, branch in all_of(file).items()}  # type: ignore[union-attr]
    assert values == {
        "f": [0.5, 0.5],
        "i": [1.0, NAN],
        "b": [True, True],
        "lead.pt": [1.5, 1.5],
        "jets.pt": [[2.5], []],
        "n": [[7], []],
    }
    assert {branch.name: branch.type for branch in file.branches}["f"] == "float32"
    assert file.left_out == (("s", "string"), ("when", "timestamp-millis"), ("map", "map"))


BROKEN = [
    ("x.csv", b"", "is empty: it has 0 bytes"),
    ("x.csv", b"a,b\n1,2\n3\n", "entry 1: CSV parse error: Expected 2 columns, got 1: 3"),
    ("x.csv", b"1,2\n3,4\n", "has no names of columns: its first line is '1,2'"),
    ("x.csv", "a\n1\n".encode("utf-16"), "is no CSV file: its first line is not text in UTF-8"),
    ("x.csv", b"a\n" + b"1" * 20_000_000, "has a line of more than 16 MB from byte 2 on"),
    ("x.csv.gz", gzip.compress(b"a\n" + b"1" * 200_000_000), "has a line of more than 16 MB from byte 2 on"),
    ("x.csv.gz", gzip.compress(csv_bytes(BRANCHES))[:-20], "is not a complete CSV file: Truncated compressed stream"),
    ("x.json", b"", "is empty: it has 0 bytes"),
    ("x.json", json_text(BRANCHES).encode()[:-3], "entry 149: JSON parse error"),
    ("x.json", b'{"a": 1}\n{"a": "x"}\n', r"entry 1: JSON parse error: Column\(/a\) changed from number to string"),
    ("x.json", b'[{"a": 1}]', "is a list in JSON; write one object a line: jq -c '.\\[\\]' old.json > new.json"),
    ("x.json", b'{\n"a": 1\n}\n', "has objects of several lines; write one object a line: jq -c . old.json"),
    ("x.json", b"a,b\n1,2\n", "is no file of JSON lines: it begins with 'a,b'"),
    ("x.json", b'{"a": [' + b"1," * 9_000_000 + b"1]}", "has a line of more than 16 MB from byte 0 on"),
    ("x.parquet", b"", "is empty: it has 0 bytes"),
    ("x.parquet", b"hello world" * 10, "is no Parquet file: it begins with b'hello worldhello wor'"),
    ("x.parquet", b"PAR1" + b"x" * 100, "is not a complete Parquet file: Parquet magic bytes not found in footer"),
    ("x.parquet", b"Obj\x01" + b"x" * 100, "is an Avro file by its first bytes, and not a Parquet file as its name"),
    ("x.avro", b"hello", "is no Avro file: it begins with b'hello'"),
    ("x.csv", b"root" + b"x" * 100, 'rename it, or set "dtype": "root" in params.json'),
]


@pytest.mark.parametrize(("name", "data", "message"), BROKEN, ids=range(len(BROKEN)))
def test_a_broken_file_is_named_with_the_place_and_the_finding(
    tmp_path: Path, name: str, data: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(RequestError, match=message) as caught:
        opened(str(tmp_path / name), "")
    assert f"'{tmp_path / name}'" in str(caught.value)


@pytest.mark.parametrize("cut", [10, 3_000, -1])
def test_an_avro_file_that_is_cut_short_is_refused(contents: dict[str, bytes], tmp_path: Path, cut: int) -> None:
    path = tmp_path / "x.avro"
    path.write_bytes(contents["events.avro"][:cut])
    with pytest.raises(RequestError, match="is no(t a)? complete Avro file"):
        opened(str(path), "")


def test_a_schema_that_contains_itself_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "x.avro"
    fields = [{"name": f"f{number}", "type": ["null", "E"]} for number in range(100)]
    with path.open("wb") as out:
        fastavro.writer(out, {"type": "record", "name": "E", "fields": fields}, [])
    with pytest.raises(RequestError, match="has more than 20,000 fields"):
        opened(str(path), "")


def test_a_last_line_without_end_is_told(tmp_path: Path) -> None:
    file, values = read_text(tmp_path, "x.csv", "a,b\n1,2\n1,2")
    assert values == {"a": [1, 1], "b": [2, 2]}
    assert file.notes == ("the last line has no end; if the file was cut short, its last event is wrong",)


def test_the_user_may_say_the_format(tmp_path: Path) -> None:
    assert read_text(tmp_path, "x.dat", "a\n1\n", dtype="csv")[1] == {"a": [1]}
    assert read_text(tmp_path, "x.csv", '{"a": 1}\n', dtype="json")[1] == {"a": [1]}
    data = (write(tmp_path, ["events.parquet"], BRANCHES)[0]).read_bytes()
    assert len(read_text(tmp_path, "noname", data)[1]["met"]) == N  # by its first bytes
    with pytest.raises(
        RequestError, match='is a Parquet file by its first bytes, and not a CSV file as "dtype": "csv"'
    ):
        read_text(tmp_path, "x.parquet", data, dtype="csv")


def test_a_column_that_does_not_exist_is_named_with_the_closest(tmp_path: Path) -> None:
    file, _ = read_text(tmp_path, "x.csv", "met,pt\n1,2\n")
    with pytest.raises(RequestError, match="'.*x.csv' has no branch 'mat'; closest: met"):
        read(file.url, file.identity, "", branches=["mat"], entries=EntryRange(0, 1))


def names_of(values: Sequence[tuple[str, str]]) -> list[str]:
    return [name for name, _ in values]


def test_two_columns_of_one_name_give_the_first(tmp_path: Path) -> None:
    file, values = read_text(tmp_path, "x.json", '{"a.b": 1, "a": {"b": 2}}\n')
    assert values == {"a.b": [1]}
    assert names_of(file.left_out) == ["a.b"]


FUNCTION = """
import math

def preprocessing(record):
    record["log"] = math.log(record.pop("met"))
    record["charge"] = {"plus": 1, "minus": -1}[record["sign"]]
    return record
"""


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("x.json", '{"met": 1, "sign": "plus"}\n\n{"met": 2, "sign": "minus"}\n'),
        ("x.csv", "met,sign\n1,plus\n2,minus\n"),
    ],
)
def test_the_users_function_changes_each_record(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    file = opened(str(tmp_path / name), "", form=Form(record_function=FUNCTION))
    values = {name: branch.tolist() for name, branch in all_of(file).items()}  # type: ignore[union-attr]
    assert values == {"log": [0.0, float(np.log(2))], "charge": [1, -1]}
    assert (
        file.left_out == (("sign", "string"),) if name == "x.json" else (("sign", "text, such as 'plus' in entry 0"),)
    )


DEFINE = "def preprocessing(record):\n    "
WRONG = [
    (f"{DEFINE}return {{'a': record['x']}}", "x.json', entry 1: line 2 of the file of 'preproc': KeyError: 'x'"),
    (f"{DEFINE}print(record)", r"x.json', entry 0: preprocessing\(record\) returned NoneType; it returns the record"),
    ("def other(record): ...", r"the file of 'preproc' has no function preprocessing\(record\)"),
    ("def preprocessing(record:", "line 1 of the file of 'preproc': SyntaxError"),
    (f"{DEFINE}import socket; socket.create_connection(('127.0.0.1', 9))", "entry 0: line 2 of .*PermissionError"),
    (f"{DEFINE}return {{'a': open('/etc/passwd').read()}}", "entry 0: line 2 of .*PermissionError"),
    (f"{DEFINE}import os; os._exit(3)", "'.*x.json' cannot be read: the process that reads it"),
    (f"{DEFINE}return {{'a': 2**70}}", r"'a' of preprocessing\(record\), entry 0 or one after it"),
    (
        f"{DEFINE}return {{'a': 1 if 'x' in record else 'b'}}",
        r"'a' of preprocessing\(record\), entry 0 or one after it",
    ),
]


@pytest.mark.parametrize(("source", "message"), WRONG, ids=range(len(WRONG)))
def test_an_error_of_the_users_function_is_named_with_entry_and_line(tmp_path: Path, source: str, message: str) -> None:
    (tmp_path / "x.json").write_text('{"x": 1}\n{"y": 2}\n')
    with pytest.raises(RequestError, match=message):
        opened(str(tmp_path / "x.json"), "", form=Form(record_function=source))
