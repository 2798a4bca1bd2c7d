"""Edits to an engine's argument list. Pure; `--flag value`, `--flag=value` and `--flag_name` spellings are one flag."""

from __future__ import annotations

import json
import re
from typing import Any

_FLAG = re.compile(r"--?[A-Za-z]")


def is_flag(word: str) -> bool:
    """True for `--flag`, `--flag=value` and `-tp`; not for a negative number, a lone dash or JSON."""
    return _FLAG.match(word) is not None


def with_flag(args: list[str], name: str, value: str) -> list[str]:
    """The arguments with every occurrence of a single-valued flag replaced by one at the end."""
    return [*_without(args, name), name, value]


def with_default(args: list[str], name: str, value: str) -> list[str]:
    """The arguments, with the flag added unless they give it."""
    return args if has_flag(args, name) else [*args, name, value]


def taken_apart(args: list[str], name: str) -> tuple[list[str], list[str]]:
    """The last value of a single-valued flag (none: empty), and the arguments without the flag."""
    found: list[str] = []
    for index, arg in enumerate(args):
        if _name(arg) == name:
            found = [arg.partition("=")[2]] if "=" in arg else args[index + 1 : index + 2]
    return found, _without(args, name)


def has_flag(args: list[str], name: str) -> bool:
    return any(_name(arg) == name for arg in args)


def json_flag(args: list[str], name: str) -> dict[str, Any]:
    """A flag's value as a JSON object; empty when absent or no object (the engine will say what is wrong with it)."""
    for index, arg in enumerate(args):
        if _name(arg) == name:
            text = arg.partition("=")[2] if "=" in arg else "".join(args[index + 1 : index + 2])
            try:
                value = json.loads(text)
            except ValueError:
                return {}
            return value if isinstance(value, dict) else {}
    return {}


def _without(args: list[str], name: str) -> list[str]:
    kept, skip = [], False
    for arg in args:
        if skip and not is_flag(arg):
            skip = False
        elif _name(arg) == name:
            skip = "=" not in arg
        else:
            skip = False
            kept.append(arg)
    return kept


def _name(arg: str) -> str:
    return arg.partition("=")[0].replace("_", "-") if is_flag(arg) else arg
