"""Wildcards in addresses are resolved on the machine of the user, and the matches go to the service with the folder."""

import io
import json
import tarfile
from pathlib import Path

import pytest
from hepfaas import Client
from hepfaas.client.matches import matches_in
from hepfaas.errors import RequestError, UnavailableError
from hepfaas.jobs.folder import job_in
from hepfaas.jobs.uploads import Unpacked
from support.servers import XRootD, free_port, s3_client
from support.service import Service


def written(folder: Path, **texts: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name, text in {"model_py": "X = 1\n", **texts}.items():
        (folder / name.replace("_", ".")).write_text(text)
    return folder


@pytest.fixture
def served(xrootd: XRootD, tmp_path: Path) -> str:
    """Return the start of the addresses of two files."""
    (tmp_path / "file").write_text("x")
    for number in (2, 1):
        xrootd.serve(tmp_path / "file", f"client_{number}.root")
    return xrootd.url("client_")


def test_a_folder_with_wildcards_is_sent_with_their_matches(
    service: Service, served: str, s3_url: str, s3_server: dict[str, str], tmp_path: Path
) -> None:
    s3_client(s3_server).put_object(Bucket="tests", Key=f"{s3_url.removeprefix('s3://tests/')}/b.root", Body=b"x")
    samples = {"s": {"files": f"{served}*.root", "label": 1}, "b": {"files": "list.txt", "label": 0}}
    texts = {"samples_json": json.dumps({"samples": samples}), "list_txt": f"{s3_url}/*.root", "matches_json": "old"}
    folder = written(tmp_path / "job", **texts)
    service.answers["/v1/runs"] = [(200, {"run": "job-1"})]
    with Client(service.url) as client:
        assert client.submit(folder) == "job-1"
    body = service.requests[-1][-1]
    with tarfile.open(fileobj=io.BytesIO(body)) as tar:
        assert sorted(tar.getnames()) == ["list.txt", "matches.json", "model.py", "samples.json"]
    unpacked = Unpacked(tmp_path / "unpacked", 1_000_000)
    unpacked.add_tar(io.BytesIO(body))
    job = job_in(tmp_path / "unpacked", {"name": "x"})
    assert [(file.url, file.label, file.sample) for file in job.files] == [
        (f"{served}1.root", 1, "s"),
        (f"{served}2.root", 1, "s"),
        (f"{s3_url}/b.root", 0, "b"),
    ]
    assert f"'{served}*.root' matches 2 files" in job.notes


def test_logical_names_with_wildcards_are_resolved_below_the_redirector(
    xrootd: XRootD, served: str, tmp_path: Path
) -> None:
    texts = {"files_txt": "/store/client_*.root\n/store/x.root", "labels_txt": "1, 0"}
    folder = written(tmp_path / "job", params_json=json.dumps({"redirector": xrootd.door}), **texts)
    matches = [f"{served}1.root", f"{served}2.root"]
    assert json.loads(matches_in(folder, {})) == {f"{served}*.root": matches}


def test_a_wildcard_without_a_match_is_an_error_before_anything_is_sent(
    service: Service, served: str, tmp_path: Path
) -> None:
    folder = written(tmp_path / "job", files_txt=f"{served}x*", labels_txt="1")
    with Client(service.url) as client, pytest.raises(RequestError, match=rf"no file matches '{served}x\*': '/store/'"):
        client.submit(folder)
    assert not service.requests
    (folder / "files.txt").write_text(f"root://127.0.0.1:{free_port()}//store/*.root")
    with Client(service.url) as client, pytest.raises(UnavailableError, match="does not answer"):
        client.submit(folder)
    assert not service.requests


def test_mistakes_of_a_job_without_wildcards_are_left_to_the_service(tmp_path: Path) -> None:
    assert matches_in(tmp_path / "none", {}) == b""
    assert matches_in(written(tmp_path / "job", samples_json="{"), {}) == b""
    assert matches_in(written(tmp_path / "other", files_txt="root://h//a\ns3://b/c[1].root", labels_txt="1"), {}) == b""
