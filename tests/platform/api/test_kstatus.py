from __future__ import annotations

import json

import pytest

from hekla.platform.api.kstatus import error_of, status_of
from hekla.platform.base.errors import ERRORS_BY_REASON, ApiError, Conflict, FieldError, Gone, Invalid, NotFound


def test_a_status_object_tells_what_kubectl_reads() -> None:
    error = Invalid.of("ModelRoute default/x", [FieldError("spec.rules", "required")])
    assert status_of(error) == {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": "ModelRoute default/x is invalid:\n  spec.rules: required",
        "reason": "Invalid",
        "code": 422,
        "details": {"causes": [{"field": "spec.rules", "message": "required", "reason": "FieldValueInvalid"}]},
    }


@pytest.mark.parametrize("kind", ERRORS_BY_REASON.values(), ids=lambda kind: kind.__name__)
def test_every_error_comes_back_as_itself(kind: type[ApiError]) -> None:
    sent = kind("what went wrong", (FieldError("spec.a", "bad"), FieldError("", "worse")))
    back = error_of(json.loads(json.dumps(status_of(sent))))
    assert type(back) is kind
    assert (back.message, back.causes, back.code, back.reason) == (sent.message, sent.causes, sent.code, sent.reason)


def test_a_plain_api_error_comes_back_with_its_code() -> None:
    back = error_of({"message": "slow down", "reason": "TooManyRequests", "code": 429})
    assert type(back) is ApiError
    assert (back.code, back.reason) == (429, "TooManyRequests")
    assert (ApiError.code, ApiError.reason) == (500, "InternalError")


@pytest.mark.parametrize(("code", "kind"), [(404, NotFound), (409, Conflict), (410, Gone), (418, ApiError)])
def test_without_a_reason_the_code_decides(code: int, kind: type[ApiError]) -> None:
    assert type(error_of({"code": code})) is kind


@pytest.mark.parametrize("details", [None, [], {"causes": 5}, {"causes": [5, {}]}])
def test_a_broken_status_is_still_an_error(details: object) -> None:
    assert error_of({"details": details}).message == "the server gave no reason"
