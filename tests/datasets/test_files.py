"""Lists as users of MLaaS4HEP write them, and as Rucio prints them."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from hepfaas.datasets.files import (
    MOST_LISTED,
    Locations,
    file_and_tree,
    labels_of,
    listed,
    listed_files,
    located,
    paired,
)
from hepfaas.errors import RequestError
from hepfaas.runs.recipe import LabelledFile

AAA = "root://cms-xrd-global.cern.ch"
GUID = "7C1B1F2A-90C5-11EE-8D0D-0242AC110002"


def no_server(pattern: str) -> Sequence[str]:
    raise AssertionError(pattern)


def at(redirector: str = AAA, folder: Path | None = None, inside: bool = False) -> Locations:
    return Locations(no_server, redirector, folder, inside)


def test_a_list_has_lines_or_commas_and_comments() -> None:
    text = "# signal\n a.root \n\nb.root # second\nc.root,d.root\n#e.root\n/store/x#y.root\n"
    assert listed(text) == listed_files(text) == ("a.root", "b.root", "c.root", "d.root", "/store/x#y.root")


def test_a_list_is_not_longer_than_allowed() -> None:
    with pytest.raises(RequestError, match="a list has more than 20,000 names"):
        listed("a\n" * (MOST_LISTED + 1))


def test_a_list_of_files_may_be_what_rucio_prints() -> None:
    text = (
        f"cms:/store/mc/x.root,{GUID},ad12cd34,1.234 GB,20000\n"
        f"mc16_13TeV:DAOD_PHYS.1._000001.pool.root.1,(None),None,12 B,None\n"
        "mc16_13TeV:DAOD_PHYS.1._000002.pool.root.1\n"
    )
    assert listed_files(text) == (
        "cms:/store/mc/x.root",
        "mc16_13TeV:DAOD_PHYS.1._000001.pool.root.1",
        "mc16_13TeV:DAOD_PHYS.1._000002.pool.root.1",
    )


@pytest.mark.parametrize("line", ["+---------+------+", "| SCOPE:NAME | GUID |"])
def test_a_table_of_rucio_is_refused_naming_the_commands(line: str) -> None:
    with pytest.raises(RequestError, match=r"is a table of Rucio; make it with `rucio list-files --csv DID`, or"):
        listed_files(f"{line}\n")


def test_labels_are_whole_numbers() -> None:
    assert labels_of("1\n0,+2, -3 # last\n") == (1, 0, 2, -3)


@pytest.mark.parametrize("text", ["1\nsignal\n", "1\n12345\n", "1\n0.5\n"])
def test_a_list_with_a_label_that_is_not_a_number_is_refused(text: str) -> None:
    word = text.split()[1]
    with pytest.raises(
        RequestError, match=f"label 2 is '{word}'; a label is a whole number from -9999 to 9999, one for"
    ):
        labels_of(text)


@pytest.mark.parametrize("text", ["isSignal", "# of each event\nwhere(abs(id) == 25, 1, 0)  # ggH\n", "n > 1.5"])
def test_one_line_is_the_expression_of_the_labels(text: str) -> None:
    assert labels_of(text) in ("isSignal", "where(abs(id) == 25, 1, 0)", "n > 1.5")


@pytest.mark.parametrize(
    ("path", "redirector", "location"),
    [
        ("/store/mc/x.root", AAA, f"{AAA}//store/mc/x.root"),
        ("/store/mc/x.root", f"{AAA}/", f"{AAA}//store/mc/x.root"),
        ("store/x.root", AAA, f"{AAA}//store/x.root"),
        ("root://other.host:1094//store/x.root", AAA, "root://other.host:1094//store/x.root"),
        (f"{AAA}//store/x.root", AAA, f"{AAA}//store/x.root"),
        ("cms:/store/mc/x.root", AAA, f"{AAA}//store/mc/x.root"),
        ("mc16:DAOD.root.1", "root://h//atlas/rucio", "root://h//atlas/rucio//mc16:DAOD.root.1"),
    ],
)
def test_a_logical_name_gets_the_redirector_and_a_url_never(
    path: str, redirector: str, location: str, tmp_path: Path
) -> None:
    assert at(redirector, tmp_path).of(path) == (location,)


@pytest.mark.parametrize(
    ("name", "file", "tree"),
    [
        ("both.root:Signal", "both.root", "Signal"),
        ("a/both.root:dir/tree", "a/both.root", "dir/tree"),
        ("data/*.root:Signal", "data/*.root", "Signal"),
        ("x.root.1:Events", "x.root.1", "Events"),
        ("root://h//a/both.root:Signal", "root://h//a/both.root", "Signal"),
        ("root://h:1094//a/*.root:dir/tree", "root://h:1094//a/*.root", "dir/tree"),
        ("s3://bucket.root/x.root:Signal", "s3://bucket.root/x.root", "Signal"),
        ("cms:/store/mc/x.root:Events", "cms:/store/mc/x.root", "Events"),
        ("user.me:user.me.x.root:Signal", "user.me:user.me.x.root", "Signal"),
        ("plain.root", "plain.root", ""),
        ("cms:/store/mc/x.root", "cms:/store/mc/x.root", ""),
        ("mc16:DAOD.root.1", "mc16:DAOD.root.1", ""),
        ("user.root:user.root.x.root", "user.root:user.root.x.root", ""),
        ("user.root:x.pool.root.1", "user.root:x.pool.root.1", ""),
        ("user.root:/store/x", "user.root:/store/x", ""),
        ("root://my.root:1094//a/x.root", "root://my.root:1094//a/x.root", ""),
        ("https://h/x.root?of=y.root:z", "https://h/x.root?of=y.root:z", ""),
        ("both.root:", "both.root:", ""),
        (":Signal", ":Signal", ""),
    ],
)
def test_a_name_may_have_a_tree_after_the_file_and_names_of_rucio_have_none(name: str, file: str, tree: str) -> None:
    assert file_and_tree(name) == (file, tree)


def test_two_trees_of_a_file_are_two_files_and_a_tree_goes_to_all_matches(tmp_path: Path) -> None:
    for name in ("a.root", "b.root"):
        (tmp_path / name).touch()
    a, b = (str(tmp_path / name) for name in ("a.root", "b.root"))
    named = paired(listed_files("*.root:Signal\na.root:dir/B\nb.root\n"), (1, 0, 0))
    found = located(named, at("", tmp_path))
    assert found.files == (
        LabelledFile(a, 1, tree="Signal"),
        LabelledFile(b, 1, tree="Signal"),
        LabelledFile(a, 0, tree="dir/B"),
        LabelledFile(b, 0),
    )
    assert found.notes == ("'*.root' matches 2 files",)
    twice = paired(["a.root:S", "*.root:S"], (1, 0))
    with pytest.raises(RequestError, match=r"file '.*/a\.root:S' is listed twice, as number 1 and 2; list it once"):
        located(twice, at("", tmp_path))
    (file,) = located(paired(["/store/x.root:S"], "label"), at(AAA, tmp_path), has_labels=False).files
    assert (file.url, file.tree) == (f"{AAA}//store/x.root", "S")


def test_a_name_of_rucio_without_a_path_needs_a_server_that_finds_it(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"'mc16:DAOD.root.1' is a name of Rucio without a path; list the addresses"):
        at(AAA, tmp_path).of("mc16:DAOD.root.1")


def test_a_file_in_the_folder_is_that_file(tmp_path: Path) -> None:
    (tmp_path / "a.root").touch()
    assert at(AAA, tmp_path).of("a.root") == (str(tmp_path / "a.root"),)
    assert at(AAA, Path("/")).of(str(tmp_path / "a.root")) == (str(tmp_path / "a.root"),)


def test_without_a_redirector_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="file 'a.root' does not exist at '.*a.root', and 'redirector' .* is empty"):
        at("", tmp_path).of("a.root")


def test_a_missing_file_has_a_location_for_a_run_that_skips_it(tmp_path: Path) -> None:
    locations = Locations(no_server, "", tmp_path, inside=False, keeps_missing=True)
    assert locations.of("a.root") == (str(tmp_path / "a.root"),)
    with pytest.raises(RequestError, match=r"no file matches 'a\*\.root'"):
        locations.of("a*.root")
    with pytest.raises(RequestError, match="file 'a.root' does not exist at"):
        Locations(no_server, "", tmp_path, inside=True, keeps_missing=True).of("a.root")


def test_a_job_from_elsewhere_uses_no_other_file_of_this_machine(tmp_path: Path) -> None:
    (tmp_path / "job").mkdir()
    (tmp_path / "a.root").touch()
    with pytest.raises(RequestError, match=r"a\.root' did not come with the job and does not start with /store/;"):
        at(AAA, tmp_path / "job", inside=True).of(str(tmp_path / "a.root"))


def test_wildcards_match_files_on_disk_before_they_go_to_a_redirector(tmp_path: Path) -> None:
    asked: list[str] = []

    def listing(pattern: str) -> Sequence[str]:
        asked.append(pattern)
        return ("root://h//store/1.root", "root://h//store/2.root")

    for name in ("b.root", "a.root", "x[1].root"):
        (tmp_path / name).touch()
    for inside in (False, True):
        locations = Locations(listing, AAA, tmp_path, inside)
        assert locations.of("[ab].root") == (str(tmp_path / "a.root"), str(tmp_path / "b.root"))
        assert locations.of("x[1].root") == (str(tmp_path / "x[1].root"),)
        assert locations.of("/store/*.root") == ("root://h//store/1.root", "root://h//store/2.root")
        with pytest.raises(RequestError, match=r"no file matches 'c\*\.root': '\.' has a\.root, b\.root, x\[1\]\.root"):
            locations.of("c*.root")
    assert asked == [f"{AAA}//store/*.root"] * 2
    assert Locations(listing, "root://h", tmp_path).of("mc/*.root")
    assert asked[-1] == "root://h//mc/*.root"


def test_wildcards_of_a_job_without_a_folder_match_nothing() -> None:
    with pytest.raises(RequestError, match=r"no file matches 'a\*\.root': no file came with the job"):
        at(AAA, None, inside=True).of("a*.root")


def test_files_and_labels_pair_by_position() -> None:
    assert paired(["a", "b"], [1, 0]) == (LabelledFile("a", 1), LabelledFile("b", 0))
    assert paired(["a", "b"], "isSignal") == (LabelledFile("a", 0), LabelledFile("b", 0))


@pytest.mark.parametrize(
    ("files", "labels", "message"),
    [
        ([], [], "the list of files is empty"),
        (["a", "b"], [1], "the list of files has 2 entries, the list of labels 1; each file needs one label"),
        (["a", "b", "a"], [0, 1, 0], "file 'root://h//a' is listed twice, as number 1 and 3; list it once"),
        (["a", "b"], [1, 1], "all files have label 1; a classifier needs files of at least two labels"),
        (["a" * 3_000 + str(n) for n in range(2_000)], [0] * 2_000, "addresses of the files have more than 5 MB"),
    ],
)
def test_files_and_labels_that_do_not_pair_are_an_error(files: list[str], labels: list[int], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        located(paired(files, labels), at("root://h"))


def test_the_label_of_a_pattern_holds_for_all_its_matches(tmp_path: Path) -> None:
    for name in ("sig_2.root", "sig_1.root", "bkg.root"):
        (tmp_path / name).touch()
    result = located(paired(["sig_*.root", "bkg.root"], [1, 0]), at(AAA, tmp_path))
    assert [(Path(file.url).name, file.label) for file in result.files] == [
        ("sig_1.root", 1),
        ("sig_2.root", 1),
        ("bkg.root", 0),
    ]
    assert result.notes == ("'sig_*.root' matches 2 files",)


def test_a_file_in_two_samples_is_an_error_that_names_both(tmp_path: Path) -> None:
    (tmp_path / "a1.root").touch()
    named = (LabelledFile("a*.root", 0, "all"), LabelledFile("a1.root", 1, "some"))
    with pytest.raises(
        RequestError, match=r"a1\.root' is listed twice, as sample 'all' and sample 'some'; list it once"
    ):
        located(named, at(AAA, tmp_path))


def test_too_many_files_are_refused() -> None:
    names = [LabelledFile(f"root://h//{n}", n % 2) for n in range(MOST_LISTED + 1)]
    with pytest.raises(RequestError, match="the job has more than 20,000 files"):
        located(names, at())
