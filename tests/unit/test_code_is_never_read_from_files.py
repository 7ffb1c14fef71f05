"""What is loaded is data: no pickles beyond tensors, no code from a repository of weights."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


def calls() -> Iterator[tuple[str, ast.Call]]:
    """(place and dotted name, call) of every call in the package, the page and the benchmarks."""
    for folder in ("explorer", "app", "benchmarks"):
        for path in sorted((REPOSITORY / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call):
                    where = f"{path.relative_to(REPOSITORY)}:{node.lineno}"
                    yield f"{where} {ast.unparse(node.func)}", node


def given(call: ast.Call, name: str) -> str | None:
    return next((ast.unparse(each.value) for each in call.keywords if each.arg == name), None)


def test_torch_files_are_read_as_tensors_alone() -> None:
    loads = {name: call for name, call in calls() if name.endswith(" torch.load")}
    assert loads
    for name, call in loads.items():
        assert given(call, "weights_only") == "True", name


def test_code_that_comes_with_weights_is_never_run() -> None:
    for name, call in calls():
        assert given(call, "trust_remote_code") in (None, "False"), name
        assert not name.endswith((" pickle.load", " pickle.loads")), name
        assert given(call, "allow_pickle") in (None, "False"), name


def test_nobody_is_asked_whether_to_run_code_of_a_tokenizer() -> None:
    # Left out, transformers asks on the terminal.
    loads = [call for name, call in calls() if ".Auto" in name and "from_pretrained" in name]
    assert loads
    assert {given(call, "trust_remote_code") for call in loads} == {"False"}


def test_libraries_that_load_by_name_are_kept_from_the_network() -> None:
    loads = {name: call for name, call in calls() if name.endswith(".from_pretrained")}
    assert loads
    for name, call in loads.items():
        assert given(call, "local_files_only") == "True", name
