"""Lists as users of MLaaS4HEP write them."""

from pathlib import Path

import pytest
from hepfaas.datasets.files import labels_of, listed, located, paired
from hepfaas.errors import RequestError

AAA = "root://cms-xrd-global.cern.ch"


def test_a_list_has_lines_or_commas_and_comments() -> None:
    text = "# signal\n a.root \n\nb.root # second\nc.root,d.root\n#e.root\n/store/x#y.root\n"
    assert listed(text) == ("a.root", "b.root", "c.root", "d.root", "/store/x#y.root")


def test_labels_are_whole_numbers() -> None:
    assert labels_of("1\n0,+2 # last\n") == (1, 0, 2)
    with pytest.raises(RequestError, match="label 2 is 'signal'; a label is a whole number"):
        labels_of("1\nsignal\n")


@pytest.mark.parametrize(
    ("path", "redirector", "location"),
    [
        ("/store/mc/x.root", AAA, f"{AAA}//store/mc/x.root"),
        ("/store/mc/x.root", f"{AAA}/", f"{AAA}//store/mc/x.root"),
        ("store/x.root", AAA, f"{AAA}//store/x.root"),
        ("root://other.host:1094//store/x.root", AAA, "root://other.host:1094//store/x.root"),
        (f"{AAA}//store/x.root", AAA, f"{AAA}//store/x.root"),
    ],
)
def test_a_logical_name_gets_the_redirector_and_a_url_never(
    path: str, redirector: str, location: str, tmp_path: Path
) -> None:
    assert located(path, tmp_path, redirector) == location


def test_a_file_in_the_folder_is_that_file(tmp_path: Path) -> None:
    (tmp_path / "a.root").touch()
    assert located("a.root", tmp_path, AAA) == str(tmp_path / "a.root")
    assert located(str(tmp_path / "a.root"), Path("/"), AAA) == str(tmp_path / "a.root")


def test_without_a_redirector_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="file 'a.root' does not exist at '.*a.root', and 'redirector' .* is empty"):
        located("a.root", tmp_path, "")


def test_files_and_labels_pair_by_position() -> None:
    assert paired(["a", "b"], [1, 0]) == (("a", 1), ("b", 0))


@pytest.mark.parametrize(
    ("files", "labels", "message"),
    [
        ([], [], "the list of files is empty"),
        (["a", "b"], [1], "the list of files has 2 entries, the list of labels 1; each file needs one label"),
        (["a", "b", "a"], [0, 1, 0], "file 'a' is listed twice, as number 1 and 3"),
        (["a", "b"], [1, 1], "all files have label 1; a classifier needs files of at least two labels"),
    ],
)
def test_files_and_labels_that_do_not_pair_are_an_error(files: list[str], labels: list[int], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        paired(files, labels)
