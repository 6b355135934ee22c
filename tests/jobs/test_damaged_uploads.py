"""What is uploaded and shown, whatever it is: refused with words, written to its own folder, bounded."""

import contextlib
import io
import os
import tarfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from hepfaas.errors import RequestError
from hepfaas.inputs.images import pixels
from hepfaas.jobs.bundles import Bundle, bundle_in, files_of
from hepfaas.platform.spool import Spool
from hepfaas.serving import uploads
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

BODIES = 40_000 if os.environ.get("HEPFAAS_CHAOS") == "all" else 300
MANY = settings(max_examples=BODIES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
NAMES = st.sampled_from(
    ["m/saved_model.pb", "m/variables/variables.index", "m/params.json", "m/labels.txt", "../x", "/tmp/x", "m/..", "m",
     "m/a/b.keras", "", "m/\\x", "m/" + 99 * "long/", "m/\udcff"]
)  # fmt: skip
CONTENTS = st.binary(max_size=40) | st.sampled_from([b"{}", b'{"name": "m", "model": 3}', b'{"labels": "../x"}', b"[1"])
MEMBERS = st.lists(st.tuples(NAMES, CONTENTS, st.sampled_from(tarfile.SUPPORTED_TYPES)), max_size=5)


def _unpacked(file: io.BytesIO, folder: Path, most_bytes: int) -> Bundle:
    with Spool(10**9).share("owner") as share:
        return uploads._unpack_tar(file, folder, most_bytes, share)


def damaged(data: st.DataObject, whole: bytes) -> bytes:
    found = bytearray(whole)
    for place in data.draw(st.lists(st.integers(0, max(0, len(found) - 1)), max_size=4)):
        found[place:] = bytes([data.draw(st.integers(0, 255))]) + found[place + 1 :]
    return bytes(found[: data.draw(st.integers(0, len(found)))] if data.draw(st.booleans()) else found)


def test_an_archive_whose_headers_are_no_text_is_refused(tmp_path: Path) -> None:
    out, header = io.BytesIO(), tarfile.TarInfo("header")
    told = b"16 hdrcharset=\xff\n"
    header.type, header.size = tarfile.XHDTYPE, len(told)
    with tarfile.open(fileobj=out, mode="w") as tar:
        tar.addfile(header, io.BytesIO(told))
        tar.addfile(tarfile.TarInfo("m"))
    with pytest.raises(RequestError, match="not a complete tar.gz archive"):
        _unpacked(io.BytesIO(out.getvalue()), tmp_path, 10_000)


def test_no_archive_is_a_fault_of_ours_or_leaves_its_folder(tmp_path: Path) -> None:
    count = 0

    @MANY
    @given(st.data(), MEMBERS, st.booleans())
    def sent(data: st.DataObject, members: list[tuple[str, bytes, bytes]], gzipped: bool) -> None:
        nonlocal count
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w:gz" if gzipped else "w", errors="surrogateescape") as tar:
            for name, content, kind in members:
                info = tarfile.TarInfo(name)
                info.size, info.type, info.linkname = len(content), kind, "/etc/passwd"
                tar.addfile(info, io.BytesIO(content))
        count += 1
        folder = tmp_path / str(count) / "model"
        folder.mkdir(parents=True)
        try:
            bundle = _unpacked(io.BytesIO(damaged(data, out.getvalue())), folder, 10_000)
            assert all(path.is_relative_to(folder) for path in files_of(bundle).values())
        except RequestError:
            pass
        assert not any(path.is_symlink() for path in folder.rglob("*"))
        assert list(folder.parent.iterdir()) == [folder]

    sent()
    assert sorted(int(path.name) for path in tmp_path.iterdir()) == list(range(1, count + 1))


def test_no_picture_is_a_fault_of_ours() -> None:
    whole = {}
    for kind in ("PNG", "JPEG"):
        out = io.BytesIO()
        Image.fromarray(np.arange(72, dtype="u1").reshape(6, 4, 3)).save(out, kind)
        whole[kind] = out.getvalue()

    @MANY
    @given(
        st.data(), st.sampled_from(["PNG", "JPEG"]), st.sampled_from([(6, 4, 3), (6, 4, 1), (6, 4), (5,), (2, 2, 9)])
    )
    def sent(data: st.DataObject, kind: str, shape: tuple[int, ...]) -> None:
        with contextlib.suppress(RequestError):
            assert pixels(io.BytesIO(damaged(data, whole[kind])), shape, "m").shape == shape

    sent()


@pytest.mark.parametrize(
    ("mode", "channels"), [("L", 1), ("L", 3), ("RGB", 1), ("RGBA", 3), ("P", 3), ("1", 1), ("RGB", 4)]
)
def test_a_picture_has_the_channels_that_the_model_takes(mode: str, channels: int) -> None:
    drawn = np.random.default_rng(1).integers(0, 256, (5, 4, 4)).astype("u1")
    picture = Image.fromarray(drawn, "RGBA").convert(mode) if mode != "RGBA" else Image.fromarray(drawn)
    out = io.BytesIO()
    picture.save(out, "PNG")
    found = pixels(out, (5, 4, channels), "m")
    wanted = {1: "L", 3: "RGB", 4: "RGBA"}[channels]
    assert np.array_equal(found, np.asarray(picture.convert(wanted), "f4").reshape(5, 4, channels))
    assert (found.min() >= 0, found.max() <= 255) == (True, True)


def test_a_picture_of_sixteen_bits_keeps_the_upper_eight() -> None:
    drawn = np.random.default_rng(1).integers(0, 65_536, (5, 4)).astype("<u2")
    out = io.BytesIO()
    Image.fromarray(drawn).save(out, "PNG")
    assert np.array_equal(pixels(out, (5, 4, 1), "m")[:, :, 0], (drawn >> 8).astype("f4"))


@pytest.mark.parametrize(
    ("files", "params", "expected"),
    [
        (("a.pb",), '{"inputNode": "i", "outputNode": "o"}', ("frozen_graph", "a.pb", "i", "o")),
        (("a.pb",), '{"input_node": "i", "output_node": "o", "op": "x"}', ("frozen_graph", "a.pb", "i", "o")),
        (("saved_model.pb",), "{}", ("frozen_graph", "saved_model.pb", "", "")),
        (("saved_model.pb", "variables/v"), '{"inputNode": "i", "input_name": "n"}', ("saved_model", ".", "n", "")),
        (("a.keras", "b.h5"), '{"model": "b.h5"}', ("keras", "b.h5", "", "")),
    ],
)
def test_both_dialects_and_every_kind_of_model_are_recognised(
    tmp_path: Path, files: tuple[str, ...], params: str, expected: tuple[str, ...]
) -> None:
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    (tmp_path / "params.json").write_text(params)
    (tmp_path / "labels.txt").write_text("cat\n\ndog\n")
    found: Bundle = bundle_in(tmp_path, "m")
    assert (found.format, found.file, found.input, found.output) == expected
    assert (found.labels, found.params["name"]) == (("cat", "dog"), "m")


def test_a_small_archive_that_becomes_large_is_read_no_further(tmp_path: Path) -> None:
    squeezed = zlib.compressobj(9, wbits=31)
    block = tarfile.TarInfo("m/x").tobuf(tarfile.PAX_FORMAT)
    header = tarfile.TarInfo("m/a.pb")
    header.size = 10**12
    bomb = squeezed.compress(block + header.tobuf(tarfile.PAX_FORMAT) + bytes(100_000_000)) + squeezed.flush()
    assert len(bomb) < 200_000
    with pytest.raises(RequestError, match="larger than 1 MB"):
        _unpacked(io.BytesIO(bomb), tmp_path, 1_000_000)
    assert sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()) <= 1_000_000
