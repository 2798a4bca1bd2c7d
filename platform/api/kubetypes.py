"""Field types that Kubernetes defines: pod specs, environment, resources, labels, images.

They are kept as the JSON their author wrote. What is wrong inside them is looked for only at admission (the validation
context `ADMISSION`): a controller that reads a stored object again pays nothing, and never refuses what was admitted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from pydantic import AfterValidator, ValidationInfo
from pydantic_core import PydanticCustomError

from hekla.platform.api.names import annotation_problems, label_key_problem, label_problems
from hekla.platform.api.podspec import image_problem, pod_spec_problems, type_problems
from hekla.platform.api.values import FreeObject
from hekla.platform.base.errors import FieldError

ADMISSION = {"admission": True}
"""The pydantic validation context that turns the checks on."""


def checked(problems_of: Callable[[Any, str], list[FieldError]]) -> AfterValidator:
    """A validator that, at admission, reports each of these problems at its own path below the field."""

    def check(value: Any, info: ValidationInfo) -> Any:
        if info.context and info.context.get("admission") and (problems := problems_of(value, "")):
            raise PydanticCustomError("field_errors", "has problems inside", {"problems": problems})
        return value

    return AfterValidator(check)


def _typed(kind: str) -> AfterValidator:
    return checked(lambda value, path: type_problems(kind, value, path))


def _single(problem_of: Callable[[str], str | None]) -> AfterValidator:
    def problems(value: str, path: str) -> list[FieldError]:
        problem = problem_of(value)
        return [FieldError(path, problem)] if problem else []

    return checked(problems)


PodSpecJson = Annotated[FreeObject, checked(pod_spec_problems)]
EnvVars = Annotated[list[FreeObject], _typed("[]EnvVar")]
EnvFromSources = Annotated[list[FreeObject], _typed("[]EnvFromSource")]
ResourcesJson = Annotated[FreeObject, _typed("ResourceRequirements")]
AffinityJson = Annotated[FreeObject, _typed("Affinity")]
Tolerations = Annotated[list[FreeObject], _typed("[]Toleration")]
Image = Annotated[str, _single(image_problem)]
LabelKey = Annotated[str, _single(label_key_problem)]
Labels = Annotated[dict[str, str], checked(label_problems)]
Annotations = Annotated[dict[str, str], checked(annotation_problems)]
