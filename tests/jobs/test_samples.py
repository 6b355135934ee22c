"""Samples are the same in a folder, in JSON and in YAML."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hepfaas.datasets.files import Locations
from hepfaas.datasets.listings import Listing
from hepfaas.errors import RequestError
from hepfaas.jobs.addresses import place_files
from hepfaas.jobs.data import data_in
from hepfaas.jobs.folder import job_in
from hepfaas.jobs.job import Job, job_of, recipe_of
from hepfaas.jobs.names import Chosen, Names
from hepfaas.jobs.samples import described, samples_text
from hepfaas.jobs.texts import texts_in
from hepfaas.platform.stores import open_store
from hepfaas.runs.params import Params
from hepfaas.runs.recipe import LabelledFile, Sample
from hypothesis import given
from hypothesis import strategies as st

ABOUT: dict[str, Any] = {
    "luminosity": 59.5,
    "samples": {
        "ggH": {
            "files": ["s3://in/ggH_1.root", "s3://in/ggH_2.root"],
            "label": 1,
            "weight": " genWeight * puWeight ",
            "cross_section": 48.58,
            "sum_of_weights": "Runs/genEventSumw",
        },
        "VBF": {"files": "s3://in/VBF.root", "label": 1, "cross_section": 3.782, "sum_of_weights": -12},
        "ttbar": {"files": "lists/ttbar.txt", "label": 0, "cross_section": 831.76},
    },
}
CODE = {"model.py": "X = 1\n", "lists/ttbar.txt": "# 2018\ns3://in/tt_1.root, s3://in/tt_2.root\n/store/mc/tt_3.root\n"}
FILES = (
    LabelledFile("s3://in/ggH_1.root", 1, "ggH"),
    LabelledFile("s3://in/ggH_2.root", 1, "ggH"),
    LabelledFile("s3://in/VBF.root", 1, "VBF"),
    LabelledFile("s3://in/tt_1.root", 0, "ttbar"),
    LabelledFile("s3://in/tt_2.root", 0, "ttbar"),
    LabelledFile("root://cms-xrd-global.cern.ch//store/mc/tt_3.root", 0, "ttbar"),
)
SAMPLES = (
    Sample(name="ggH", weight="genWeight * puWeight", cross_section=48.58, sum_of_weights="Runs/genEventSumw"),
    Sample(name="VBF", cross_section=3.782, sum_of_weights=-12.0),
    Sample(name="ttbar", cross_section=831.76),
)


def folder_with(place: Path, texts: Mapping[str, str]) -> Path:
    for name, text in {**CODE, **texts}.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(text)
    return place


def as_folder(place: Path, about: Mapping[str, Any]) -> Job:
    return job_in(folder_with(place / "model", {"samples.json": json.dumps(about)}), {})


def as_yaml(place: Path, about: Mapping[str, Any]) -> Job:
    return job_in(folder_with(place / "model", {"samples.yaml": yaml.safe_dump(about, sort_keys=False)}), {})


def by_option(place: Path, about: Mapping[str, Any]) -> Job:
    return job_in(folder_with(place / "model", {"higgs.yml": yaml.safe_dump(about)}), {"samples": "higgs.yml"})


def by_submit_json(place: Path, about: Mapping[str, Any]) -> Job:
    texts = {"submit.json": '{"samples": "higgs.json"}', "higgs.json": json.dumps(about)}
    return job_in(folder_with(place / "model", texts), {})


def as_json(place: Path, about: Mapping[str, Any]) -> Job:
    return job_of({**about, "code": CODE})


WAYS = [as_folder, as_yaml, by_option, by_submit_json, as_json]


@pytest.mark.parametrize("way", WAYS)
def test_samples_are_the_same_however_they_come(tmp_path: Path, way: Callable[[Path, Any], Job]) -> None:
    job = way(tmp_path, ABOUT)
    store = open_store(str(tmp_path / "store"))
    recipe = recipe_of(job, store, place_files(store, True))
    assert sorted(recipe.files, key=str) == sorted(FILES, key=str)
    assert sorted(recipe.samples, key=str) == sorted(SAMPLES, key=str)
    assert recipe.luminosity == 59_500.0
    assert set(recipe.classes) == {"ttbar", "ggH + VBF"} or set(recipe.classes) == {"ttbar", "VBF + ggH"}
    assert recipe.label == ""


@pytest.mark.parametrize(("language", "names"), [("json", ["ggH", "VBF", "ttbar"]), ("yaml", ["ttbar"])])
def test_the_examples_of_the_documentation_are_samples(language: str, names: list[str]) -> None:
    page = (Path(__file__).parents[2] / "docs/reference/samples.md").read_text()
    text = page.partition(f"```{language}\n")[2].partition("```")[0]
    about = described(samples_text(text, f"samples.{language}"), "the page", lambda name: f"{name}.root", True)
    assert [sample.name for sample in about.samples] == names
    assert about.luminosity == 59_800


def test_the_order_of_samples_and_files_is_that_of_the_text(tmp_path: Path) -> None:
    job = as_json(tmp_path, ABOUT)
    assert (job.files, job.samples) == (FILES, SAMPLES)


def changed(sample: str = "ggH", **values: Any) -> dict[str, Any]:
    """Return the samples with other values of one; None removes a key."""
    about = {key: value for key, value in {**ABOUT["samples"][sample], **values}.items() if value is not None}
    return {**ABOUT, "samples": {**ABOUT["samples"], sample: about}}


@pytest.mark.parametrize(
    ("about", "message"),
    [
        ({"samples": {}}, "needs 'samples': an object from the name of each sample to its files and label"),
        ({"samples": []}, "needs 'samples': an object"),
        ({"samples": {"a b": {}}}, "sample 'a b': a name has up to 64 letters, digits, '.', '_' and '-'"),
        ({"samples": {"x" * 65: {}}}, "a name has up to 64 letters"),
        ({"samples": {"a": 1}}, "sample 'a' is 1; it takes an object with 'files' and 'label'"),
        ({"samples": {f"s{n}": {} for n in range(1_001)}}, "has 1,001 samples; at most 1,000 are taken"),
        (changed(xsec=1), "sample 'ggH' has the unknown key 'xsec'; closest: "),
        (changed(cross_sectoin=1), "has the unknown key 'cross_sectoin'; closest: cross_section$"),
        (changed(label=None), "sample 'ggH' needs 'label': a whole number, or the name of a class"),
        (changed(label=0.5), "'label' is 0.5; it takes a whole number from -9999 to 9999, or the name of a class"),
        (changed(label=True), "'label' is true; it takes a whole number"),
        (changed(label=10_000), "'label' is 10000; it takes a whole number"),
        (changed(label="1"), "'label' is \"1\"; it takes a whole number"),
        (changed(label="a+b"), r"'label' is \"a\+b\"; it takes a whole number"),
        (
            changed(label="signal"),
            "the label of sample 'ggH' is a name, and that of sample|that of 'VBF' a number; use one",
        ),
        (changed(weight=1), "'weight' is 1; it takes an expression, as \"genWeight\""),
        (changed(weight="genWeight *"), "sample 'ggH': 'weight'.*genWeight"),
        (changed(weight="__import__('os')"), "sample 'ggH': 'weight'"),
        (changed(cross_section=0), "'cross_section' is 0; it takes a number of pb above 0"),
        (changed(cross_section=-1.5), "'cross_section' is -1.5; it takes"),
        (changed(cross_section="48 pb"), "'cross_section' is \"48 pb\"; it takes"),
        (changed(cross_section=True), "'cross_section' is true; it takes"),
        (changed(cross_section=10**400), "'cross_section' is 1000.*; it takes a number of pb"),
        (changed(cross_section=float("inf")), "'cross_section' is Infinity; it takes"),
        (
            changed(sum_of_weights=0),
            "'sum_of_weights' is 0; it takes a number that is not 0, or a branch as \"Runs/genE",
        ),
        (changed(sum_of_weights="genEventSumw"), "'sum_of_weights' is \"genEventSumw\"; it takes"),
        (changed(sum_of_weights="/genEventSumw"), "'sum_of_weights' is"),
        (changed(sum_of_weights="a b/c"), "'sum_of_weights' is"),
        (
            changed(cross_section=None),
            "sample 'ggH' has 'sum_of_weights' and no 'cross_section'; give both, or neither",
        ),
        (
            changed(files=[]),
            r"'files' is \[\]; it takes addresses, paths and wildcards in a list, or the name of a .txt",
        ),
        (changed(files=None), "'files' is null; it takes"),
        (changed(files=["s3://in/a.root", 1]), "'files' is .*; it takes"),
        (changed(files={"rucio": "cms:/x"}), "'files' is .*rucio.*; it takes"),
        (changed(files=" "), "'files' is \" \"; it takes"),
        (changed(files="none.txt"), "has no 'none.txt'"),
        (changed(files="/etc/passwd.txt"), "not the name of a file inside a folder"),
        (changed(files="/etc/passwd"), "file '/etc/passwd' did not come with the job"),
        (changed(files="a\n.root"), "is not a name or address of a file"),
        (
            changed(files="s3://in/VBF.root"),
            "'s3://in/VBF.root' is listed twice, as sample '.*' and sample '.*'; list it",
        ),
        (
            changed(files=["s3://in/x", "s3://in/x"]),
            "'s3://in/x' is listed twice, as sample 'ggH' and again; list it once, or name a tree of each",
        ),
        (changed(sample="ttbar", label=1), "all files have label 1; a classifier needs files of at least two labels"),
        ({**ABOUT, "luminosity": 0}, "'luminosity' is 0; it takes a number of 1/fb above 0, or text with a unit as"),
        ({**ABOUT, "luminosity": "59.5"}, "'luminosity' is \"59.5\"; it takes"),
        ({**ABOUT, "luminosity": "1.2.3/fb"}, "'luminosity' is \"1.2.3/fb\"; it takes"),
        ({**ABOUT, "luminosity": "1e400/fb"}, "'luminosity' is \"1e400/fb\"; it takes"),
        ({**ABOUT, "luminosity": [59]}, r"'luminosity' is \[59\]; it takes"),
    ],
)
@pytest.mark.parametrize("way", [as_folder, as_json])
def test_wrong_samples_are_refused_naming_the_sample_and_the_key(
    tmp_path: Path, way: Callable[[Path, Any], Job], about: Mapping[str, Any], message: str
) -> None:
    with pytest.raises(RequestError, match=message):
        way(tmp_path, about)


@pytest.mark.parametrize("way", [as_folder, as_yaml])
def test_an_unknown_key_beside_the_samples_is_refused(tmp_path: Path, way: Callable[[Path, Any], Job]) -> None:
    with pytest.raises(RequestError, match=r"^samples\.\w+ has the unknown key 'lumi'; closest: luminosity"):
        way(tmp_path, {**ABOUT, "lumi": 1})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"samples": {"a": {}, "a": {}}}', "samples.json has the key 'a' twice"),
        ("{", "samples.json is not JSON: .* at line 1 column 2"),
        ("[]", "samples.json is not an object"),
        ('{"luminosity": ' + "9" * 5_000 + "}", "samples.json cannot be read"),
        ("[" * 60, "samples.json is nested deeper than 50 levels"),
        ("[1" + ",1" * 100_001, "samples.json has more than 100,000 values"),
    ],
)
def test_a_text_that_is_not_an_object_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        job_in(folder_with(tmp_path, {"samples.json": text}), {"name": "x"})


def test_an_empty_list_of_files_is_refused(tmp_path: Path) -> None:
    texts = {"samples.json": json.dumps(changed(files="empty.txt")), "empty.txt": "# nothing\n"}
    with pytest.raises(RequestError, match="samples.json: sample 'ggH': 'empty.txt' lists no file"):
        job_in(folder_with(tmp_path / "x", texts), {})


@pytest.mark.parametrize(
    ("luminosity", "in_pb"),
    [(59.5, 59_500.0), (1, 1_000.0), ("59.5/fb", 59_500.0), ("59.5 / fb", 59_500.0), ("36 fb^-1", 36_000.0),
     ("36fb-1", 36_000.0), ("1.5e3/pb", 1_500.0), ("139 pb-1", 139.0)],
)  # fmt: skip
def test_a_luminosity_is_in_inverse_femtobarn_or_has_a_unit(luminosity: object, in_pb: float, tmp_path: Path) -> None:
    assert as_json(tmp_path, {**ABOUT, "luminosity": luminosity}).luminosity == pytest.approx(in_pb, rel=1e-15)


def test_labels_that_are_names_are_numbered_and_told(tmp_path: Path) -> None:
    names = {"ggH": "signal", "VBF": "signal", "ttbar": "background"}
    samples = {name: {**ABOUT["samples"][name], "label": label} for name, label in names.items()}
    job = as_folder(tmp_path, {**ABOUT, "samples": samples})
    assert [file.label for file in job.files] == [0, 0, 0, 1, 1, 1]
    assert "samples.json: the labels are signal = 0, background = 1" in job.notes
    assert recipe_of(job, open_store(str(tmp_path / "store"))).classes == ("signal", "background")


@given(st.lists(st.sampled_from(["s", "b", "c", "d"]), min_size=1, max_size=8))
def test_named_labels_have_the_numbers_from_0_in_order_of_appearance(labels: list[str]) -> None:
    samples = {f"s{n}": {"files": f"s3://in/{n}", "label": label} for n, label in enumerate(labels)}
    numbers = [file.label for file in described({"samples": samples}, "x", str, True).files]
    order = list(dict.fromkeys(labels))
    assert [order[number] for number in numbers] == labels


plain = st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from([*"a1/*.", "x.txt", "\ud800", "a/b"])
anything = st.recursive(
    plain, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=2)
)
samples_of_any_kind = st.fixed_dictionaries(
    {"files": anything},
    optional=dict.fromkeys(("label", "weight", "cross_section", "sum_of_weights"), anything),
)


@given(
    st.fixed_dictionaries(
        {"samples": anything | st.dictionaries(st.text(max_size=3), samples_of_any_kind | anything, max_size=3)},
        optional={"luminosity": anything},
    ),
    st.booleans(),
)
def test_values_of_any_kind_are_samples_or_a_clear_error(values: dict[str, Any], has_labels: bool) -> None:
    try:
        about = described(values, "samples.json", lambda name: "s3://in/a.root", has_labels)
    except RequestError as error:
        assert str(error).startswith("samples.json")  # noqa: PT017
    else:
        assert about.files
        json.dumps([str(about.samples), str(about.luminosity)]).encode()
        assert all(sample.sum_of_weights != 0 and (sample.cross_section or 1) > 0 for sample in about.samples)


def about_data(job: Job) -> tuple[str, ...]:
    """Return the notes without that on files beside the code."""
    return tuple(note for note in job.notes if "with model.py" not in note)


def test_notes_tell_what_is_not_normalised(tmp_path: Path) -> None:
    plain: dict[str, Any] = {"files": "s3://in/data.root", "label": 0}
    assert (
        "the job: events of ggH are not normalised, since they have no 'cross_section'"
        in as_json(tmp_path, changed(cross_section=None, sum_of_weights=None)).notes
    )
    other = {"a": plain, "b": {"files": "s3://in/b.root", "label": 1}}
    assert about_data(as_json(tmp_path, {"samples": other})) == ()
    assert about_data(as_json(tmp_path, {"samples": other, "luminosity": 1})) == (
        "the job: 'luminosity' has no effect, since no sample has a 'cross_section'",
    )
    without = {"samples": ABOUT["samples"]}
    assert about_data(as_json(tmp_path, without)) == (
        "the job: there is no 'luminosity'; events are normalised to 1/pb",
    )


def test_samples_win_over_lists_unless_those_are_chosen(tmp_path: Path) -> None:
    texts = {"samples.json": json.dumps(ABOUT), "files.txt": "s3://in/x\ns3://in/y", "labels.txt": "0 # x\n1"}
    folder = folder_with(tmp_path / "model", texts)
    job = job_in(folder, {})
    assert job.files == FILES
    assert job.notes[:2] == tuple(
        f"{name} has no effect: samples.json names the files" for name in ("files.txt", "labels.txt")
    )
    assert [file.url for file in job_in(folder, {"files": "files.txt"}).files] == ["s3://in/x", "s3://in/y"]
    (folder / "samples.yml").write_text("{}")
    with pytest.raises(RequestError, match=r"folder 'model' has samples\.json and samples\.yml; keep one, or name one"):
        job_in(folder, {})
    assert job_in(folder, {"samples": "samples.json"}).files == FILES


def test_labels_beside_a_target_have_no_effect_in_a_job_in_json() -> None:
    values = {"files": ["s3://in/a"], "code": CODE, "params": {"target": "gen_pt"}}
    job = job_of(values)
    assert (job.files, about_data(job)) == ((LabelledFile("s3://in/a", 0),), ())
    noted = job_of({**values, "labels": [1]})
    assert noted.files == job.files
    assert about_data(noted) == ("'labels' has no effect: 'params' gives each event its label or its targets",)


def test_a_job_in_json_has_lists_or_samples() -> None:
    with pytest.raises(RequestError, match="the job has 'files' and 'samples'; give only one of them"):
        job_of({**ABOUT, "code": CODE, "files": ["s3://in/a"]})
    with pytest.raises(RequestError, match="the job needs 'samples'"):
        job_of({"luminosity": 1, "code": CODE})
    with pytest.raises(RequestError, match=r"'code' has 'samples\.json'; give its values as keys of the job instead"):
        job_of({**ABOUT, "code": {**CODE, "samples.json": "{}"}})


@pytest.mark.parametrize("key", ["label", "targets"])
def test_files_need_no_labels_if_params_json_labels_each_event(tmp_path: Path, key: str) -> None:
    folder = folder_with(tmp_path / "model", {"files.txt": "s3://in/a\ns3://in/b"})
    chosen = Chosen(Names(), {}, Params({key: "x"}), ())
    locations = Locations(str.split, folder=folder)
    data = data_in(texts_in(folder), chosen, locations)
    assert (data.files, data.notes) == ((LabelledFile("s3://in/a", 0), LabelledFile("s3://in/b", 0)), ())
    (folder / "labels.txt").write_text("0\n1\n")
    note = "labels.txt has no effect: params.json gives each event its label or its targets"
    assert data_in(texts_in(folder), chosen, locations) == replace(data, notes=(note,))
    about: dict[str, Any] = {"a": {"files": "s3://in/a"}, "b": {"files": "s3://in/b"}}
    (folder / "samples.json").write_text(json.dumps({"samples": about}))
    files = data_in(texts_in(folder), chosen, locations).files
    assert [(file.label, file.sample) for file in files] == [(0, "a"), (0, "b")]
    about["b"]["label"] = 1
    (folder / "samples.json").write_text(json.dumps({"samples": about}))
    with pytest.raises(RequestError, match="sample 'b' has 'label', and the job has labels or targets of each"):
        data_in(texts_in(folder), chosen, locations)


@pytest.mark.parametrize("labels", ["isSignal", "where(nJet > 2, 1, 0) # by jets"])
def test_one_line_of_labels_is_the_expression_for_each_event(tmp_path: Path, labels: str) -> None:
    texts = {"files.txt": "s3://in/a\ns3://in/b", "labels.txt": labels}
    job = job_in(folder_with(tmp_path / "model", texts), {})
    other = job_of({"files": ["s3://in/a", "s3://in/b"], "labels": labels, "code": CODE})
    assert job.files == other.files == (LabelledFile("s3://in/a", 0), LabelledFile("s3://in/b", 0))
    recipe = recipe_of(job, open_store(str(tmp_path / "store")))
    assert recipe.label == other.label == labels.partition(" #")[0]


def test_a_line_of_labels_that_is_no_expression_is_refused(tmp_path: Path) -> None:
    texts = {"files.txt": "s3://in/a\ns3://in/b", "labels.txt": "signal, background"}
    with pytest.raises(RequestError, match="the list of labels"):
        job_in(folder_with(tmp_path, texts), {"name": "x"})


def test_wildcards_in_a_folder_match_the_files_that_came_with_it(tmp_path: Path) -> None:
    (tmp_path / "outside.root").write_text("secret")
    about = {"samples": {"s": {"files": "data/s*.root", "label": 1}, "b": {"files": ["data/b?.root"], "label": 0}}}
    texts = {"samples.json": json.dumps(about), "data/s2.root": "s2", "data/s1.root": "s1", "data/b1.root": "b"}
    folder = folder_with(tmp_path / "model", texts)
    job = job_in(folder, {})
    assert [(Path(file.url).name, file.label, file.sample) for file in job.files] == [
        ("s1.root", 1, "s"),
        ("s2.root", 1, "s"),
        ("b1.root", 0, "b"),
    ]
    assert about_data(job) == ("'data/s*.root' matches 2 files", "'data/b?.root' matches 1 file")
    store = open_store(str(tmp_path / "store"))
    urls = [file.url for file in recipe_of(job, store, place_files(store, True)).files]
    assert [store.get(url.removeprefix(f"{store.url}/")) for url in urls] == [b"s1", b"s2", b"b"]
    for pattern in ("../outside*", f"{tmp_path}/out*"):
        about["samples"]["b"]["files"] = [pattern]
        (folder / "samples.json").write_text(json.dumps(about))
        with pytest.raises(RequestError, match="no file matches '"):
            job_in(folder, {})


@pytest.fixture
def with_server_wildcards(tmp_path: Path) -> Path:
    texts = {"files.txt": "ROOT://host:1094/store/s*.root\ns3://in/b.root", "labels.txt": "1, 0"}
    return folder_with(tmp_path / "model", texts)


def test_a_service_takes_the_matches_of_wildcards_from_the_client(with_server_wildcards: Path) -> None:
    with pytest.raises(
        RequestError,
        match=r"'root://host//store/s\*\.root' has a wildcard, and the service does not list servers; `hepfaas",
    ):
        job_in(with_server_wildcards, {})
    urls = ["root://host//store/s1.root", "root://host//store/s2.root"]
    (with_server_wildcards / "matches.json").write_text(json.dumps({"root://host//store/s*.root": urls}))
    job = job_in(with_server_wildcards, {})
    assert [(file.url, file.label) for file in job.files] == [(urls[0], 1), (urls[1], 1), ("s3://in/b.root", 0)]
    for wrong in ([], "x", [1], ["/etc/passwd"]):
        (with_server_wildcards / "matches.json").write_text(json.dumps({"root://host//store/s*.root": wrong}))
        with pytest.raises(RequestError, match=r"matches\.json: 'root://host//store/s\*\.root' takes the addresses"):
            job_in(with_server_wildcards, {})


def test_on_this_machine_wildcards_go_to_the_server(with_server_wildcards: Path) -> None:
    listing: Listing = {"ROOT://host:1094/store/s*.root": ["root://host//store/s1.root"]}.__getitem__
    assert job_in(with_server_wildcards, {}, listing=listing).files[0].url == "root://host//store/s1.root"


def test_a_service_refuses_wildcards_of_web_servers() -> None:
    with pytest.raises(RequestError, match=r"'https://host/\*\.root' has a wildcard, and web servers do not list"):
        job_of({"files": ["https://host/*.root"], "labels": [1], "code": CODE})
