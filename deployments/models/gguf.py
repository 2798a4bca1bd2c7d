"""`gguf://`: a GGUF file turned once into a Hugging Face folder, which every engine reads.

`gguf:///path/file.gguf` is a file of this node; `gguf://package/file.gguf` a file shipped in an installed package, found
without importing it. The conversion runs in a process of its own: it needs several times the model's size in
memory, which the operating system gets back, and it can be ended at any moment.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from hekla.deployments import keeper
from hekla.deployments.models import gguf_converter
from hekla.deployments.models.source import Progress
from hekla.platform.base.errors import Permanent, Temporary

POLL_S = 0.5
"""How often a conversion is looked at, and may be cancelled."""

STAGES = {"read": 0.1, "loaded": 0.7, "saved": 0.95}
OUT_OF_MEMORY_DELAY_S = 60.0


def convert(uri: str, into: Path, env: Mapping[str, str], progress: Progress) -> None:
    source = locate(uri)
    with source.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise Permanent(f"{uri}: {source} is no GGUF file")
    shutil.rmtree(into)
    into.mkdir()
    output = into.with_suffix(".conversion.log")
    try:
        code = _run([str(source), str(into)], output, env, progress)
        if code:
            raise _failure(uri, code, output.read_text(errors="replace"))
    finally:
        output.unlink(missing_ok=True)


def locate(uri: str) -> Path:
    """The file that the URI means. Raises Permanent when there is none."""
    rest = uri.removeprefix("gguf://")
    path = Path(rest) if rest.startswith("/") else _in_package(uri, rest)
    if not path.is_file():
        raise Permanent(f"{uri}: there is no file {path} on this node")
    return path


def _in_package(uri: str, rest: str) -> Path:
    name, _, inside = rest.partition("/")
    if not name or not inside or ".." in Path(inside).parts:
        raise Permanent(f"{uri!r}: the form is gguf://package/file.gguf or gguf:///path/file.gguf")
    for folder in _package_folders(name):
        if (folder / inside).is_file():
            return folder / inside
    try:
        files = importlib.metadata.files(name) or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.as_posix() == inside or file.as_posix().endswith(f"/{inside}"):
            return Path(str(file.locate()))
    raise Permanent(f"{uri}: no installed package {name!r} has a file {inside!r}; try: pip install {_dist(name)}")


def _package_folders(name: str) -> list[Path]:
    module = name.replace("-", "_")
    if not module.isidentifier():
        return []
    found = importlib.util.find_spec(module)
    return [Path(folder) for folder in (found.submodule_search_locations or [])] if found else []


def _dist(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _run(arguments: list[str], output: Path, env: Mapping[str, str], progress: Progress) -> int:
    # -P: the folder of this file would shadow the library `gguf`.
    argv = [sys.executable, "-P", gguf_converter.__file__, *arguments]
    # Under a keeper, as an engine is: when this process dies the conversion dies with it.
    shell = [sys.executable, "-I", "-S", keeper.__file__, "--", *argv]
    inherited = {**env, "HF_HUB_OFFLINE": "1", "PATH": env.get("PATH", os.defpath)}
    with (
        output.open("wb") as sink,
        subprocess.Popen(
            shell, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=sink, env=inherited
        ) as process,
    ):
        assert process.stdin is not None
        try:
            return _follow(process, output, progress)
        finally:
            process.stdin.close()


def _follow(process: subprocess.Popen[bytes], output: Path, progress: Progress) -> int:
    while True:
        try:
            return process.wait(POLL_S)
        except subprocess.TimeoutExpired:
            seen = re.findall(r"^stage (\w+)$", output.read_text(errors="replace"), re.MULTILINE)
            progress(STAGES.get(seen[-1], 0.0) if seen else 0.0, "converting to a Hugging Face folder")


def _failure(uri: str, code: int, text: str) -> Permanent | Temporary:
    lines = [line for line in text.strip().splitlines() if line.strip()]
    last = lines[-1] if lines else "no output"
    if code == 137:
        return Temporary(f"{uri}: the conversion was killed, probably for want of memory", OUT_OF_MEMORY_DELAY_S)
    if "No module named" in last:
        return Permanent(f'{uri}: the conversion lacks a package ({last}): pip install "hekla[gguf]"')
    return Permanent(f"{uri}: the conversion failed: {last}")
