"""Attacks on `hepfaas up` from the same machine: by another local user, and by a page in the user's browser."""

import json
import re
import select
import socket
import ssl
import stat
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import httpx
import psutil
import pytest
from hepfaas import Client
from hepfaas.errors import RequestError
from hepfaas.models import versions
from hepfaas.serving import open_inference_pb2 as inference
from support.identities import function
from support.jobs import packed, small_job
from support.servers import LIMIT_S
from support.system import System

PROTECTION = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}
STORE_PATHS = (
    "/", "/dir/assign", "/dir/status", "/cluster/status", "/col/delete?collection=x", "/status", "/buckets/hepfaas/",
    "/buckets/hepfaas/probe/started", "/debug/pprof/", "/debug/pprof/heap", "/metrics", "/stats/memory",
    "/ui/index.html",
    "/stats/counter", "/hepfaas?list-type=2", "/hepfaas/probe/started", "/?Action=ListUsers&Version=2010-05-08",
)  # fmt: skip
CROSS = {"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"}
FORM = {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document", "Content-Type": "multipart/form-data; boundary=x"}
HOSTILE = (
    ("POST", "/v1/runs", {**CROSS, "Sec-Fetch-Mode": "cors", "Content-Type": "text/plain"}),
    ("POST", "/v1/runs", {**CROSS, **FORM}),
    ("POST", "/v1/runs", {"Sec-Fetch-Site": "same-site", "Origin": "http://127.0.0.1:9999"}),
    ("POST", "/v1/runs", {"Origin": "https://evil.example"}),
    ("POST", "/v1/runs", {"Origin": "null"}),
    ("POST", "/v1/runs", {"Origin": "http://127.0.0.1"}),
    ("POST", "/v1/runs", {"Origin": "http://127.0.0.1.evil.example"}),
    ("POST", "/v1/runs/RUN/cancel", CROSS),
    ("POST", "/v1/runs/RUN/cancel", {**CROSS, **FORM}),
    ("DELETE", "/v1/runs/RUN", CROSS),
    ("POST", "/v1/runs/RUN/retry", {"Sec-Fetch-Site": "same-site"}),
    ("POST", "/submit", {**CROSS, "Content-Type": "text/plain"}),
    ("POST", "/upload?name=x", {**CROSS, **FORM}),
    ("POST", "/upload", {**CROSS, **FORM}),
    ("POST", "/json", {**CROSS, "Content-Type": "text/plain"}),
    ("POST", "/v2/models/m/infer", {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "no-cors"}),
    ("DELETE", "/delete/m", CROSS),
    ("POST", "/params", CROSS),
    ("PUT", "/v1/rules/x", CROSS),
    ("POST", "/v1/notifications", {**CROSS, "Content-Type": "text/plain"}),
    ("POST", "/v1/events", CROSS),
    ("OPTIONS", "/v1/runs", {**CROSS, "Access-Control-Request-Method": "POST"}),
    ("GET", "/v1/runs", {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "script"}),
    ("GET", "/v1/models", {**CROSS, "Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty"}),
    ("GET", "/models", {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"}),
    ("GET", "/metrics", {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"}),
    ("GET", "/delete_folder?name=kept", {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate",
                                         "Sec-Fetch-Dest": "document"}),
    ("GET", "/delete_folder?name=kept", {"User-Agent": "Mozilla/5.0 (X11) Firefox/52.0"}),
    ("GET", "/delete_specs?name=kept", {"User-Agent": "mozilla/5.0 (Macintosh) Safari/605"}),
    ("GET", "/delete_folder?name=kept", {"Referer": "https://evil.example/"}),
    ("GET", "/delete_folder?name=kept", {"Cookie": "session=1"}),
)  # fmt: skip
FOREIGN_HOSTS = (
    "evil.example", "evil.example:PORT", "127.0.0.1.evil.example:PORT", "localhost.evil.example:PORT",
    "evil.example.:PORT", "evillocalhost:PORT", "rebind.svc:PORT", "runs.hepfaas.svc.cluster.local", "metadata:PORT",
    "127.0.0.1@evil.example", "127.0.0.1:PORT, evil.example", "127.0.0.1 evil.example", "[::1].evil.example:PORT",
    "127.0.0.1:PORT#evil.example", "2130706433:PORT", "*", "%6cocalhost:PORT", "evil.example:80:80",
)  # fmt: skip


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """Run a system with --token."""
    system = System(tmp_path_factory.mktemp("locked") / "up")
    system.options = replace(system.options, token=True)
    with system:
        yield system


@pytest.fixture(scope="module")
def run(system: System, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Make a run of the user, cancelled since no test here is about its training, and a folder named 'kept'."""
    folder = small_job(tmp_path_factory.mktemp("job") / "victim", seed=71)
    files = {"file": ("job.tar.gz", packed(folder))}
    httpx.post(f"{system.url}/upload?name=kept", files=files, timeout=LIMIT_S).raise_for_status()
    with Client(system.url) as client:
        run = client.submit(folder)
        client.cancel(run)
    return run


def state(system: System) -> Any:
    """Return the user's runs, folders and rules."""
    keys = sorted(key for key in system.store().keys("") if key.startswith(("folders/", "newest/", "rules/")))
    return keys, [system.store().get(key) for key in keys if key.startswith("folders/")]


def raw(port: int, request: bytes, tls: bool = False) -> bytes:
    """Return a server's answer to these bytes; b'' if it closes the connection or refuses TLS without a certificate."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
            if not tls:
                connection.sendall(request)
                return received(connection)
            context = ssl._create_unverified_context()
            with context.wrap_socket(connection, server_hostname="127.0.0.1") as wrapped:
                wrapped.sendall(request)
                return received(wrapped)
    except (ssl.SSLError, ConnectionError):
        return b""


def received(connection: socket.socket) -> bytes:
    data = b""
    while piece := connection.recv(65536):
        data += piece
    return data


def store_process(system: System) -> psutil.Process:
    process = system.up.store._process
    assert process is not None
    return psutil.Process(process.pid)


def test_no_port_of_the_store_answers_a_local_user_without_a_key(system: System) -> None:
    connections = store_process(system).net_connections(kind="tcp")
    listening = {one.laddr.port: one.laddr.ip for one in connections if one.status == psutil.CONN_LISTEN}
    s3 = int(system.up.store.variables["AWS_ENDPOINT_URL"].rpartition(":")[2])
    assert s3 in listening
    assert set(listening.values()) == {"127.0.0.1"}
    assert len(listening) >= 7, "master, volume, filer by HTTP and gRPC, and S3"
    for port in listening:
        for path in STORE_PATHS:
            for method, body in (("GET", b""), ("PUT", b"x"), ("POST", b"x"), ("DELETE", b"")):
                head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n"
                request = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
                for tls in (False, True) if method == "GET" and path == "/" else (False,):
                    answer = raw(port, request, tls)
                    head_, _, content = answer.partition(b"\r\n\r\n")
                    status = int(head_.split()[1]) if head_ else 0
                    refused = status in (0, 400, 403, 405)
                    assert refused or (port, path, content) == (s3, "/status", b""), (port, method, path, answer[:300])
        if port != s3:
            assert raw(port, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9))[:9] != b"\0\0\6\4\0\0\0\0\0"
            with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
                call = channel.unary_unary("/master_pb.Seaweed/GetMasterConfiguration")
                with pytest.raises(grpc.RpcError) as error:
                    call(b"", timeout=10)
                assert error.value.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


def test_another_user_reads_no_file_and_no_socket_of_the_store(system: System) -> None:
    folder = system.up.options.folder / "seaweedfs"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for path in (folder / "security").iterdir():
        if not path.is_symlink():
            assert not path.stat().st_mode & 0o077, path
    sockets = [one.laddr for one in store_process(system).net_connections(kind="unix") if one.laddr]
    paths = [Path(name) if name.startswith("/") else folder / "security" / name for name in sockets]
    assert [path for path in paths if path.exists() and path.stat().st_mode & 0o077] == []


def test_no_secret_stands_in_a_command_line_and_the_token_in_no_other_process(locked: System) -> None:
    door = locked.up.door
    httpx.get(f"{locked.url}/v1/runs", headers={"Authorization": f"Bearer {door.token}"}, timeout=LIMIT_S)
    httpx.get(f"{locked.url}/models", headers={"Authorization": f"Bearer {door.token}"}, timeout=LIMIT_S)
    variables = locked.up.replicas._environ
    secrets = {door.token, door.inner_token, door._session, variables["AWS_SECRET_ACCESS_KEY"]}
    secrets |= {variables["HEPFAAS_EVENT_KEYS"], variables["HEPFAAS_CREDENTIALS_KEY"]}
    assert len(secrets) == 6
    children = psutil.Process().children(recursive=True)
    read = 0
    for child in children:
        try:
            line, environ = " ".join(child.cmdline()), set(child.environ().values())
        except psutil.NoSuchProcess:  # it ended meanwhile; a zombie, too
            continue
        read += 1
        assert not any(secret in line for secret in secrets), line
        assert not {door.token, door._session} & environ, line
    assert read
    for name in ("survey", "train", "advance"):
        locked.post(name, content=b"{}")
        (replica,) = locked.up.replicas._replicas[name][:1]
        environ = Path(f"/proc/{replica.process.pid}/environ").read_bytes()
        assert door.inner_token.encode() not in environ, name
    logs = b"".join(path.read_bytes() for path in (locked.up.options.folder / "log").iterdir())
    assert logs
    assert not any(secret.encode() in logs for secret in secrets)


@pytest.mark.parametrize(("method", "path", "headers"), HOSTILE)
def test_a_page_of_another_site_does_nothing(
    system: System, run: str, method: str, path: str, headers: dict[str, str]
) -> None:
    before = state(system)
    body = b"{}" if method in ("POST", "PUT") else None
    answer = httpx.request(
        method, system.url + path.replace("RUN", run), headers=headers, content=body, timeout=LIMIT_S
    )
    assert answer.status_code == 403, answer.text
    assert "error" in answer.json()
    assert "access-control-allow-origin" not in answer.headers
    assert state(system) == before


@pytest.mark.parametrize("host", FOREIGN_HOSTS)
def test_a_name_that_leads_here_by_dns_rebinding_is_refused(system: System, run: str, host: str) -> None:
    port = system.up.options.port
    for request in ("GET /v1/runs", "GET /models", "GET /v1/rules", "GET /metrics", "POST /v1/runs", "GET /nothing"):
        head = f"{request} HTTP/1.1\r\nHost: {host.replace('PORT', str(port))}\r\nSec-Fetch-Site: same-origin\r\n"
        answer = raw(port, f"{head}Content-Length: 0\r\nConnection: close\r\n\r\n".encode())
        assert answer.startswith(b"HTTP/1.1 403 "), answer
        assert run.encode() not in answer


def test_two_hosts_are_both_looked_at(system: System) -> None:
    port = system.up.options.port
    for hosts in ((f"127.0.0.1:{port}", "evil.example"), ("evil.example", f"127.0.0.1:{port}")):
        lines = "".join(f"Host: {host}\r\n" for host in hosts)
        answer = raw(port, f"GET /v1/runs HTTP/1.1\r\n{lines}Connection: close\r\n\r\n".encode())
        assert answer.split()[1] in (b"400", b"403"), answer


def test_behind_the_door_functions_refuse_the_same(system: System) -> None:
    """Functions listen on their own ports, which a page can find."""
    for name in ("runs", "intake", "predict"):

        async def asked(name: str = name) -> list[int]:
            async with system.up.replicas.lent(name) as url, httpx.AsyncClient(timeout=LIMIT_S) as client:
                path = {"runs": "/v1/runs", "intake": "/v1/rules", "predict": "/models"}[name]
                hostile = ({"Host": "evil.example"}, CROSS, {"Origin": "http://evil.example"})
                answers = [await client.get(url + path, headers=headers) for headers in ({}, *hostile)]
                return [answer.status_code for answer in answers]

        assert system.run(asked) == [200, 403, 403, 403], name


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Sec-Fetch-Site": "same-origin", "Origin": "http://127.0.0.1:PORT"},
        {"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate"},
        {"Origin": "http://127.0.0.1:PORT"},
        {"Host": "localhost:PORT", "Origin": "http://localhost:PORT"},
        {"Host": "LOCALHOST:8080"},
        {"Host": "hepfaas.localhost:PORT"},
        {"Host": "[::1]:PORT"},
        {"Host": "127.0.0.1"},
        {"User-Agent": "curl/8.5.0"},
        {"Authorization": "Bearer whatever"},
    ],
)
def test_programs_and_our_own_pages_go_on_working(system: System, headers: dict[str, str]) -> None:
    port = str(system.up.options.port)
    sent = {name: value.replace("PORT", port) for name, value in headers.items()}
    with httpx.Client(base_url=system.url, headers=sent, timeout=LIMIT_S) as http:
        for path in ("/v1/runs", "/models", "/v1/rules"):
            assert http.get(path).status_code == 200
        assert http.post("/v1/runs", json={}).status_code == 422
        assert http.post("/json", json={"model": "none", "values": [1.0]}).status_code == 404
        assert http.delete("/v1/rules/none").status_code == 404


def test_a_link_from_another_page_opens_a_page(system: System, run: str) -> None:
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    for path in (f"/v1/runs/{run}", "/", "/netron/"):
        assert httpx.get(system.url + path, headers=link, timeout=LIMIT_S).status_code == 200


def test_every_answer_has_the_headers(system: System, run: str) -> None:
    requests = (
        ("GET", "/v1/runs"), ("GET", f"/v1/runs/{run}"), ("GET", f"/v1/runs/{run}/log"), ("GET", "/v1/runs/x-1"),
        ("GET", "/hello"), ("GET", "/openapi.json"), ("GET", "/nothing"), ("GET", "/robots.txt"), ("PATCH", "/v1/runs"),
        ("GET", "/favicon.ico"), ("TRACE", "/v1/runs"), ("FOO", "/v1/runs"), ("POST", "/v1/runs"),
        ("OPTIONS", "/v1/me"),
        ("GET", "/v1/rules"), ("GET", "/v1/rules/x"), ("PUT", "/v1/rules"), ("TRACE", "/v1/rules"), ("GET", "/v1/%00"),
        ("GET", "/"), ("GET", "/models"), ("GET", "/netron"), ("GET", "/netron/"), ("GET", "/netron/x/"),
        ("GET", "/v2"), ("GET", "/v2/health/live"), ("GET", "/v2/models/x"), ("POST", "/json"), ("TRACE", "/models"),
        ("GET", "/metrics"), ("GET", "/data"), ("GET", "/download/x/y"), ("GET", "/healthz"), ("HEAD", "/v1/runs"),
    )  # fmt: skip
    with httpx.Client(base_url=system.url, timeout=LIMIT_S) as http:
        for method, path in requests:
            answer = http.request(method, path)
            check_protected(answer.headers, f"{method} {path}")
            assert answer.status_code < 500, f"{method} {path}: {answer.text}"
        refused = http.get("/v1/runs", headers=CROSS)
        check_protected(refused.headers, "refused")
    for name in ("survey", "advance", "evaluate"):
        check_protected(system.post(name, content=b"{}").headers, name)
    for wrong in (b"nothing of HTTP\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n"):
        answer_ = raw(system.up.options.port, wrong)
        assert answer_.startswith(b"HTTP/1.1 400 ")
        lines = [line.split(b": ", 1) for line in answer_.partition(b"\r\n\r\n")[0].split(b"\r\n")[1:]]
        check_protected({name.decode().lower(): value.decode() for name, value in lines}, "400")


def check_protected(headers: Any, what: str) -> None:
    for name, value in PROTECTION.items():
        assert headers.get(name) == value, f"{what}: {name}"
    policy = headers.get("content-security-policy", "")
    assert "default-src 'none'" in policy, what
    assert "frame-ancestors 'none'" in policy, what


def test_pages_are_styled_by_what_their_policy_allows(system: System) -> None:
    import base64
    import hashlib

    with httpx.Client(base_url=system.url, timeout=LIMIT_S) as http:
        for path in ("/", "/netron/"):
            page = http.get(path)
            (style,) = re.findall("<style>(.*?)</style>", page.text, re.S)
            digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
            assert f"'sha256-{digest}'" in page.headers["content-security-policy"]
            assert "<script" not in page.text
            assert "style=" not in page.text


def test_the_address_of_the_store_is_told_to_nobody(system: System, tmp_path: Path) -> None:
    """The same for other internals: folders and ports of this machine."""
    store, folder = system.up.store, str(system.up.options.folder)
    inside = [store.url, store.variables["AWS_ENDPOINT_URL"], folder, "Traceback", " object at 0x", "site-packages"]
    infer = {"inputs": [{"name": "features", "shape": [1, 1], "datatype": "FP32", "data": [1.0]}]}
    requests: tuple[tuple[str, str, Any], ...] = (
        ("GET", "/v2/models/none", None), ("GET", "/v2/models/none/versions/3", None), ("GET", "/params/none", None),
        ("POST", "/v2/models/none/infer", infer), ("POST", "/json", {"model": "none", "values": [1.0]}),
        ("POST", "/v1/models/none/predict", {"events": {"met": [1.0]}}), ("GET", "/v1/models/none/aliases", None),
        ("PUT", "/v1/models/none/aliases/a", {"version": 1}), ("GET", "/netron/none/", None),
        ("GET", "/v1/runs/x-1", None),
        ("GET", "/download/none/x", None), ("DELETE", "/delete/none", None), ("GET", "/v1/runs/x-1/scores", None),
        ("GET", "/v1/models/none", None), ("GET", "/v1/models/none/1/card.json", None),
        ("GET", "/model?process_name=x_1", None),
        ("POST", "/v1/runs", {}), ("GET", "/v1/rules/none", None), ("POST", "/v1/runs/x-1/cancel", None),
    )  # fmt: skip
    with httpx.Client(base_url=system.url, timeout=LIMIT_S) as http:
        for method, path, body in requests:
            answer = http.request(method, path, json=body)
            assert 400 <= answer.status_code < 500, answer.text
            assert not [place for place in inside if place in answer.text], answer.text
        missing = http.get("/v2/models/none/versions/3")
        assert "has no model 'none/3'" in missing.json()["error"]
    port = int(store.variables["AWS_ENDPOINT_URL"].rpartition(":")[2])
    away = {**store.variables, "HEPFAAS_STORE": f"{store.url}/away", "AWS_ENDPOINT_URL": "http://127.0.0.1:9"}
    wrong = {**away, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}", "AWS_SECRET_ACCESS_KEY": "wrong"}
    for variables in (away, wrong):
        with function(tmp_path, "predict", AWS_MAX_ATTEMPTS="1", **variables) as served:
            for path in ("/v2/models/none", "/v2/health/ready", "/models"):
                answer = httpx.get(served.url + path, timeout=LIMIT_S)
                assert answer.status_code >= 400
                assert not [place for place in ("s3://", "127.0.0.1", "AWS_") if place in answer.text], answer.text
            end = time.monotonic() + LIMIT_S  # the log is written a moment later
            while store.url.encode() not in served.log.read_bytes():
                assert time.monotonic() < end, "the operator's log does tell"
                time.sleep(0.05)


def test_the_command_line_still_tells_the_address_of_its_own_store(tmp_path: Path) -> None:
    from hepfaas.platform.stores import open_store

    with pytest.raises(RequestError, match=f"store {tmp_path} has no model 'none'"):
        versions.find(open_store(str(tmp_path)), "none")


# --token


def test_without_the_token_nobody_is_answered(locked: System) -> None:
    token, port = locked.up.door.token, locked.up.options.port
    wrong: tuple[dict[str, str], ...] = (
        {}, {"Authorization": token}, {"Authorization": f"Basic {token}"}, {"Authorization": f"Bearer {token}x"},
        {"Authorization": f"Bearer {token[:-1]}"}, {"Authorization": "Bearer"}, {"Authorization": "Bearer ü"},
        {"Cookie": f"hepfaas-{port}={token}"}, {"Cookie": f"hepfaas-{port}="}, {"X-Token": token},
        {"Authorization": f"Bearer {locked.up.door.inner_token}"},
        {"Authorization": f"Bearer {locked.up.door._session}"},
        {"Authorization": "Bearer hepfaas-rule-x"},
    )  # fmt: skip
    for path in ("/v1/runs", "/models", "/v1/rules", "/v2/health/live", "/metrics", "/", "/healthz", "/openapi.json"):
        for headers in wrong:
            sent = {name: value.encode() for name, value in headers.items()}
            answer = httpx.get(locked.url + path, headers=sent, timeout=LIMIT_S)
            assert answer.status_code == 401, (path, headers, answer.text)
            assert answer.headers["www-authenticate"].startswith("Bearer")
            assert token not in answer.text
            check_protected(answer.headers, path)
    for method, path in (("POST", f"/v1/runs?token={token}"), ("GET", "/v1/runs?token=x"), ("GET", "/v1/runs?token=")):
        assert httpx.request(method, locked.url + path, timeout=LIMIT_S).status_code == 401
    twice = [("Authorization", f"Bearer {token}"), ("Authorization", f"Bearer {token}")]
    assert httpx.get(f"{locked.url}/v1/runs", headers=twice, timeout=LIMIT_S).status_code == 401


def test_nobody_gets_past_the_door_to_a_function(locked: System) -> None:
    for name, path in (("runs", "/v1/runs"), ("predict", "/models"), ("intake", "/v1/rules")):

        async def asked(name: str = name, path: str = path) -> list[int]:
            async with locked.up.replicas.lent(name) as url, httpx.AsyncClient(timeout=LIMIT_S) as client:
                tokens = ("", locked.up.door.token, locked.up.door.inner_token)
                headers = [{"Authorization": f"Bearer {token}"} if token else {} for token in tokens]
                return [(await client.get(url + path, headers=one)).status_code for one in headers]

        assert locked.run(asked) == [401, 401, 200], name


ENDLESS = {
    "header": (b"GET / HTTP/1.1\r\nX: ", b"a" * 500_000),
    "headers": (b"GET / HTTP/1.1\r\n", b"X: a\r\n" * 50_000),
    "body": (
        b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"7a120\r\n%b\r\n" % bytes(500_000),
    ),
}


@pytest.mark.parametrize("kind", ENDLESS)
def test_what_a_local_user_sends_without_end_is_not_kept(locked: System, kind: str) -> None:
    sink = int(locked.up.replicas._environ["K_SINK"].rstrip("/").rpartition(":")[2])
    begin, piece = ENDLESS[kind]
    for port in (locked.up.options.port, sink):
        sent = 0
        with socket.create_connection(("127.0.0.1", port), timeout=LIMIT_S) as connection:
            connection.sendall(begin)
            try:
                while sent < 40_000_000 and not select.select([connection], [], [], 0)[0]:
                    connection.sendall(piece)
                    sent += len(piece)
            except OSError:
                pass
        assert sent < 40_000_000
    assert httpx.get(f"{locked.url}/hello").status_code == 401


def test_a_browser_trades_the_token_for_a_cookie_of_this_site_alone(locked: System) -> None:
    port, login = locked.up.options.port, locked.up.login_url
    assert login == f"{locked.url}/?token={locked.up.door.token}"
    with httpx.Client(base_url=locked.url, timeout=LIMIT_S) as browser:
        answer = browser.get(login.replace("/?", "/models?x=1&"), headers={"Sec-Fetch-Site": "none"})
        assert (answer.status_code, answer.headers["location"]) == (303, "/models?x=1")
        cookie = answer.headers["set-cookie"]
        assert locked.up.door.token not in cookie
        assert {"HttpOnly", "SameSite=strict", "Path=/"} <= set(cookie.split("; "))
        assert "Domain" not in cookie
        check_protected(answer.headers, "login")
        assert list(browser.cookies) == [f"hepfaas-{port}"]
        for path in ("/models", "/v1/runs", "/v1/rules", "/"):
            assert browser.get(path).status_code == 200
        assert browser.post("/v1/runs", json={}, headers={"Sec-Fetch-Site": "same-origin"}).status_code == 422
        for headers in (CROSS, {"Sec-Fetch-Site": "same-site"}, {"Origin": "http://127.0.0.1:9"}):
            assert browser.post("/v1/runs", json={}, headers=headers).status_code == 403
        assert browser.get("/v1/runs", headers={"Host": "evil.example"}).status_code == 403
    for path in ("//evil.example/", "/\\evil.example/", "///evil.example"):
        head = (
            f"GET {path}?token={locked.up.door.token} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n"
        )
        lines = raw(port, head.encode()).split(b"\r\n")
        (location,) = [line for line in lines if line.lower().startswith(b"location: ")]
        assert location.startswith(b"location: /evil.example"), location
    rebound = httpx.get(login, headers={"Host": "evil.example"}, timeout=LIMIT_S)
    assert (rebound.status_code, "set-cookie" in rebound.headers) == (403, False)


def test_programs_send_the_token_and_rules_of_buckets_theirs(locked: System, monkeypatch: pytest.MonkeyPatch) -> None:
    token = locked.up.door.token
    with Client(locked.url, token) as client:
        assert list(client.runs()) == []
        assert client.models() == []
        assert json.loads(client.fetch("/v1/me"))["owner"] == "local"
    with Client(locked.url) as nobody, pytest.raises(RequestError, match="HEPFAAS_TOKEN"):
        nobody.models()
    headers = {"Authorization": f"Bearer {token}"}
    rule = {"match": {"signal.root": 1}, "files": 2, "job": {}}
    with httpx.Client(base_url=locked.url, timeout=LIMIT_S) as http:
        assert http.put("/v1/rules/r", json=rule, headers=headers).status_code in (200, 422)
        assert http.get("/v1/rules", headers={"Authorization": f"bearer {token}"}).status_code == 200


def test_grpc_takes_the_token_in_its_metadata(tmp_path: Path) -> None:
    secret = "a local token of more than 32 characters"
    with (
        function(tmp_path, "predict-grpc", HEPFAAS_LOCAL_TOKEN=secret) as served,
        grpc.insecure_channel(served.url.removeprefix("http://")) as channel,
    ):
        call = channel.unary_unary(
            "/inference.GRPCInferenceService/ModelMetadata",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=inference.ModelMetadataResponse.FromString,
        )
        expected = {
            None: grpc.StatusCode.UNAUTHENTICATED,
            secret: grpc.StatusCode.UNAUTHENTICATED,
            f"Bearer {secret}x": grpc.StatusCode.UNAUTHENTICATED,
            f"Bearer {secret}": grpc.StatusCode.NOT_FOUND,
        }
        for sent, code in expected.items():
            metadata = () if sent is None else (("authorization", sent),)
            with pytest.raises(grpc.RpcError) as error:
                call(inference.ModelMetadataRequest(name="none"), metadata=metadata, timeout=LIMIT_S)
            assert error.value.code() == code, sent
            assert str(tmp_path) not in (error.value.details() or "")


def test_the_token_and_an_issuer_exclude_each_other(tmp_path: Path) -> None:
    system = System(tmp_path / "up", HEPFAAS_ISSUER="https://iam.example", HEPFAAS_AUDIENCE="training")
    system.options = replace(system.options, token=True)
    with pytest.raises(RequestError, match="remove --token"):
        system.__enter__()
    system._loop.call_soon_threadsafe(system._loop.stop)
    system._thread.join(timeout=LIMIT_S)
    system._loop.close()
