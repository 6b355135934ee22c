"""One suite for both stores: an object exists whole or not at all, and of many concurrent creators one succeeds."""

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from functions_framework import create_app
from hepfaas.errors import MissingError, RequestError, UnavailableError
from hepfaas.platform import backends
from hepfaas.platform.storage import Store, probe
from hepfaas.platform.stores import open_store
from moto.server import ThreadedMotoServer
from support.servers import free_port

FUNCTIONS = Path(__file__).parents[2] / "functions"


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "store") if request.param == "folder" else request.getfixturevalue("s3_url"))


def test_an_object_is_read_whole_and_in_parts(store: Store) -> None:
    data = bytes(range(256)) * 50
    assert store.create("steps/survey/ab", memoryview(data))
    assert store.get("steps/survey/ab") == data
    assert store.size_bytes("steps/survey/ab") == len(data)
    assert store.get_range("steps/survey/ab", 10, 300) == data[10:300]
    assert store.get_range("steps/survey/ab", len(data) - 5, len(data) + 100) == data[-5:]
    assert store.get_range("steps/survey/ab", len(data), len(data) + 10) == b""
    assert store.get_range("steps/survey/ab", 7, 7) == b""


def test_an_empty_object_is_an_object(store: Store) -> None:
    assert store.create("empty", b"")
    assert (store.get("empty"), store.size_bytes("empty")) == (b"", 0)


def test_the_second_creator_changes_nothing(store: Store) -> None:
    assert store.create("a", b"first")
    assert not store.create("a", b"second")
    assert store.get("a") == b"first"


def test_a_missing_object_is_an_error(store: Store) -> None:
    store.create("a/b", b"")
    for key in ("nothing", "a", "a/b/c"):
        assert store.size_bytes(key) is None
        for read in (lambda key: store.get(key), lambda key: store.get_range(key, 0, 5)):
            with pytest.raises(MissingError, match=f"has no object '{key}'") as caught:
                read(key)
            assert caught.value.key == key


def test_keys_are_listed_sorted_below_a_prefix(store: Store) -> None:
    for key in ("runs/b-1/x", "runs/a-10/y", "runs/a-2/z", "other/q"):
        store.create(key, b"")
    assert list(store.keys("runs/")) == ["runs/a-10/y", "runs/a-2/z", "runs/b-1/x"]
    assert list(store.keys("runs/a-1")) == ["runs/a-10/y"]
    assert list(store.keys("nothing/")) == []


def test_a_deleted_object_may_be_created_again(store: Store) -> None:
    store.create("a", b"1")
    store.delete("a")
    store.delete("a")
    assert store.size_bytes("a") is None
    assert store.create("a", b"2")


def test_of_sixteen_creators_one_succeeds(store: Store) -> None:
    creators = [open_store(store.url) for _ in range(16)]
    offers = [bytes([number]) * 1000 for number in range(16)]
    for turn in range(10):
        with ThreadPoolExecutor(16) as pool:
            won = list(
                pool.map(lambda creator, offer, key=f"race/{turn}": creator.create(key, offer), creators, offers)
            )
        assert won.count(True) == 1
        assert store.get(f"race/{turn}") == offers[won.index(True)]


def test_a_good_store_passes_the_probe_which_leaves_no_object(store: Store) -> None:
    probe(store)
    assert list(store.keys("")) == []


WRITER = """
import hashlib, os, sys
from hepfaas.platform.stores import open_store
store, name = open_store(sys.argv[1]), sys.argv[2]
print("ready", flush=True)
for number in range(10_000):
    data = os.urandom(300_000)
    store.create(f"objects/{name}-{number}", hashlib.sha256(data).hexdigest().encode() + data)
"""


def test_a_kill_at_any_moment_leaves_only_whole_objects(store: Store) -> None:
    chooser = random.Random(7)
    for turn in range(5):
        command = [sys.executable, "-c", WRITER, store.url, str(turn)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(chooser.uniform(0.02, 0.15))
            process.send_signal(signal.SIGKILL)
    keys = list(store.keys("objects/"))
    assert keys
    for key in keys:
        data = store.get(key)
        assert hashlib.sha256(data[64:]).hexdigest().encode() == data[:64]


def test_files_of_a_killed_process_are_removed_after_a_day(tmp_path: Path) -> None:
    open_store(str(tmp_path)).create("x", b"an object")
    old, young = tmp_path / ".tmp" / "old", tmp_path / ".tmp" / "young"
    for path in (old, young):
        path.write_bytes(b"half an obj")
    os.utime(old, (0, 0))
    open_store(str(tmp_path))
    assert [path.name for path in (tmp_path / ".tmp").iterdir()] == ["young"]


def test_a_store_where_a_file_is_names_the_place(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RequestError, match=r"store '.*file' cannot be written: "):
        open_store(str(tmp_path / "file"))


def test_another_scheme_is_not_a_store() -> None:
    with pytest.raises(RequestError, match="'gs://bucket' is not a store; give a folder or s3://bucket/prefix"):
        open_store("gs://bucket")


@pytest.fixture
def small_disk(tmp_path: Path) -> Path:
    """A file system of 1 MB, mounted for the test."""
    path = tmp_path / "small"
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(path)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting a small file system takes root")
    yield path
    subprocess.run(["umount", str(path)], check=True)


def test_a_full_disk_is_an_error_and_leaves_no_partial_object(small_disk: Path) -> None:
    store = open_store(str(small_disk / "store"))
    assert store.create("small", b"x" * 1000)
    with pytest.raises(RequestError, match=r"cannot be written: No space left on device; .*free some space"):
        store.create("big", b"x" * 2_000_000)
    assert list(store.keys("")) == ["small"]
    assert store.create("after", b"y" * 1000)


def test_a_missing_bucket_is_named(moto_url: str) -> None:
    with pytest.raises(RequestError, match=r"store s3://nowhere/x: bucket 'nowhere' does not exist; create it first"):
        open_store("s3://nowhere/x").create("a", b"")


def test_wrong_credentials_are_an_error_that_does_not_show_them(s3_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong-secret")
    with pytest.raises(RequestError, match=r"refuses: SignatureDoesNotMatch; look at AWS_ACCESS_KEY_ID") as caught:
        open_store(s3_url).create("a", b"")
    assert "wrong-secret" not in str(caught.value)


def test_missing_credentials_are_an_error(s3_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(RequestError, match="no credentials; set AWS_ACCESS_KEY_ID"):
        open_store(s3_url).get("a")


def test_a_server_that_does_not_answer_is_unavailable(s3_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    began = time.monotonic()
    with pytest.raises(UnavailableError, match="does not answer"):
        open_store(s3_url).get("a")
    assert time.monotonic() - began < 60


@pytest.fixture
def moto_url(monkeypatch: pytest.MonkeyPatch) -> str:
    server = ThreadedMotoServer(port=0)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    import boto3

    boto3.client("s3").create_bucket(Bucket="tests")
    yield "s3://tests/moto"
    server.stop()


def test_moto_passes_the_probe(moto_url: str) -> None:
    probe(open_store(moto_url))


def test_the_probe_refuses_a_store_that_ignores_the_condition(moto_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with Forgetful(os.environ["AWS_ENDPOINT_URL"]) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        with pytest.raises(RequestError, match=r"ignores create-if-absent \(If-None-Match: \*\): 8 of 8"):
            probe(open_store(moto_url))


def test_functions_that_start_runs_refuse_such_a_store_until_it_is_replaced(
    moto_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEPFAAS_STORE", moto_url)
    monkeypatch.setenv("K_SINK", "http://127.0.0.1:1/")
    good = os.environ["AWS_ENDPOINT_URL"]
    clients = [
        create_app(name, str(FUNCTIONS / name / "main.py")).test_client() for name in ("runs", "intake", "advance")
    ]
    ping = {"ce-specversion": "1.0", "ce-type": "dev.knative.sources.ping", "ce-source": "/p", "ce-id": "1"}
    asks = (("/v1/runs/none-1/cancel", {}), ("/", ping), ("/", ping))
    with Forgetful(good) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        for client, (path, headers) in zip(clients, asks, strict=True):
            answer = client.post(path, headers=headers, json={})
            assert answer.status_code == 503
            assert answer.json["error"].startswith("the store ignores create-if-absent")
    monkeypatch.setenv("AWS_ENDPOINT_URL", good)
    for client, (path, headers), status in zip(clients, asks, (404, 204, 204), strict=True):
        assert client.post(path, headers=headers, json={}).status_code == status
    monkeypatch.setattr(backends, "probe", None)  # it is not called again
    assert clients[0].post(asks[0][0], json={}).status_code == 404


class Forgetful:
    """A proxy that removes the condition from every request."""

    def __init__(self, to: str) -> None:
        import http.client
        from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

        host = to.removeprefix("http://")

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def pass_on(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                headers = {name: value for name, value in self.headers.items() if name.lower() != "if-none-match"}
                connection = http.client.HTTPConnection(host, timeout=30)
                connection.request(self.command, self.path, body, headers)
                answer = connection.getresponse()
                data = answer.read()
                connection.close()
                self.send_response(answer.status)
                for name, value in answer.getheaders():
                    if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                        self.send_header(name, value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(data)

            do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = pass_on

            def log_message(self, *words: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    def __enter__(self) -> str:
        import threading

        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()
        return f"http://127.0.0.1:{self.server.server_port}"

    def __exit__(self, *error: object) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join(timeout=10)
