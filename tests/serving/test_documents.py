"""Documents of raw events: Arrow, Parquet, ROOT and JSON, and the types of their columns."""

import io
import json
from pathlib import Path
from typing import Any

import awkward as ak
import httpx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import uproot
from hepfaas.datasets.opened import opened
from hepfaas.inputs import raw_events
from hepfaas.models import versions
from hepfaas.models.served import served_of
from hepfaas.training.prepared import StoredPart
from support.serving import ARROW, PARQUET, PREDICT, ROOT, Served, documents, memory_mb, same, typed

HOLD = [].append
FLAT = [
    *((type_, [3, 0, 70, 5]) for type_ in (pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint64())),
    *((type_, [1.5, 41.1, 0, -3]) for type_ in (pa.float16(), pa.float32(), pa.float64())),
    (pa.dictionary(pa.int32(), pa.float64()), [1.5, 41.1, 0, 1.5]),
]
LISTS = [
    *((kind(type_), [[3, 1], [], [70], [5, 2]]) for kind in (pa.list_, pa.large_list) for type_, _ in FLAT[:9]),
    *((pa.list_(type_, 2), [[3, 1], [4, 0], [70, 7], [5, 2]]) for type_ in (pa.float32(), pa.int64())),
    (pa.list_(pa.field("item", pa.float32(), nullable=False)), [[3.5, 1], [], [70.25], [5, 2]]),
]


def chunked(values: list[Any], type_: pa.DataType) -> pa.ChunkedArray:
    """In chunks, one without events and one that was cut out of a longer one."""
    parts = [pa.array(values[:1], type_), pa.array([], type_), pa.array([*values, *values], type_)[1 : len(values)]]
    return pa.chunked_array(parts, type_)


def dictionaries(values: list[Any], type_: pa.DataType) -> pa.ChunkedArray:
    """Lists of numbers that are numbers of a dictionary."""
    lists = pa.array(values, pa.list_(type_))
    return pa.chunked_array([pa.ListArray.from_arrays(lists.offsets, lists.values.dictionary_encode())])


def events_of(table: pa.Table) -> dict[str, Any]:
    """As JSON: halves as floats of Python's own."""
    return {name: json.loads(json.dumps(table[name].to_pylist(), default=float)) for name in table.column_names}


def in_documents(table: pa.Table) -> dict[str, bytes]:
    """A table in each form."""
    table = table.unify_dictionaries()  # a file has one of a column
    arrow, file, parquet = io.BytesIO(), io.BytesIO(), io.BytesIO()
    with pa.ipc.new_stream(arrow, table.schema) as stream:
        stream.write_table(table)
    with pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)
    pq.write_table(table, parquet)
    return {ARROW: arrow.getvalue(), "application/vnd.apache.arrow.file": file.getvalue(), PARQUET: parquet.getvalue()}


def in_arrow(table: pa.Table) -> bytes:
    out = io.BytesIO()
    with pa.ipc.new_stream(out, table.schema) as stream:
        stream.write_table(table)
    return out.getvalue()


def scored(served: Served, name: str, body: bytes, kind: str) -> dict[str, Any]:
    answer = served.http.post(f"/v1/models/{name}/predict", content=body, headers={"Content-Type": kind})
    assert answer.status_code == 200, answer.text
    scores: dict[str, Any] = answer.json()["scores"]
    return scores


def check_is_as_json(served: Served, name: str, table: pa.Table) -> None:
    expected = scored(served, name, json.dumps({"events": events_of(table)}).encode(), "application/json")
    assert len(expected["score"]) == table.num_rows
    for kind, body in in_documents(table).items():
        assert scored(served, name, body, kind) == expected, (kind, table.schema)


def test_documents_of_events_get_documents_of_scores(served: Served) -> None:
    sent = documents(served.events, served.file)
    del sent["application/json"]
    read = {
        ARROW: lambda data: pa.ipc.open_stream(data).read_all()["score"].to_numpy(),
        PARQUET: lambda data: pq.read_table(io.BytesIO(data))["score"].to_numpy(),
        ROOT: lambda data: uproot.open(io.BytesIO(data))["scores"]["score"].array(library="np"),
    }
    for kind, body in sent.items():
        for wanted in sent:
            answer = served.http.post(PREDICT, content=body, headers={"Content-Type": kind, "Accept": wanted})
            assert (answer.status_code, answer.headers["content-type"]) == (200, wanted)
            assert same(read[wanted](answer.content), served.scores)


@pytest.mark.parametrize("types", [("float32", "float32"), ("float64", "float16"), ("int32", "int32")])
def test_whatever_pyarrow_writes_gets_the_scores_of_its_events_as_json(served: Served, types: tuple[str, str]) -> None:
    name, count = typed(served, *types), 4
    is_whole = types[0].startswith("int")
    flat = [one for one in FLAT if not is_whole or pa.types.is_integer(one[0])]
    lists = [one for one in LISTS if not is_whole or pa.types.is_integer(one[0].value_type)]
    numbers = chunked([7, 1, 2, 3], pa.uint32())
    for number in range(max(len(flat), len(lists))):
        (met, values), (lep_pt, jagged) = flat[number % len(flat)], lists[number % len(lists)]
        columns = {"met": chunked(values, met), "lep_pt": chunked(jagged, lep_pt), "event": numbers}
        assert len(columns["met"]) == len(columns["lep_pt"]) == count
        check_is_as_json(served, name, pa.table(columns))
    extended = {"met": [1.0, 2.0, 3.0, 4.0], "lep_pt": [[3, 1], [], [70], [5, 2]]}
    check_is_as_json(served, name, ak.to_arrow_table(ak.Array(extended), extensionarray=True))
    check_is_as_json(
        served,
        name,
        pa.table({"met": [1, 2, 3, 4], "lep_pt": dictionaries([[3, 1], [], [70], [5, 2]], pa.int64())}),
    )


def test_null_is_nan_among_floats_and_an_empty_list_stays_one(served: Served) -> None:
    for met in (pa.float16(), pa.float32(), pa.float64(), pa.int64()):
        for lep_pt in (pa.list_(pa.float32()), pa.large_list(pa.float64()), pa.list_(pa.int16())):
            columns = {"met": pa.array([1, None, 3], met), "lep_pt": pa.array([[], [None, 4], [7]], lep_pt)}
            check_is_as_json(served, "job", pa.table(columns))
    check_is_as_json(served, "job", pa.table({"met": [1.0, 2.0], "lep_pt": [[], []]}))  # a list of no type


def test_a_table_without_events_gets_no_scores(served: Served) -> None:
    typeless = {"met": [], "lep_pt": [], "event": []}
    fields = {"met": pa.float32(), "lep_pt": pa.list_(pa.float32()), "event": pa.int64()}
    for table in (pa.table(typeless), pa.table(typeless, pa.schema(fields)), pa.schema(fields).empty_table()):
        for kind, body in in_documents(table).items():
            assert scored(served, "job", body, kind)["score"] == []
            for accept in (ARROW, PARQUET, ROOT):
                headers = {"Content-Type": kind, "Accept": accept}
                assert served.http.post(PREDICT, content=body, headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("met", "lep_pt", "event", "finding"),
    [
        (
            None,
            pa.array([None, [50.0, 60.0], [70.0]]),
            None,
            "column 'lep_pt': event 0 is null; it takes a list for each event",
        ),
        (None, pa.nulls(3), None, "column 'lep_pt': event 0 is null"),
        (pa.nulls(3), None, None, "column 'met' has type null; it takes a number for each event, of numbers"),
        (pa.array(["1", "2", "3"]), None, None, "column 'met' has type string; it takes a number"),
        (pa.array([[1], [2], [3]]), None, None, "column 'met' has type list<item: int64>; it takes a number"),
        (pa.array([True, None, False]), None, None, "column 'met' has type bool; it takes a number"),
        (pa.array([1, 2, 3], pa.timestamp("s")), None, None, "column 'met' has type timestamp[s]; it takes a number"),
        (pa.array([1, 2, 3], pa.decimal128(9)), None, None, "column 'met' has type decimal128(9, 0); it takes"),
        (pa.array([1, 1e300, 3]), None, None, "column 'met': event 1 is 1e+300; it takes numbers up to 3.4e+38"),
        (pa.array([{"x": 1}] * 3), None, None, "column 'met' has type struct<x: int64>; it takes a number"),
        (None, pa.array([1.0, 2.0, 3.0]), None, "column 'lep_pt' has type double; it takes a list for each event"),
        (None, pa.array([[["1"]]] * 3), None, "column 'lep_pt' has type list<item: list<item: string>>; it takes a"),
        (None, pa.array([[None]] * 3), None, "column 'lep_pt' has type list<item: null>; it takes a list"),
        (None, pa.array([[1]] * 3, pa.list_view(pa.int8())), None, "column 'lep_pt' has type list_view<item: int8>;"),
        (None, pa.array([[], [1, 1e300], []]), None, "column 'lep_pt': value 1 of event 1 is 1e+300"),
        (None, None, pa.array(["a", "b", "c"]), "column 'event' has type string; it takes a whole number for each"),
        (None, None, pa.array([[1], [2], [3]]), "column 'event' has type list<item: int64>; it takes a whole number"),
        (None, None, pa.array([1, 2, 3], pa.timestamp("us")), "column 'event' has type timestamp[us]; it takes a"),
        (
            None,
            None,
            pa.array([1, None, 3]),
            "column 'event': event 1 is missing (null or NaN); it takes whole numbers",
        ),
        (None, None, pa.array([1, 1.5, 3]), "column 'event': event 1 is 1.5; it takes whole numbers"),
    ],
)
def test_columns_of_other_types_are_refused_by_name(
    served: Served, met: Any, lep_pt: Any, event: Any, finding: str
) -> None:
    columns = {
        "met": pa.array([1.0, 2.0, 3.0]),
        "lep_pt": pa.array([[1.0], [2.0], [3.0]]),
        "event": pa.array([1, 2, 3]),
    }
    replaced = {"met": met, "lep_pt": lep_pt, "event": event}
    table = pa.table({name: values if replaced[name] is None else replaced[name] for name, values in columns.items()})
    body = in_arrow(table)
    for accept in ("application/json", ROOT):
        headers = {"Content-Type": ARROW, "Accept": accept}
        answer = served.http.post(PREDICT, content=body, headers=headers)
        assert (answer.status_code, finding in answer.json()["error"]) == (422, True), answer.text


def test_two_columns_of_one_name_are_refused(served: Served) -> None:
    twice = pa.table([pa.array([1.0]), pa.array([2.0]), pa.array([[1.0]])], names=["met", "met", "lep_pt"])
    answer = served.http.post(PREDICT, content=in_arrow(twice), headers={"Content-Type": ARROW})
    assert (answer.status_code, answer.json()["error"].partition(";")[0]) == (422, "the table has 2 columns 'met'")


def test_the_number_of_an_event_in_a_table_is_given_back_in_its_type(served: Served) -> None:
    for event, expected in ((pa.array([2**63, 1], pa.uint64()), pa.uint64()), (pa.array([5.0, 1.0]), pa.int64())):
        table = pa.table({"met": [1.0, 2.0], "lep_pt": [[], [1.0]], "event": event})
        headers = {"Content-Type": ARROW, "Accept": ARROW}
        answer = served.http.post(PREDICT, content=in_arrow(table), headers=headers)
        events = pa.ipc.open_stream(answer.content).read_all()["event"]
        assert (events.type, events.to_pylist()) == (expected, [int(one) for one in event.to_pylist()])


@pytest.mark.parametrize(
    ("met", "lep_pt", "event", "finding"),
    [
        ([1.7], [[]], [1], "branch 'met': event 0 is 1.7; it takes whole numbers from -2147483648 to 2147483647"),
        (["1"], [[]], [1], "branch 'met': event 0 is \"1\"; it takes whole numbers"),
        ([True], [[]], [1], "branch 'met': event 0 is true; it takes whole numbers"),
        ([None], [[]], [1], "branch 'met': event 0 is null; it takes whole numbers"),
        ([2**31], [[]], [1], "branch 'met': event 0 is 2147483648; it takes whole numbers"),
        ([1, 2], [[7], [1, 300]], [1, 2], "branch 'lep_pt': value 1 of event 1 is 300; it takes whole numbers from 0"),
        ([1, 2], [[7], None], [1, 2], "branch 'lep_pt' is jagged: each event has a list of values"),
        ([1], [[[1]]], [1], "branch 'lep_pt': an event has one list of values"),
        ([1], [[[1, "x"]]], [1], "branch 'lep_pt': value 1 is \"x\""),
        ([1], [[]], [1.5], "branch 'event': event 0 is 1.5; it takes whole numbers"),
    ],
)
def test_raw_events_of_another_type_are_refused_by_their_place(
    served: Served, met: Any, lep_pt: Any, event: Any, finding: str
) -> None:
    name = typed(served, "int32", "uint8")
    answer = served.http.post(
        f"/v1/models/{name}/predict", json={"events": {"met": met, "lep_pt": lep_pt, "event": event}}
    )
    assert (answer.status_code, finding in answer.json()["error"]) == (422, True), answer.text


def test_vectors_are_those_that_training_saw_bit_for_bit(served: Served) -> None:
    stored = np.zeros_like(served.features)
    identity, seen = opened(str(served.file), "Events").identity, 0
    for key in served.store.keys("steps/prepare/"):
        data = served.store.get(key)
        part = StoredPart(lambda start, stop, data=data: data[start:stop], len(data))
        if part.facts.file == identity:
            with pa.ipc.open_file(data) as file:
                table = file.read_all()
            features = table["features"].combine_chunks().flatten().to_numpy()
            stored[table["entry"].to_numpy()] = features.reshape(table.num_rows, -1)
            seen += table.num_rows
    assert seen == len(stored)
    model = served_of(served.store, versions.find(served.store, "job"))
    for kind, body in documents(served.events, served.file).items():
        features = raw_events.vectors_of_events(
            model, raw_events.events_in(model, kind, body, hold=HOLD), HOLD
        ).features
        assert features.tobytes() == stored.tobytes(), kind


def bombs(folder: Path) -> dict[str, bytes]:
    """Small bodies of very many events, by their media types."""
    rows = 9_000_000
    ones = np.ones(rows, dtype=np.float32)
    lists = pa.ListArray.from_arrays(np.arange(rows + 1, dtype=np.int32), ones)
    table = pa.table({"met": ones, "lep_pt": lists})
    bodies = {}
    for kind, new in ((ARROW, pa.ipc.new_stream), ("application/vnd.apache.arrow.file", pa.ipc.new_file)):
        out = io.BytesIO()
        with new(out, table.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
            writer.write_table(table, max_chunksize=1_000_000)
        bodies[kind] = out.getvalue()
    out = io.BytesIO()
    pq.write_table(table, out, compression="zstd")
    bodies[PARQUET] = out.getvalue()
    with uproot.recreate(folder / "bomb.root", compression=uproot.ZSTD(1)) as file:
        tree = file.mktree("Events", {"met": "float32", "lep_pt": "var * float32"})
        jagged = ak.unflatten(ones[: rows // 9], np.ones(rows // 9, dtype=np.int64))
        for _ in range(9):
            tree.extend({"met": ones[: rows // 9], "lep_pt": jagged})
    bodies[ROOT] = (folder / "bomb.root").read_bytes()
    bodies["application/json"] = b'{"events": {"met": [], "lep_pt": [' + b"[]," * 3_500_000 + b"[]]}}"
    return bodies


def test_small_bodies_of_many_events_are_refused_before_they_are_decoded(served: Served, tmp_path: Path) -> None:
    bodies = bombs(tmp_path)
    with (
        served.started(HEPFAAS_PREDICT_BODY_BYTES="64000000") as (process, port),
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as http,
    ):
        for kind, body in documents(served.events, served.file).items():
            assert http.post(PREDICT, content=body, headers={"Content-Type": kind}).status_code == 200, kind
        before = memory_mb(process)
        for kind, body in bodies.items():
            answer = http.post(PREDICT, content=body, headers={"Content-Type": kind})
            assert answer.status_code == 413, (kind, len(body), answer.text[:1_000])
            assert "at most 256,000,000 may be (HEPFAAS_PREDICT_WAITING_BYTES)" in answer.json()["error"]
            assert "many events in 'files' become a run" in answer.json()["error"]
            assert memory_mb(process, "VmHWM") < before + 60 + 3 * len(body) / 1e6, kind
