"""A conversion run, which makes a served version of a model made elsewhere: its recipe and its plan. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from hepfaas.runs.phases import Finished, Results, one
from hepfaas.runs.steps import Convert, Register, Step


@dataclass(frozen=True)
class Conversion:
    """A conversion, complete. name: of the model and of its runs.

    code: key of the object that lists the model's files; format, file, input, output: as in the step Convert.
    params: JSON text of its params.json. labels: names of its scores. upload: mark of the upload: each upload makes a
    version, even of the same model.
    """

    kind: ClassVar[str] = "conversion"
    urls: ClassVar[tuple[str, ...]] = ()
    name: str
    code: str
    format: str
    file: str
    input: str
    output: str
    params: str
    labels: tuple[str, ...]
    upload: str

    def to_json(self) -> dict[str, Any]:
        """Return the recipe as JSON values."""
        return {"kind": self.kind, **asdict(self)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Conversion:
        """Return the recipe that `to_json` gave, also after a round trip through JSON text."""
        rest = {name: value for name, value in values.items() if name != "kind"}
        return cls(**{**rest, "labels": tuple(values["labels"])})


def finished(recipe: Conversion, results: Results) -> Finished:
    """Return the outcome of the run. Raises: Wait for the steps that come first."""
    convert, register = _steps(recipe)
    one(convert, results)
    return Finished(one(register, results).values)


def levels(recipe: Conversion) -> list[Sequence[Step]]:
    """Return all steps of the run."""
    return [_steps(recipe)]


def _steps(recipe: Conversion) -> tuple[Convert, Register]:
    convert = Convert(
        code=recipe.code, format=recipe.format, file=recipe.file, input=recipe.input, output=recipe.output
    )
    register = Register(
        name=recipe.name,
        upload=recipe.upload,
        convert=convert.key,
        format=recipe.format,
        params=recipe.params,
        labels=recipe.labels,
    )
    return convert, register
