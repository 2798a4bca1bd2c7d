"""The Kubernetes rules for names, labels and annotations. Each function returns what is wrong, or None."""

from __future__ import annotations

import re

from hekla.platform.api.wording import path_of
from hekla.platform.base.errors import FieldError
from hekla.platform.base.limits import LABEL_CHARS_MAX, NAME_CHARS_MAX

ANNOTATIONS_BYTES_MAX = 256 * 1024
"""All annotations of one object, keys and values: what a Kubernetes API server accepts."""

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_LABEL_1035 = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?")


def _broken(text: str, shape: re.Pattern[str], chars_max: int, allowed: str) -> str | None:
    if len(text) > chars_max:
        return f'"{text[:80]}{"…" if len(text) > 80 else ""}" has {len(text)} characters; allowed: at most {chars_max}'
    return None if shape.fullmatch(text) else f'"{text}" is not a valid name; allowed: {allowed}'


def dns_label_problem(text: str) -> str | None:
    """DNS-1123 label."""
    allowed = "lower-case letters, digits and '-', beginning and ending with a letter or digit"
    return _broken(text, _LABEL, LABEL_CHARS_MAX, allowed)


def dns_1035_problem(text: str, chars_max: int = LABEL_CHARS_MAX) -> str | None:
    """DNS-1035 label: as DNS-1123, but it begins with a letter."""
    allowed = "lower-case letters, digits and '-', beginning with a letter and ending with a letter or digit"
    return _broken(text, _LABEL_1035, chars_max, allowed)


def dns_subdomain_problem(text: str) -> str | None:
    """DNS-1123 subdomain."""
    allowed = "lower-case letters, digits, '-' and '.', each part beginning and ending with a letter or digit"
    return _broken(text, _SUBDOMAIN, NAME_CHARS_MAX, allowed)


def label_key_problem(key: str) -> str | None:
    """A qualified name: an optional DNS prefix and `/`, then at most 63 characters."""
    prefix, slash, name = key.rpartition("/")
    if slash and (problem := dns_subdomain_problem(prefix)):
        return f"the prefix {problem}"
    if not name:
        return f'"{key}" has no name; allowed: [prefix/]name'
    return label_value_problem(name)


def label_value_problem(value: str) -> str | None:
    allowed = "letters, digits, '-', '_' and '.', beginning and ending with a letter or digit, or nothing"
    return _broken(value, _LABEL_VALUE, LABEL_CHARS_MAX, allowed)


def pod_name_problem(parts: tuple[str | int, ...], chars_max: int = LABEL_CHARS_MAX) -> str | None:
    """What is wrong with the longest name a serving generates; `parts` are joined by `-`."""
    name = "-".join(str(part) for part in parts)
    problem = dns_1035_problem(name, chars_max)
    return f"the longest generated name {problem}" if problem else None


def label_problems(labels: dict[str, str], path: str) -> list[FieldError]:
    """What is wrong with the syntax of labels, keys and values."""
    found = [FieldError(path, f"key {problem}") for key in labels if (problem := label_key_problem(key))]
    for key, value in labels.items():
        if problem := label_value_problem(value):
            found.append(FieldError(path_of((key,), path), problem))
    return found


def annotation_problems(annotations: dict[str, str], path: str) -> list[FieldError]:
    """What is wrong with the keys of annotations; values are free."""
    return [FieldError(path, f"key {problem}") for key in annotations if (problem := label_key_problem(key))]
