"""What runs inside a Ray actor: an object of a plain class, and errors that travel as themselves.

Ray hands a method's exception to the caller as a class made on the fly, with a remote traceback for a message. Here the
exception itself is packed into the answer, so a caller catches what the method raised.
"""

from __future__ import annotations

import importlib
import inspect
import pickle
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hekla.platform.base.errors import HeklaError, Permanent


class RemoteError(HeklaError):
    """An actor's method raised something that can't be pickled; the message is its type, text and traceback."""


@dataclass(frozen=True)
class Answer:
    """What one call brought: a value, or the pickled exception with its story."""

    value: Any = None
    error: bytes | None = None
    story: str = ""

    def open(self) -> Any:
        """The value; raises what the method raised."""
        if self.error is None:
            return self.value
        raise _unpacked(self.error, self.story)


def load_target(target: str) -> type[Any]:
    """The class named by `module:Class`; raises Permanent with what is wrong."""
    module_name, _, class_name = target.partition(":")
    try:
        found = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError, ValueError) as error:
        raise Permanent(f"actor target {target!r}: {error}; it must name an importable module:Class") from error
    if not inspect.isclass(found):
        raise Permanent(f"actor target {target!r} is a {type(found).__name__}; it must name a class")
    return found


async def call_method(subject: object, method: str, args: tuple[Any, ...]) -> Any:
    """Call a public method, awaiting it if it is async; AttributeError for what is no method of the class."""
    found = None if method.startswith("_") else getattr(subject, method, None)
    if not callable(found):
        raise AttributeError(f"{type(subject).__name__} has no method {method!r}")  # noqa: TRY004 (as Python says it)
    outcome = found(*args)
    return await outcome if inspect.isawaitable(outcome) else outcome


class ActorShell:
    """The one class this platform starts as a Ray actor."""

    def __init__(self, target: str, kwargs: Mapping[str, Any]) -> None:
        self._subject = load_target(target)(**kwargs)

    async def call(self, method: str, args: tuple[Any, ...]) -> Answer:
        try:
            return Answer(value=await call_method(self._subject, method, args))
        except Exception as error:  # noqa: BLE001 (it is raised again at the caller)
            return failed(error)


def failed(error: Exception) -> Answer:
    """An answer that raises `error` at the caller."""
    story = "".join(traceback.format_exception(error)).strip()
    try:
        packed = pickle.dumps(error)
        pickle.loads(packed)  # what can be packed can't always be unpacked: own __init__ arguments
    except Exception:  # noqa: BLE001 (a class may raise anything while it is packed)
        packed = pickle.dumps(RemoteError(f"{type(error).__qualname__}: {error}\n{story}"))
    return Answer(error=packed, story=story)


def _unpacked(packed: bytes, story: str) -> Exception:
    try:
        error = pickle.loads(packed)
    except Exception:  # noqa: BLE001 (its class can't be imported here)
        return RemoteError(story)
    assert isinstance(error, Exception)
    error.add_note(f"raised in an actor:\n{story}")
    return error
