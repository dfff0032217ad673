"""An alias is set in one place, and the journal is written in one."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import selfheal_cli

PACKAGE = Path(selfheal_cli.__file__).parent


def callers(name: str) -> Iterator[tuple[str, str]]:
    """Files and functions that call an attribute of this name."""
    for path in sorted(PACKAGE.rglob("*.py")):
        for function in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            for node in ast.walk(function):
                if isinstance(node, ast.Attribute) and node.attr == name:
                    yield path.relative_to(PACKAGE).as_posix(), function.name


@pytest.mark.parametrize(
    ("name", "caller"),
    [
        ("set_registered_model_alias", ("registry/mlflow/registry.py", "set_alias")),
        ("set_alias", ("registry/aliases.py", "carry_out")),
        ("put_entry", ("registry/journal.py", "write")),
    ],
)
def test_what_moves_an_alias_is_called_in_one_place(name: str, caller: tuple[str, str]) -> None:
    assert list(callers(name)) == [caller]


def test_no_alias_is_deleted() -> None:
    assert list(callers("delete_registered_model_alias")) == []
