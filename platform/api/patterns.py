"""Regular expressions of manifests: RE2's, which match in linear time whatever the expression and the text are.

Python's own engine backtracks: a manifest's `(a+)+$` would let a client's header of thirty letters stop an ingress
replica for minutes. RE2 is also what the resource API's other implementations (in Go) compile these with, so that an
expression means the same there. It has no look-around and no back-references; those are refused with its message.
"""

from __future__ import annotations

from typing import Protocol

import re2

MEMORY_BYTES_MAX = 2**20
"""Of one compiled expression, its automaton's cache included; RE2 falls back to a slower linear walk beyond it."""


class Pattern(Protocol):
    @property
    def pattern(self) -> str:
        """The expression as written."""

    def search(self, text: str) -> object | None:
        """None when it matches nowhere in the text."""


def compiled(text: str) -> Pattern:
    """Raises ValueError with the reason when it does not compile."""
    options = re2.Options()
    options.log_errors = False
    options.max_mem = MEMORY_BYTES_MAX
    try:
        pattern: Pattern = re2.compile(text, options)
    except re2.error as error:
        reason = error.args[0] if error.args else error
        raise ValueError(reason.decode("utf-8", "replace") if isinstance(reason, bytes) else str(reason)) from error
    except UnicodeEncodeError as error:
        raise ValueError("it holds a character that is not Unicode text") from error
    return pattern
