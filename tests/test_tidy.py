"""Style as a test: sizes, banned calls, names, cycles. Each rule says what to do instead."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = sorted(path.name for path in (ROOT / "hekla").iterdir() if path.is_symlink())
FILE_LINES_MAX = 400
FUNCTION_LINES_MAX = 70
POSITIONAL_MAX = 5
PARAMETERS_MAX = 8


def tracked(*patterns: str) -> list[Path]:
    listed = subprocess.run(["git", "ls-files", *patterns], cwd=ROOT, capture_output=True, text=True, check=True)
    return [path for name in listed.stdout.split() if (path := ROOT / name).is_file() and not path.is_symlink()]


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), filename=str(path))


def product_files() -> list[Path]:
    return tracked(*(f"{room}/**/*.py" for room in ROOMS), *(f"{room}/*.py" for room in ROOMS))


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", [*product_files(), *tracked("tests/**/*.py", "benchmarks/*.py")], ids=name_of)
def test_files_and_functions_stay_small(path: Path) -> None:
    lines = path.read_text().count("\n")
    assert lines <= FILE_LINES_MAX, f"{lines} lines; split the file by idea"
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            assert length <= FUNCTION_LINES_MAX, f"{node.name} has {length} lines; name its steps"


def is_command(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """A CLI verb's parameters are its options: typer needs them spelled out."""
    return any("typer" in ast.unparse(arg.annotation) for arg in node.args.args if arg.annotation)


@pytest.mark.parametrize("path", product_files(), ids=name_of)
def test_functions_take_few_parameters(path: Path) -> None:
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not is_command(node):
            positional = [arg for arg in node.args.args + node.args.posonlyargs if arg.arg not in ("self", "cls")]
            assert len(positional) <= POSITIONAL_MAX, f"{node.name}: {len(positional)} positional; make a dataclass"
            assert len(positional) + len(node.args.kwonlyargs) <= PARAMETERS_MAX, f"{node.name}: make a dataclass"


BANNED = {
    r"\btime\.(time|monotonic|perf_counter)\(": "take a Clock",
    r"\bdatetime\.(now|utcnow)\(": "take a Clock",
    r"\brandom\.(random|choice|randint|shuffle|uniform)\(": "take Ids",
    r"\buuid\.?uuid4\(|\buuid4\(": "take Ids",
    r"\bos\.(environ|getenv)\b": "read the environment in the composition root and pass settings down",
    r"\basyncio\.(create_task|ensure_future)\(": "use TaskOwner",
    r"\bNotImplementedError\b": "finish it, or refuse with a reason",
    r"\bexcept:\s*(#.*)?$": "name the exception",
}
# The edges: where the real clock, chance and environment enter.
EDGES = (
    "platform/root/", "platform/cli/", "platform/base/clock.py", "platform/base/ids.py", "platform/sdk/",
    "platform/cluster/ray_", "deployments/supervisor.py", "deployments/keeper.py", "deployments/simengine/__main__.py",
    "platform/cluster/scripted.py",  # an actor that answers what its own process's environment is
)  # fmt: skip


@pytest.mark.parametrize("path", product_files(), ids=name_of)
def test_time_chance_and_environment_are_arguments(path: Path) -> None:
    if name_of(path).startswith(EDGES):
        return
    for number, line in enumerate(path.read_text().splitlines(), 1):
        for pattern, instead in BANNED.items():
            assert not re.search(pattern, line), f"line {number}: {line.strip()!r}: {instead}"


@pytest.mark.parametrize("path", product_files(), ids=name_of)
def test_no_module_is_named_like_the_standard_librarys(path: Path) -> None:
    assert path.stem == "__init__" or path.stem not in sys.stdlib_module_names, "rename it"
    assert path.stem not in {"utils", "helpers", "common", "misc"}, "name the idea"


def imports_of(path: Path) -> set[str]:
    """Every hekla module a file imports, lazily or for types alone too."""
    found: set[str] = set()
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("hekla."):
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names if alias.name.startswith("hekla."))
    return found


def test_no_import_cycle_even_through_lazy_and_type_only_imports() -> None:
    module_of = {
        "hekla." + name_of(path)[:-3].replace("/", ".").removesuffix(".__init__"): path for path in product_files()
    }
    graph = {module: imports_of(path) & set(module_of) - {module} for module, path in module_of.items()}
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, " -> ".join((*trail[trail.index(module) :], module))
        if module not in done:
            for target in sorted(graph[module]):
                visit(target, (*trail, module))
            done.add(module)

    for module in sorted(graph):
        visit(module, ())


def test_every_module_is_used_by_the_product_or_is_an_entry_point() -> None:
    entry_points = {"hekla.platform.cli", "hekla.deployments.keeper"}
    module_of = {
        "hekla." + name_of(path)[:-3].replace("/", ".").removesuffix(".__init__"): path for path in product_files()
    }
    everything = [*product_files(), *tracked("tests/**/*.py", "tests/*.py", "benchmarks/*.py", "hekla/__init__.py")]
    used = set().union(*(imports_of(path) for path in everything))
    text = "\n".join(path.read_text() for path in everything)
    dead = [
        module
        for module in module_of
        if module not in used | entry_points
        and not module.endswith("__main__")
        and ".kinds." not in module
        and not any(other.startswith(module + ".") for other in module_of)
        and module not in text
    ]
    assert not dead, f"nobody imports {dead}"


@pytest.mark.parametrize("room", ROOMS)
def test_every_room_with_code_is_under_the_import_contract(room: str) -> None:
    has_code = any(name_of(path).startswith(f"{room}/") for path in product_files())
    linter = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    assert not has_code or f"hekla.{room}" in linter["root_packages"]


def test_nothing_tracked_names_this_machine_or_a_registry() -> None:
    private = re.compile(r"/work/(main|shared)|\.library|pypi\.org|registry\.npmjs|deb\.debian|files\.pythonhosted")
    this_file = Path(__file__).resolve()
    for path in tracked():
        if path.resolve() != this_file and path.suffix not in {".gguf", ".png"}:
            match = private.search(path.read_text(errors="replace"))
            assert match is None, f"{name_of(path)} says {match.group() if match else ''}"
