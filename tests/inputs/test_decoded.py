"""What documents take once they are decoded is told from what they hold themselves."""

import io
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hepfaas.errors import RequestError
from hepfaas.inputs.decoded import MOST_FOOTER_BYTES, PAGE_BYTES, VALUE_BYTES, arrow_table, pages_of, parquet_table

ROWS = 30_000
TABLE = pa.table(
    {
        "met": np.random.default_rng(1).random(ROWS, dtype=np.float32),
        "lep_pt": pa.array([[1.5] * (number % 3) for number in range(ROWS)], pa.list_(pa.float32())),
        "event": np.arange(ROWS),
    }
)


def arrow(is_file: bool, compression: str | None) -> bytes:
    out = io.BytesIO()
    new = pa.ipc.new_file if is_file else pa.ipc.new_stream
    with new(out, TABLE.schema, options=pa.ipc.IpcWriteOptions(compression=compression)) as writer:
        writer.write_table(TABLE, max_chunksize=7_000)
    return out.getvalue()


@pytest.mark.parametrize("compression", [None, "lz4", "zstd"])
@pytest.mark.parametrize("is_file", [False, True])
def test_arrow_is_the_same_table_and_takes_as_much_however_it_is_written(is_file: bool, compression: str) -> None:
    held: list[int] = []
    table = arrow_table(arrow(is_file, compression), is_file, held.append)
    assert table.combine_chunks() == TABLE.combine_chunks()
    values = 3 * ROWS + len(TABLE["lep_pt"].combine_chunks().flatten())
    assert VALUE_BYTES * values <= held[-1] < 1.1 * VALUE_BYTES * values
    assert held == sorted(held)


@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("dictionary", [False, True])
def test_every_page_of_parquet_is_found(version: str, dictionary: bool) -> None:
    out = io.BytesIO()
    more: dict[str, Any] = {"data_page_version": version, "use_dictionary": dictionary}
    pq.write_table(TABLE, out, row_group_size=11_000, data_page_size=5_000, **more)
    body = out.getvalue()
    with pq.ParquetFile(io.BytesIO(body)) as file:
        for number in range(file.metadata.num_row_groups):
            for place in range(3):
                column = file.metadata.row_group(number).column(place)
                pages = list(pages_of(body, column))
                assert len(pages) > dictionary
                values = sum(values for _, values in pages[dictionary:])
                assert values == column.num_values
                assert 0 < column.total_uncompressed_size - sum(size for size, _ in pages) < 100 * len(pages)


def test_parquet_is_read_in_part_and_takes_what_that_part_takes() -> None:
    out = io.BytesIO()
    pq.write_table(TABLE, out, row_group_size=11_000)
    held: list[int] = []
    table = parquet_table(out.getvalue(), lambda names: [name for name in names if name != "event"], held.append)
    assert table.combine_chunks() == TABLE.select(["met", "lep_pt"]).combine_chunks()
    assert max(held) < 4 * VALUE_BYTES * ROWS + VALUE_BYTES * ROWS + 1_000_000


def test_a_footer_that_takes_much_itself_is_refused() -> None:
    body = b"PAR1" + b"\0" * 20 + (MOST_FOOTER_BYTES + 1).to_bytes(4, "little") + b"PAR1"
    with pytest.raises(RequestError, match="footer has more than"):
        parquet_table(body, list, [].append)


def test_a_length_below_zero_in_arrow_takes_nothing_off_what_others_need() -> None:
    """Of two large columns one says of itself, compressed, that it has as many bytes fewer than none."""
    zeros, out = pa.py_buffer(bytes(3_000_000)), io.BytesIO()
    ends = pa.py_buffer(np.array([0, len(zeros)], dtype=np.int64))
    column = pa.Array.from_buffers(pa.large_binary(), 1, [None, ends, zeros])
    table = pa.table({"one": column, "two": column})
    with pa.ipc.new_stream(out, table.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        writer.write_table(table)
    said = len(zeros).to_bytes(8, "little", signed=True)
    assert out.getvalue().count(said) >= 2
    body = (-len(zeros)).to_bytes(8, "little", signed=True).join(out.getvalue().rsplit(said, 1))
    held: list[int] = []
    with pytest.raises(RequestError, match="a negative length or offset"):
        arrow_table(body, False, held.append)
    assert held == [held[0]]  # of the schema alone


def varint(number: int) -> bytes:
    encoded = b""
    while number > 127:
        encoded, number = encoded + bytes([number & 127 | 128]), number >> 7
    return encoded + bytes([number])


def page(kind: int, *parts: tuple[int, int]) -> bytes:
    """A page's header in Thrift's compact protocol: of a type, without bytes, with values in the fields 5, 7 or 8."""
    text, last = b"".join(b"\x15" + varint(2 * number) for number in (kind, 0, 0)), 3
    for field, values in parts:
        text += bytes([(field - last) << 4 | 12]) + b"\x15" + varint(2 * values) + b"\0"
        last = field
    return text + b"\0"


class Column:
    """As a Parquet footer describes one."""

    path_in_schema, has_dictionary_page, data_page_offset = "x", False, 4

    def __init__(self, size: int) -> None:
        self.total_compressed_size = size


@pytest.mark.parametrize(("kind", "field"), [(0, 5), (2, 7), (3, 8)])
def test_a_page_has_the_values_that_its_own_type_tells(kind: int, field: int) -> None:
    parts = [(number, 7 if number == field else 0) for number in (5, 7, 8)]
    body = b"PAR1" + page(kind, *parts)
    assert list(pages_of(body, Column(len(body) - 4))) == [(0, 7)]
    for wrong in (page(kind, *[part for part in parts if part[0] != field]), page(1, *parts), page(9, *parts)):
        with pytest.raises(RequestError, match="a damaged page"):
            list(pages_of(b"PAR1" + wrong, Column(len(wrong))))


def test_pages_without_anything_take_something_each() -> None:
    out, held = io.BytesIO(), list[int]()
    pq.write_table(pa.table({"x": [1.0]}), out, compression=None, use_dictionary=False)
    whole = parquet_table(out.getvalue(), list, held.append)
    assert whole.num_rows == 1
    assert held[-1] >= PAGE_BYTES
