import json

from hepfaas.runs.recipe import LabelledFile, Recipe, Sample

FILES = (LabelledFile("a.root", 1, "ggH"), LabelledFile("b.root", 0, "ttbar"), LabelledFile("c.root", 1, "VBF"))
SAMPLES = (
    Sample(name="VBF", weight="genWeight", cross_section=3.78, sum_of_weights="Runs/genEventSumw"),
    Sample(name="ttbar", cross_section=831.76, sum_of_weights=1e6),
    Sample(name="ggH"),
)
RECIPE = Recipe("higgs", FILES, "blobs/0", samples=SAMPLES, luminosity=59_830.0, label="")


def test_a_recipe_with_samples_survives_json() -> None:
    assert Recipe.from_json(json.loads(json.dumps(RECIPE.to_json()))) == RECIPE


def test_a_recipe_of_an_earlier_release_has_no_samples() -> None:
    new = ("samples", "luminosity", "label")
    earlier = {key: value for key, value in RECIPE.to_json().items() if key not in new}
    again = Recipe.from_json(earlier)
    assert (again.samples, again.luminosity, again.label) == ((), None, "")


def test_a_class_has_the_names_of_its_samples() -> None:
    assert RECIPE.classes == ("ttbar", "VBF + ggH")


def test_a_class_that_the_job_named_has_that_name() -> None:
    samples = tuple(
        Sample(name=name, class_name=class_name)
        for name, class_name in (("VBF", "signal"), ("ttbar", "background"), ("ggH", "signal"))
    )
    assert Recipe("higgs", FILES, "blobs/0", samples=samples).classes == ("background", "signal")


def test_the_name_of_a_class_of_many_samples_is_short() -> None:
    names = [f"ht{k}" for k in range(7)]
    recipe = Recipe(
        "m",
        tuple(LabelledFile(f"{name}.root", 3, name) for name in names),
        "",
        samples=tuple(Sample(name=n) for n in names),
    )
    assert recipe.classes == ("ht0 + ht1 + ht2 + ht3 + 3 more",)
