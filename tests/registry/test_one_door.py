"""An alias is set in one place, and the journal is written in one."""

from __future__ import annotations

import ast
from pathlib import Path

import selfheal_cli

PACKAGE = Path(selfheal_cli.__file__).parent
# what moves an alias or writes the journal: the file and function that may
ONLY = {
    "set_registered_model_alias": ("registry/mlflow/registry.py", "set_alias"),
    "set_alias": ("registry/aliases.py", "carry_out"),
    "put_entry": ("registry/journal.py", "write"),
}
NOBODY = "delete_registered_model_alias"


def test_what_moves_an_alias_is_called_in_one_place_and_nothing_deletes_one() -> None:
    callers = {
        (node.attr, path.relative_to(PACKAGE).as_posix(), function.name)
        for path in PACKAGE.rglob("*.py")
        for function in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
        if isinstance(node, ast.Attribute) and node.attr in (*ONLY, NOBODY)
    }
    assert callers == {(name, *caller) for name, caller in ONLY.items()}
