"""What the code imports, against what the package declares and what the pins hold."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions, requires
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
OWN = {"explorer", "app"}
SOURCES = sorted(path for package in OWN for path in (REPOSITORY / package).rglob("*.py"))


def name_of(requirement: str) -> str:
    """The normalised name of a distribution, e.g. "Torch>=2.5" -> "torch"."""
    found = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert found is not None, requirement
    return re.sub(r"[-_.]+", "-", found[0]).lower()


BASE = {name_of(each) for each in PROJECT["dependencies"]}
OPTIONAL = {name_of(each) for name in ("backbones", "colmap") for each in EXTRAS[name]}
UNPINNED = {"depth-anything-3"}
"""Extras outside the tested environment: what they install, GPL and torchvision among it, is not \
tested here, so no pin says that it was."""
ALONE = {"depth_anything_3"}
"""Asked for a numpy that the viewer refuses, so no extra can name it; see pyproject.toml."""
PINS = {
    name_of(line): line.split("==")[1].strip()
    for line in (REPOSITORY / "constraints.txt").read_text().splitlines()
    if line and not line.startswith("#")
}


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """(top-level package, whether it is imported when the module is) of each foreign import."""
    tree = ast.parse(path.read_text())
    at_once = {id(node) for node in _at_import(tree)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules = [each.name for each in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            modules = [node.module]
        else:
            continue
        for module in modules:
            top = module.split(".")[0]
            if top not in OWN and top not in sys.stdlib_module_names:
                yield top, id(node) in at_once


def _at_import(node: ast.AST) -> Iterator[ast.AST]:
    """What runs when a module is imported: no bodies of functions, nothing for type checkers."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            continue
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
            continue
        yield child
        yield from _at_import(child)


@pytest.fixture(scope="module")
def distributions() -> dict[str, set[str]]:
    """Which distributions of this environment hold a top-level package."""
    return {
        top: {name_of(each) for each in names} for top, names in packages_distributions().items()
    }


def test_every_import_of_both_packages_is_a_declared_dependency(
    distributions: dict[str, set[str]],
) -> None:
    used: set[str] = set()
    for path in SOURCES:
        for top, at_once in imports(path):
            where = f"{path.relative_to(REPOSITORY)} imports {top}"
            if top in ALONE:
                assert not at_once, f"{where} before it is asked for"
                continue
            assert top in distributions, f"{where}, which is not installed"
            declared = distributions[top] & (BASE | OPTIONAL)
            assert declared, f"{where} of {distributions[top]}, which pyproject.toml does not name"
            # A page and a command line that start without the extras.
            if at_once and not path.name.startswith("_"):
                assert declared & BASE, f"{where} of an extra before it is asked for"
            used |= declared
    # diffusers' `from_pretrained` needs accelerate without importing it here.
    assert BASE - used <= {"accelerate"}, "declared and used nowhere"
    assert OPTIONAL <= used, "an extra that nothing uses"


def test_every_declared_dependency_is_pinned_to_one_version() -> None:
    pinned = [name for name in EXTRAS if name not in UNPINNED]
    named = {each for name in pinned for each in map(name_of, EXTRAS[name])} - {"emerge3d"}
    assert BASE | named <= set(PINS)
    text = (REPOSITORY / "constraints.txt").read_text()
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.+]+", line) for line in lines)
    assert len(lines) == len(PINS)


def test_what_the_pinned_packages_need_is_pinned_too() -> None:
    from packaging.requirements import Requirement

    open_ended = set()
    for name in PINS:
        for text in requires(name) or []:
            need = Requirement(text)
            if need.marker is None or need.marker.evaluate({"extra": ""}):
                open_ended.add(name_of(need.name))
    # Those that torch's build for CUDA has beside the one for the CPU come with its own pins.
    free = {name for name in open_ended - set(PINS) if not name.startswith(("nvidia-", "cuda-"))}
    assert free <= {"triton"}


def test_torch_is_a_range_for_users_and_a_pin_for_the_checkout_and_torchvision_is_neither() -> None:
    assert "torch>=2.5" in PROJECT["dependencies"]
    assert PINS["torch"] == "2.13.0"
    assert "accelerate" in BASE
    assert "torchvision" not in BASE | OPTIONAL | set(PINS)
    assert not any(top == "torchvision" for path in SOURCES for top, _ in imports(path))
