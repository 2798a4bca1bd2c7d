"""Which answers hold hidden values: only those to the ingress, which asks for them by a header."""

from __future__ import annotations

from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import Response

from hekla.platform.api.hiding import REVEAL_HEADER, without_hidden
from hekla.platform.api.meta import Json
from hekla.platform.server import answers


def visible(request: Request) -> Callable[[Json], Json]:
    """Gives an object as the sender of `request` may see it."""
    return _as_it_is if request.headers.get(REVEAL_HEADER) == "1" else without_hidden


def answer(request: Request, content: Json, code: int = 200) -> Response:
    return answers.answer(visible(request)(content), code)


def _as_it_is(obj: Json) -> Json:
    return obj
