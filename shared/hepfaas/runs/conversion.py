"""A conversion: a model that was made elsewhere becomes a served version. What it is asked, and its plan. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from hepfaas.runs.phases import Finished, Results, one
from hepfaas.runs.steps import Convert, Register, Step


@dataclass(frozen=True)
class Conversion:
    """A conversion, complete. name: of the model and of its runs.

    code: key of the object that lists the model's files; format, file, input, output: as the step Convert has them.
    params: JSON text of its params.json. labels: what its scores are called. upload: mark of the upload: each makes a
    version of its own, though it may bring the same model.
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
        """As JSON values."""
        return {"kind": self.kind, **asdict(self)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Conversion:
        """What `to_json` gave, also after a journey through JSON text."""
        rest = {name: value for name, value in values.items() if name != "kind"}
        return cls(**{**rest, "labels": tuple(values["labels"])})


def finished(recipe: Conversion, results: Results) -> Finished:
    """What the run came to. Raises: Wait for the steps that come first."""
    convert, register = _steps(recipe)
    one(convert, results)
    return Finished(one(register, results).values)


def levels(recipe: Conversion) -> list[Sequence[Step]]:
    """All steps of the run."""
    return [_steps(recipe)]


def _steps(recipe: Conversion) -> tuple[Convert, Register]:
    convert = Convert(recipe.code, recipe.format, recipe.file, recipe.input, recipe.output)
    register = Register(recipe.name, recipe.upload, convert.key, recipe.format, recipe.params, recipe.labels)
    return convert, register
