"""Wildcards find the same files on disk, on an XRootD server and in a bucket."""

import glob
import os
import shutil
import socket
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from hepfaas.datasets import wildcards
from hepfaas.datasets.listings import on_server
from hepfaas.datasets.wildcards import Entry, found, is_pattern, on_disk
from hepfaas.errors import RequestError, UnavailableError
from hypothesis import given, settings
from hypothesis import strategies as st
from support.servers import LIMIT_S, XRootD, XRootDNode, free_port, s3_client

FILES = (
    "sig_1.root", "sig_2.root", "bkg.root", ".hidden.root", "a/sig_3.root", "a/b/sig_4.root", "a/b/bkg.root",
    "a/.dot/sig_5.root", "c/sig_6.root", "ö 7.root",
)  # fmt: skip
PATTERNS = {
    "*.root": ("bkg.root", "sig_1.root", "sig_2.root", "ö 7.root"),
    "sig_*.root": ("sig_1.root", "sig_2.root"),
    "*/sig_*.root": ("a/sig_3.root", "c/sig_6.root"),
    "**/sig_*.root": ("a/b/sig_4.root", "a/sig_3.root", "c/sig_6.root", "sig_1.root", "sig_2.root"),
    "a/**": ("a/b/bkg.root", "a/b/sig_4.root", "a/sig_3.root"),
    "a/*/bkg.root": ("a/b/bkg.root",),
    ".*.root": (".hidden.root",),
    "**/b/**/*.root": ("a/b/bkg.root", "a/b/sig_4.root"),
}
BRACKETS = {"sig_[13-9].root": ("sig_1.root",), "sig_[!1].root": ("sig_2.root",)}
QUESTION = {"sig_?.root": ("sig_1.root", "sig_2.root")}


def filled(folder: Path) -> Path:
    for name in FILES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return folder


@pytest.mark.parametrize(("pattern", "names"), [*PATTERNS.items(), *BRACKETS.items(), *QUESTION.items()])
@pytest.mark.parametrize("inside", [False, True])
def test_wildcards_match_files_on_disk(tmp_path: Path, pattern: str, names: Sequence[str], inside: bool) -> None:
    assert found(pattern, on_disk(filled(tmp_path), inside)) == names


def test_absolute_wildcards_match_files_of_this_machine_and_none_outside_a_job(tmp_path: Path) -> None:
    folder = filled(tmp_path / "data")
    (tmp_path / "job").mkdir()
    pattern = f"{folder}/sig_*.root"
    assert found(pattern, on_disk(tmp_path / "job", False)) == (f"{folder}/sig_1.root", f"{folder}/sig_2.root")
    assert found("../data/bk*", on_disk(tmp_path / "job", False)) == ("../data/bkg.root",)
    for outside in (pattern, "../data/bk*"):
        with pytest.raises(RequestError, match="no file matches"):
            found(outside, on_disk(tmp_path / "job", True))


def test_links_out_of_a_job_are_not_followed_and_others_are_once(tmp_path: Path) -> None:
    data, job = filled(tmp_path / "data"), tmp_path / "job"
    job.mkdir()
    (job / "link").symlink_to(data)
    (job / "one.root").symlink_to(data / "bkg.root")
    (job / "self").symlink_to(job)
    assert found("*/sig_1.root", on_disk(job, False)) == ("link/sig_1.root",)
    assert found("**", on_disk(job, False)) == ("one.root",)
    for pattern in ("*/sig_1.root", "link/*.root", "*.root", "**"):
        with pytest.raises(RequestError, match="no file matches"):
            found(pattern, on_disk(job, True))


segments = st.lists(
    st.sampled_from(["a", "b", "ab", "*", "?", "a*", "*b", "[ab]", "[!a]", "**"]), min_size=1, max_size=4
)
names = st.lists(st.sampled_from(["a", "b", "ab", "ba", "c"]), min_size=1, max_size=4).map("/".join)


@settings(max_examples=150, deadline=None)
@given(pattern=segments.map("/".join), files=st.lists(names, min_size=1, max_size=8))
def test_wildcards_match_what_the_glob_module_does(
    tmp_path_factory: pytest.TempPathFactory, pattern: str, files: list[str]
) -> None:
    folder = tmp_path_factory.mktemp("glob")
    for name in files:
        if not any((folder / above).is_file() for above in Path(name).parents) and not (folder / name).is_dir():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).touch()
    expected = {
        os.path.relpath(path, folder)
        for path in glob.glob(str(folder / pattern), recursive=True)  # noqa: PTH207  # Path.glob has other rules for '**'
        if os.path.isfile(path)  # noqa: PTH113
    }
    if expected:
        assert found(pattern, on_disk(folder, True)) == tuple(sorted(expected))
    else:
        with pytest.raises(RequestError, match="no file matches"):
            found(pattern, on_disk(folder, True))
    shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        (
            "sgi_*.root",
            r"no file matches 'sgi_\*\.root': '\.' has a/, bkg\.root, c/, sig_1\.root, sig_2\.root and 1 more",
        ),
        ("a/b/x*", r"'a/b/' has bkg\.root, sig_4\.root$"),
        ("c/none/x*", r"'c/' has sig_6\.root$"),
        ("none/x*", r"'\.' has a/, bkg\.root"),
        ("*/*/x*", r"'a/b/' has bkg\.root, sig_4\.root$"),
    ],
)
def test_a_pattern_without_matches_names_what_is_there(tmp_path: Path, pattern: str, message: str) -> None:
    folder = filled(tmp_path)
    (folder / ".hidden.root").unlink()
    with pytest.raises(RequestError, match=message):
        found(pattern, on_disk(folder, True))


def test_the_folder_of_a_pattern_may_be_empty(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"no file matches '\*': '\.' has no file$"):
        found("*", on_disk(tmp_path, True))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every folder")
def test_a_folder_that_must_not_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0)
    with pytest.raises(RequestError, match="folder 'closed/' cannot be listed: Permission denied"):
        found("closed/*", on_disk(tmp_path, True))


def endless(path: str, start: str) -> Sequence[Entry]:
    return [Entry("deeper", True), Entry("x.root", False)]


def test_a_pattern_that_never_ends_is_refused() -> None:
    with pytest.raises(RequestError, match=r"'\*\*/x' has more than 32 folders below each other; name some of them"):
        found("**/x", endless)


def test_many_ways_to_a_folder_are_walked_once() -> None:
    def entries(path: str, start: str) -> Sequence[Entry]:
        return [Entry("a", True), Entry("x.root", False)] if path.count("/") < 25 else [Entry("x.root", False)]

    start = time.process_time()
    assert len(found("**/a/" * 6 + "**/*/" * 4 + "**/x.root", entries)) == 26 - 10
    assert time.process_time() - start < 5


@pytest.mark.parametrize(
    ("limit", "value", "message"),
    [
        ("MOST_MATCHES", 2, "matches more than 2 files; use several patterns"),
        ("MOST_ENTRIES", 3, "leads to more than 3 names; name some folders"),
        ("MOST_FOLDERS", 2, "leads to too many folders: 2 were listed; name some of them"),
        ("LONGEST_S", -1.0, "leads to too many folders: 0 were listed; name some of them"),
    ],
)
def test_a_pattern_has_limits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, value: float, message: str
) -> None:
    monkeypatch.setattr(wildcards, limit, value)
    with pytest.raises(RequestError, match=message):
        found("**/*.root", on_disk(filled(tmp_path), True))


@pytest.mark.parametrize(
    ("name", "is_one"),
    [
        ("a.root", False), ("a*.root", True), ("a?.root", True), ("a[1].root", True), ("root://h//store/*.root", True),
        ("root://h//store/x[12].root", True), ("root://h//store/a.root?authz=x", False), ("root://[::1]//a", False),
        ("s3://bucket/a[1]?.root", False), ("s3://bucket/a*", True), ("https://h/a.root?download=*", True),
        ("https://h/a.root?x=1", False), ("gsiftp://h/*", False),
    ],
)  # fmt: skip
def test_only_wildcards_of_their_server_make_an_address_a_pattern(name: str, is_one: bool) -> None:
    assert is_pattern(name) is is_one


@pytest.fixture
def served(xrootd: XRootD, request: pytest.FixtureRequest) -> str:
    """Return the address of a folder on a server with the files."""
    folder = xrootd.data / f"wild{abs(hash(request.node.name)):x}"
    filled(folder)
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return xrootd.url(folder.name)


def test_wildcards_match_files_on_an_xrootd_server(served: str) -> None:
    for pattern, matches in {**PATTERNS, **BRACKETS}.items():
        assert on_server(f"{served}/{pattern}") == tuple(f"{served}/{name}" for name in matches)


def test_a_pattern_without_matches_on_an_xrootd_server_names_what_is_there(served: str) -> None:
    with pytest.raises(
        RequestError, match=rf"no file matches '{served}/x\*': '/store/wild\w+/' has \.hidden\.root, a/, "
    ):
        on_server(f"{served}/x*")
    with pytest.raises(RequestError, match=rf"no file matches '{served}/none/x\*': '/store/wild\w+/' has"):
        on_server(f"{served}/none/x*")


def test_a_folder_that_an_xrootd_server_does_not_list_is_refused(xrootd: XRootD) -> None:
    with pytest.raises(RequestError, match="cannot be read: its server refuses"):
        on_server(f"{xrootd.door}//other/*.root")


@pytest.mark.slow
def test_a_redirector_lists_the_files_of_all_its_servers_or_none() -> None:
    port = free_port()
    first = XRootDNode("server", port, {"all/a.root": "a", "all/b.root": "b"})
    second = XRootDNode("server", port, {"all/b.root": "b", "all/c.root": "c"})
    with XRootDNode("manager", port) as redirector, first, second:
        folder = f"{redirector.door}//store/all"
        end = time.monotonic() + LIMIT_S
        while len(matches := listed(f"{folder}/*.root")) < 3:  # until both servers have logged in
            assert time.monotonic() < end, matches
        assert matches == tuple(f"{folder}/{name}.root" for name in "abc")
        second.kill()
        with pytest.raises(UnavailableError, match="does not answer: some of its servers did not list the folder"):
            on_server(f"{folder}/*.root")


def listed(pattern: str) -> Sequence[str]:
    """Return the matches of a pattern on a server that is starting."""
    time.sleep(0.5)
    try:
        return on_server(pattern)
    except (RequestError, UnavailableError):
        return ()


def test_a_silent_or_absent_xrootd_server_is_unavailable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with pytest.raises(UnavailableError, match=rf"the server of 'root://127\.0\.0\.1:{port}//x/\*' does not answer"):
        on_server(f"root://127.0.0.1:{port}//x/*")


def test_wildcards_match_objects_in_a_bucket(s3_url: str, s3_server: dict[str, str]) -> None:
    client, prefix = s3_client(s3_server), s3_url.removeprefix("s3://tests/")
    for name in (*FILES, "odd?[1].root"):
        client.put_object(Bucket="tests", Key=f"{prefix}/{name}", Body=b"x")
    for pattern, matches in PATTERNS.items():
        expected = sorted((*matches, *(("odd?[1].root",) if pattern == "*.root" else ())))
        assert on_server(f"{s3_url}/{pattern}") == tuple(f"{s3_url}/{name}" for name in expected)
    assert on_server(f"{s3_url}/odd?[1]*") == (f"{s3_url}/odd?[1].root",)
    with pytest.raises(RequestError, match=rf"no file matches '{s3_url}/x\*': '{prefix}/' has \.hidden\.root, a/, bkg"):
        on_server(f"{s3_url}/x*")


def test_a_bucket_that_is_not_there_is_named(s3_url: str) -> None:
    with pytest.raises(RequestError, match="bucket 'nowhere-at-all' does not exist"):
        on_server("s3://nowhere-at-all/*.root")


def test_wildcards_on_web_servers_are_refused() -> None:
    with pytest.raises(RequestError, match=r"'https://host/a/\*\.root' has a wildcard, and web servers do not list"):
        on_server("https://host/a/*.root")


def test_a_pattern_with_a_secret_is_refused_without_showing_it() -> None:
    with pytest.raises(RequestError, match="the address has a user, a token or a client option in it") as refusal:
        on_server("root://host//store/*.root?authz=SECRET")
    assert "SECRET" not in str(refusal.value)
