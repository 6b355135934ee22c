"""Small bodies that unpack to gigabytes of memory or disk: the real functions refuse them in bounded memory."""

import contextlib
import functools
import gzip
import io
import json
import os
import socket
import tarfile
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import pytest
from hepfaas.errors import LimitError, UnavailableError
from hepfaas.platform.spool import Spool
from support.identities import Process, function
from support.servers import LIMIT_S

MB = 1_000_000
MOST_MB = 100
"""Memory that a refused body may take after a first request; 50 MB of it are noise of the heap."""
ZEROS_MB = 900
SPOOL = 20 * MB
JSON = {"Content-Type": "application/json"}
GZIP = {"Content-Type": "application/gzip"}
BOUNDARY = b"b0undary"


@dataclass(frozen=True)
class Running:
    """A function in its own process, and the folder of its temporary files."""

    process: Process
    scratch: Path

    @property
    def url(self) -> str:
        return self.process.url

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def processes(self) -> list[psutil.Process]:
        """Return gunicorn, the process that answers, and the confined workers."""
        parent = psutil.Process(self.process._process.pid)
        return [parent, *parent.children(recursive=True)]

    def took_mb(self, attack: Callable[[], object]) -> float:
        """Return by how much an attack raises the peak memory of the processes."""
        before = {}
        for one in self.processes():
            Path(f"/proc/{one.pid}/clear_refs").write_text("5")  # resets the peak
            before[one] = one.memory_info().rss
        attack()
        peaks = {one: Path(f"/proc/{one.pid}/status").read_text() for one in before}
        return sum(int(peak.split("VmHWM:")[1].split()[0]) * 1024 - before[one] for one, peak in peaks.items()) / MB

    def disk_bytes(self) -> int:
        """Return the size of its temporary files, including removed ones that are still open."""
        files = []
        for folder, _, names in os.walk(self.scratch):  # without folders that are removed meanwhile
            for name in names:
                with contextlib.suppress(FileNotFoundError):  # removed meanwhile
                    files.append(Path(folder, name).stat())
        for worker in self.processes():
            with contextlib.suppress(FileNotFoundError):  # the worker ended meanwhile
                for place in Path(f"/proc/{worker.pid}/fd").iterdir():
                    with contextlib.suppress(OSError):
                        if place.readlink().is_relative_to(self.scratch):
                            files.append(place.stat())
        return sum({(stat.st_dev, stat.st_ino): stat.st_size for stat in files}.values())


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Running]]:
    """Start a function."""
    running: list[Process] = []

    def started(name: str, **variables: str) -> Running:
        folder = tmp_path_factory.mktemp(name)
        (scratch := folder / "scratch").mkdir()
        given = {"TMPDIR": str(scratch), "THREADS": "17", "HEPFAAS_CREDENTIALS_KEY": "A" * 43 + "=", **variables}
        running.append(function(folder, name, **given).__enter__())
        one = Running(running[-1], scratch)
        for path in ("/v1/models", "/models"):  # what is imported and connected at the first request
            httpx.get(f"{one.url}{path}", timeout=LIMIT_S)
        return one

    yield started
    for process in running:
        process.__exit__()


@pytest.fixture(scope="module")
def runs(start: Callable[..., Running]) -> Running:
    one = start("runs")
    httpx.post(f"{one.url}/v1/runs", content=tar(("files.txt", b"x")), headers=GZIP, timeout=LIMIT_S)
    return one


@pytest.fixture(scope="module")
def intake(start: Callable[..., Running]) -> Running:
    return start("intake")


@pytest.fixture(scope="module")
def predict(start: Callable[..., Running]) -> Running:
    one = start("predict")
    httpx.post(f"{one.url}/upload", content=tar(("m/x", b"x")), timeout=LIMIT_S)
    return one


@pytest.fixture(scope="module")
def small(start: Callable[..., Running]) -> Running:
    """Run `runs` with little disk space."""
    return start("runs", HEPFAAS_SPOOL_BYTES=str(SPOOL))


# bodies


def squeezed(*parts: bytes | int) -> bytes:
    """Return the gzip of bytes followed by this many zeros, without holding the zeros in memory."""
    out, crc, size = io.BytesIO(), 0, 0
    out.write(b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff")
    million = bytes(MB)
    squeeze = zlib.compressobj(9, wbits=-15)
    squeezed_million = squeeze.compress(million) + squeeze.flush(zlib.Z_FULL_FLUSH)
    for part in parts:
        if isinstance(part, int):
            for _ in range(part // MB):
                crc = zlib.crc32(million, crc)
            size += part // MB * MB
            out.write(squeezed_million * (part // MB))
            part = bytes(part % MB)
        crc, size = zlib.crc32(part, crc), size + len(part)
        squeeze = zlib.compressobj(9, wbits=-15)
        out.write(squeeze.compress(part) + squeeze.flush(zlib.Z_FULL_FLUSH))
    out.write(squeeze.flush() if not parts else zlib.compressobj(9, wbits=-15).flush())
    out.write((crc & 0xFFFFFFFF).to_bytes(4, "little") + (size & 0xFFFFFFFF).to_bytes(4, "little"))
    return out.getvalue()


def head(name: str, size: int = 0, kind: bytes = tarfile.REGTYPE) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    return info.tobuf(tarfile.GNU_FORMAT)


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % tarfile.BLOCKSIZE)


def tar(*files: tuple[str, bytes]) -> bytes:
    """Return a tar.gz."""
    return squeezed(b"".join(head(name, len(data)) + padded(data) for name, data in files) + bytes(1024))


def with_header(kind: bytes) -> bytes:
    """Return a member behind an extended header of 900 MB."""
    size = ZEROS_MB * MB // 512 * 512
    return squeezed(head("././@PaxHeader", size, kind), size, head("model.py") + bytes(1024))


def with_headers(kind: bytes, count: int) -> bytes:
    """Return a member behind many extended headers."""
    one = head("h", 20, kind) + padded(b"20 comment=12345678\n")
    return squeezed(one * count + head("model.py") + bytes(1024))


def with_global_headers() -> bytes:
    """Return many members, each after a global header with other keys."""

    def records(number: int) -> bytes:
        record = b"60000 k%d=" % number
        return record + b"v" * (60_000 - len(record) - 1) + b"\n"

    return squeezed(
        b"".join(
            head("g", 60_000, tarfile.XGLTYPE) + padded(records(number)) + head(f"f{number}") for number in range(2_000)
        )
        + bytes(1024)
    )


ARCHIVES: dict[str, Callable[[], bytes]] = {
    "a PAX header of 900 MB": lambda: with_header(tarfile.XHDTYPE),
    "a global PAX header of 900 MB": lambda: with_header(tarfile.XGLTYPE),
    "a PAX header of Solaris of 900 MB": lambda: with_header(tarfile.SOLARIS_XHDTYPE),
    "a GNU long name of 900 MB": lambda: with_header(tarfile.GNUTYPE_LONGNAME),
    "a GNU long link of 900 MB": lambda: with_header(tarfile.GNUTYPE_LONGLINK),
    "fifty thousand PAX headers before a member": lambda: with_headers(tarfile.XHDTYPE, 50_000),
    "fifty thousand long names before a member": lambda: with_headers(tarfile.GNUTYPE_LONGNAME, 50_000),
    "global headers that add up": with_global_headers,
    "twenty thousand members": lambda: squeezed(b"".join(head(f"f{n}") for n in range(20_000)) + bytes(1024)),
    "twenty thousand directories": lambda: squeezed(
        b"".join(head(f"d{n}", 0, tarfile.DIRTYPE) for n in range(20_000)) + bytes(1024)
    ),
    "members that lie deep": lambda: squeezed(
        b"".join(head(f"{n}/" + 40 * "d/" + "f") for n in range(9_000)) + bytes(1024)
    ),
    "members that bring their folders": lambda: squeezed(
        b"".join(head(f"{n}/" + 25 * "d/" + "f") for n in range(9_000)) + bytes(1024)
    ),
    "a file of a terabyte": lambda: squeezed(head("model.py", 10**12), ZEROS_MB * MB),
    "zeros": lambda: squeezed(head("x.root", ZEROS_MB * MB), ZEROS_MB * MB, bytes(2048)),
    "a negative size": lambda: squeezed(_signed(head("model.py"), 124, b"\xff" * 12) + bytes(2048)),
    "a sparse file": lambda: squeezed(_signed(head("model.py", 512, b"S"), 483, b"1" + b"7" * 11) + bytes(2048)),
    "gzip in gzip": lambda: gzip.compress(squeezed(300 * MB)),
    "a million gzip files": lambda: gzip.compress(b"", mtime=0) * 1_000_000,
}


@functools.cache
def archive(kind: str) -> bytes:
    """Return one of `ARCHIVES`, built once for all functions that it is sent to."""
    return ARCHIVES[kind]()


TEXTS = ("files.txt", "labels.txt", "model.py", "params.json", "submit.json")


def _signed(block: bytes, place: int, data: bytes) -> bytes:
    """Return a header with changed bytes and a correct checksum."""
    block = block[:place] + data + block[place + len(data) :]
    block = block[:148] + b" " * 8 + block[156:]
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def form(*parts: tuple[str, str | None, bytes]) -> bytes:
    """Return a form of (name, file name, content)."""
    out: list[bytes] = []
    for name, file, data in parts:
        called = f'; filename="{file}"'.encode() if file is not None else b""
        out.append(b'--%s\r\nContent-Disposition: form-data; name="%s"%s\r\n\r\n' % (BOUNDARY, name.encode(), called))
        out += [data, b"\r\n"]
    return b"".join([*out, b"--%s--\r\n" % BOUNDARY])


FORM = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY.decode()}"}


def sent(one: Running, path: str, body: bytes, headers: dict[str, str], method: str = "POST") -> httpx.Response:
    return httpx.request(method, f"{one.url}{path}", content=body, headers=headers, timeout=LIMIT_S)


def check_refused(one: Running, *requests: tuple[str, bytes, dict[str, str]], statuses: set[int]) -> None:
    """Check that each body is refused with a message in little memory, leaves no file, and that the function lives."""
    answers: list[httpx.Response] = []
    took = one.took_mb(lambda: answers.extend(sent(one, path, body, headers) for path, body, headers in requests))
    for answer in answers:
        assert answer.status_code in statuses, answer.text[:300]
        assert len(answer.content) < 6_000
    assert took < MOST_MB
    assert one.disk_bytes() == 0
    assert httpx.get(f"{one.url}/healthz", timeout=LIMIT_S).status_code == 204


# archives


@pytest.mark.parametrize("kind", ARCHIVES)
def test_no_archive_takes_much_memory_of_runs(runs: Running, kind: str) -> None:
    body = archive(kind)
    assert len(body) < 25 * MB
    packed = form(("file", "job.tar.gz", body))
    doors = [("/v1/runs", body, GZIP), ("/upload?name=bomb", packed, FORM)]
    check_refused(runs, *doors, statuses={422})


@pytest.mark.parametrize("kind", ARCHIVES)
def test_no_archive_takes_much_memory_of_predict(predict: Running, kind: str) -> None:
    body = archive(kind)
    check_refused(predict, ("/upload", body, GZIP), statuses={422})


@pytest.fixture(scope="module")
def unused(start: Callable[..., Running]) -> Running:
    """Run `runs` for the texts of folders alone: its heap has no room yet that others left."""
    return start("runs")


@pytest.mark.parametrize("name", TEXTS)
def test_a_text_of_a_folder_that_unpacks_to_gigabytes_is_not_read(unused: Running, name: str) -> None:
    """At most 99 MB of zeros, since the ratio alone would allow it."""
    others = [("files.txt", b"a.root\nb.root\n"), ("labels.txt", b"0\n1\n"), ("model.py", b"x"), ("a.root", b"x")]
    packed = b"".join(head(other, len(data)) + padded(data) for other, data in others if other != name)
    size = 98 * MB // 512 * 512
    check_refused(unused, ("/v1/runs", squeezed(packed + head(name, size), size, bytes(1024)), GZIP), statuses={422})


def test_a_folder_of_the_old_api_is_not_read_into_memory(runs: Running) -> None:
    size = 90 * MB
    files = head("files.txt", 6) + padded(b"a.root") + head("labels.txt", 1) + padded(b"0") + head("x.root", size)
    body = form(("file", "job.tar.gz", squeezed(files, size, bytes(-size % 512 + 1024))))
    assert sent(runs, "/upload?name=large", body, FORM).status_code == 200
    keys = ("name", "device", "memory", "cpus", "files", "labels", "model", "params")
    values = json.dumps({**dict.fromkeys(keys, "x"), "name": "large", "files": "files.txt"}).encode()
    check_refused(runs, ("/submit", values, JSON), statuses={422})


def test_an_archive_that_is_good_is_taken_however_it_is_packed(runs: Running) -> None:
    """GNU, PAX and ustar, long names, gzip in parts, without an end: as tar and Python write them."""
    files = {"files.txt": b"root://127.0.0.1//a\nroot://127.0.0.1//b\n", "labels.txt": b"0\n1\n", "model.py": b"x = 1"}
    long = "/".join(["folder" * 5] * 6) + "/näme.py"
    for kind in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT):
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w", format=kind) as archive:
            for name, data in {**files, long: b"y = 1"}.items():
                info = tarfile.TarInfo(f"job/{name}")
                info.size, info.mtime = len(data), 1.5 if kind == tarfile.PAX_FORMAT else 1
                archive.addfile(info, io.BytesIO(data))
        whole = out.getvalue()
        parts = gzip.compress(whole[:700]) + gzip.compress(whole[700:]) + bytes(100)
        for body in (whole, gzip.compress(whole), parts, whole.rstrip(b"\0") + bytes(-len(whole.rstrip(b"\0")) % 512)):
            answer = sent(runs, "/v1/runs", body, GZIP)
            # valid except for the addresses, which are private
            assert (answer.status_code, "private" in answer.text) == (422, True), answer.text


# JSON


def job(**values: object) -> bytes:
    usual = {"files": ["root://h//a", "root://h//b"], "labels": [0, 1], "code": {"model.py": "x = 1"}}
    return json.dumps({**usual, **values}).encode()


LONG = "x" * (7 * MB)
JOBS: dict[str, tuple[Callable[[], bytes], int]] = {
    "30 MB": (lambda: job(files=[f"f{n}" for n in range(2_500_000)]), 413),
    "empty lists": (lambda: b'{"files": [' + b"[]," * 2_600_000 + b"[]]}", 422),
    "empty objects": (lambda: b'{"files": [' + b'{"":0},' * 1_100_000 + b"0]}", 422),
    "numbers": (lambda: b'{"files": [' + b"1e1," * 1_900_000 + b"0]}", 422),
    "names": (lambda: b'{"files": [' + b'"aa",' * 1_500_000 + b"0]}", 422),
    "a million keys": (lambda: b"{" + b",".join(b'"%d":0' % n for n in range(700_000)) + b"}", 422),
    "nesting": (lambda: b'{"params": ' + b"[" * 90_000 + b"]" * 90_000 + b"}", 422),
    "nesting that Python bears": (lambda: b'{"params": ' + b'{"a":' * 900 + b"1" + b"}" * 901, 422),
    "brackets in a text that does not end": (lambda: b'{"params": "' + b'\\"[' * 2_000_000, 422),
    "a long key": (lambda: job(**{LONG: 1}), 422),
    "a long key of params": (lambda: job(params={LONG: 1}), 422),
    "a long name": (lambda: job(name=LONG), 422),
    "a long webhook": (lambda: job(webhook=f"http://{LONG}"), 422),
    "a long file": (lambda: job(files=[LONG, "b"]), 422),
    "characters of four bytes": (lambda: job(code={"\U0001f600.py": LONG[: 4 * MB] + "\U0001f600"}), 422),
    "digits": (lambda: b'{"labels": [' + b"9" * (7 * MB) + b"]}", 422),
    "the wrong kind": (lambda: job(code={"model.py": [[]] * 90_000}), 422),
    "names of many files": (lambda: job(code={f"{n}.py": "" for n in range(90_000)}), 422),
    "one file many times": (lambda: job(files=["root://h//a"] * 40_000, labels=[0] * 40_000), 422),
}  # fmt: skip


@pytest.mark.parametrize("kind", JOBS)
def test_no_job_in_json_takes_much_memory(runs: Running, kind: str) -> None:
    made, status = JOBS[kind]
    check_refused(runs, ("/v1/runs", made(), JSON), statuses={status})


def test_addresses_that_a_redirector_makes_long_are_refused(runs: Running) -> None:
    params = {"redirector": f"root://1.1.1.1//{'d' * 200}/" + 18 * f"{'e' * 199}/"}
    job = {
        "code": {"model.py": "x"},
        "files": [f"{n}.root" for n in range(19_000)],
        "labels": [n % 2 for n in range(19_000)],
    }
    body = json.dumps({**job, "params": params, "name": "m"}).encode()
    assert len(body) < MB
    assert (
        "'redirector' counts once for each file" in sent(runs, "/v1/runs", body, JSON).text
    )  # without a look-up of any host
    check_refused(runs, ("/v1/runs", body, JSON), statuses={422})


def test_sixteen_of_the_largest_jobs_at_once_take_bounded_memory(runs: Running) -> None:
    body = b'{"params": {"a":' + b"[" * 40 + b'{"":0},' * 30_000 + b'"' + b"x" * (7 * MB) + "\U0001f600".encode() + b'"'
    body += b"]" * 40 + b"}}"
    with ThreadPoolExecutor(16) as pool:
        took = runs.took_mb(lambda: list(pool.map(lambda _: sent(runs, "/v1/runs", body, JSON), range(16))))
    assert took < 350


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/submit"), ("POST", "/v1/credentials"), ("POST", "/v1/runs/a-1/cancel")]
)
def test_other_json_of_runs_is_small(runs: Running, method: str, path: str) -> None:
    body = b'{"name": [' + b"[]," * 10_000_000 + b"[]]}"
    check_refused(runs, (path, body, JSON), statuses={404, 413})


@pytest.mark.parametrize(
    ("method", "path"), [("PUT", "/v1/rules/r"), ("POST", "/v1/notifications"), ("POST", "/v1/events"), ("POST", "/")]
)
def test_json_of_intake_is_small(intake: Running, method: str, path: str) -> None:
    for body, statuses in (
        (b'{"a": [' + b"[]," * 10_000_000 + b"[]]}", {413}),
        (b'{"a": ' + b"[" * 99_000 + b"]" * 99_000 + b"}", {422}),
        (b'{"a": [' + b"{}," * 80_000 + b"0]}", {422}),
    ):
        answers: list[httpx.Response] = []

        def attack(body: bytes = body, answers: list[httpx.Response] = answers) -> None:
            answers.append(sent(intake, path, body, JSON, method))

        assert intake.took_mb(attack) < MOST_MB
        assert answers[0].status_code in statuses, answers[0].text[:200]


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/params"), ("PUT", "/v1/models/m/aliases/a"), ("DELETE", "/delete")]
)
def test_json_of_predict_that_has_no_events_is_small(predict: Running, method: str, path: str) -> None:
    body = b'{"name": [' + b"[]," * 10_000_000 + b"[]]}"
    answers: list[httpx.Response] = []
    took = predict.took_mb(lambda: answers.append(sent(predict, path, body, JSON, method)))
    assert (answers[0].status_code, took < MOST_MB) == (413, True), (answers[0].text, took)


# unexpected bodies


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/there/is/none"),
        ("GET", "/v1/runs"),
        ("DELETE", "/v1/runs/a-1"),
        ("POST", "/v1/runs"),
        ("PUT", "/hello"),
    ],
)
def test_a_body_that_nobody_reads_is_not_kept(runs: Running, method: str, path: str) -> None:
    for size in (300 * MB, None):
        took = runs.took_mb(lambda size=size: poured(runs, method, path, 300 * MB, size))  # type: ignore[misc]
        assert took < MOST_MB
    assert httpx.get(f"{runs.url}/healthz", timeout=LIMIT_S).status_code == 204


def test_what_follows_an_archive_is_not_kept(runs: Running) -> None:
    body = tar(("files.txt", b"x")) + bytes(200 * MB)
    assert runs.took_mb(lambda: sent(runs, "/v1/runs", body, GZIP)) < MOST_MB


def poured(one: Running, method: str, path: str, size: int, announced: int | None, kind: str = "text/plain") -> bytes:
    """Send a large body for as long as the server reads it; return the beginning of the answer."""
    length = "Transfer-Encoding: chunked" if announced is None else f"Content-Length: {announced}"
    piece = b"a" * MB if announced is not None else b"%x\r\n" % MB + b"a" * MB + b"\r\n"
    with socket.create_connection(("127.0.0.1", one.port), timeout=LIMIT_S) as wire:
        wire.sendall(
            f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\n{length}\r\n\r\n".encode()
        )
        try:
            for _ in range(size // MB):
                wire.sendall(piece)
            if announced is None:
                wire.sendall(b"0\r\n\r\n")
            return wire.recv(65_536)
        except OSError:
            return b""


HEADS = {
    "address": b"GET /" + b"a" * MB,
    "header": b"GET / HTTP/1.1\r\nX: " + b"a" * MB,
    "headers": b"GET / HTTP/1.1\r\n" + b"X: a\r\n" * 200_000,
    "extension": b"POST /json HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5;a=" + b"a" * MB,
    "trailer": b"POST /json HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: " + b"a" * MB,
}


@pytest.mark.parametrize("kind", HEADS)
def test_a_head_or_a_trailer_that_does_not_end_is_not_kept(runs: Running, predict: Running, kind: str) -> None:
    for one in (runs, predict):
        answered: list[bytes] = []

        def attack(one: Running = one, answered: list[bytes] = answered) -> None:
            with socket.create_connection(("127.0.0.1", one.port), timeout=LIMIT_S) as wire:
                try:
                    wire.sendall(HEADS[kind])
                    for _ in range(100):
                        wire.sendall(b"a" * MB if kind != "headers" else b"X: a\r\n" * 200_000)
                except OSError:
                    answered.append(b"closed")

        assert one.took_mb(attack) < MOST_MB
        assert answered


# forms

FORMS: dict[str, Callable[[], bytes]] = {
    "many files of half a megabyte": lambda: form(*((f"f{n}", f"f{n}", b"x" * 400_000) for n in range(300))),
    "more than a thousand files": lambda: form(*((f"f{n}", f"f{n}", b"x") for n in range(1_100))),
    "many long fields": lambda: form(*((f"f{n}", None, b"x" * 400_000) for n in range(300))),
    "a long name": lambda: form(("n" * 300_000, None, b"x")),
    "a long file name": lambda: form(("n", "f" * 300_000, b"x")),
    "many long file names": lambda: form(*(("n", "f" * 10_000, b"x") for n in range(900))),
    "an epilogue": lambda: form(("n", "f", b"x")) + b"x" * (100 * MB),
    "a preamble": lambda: b"x" * (100 * MB) + form(("n", "f", b"x")),
    "headers": lambda: b'--%s\r\nContent-Disposition: form-data; name="a"\r\n' % BOUNDARY + b"X-Y: z\r\n" * 10_000_000,
    "boundaries that are none": lambda: form(("n", "f", (b"\r\n--%s " % BOUNDARY) * 3_000_000)),
    "line breaks": lambda: form(("n", None, b"\r" * (50 * MB))),
}


@pytest.mark.parametrize("kind", FORMS)
def test_no_form_takes_much_memory(runs: Running, kind: str) -> None:
    body = FORMS[kind]()
    doors = [("/v1/runs", body, FORM), ("/upload?name=form", body, FORM)]
    check_refused(runs, *doors, statuses={413, 422})


@pytest.mark.parametrize("kind", FORMS)
def test_no_form_takes_much_memory_of_predict(predict: Running, kind: str) -> None:
    body = FORMS[kind]()
    check_refused(predict, ("/upload", body, FORM), ("/image", body, FORM), statuses={404, 413, 422, 429})


def test_a_form_that_is_sent_as_fields_of_a_page_is_not_read(runs: Running) -> None:
    body = b"&".join(b"%d=x" % n for n in range(5_000_000))
    kind = {"Content-Type": "application/x-www-form-urlencoded"}
    check_refused(runs, ("/v1/runs", body, kind), ("/upload?name=x", body, kind), statuses={413, 422})


# disk


def upload(one: Running, size: int) -> httpx.Response:
    return sent(one, "/upload?name=x", form(("file", "x.txt", b"x" * size)), FORM)


def test_many_large_uploads_at_once_stay_within_the_budget_of_the_disk(small: Running) -> None:
    """Slow uploads, so that all are in progress at once: those beyond the budget get 503."""
    go_on, over, most = threading.Barrier(16), threading.Event(), [0]

    def watch() -> None:
        while not over.is_set():
            most[0] = max(most[0], small.disk_bytes())

    def slowly(_: int) -> tuple[int, str]:
        body = form(("file", "x.txt", b"x" * (5 * MB)))

        def pieces() -> Iterator[bytes]:
            for start in range(0, len(body), MB):
                yield body[start : start + MB]

        go_on.wait(LIMIT_S)
        try:
            with httpx.Client(timeout=LIMIT_S) as client:
                answer = client.post(f"{small.url}/upload?name=x", content=pieces(), headers=FORM)
        except httpx.HTTPError:
            return 503, "1"  # the server closed the connection while this side sent
        return answer.status_code, answer.headers.get("Retry-After", "")

    watching = threading.Thread(target=watch)
    watching.start()
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(slowly, range(16)))
    over.set()
    watching.join()
    assert {status for status, _ in answers} <= {200, 429, 503}
    assert all(retry for status, retry in answers if status != 200)
    assert any(status != 200 for status, _ in answers)
    assert most[0] <= SPOOL
    assert small.disk_bytes() == 0
    assert upload(small, 4 * MB).status_code == 200


def test_an_upload_that_says_it_is_too_large_is_refused_before_it_is_sent(small: Running) -> None:
    for size in (50 * MB, 3_000 * MB):
        with socket.create_connection(("127.0.0.1", small.port), timeout=LIMIT_S) as wire:
            kind = "Host: localhost\r\nContent-Type: application/gzip"
            wire.sendall(f"POST /v1/runs HTTP/1.1\r\n{kind}\r\nContent-Length: {size}\r\n\r\n".encode())
            answer = wire.recv(65_536)
        assert answer.startswith(b"HTTP/1.1 503" if size < 2_000 * MB else b"HTTP/1.1 413"), answer
        assert b"Retry-After: 1" in answer or size > 2_000 * MB


def test_clients_that_hang_up_or_lie_of_their_length_leave_no_file_and_no_budget(small: Running) -> None:
    body = form(("file", "x.txt", b"x" * (10 * MB)))
    for length in (len(body), 2 * len(body)):
        for _ in range(4):
            with socket.create_connection(("127.0.0.1", small.port), timeout=LIMIT_S) as wire:
                wire.sendall(
                    f"POST /upload?name=x HTTP/1.1\r\nHost: localhost\r\nContent-Type: {FORM['Content-Type']}\r\n"
                    f"Content-Length: {min(length, SPOOL // 2)}\r\n\r\n".encode()
                )
                wire.sendall(body[: 6 * MB])
    end = time.monotonic() + LIMIT_S
    while small.disk_bytes():
        assert time.monotonic() < end
        time.sleep(0.05)
    assert upload(small, 6 * MB).status_code == 200


def test_uploads_of_predict_stay_within_the_budget_too(start: Callable[..., Running]) -> None:
    one = start("predict", HEPFAAS_SPOOL_BYTES=str(SPOOL))
    noise = os.urandom(15 * MB)
    for body, headers in ((noise, {}), (form(("model", "a.pb", noise)), FORM), (tar(("m/a.pb", noise)), GZIP)):
        answer = sent(one, "/upload", body, headers)
        assert (answer.status_code, answer.headers["Retry-After"]) == (429, "1"), answer.text
        assert one.disk_bytes() == 0
    assert sent(one, "/upload", tar(("m/x", b"x")), {}).status_code == 422


def test_one_owner_leaves_room_for_others() -> None:
    spool = Spool(900)
    with spool.share("one") as share:
        share.take(600)
        with pytest.raises(LimitError, match="your other uploads"):
            share.take(1)
        with spool.share("other") as another:
            another.take(300)
            with pytest.raises(UnavailableError, match="HEPFAAS_SPOOL_BYTES"):
                another.take(1)
    with spool.share("one", 600) as share:
        share.take(600)
    with pytest.raises(LimitError), spool.share("one", 601):
        pass


# chunks

CHUNKS = {
    "no number": b"zz\r\nhello\r\n0\r\n\r\n",
    "a sign": b"-5\r\nhello\r\n0\r\n\r\n",
    "a prefix": b"0x5\r\nhello\r\n0\r\n\r\n",
    "an underscore": b"1_0\r\n" + b"x" * 16 + b"\r\n0\r\n\r\n",
    "nothing": b"\r\nhello\r\n0\r\n\r\n",
    "a space before": b" 5\r\nhello\r\n0\r\n\r\n",
    "an extension with a line feed": b"5;a\nb\r\nhello\r\n0\r\n\r\n",
    "an extension with a carriage return": b"5;a\rb\r\nhello\r\n0\r\n\r\n",
    "an extension with control characters": b"5;a=\x00\x01\r\nhello\r\n0\r\n\r\n",
    "an extension with an open quote": b'5;a="b\r\nhello\r\n0\r\n\r\n',
    "an extension with spaces": b"5;a b c\r\nhello\r\n0\r\n\r\n",
    "a chunk that is too long": b"3\r\nhello\r\n0\r\n\r\n",
    "a chunk that ends by a line feed": b"5\r\nhello\n0\r\n\r\n",
}


def chunked(one: Running, path: str, body: bytes, method: str = "POST") -> bytes:
    with socket.create_connection(("127.0.0.1", one.port), timeout=LIMIT_S) as wire:
        wire.sendall(
            f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nConnection: close\r\n"
            "Transfer-Encoding: chunked\r\n\r\n".encode()
            + body
        )
        answer = b""
        while piece := wire.recv(65_536):
            answer += piece
    return answer


@pytest.mark.parametrize("kind", CHUNKS)
def test_a_malformed_chunk_gets_400(runs: Running, intake: Running, predict: Running, kind: str) -> None:
    for one, method, path in (
        (runs, "POST", "/v1/runs"),
        (runs, "POST", "/submit"),
        (runs, "POST", "/there/is/none"),
        (runs, "GET", "/v1/runs"),
        (intake, "POST", "/v1/notifications"),
        (intake, "POST", "/"),
        (predict, "POST", "/json"),
        (predict, "POST", "/upload"),
    ):
        answer = chunked(one, path, CHUNKS[kind], method)
        assert answer.startswith(b"HTTP/1.1 400 "), (path, answer)
        assert answer.count(b"HTTP/1.1 ") == 1
