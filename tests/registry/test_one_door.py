"""An alias is set in one place, and the journal is written in one."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import selfheal_cli
from selfheal_cli.records import AliasMove
from selfheal_cli.registry.aliases import Move, move_alias, settle
from selfheal_cli.registry.base import CHAMPION
from selfheal_cli.registry.journal import standing
from selfheal_cli.registry.memory import MemoryRegistry
from tests.conftest import DEPTH
from tests.registry.stepped import interleave

PACKAGE = Path(selfheal_cli.__file__).parent
# what moves an alias or writes the journal: the file and function that may
ONLY = {
    "set_registered_model_alias": ("registry/mlflow/registry.py", "set_alias"),
    "delete_registered_model_alias": ("registry/mlflow/registry.py", "set_alias"),
    "set_alias": ("registry/aliases.py", "carry_out"),
    "put_entry": ("registry/journal.py", "write"),
}


def test_what_moves_or_takes_away_an_alias_is_called_in_one_place() -> None:
    callers = {
        (node.attr, path.relative_to(PACKAGE).as_posix(), function.name)
        for path in PACKAGE.rglob("*.py")
        for function in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
        if isinstance(node, ast.Attribute) and node.attr in ONLY
    }
    assert callers == {(name, *caller) for name, caller in ONLY.items()}


def test_where_three_move_the_champion_beside_one_who_settles_each_move_is_made() -> None:
    """In the ways that are named one reads what another sets late, and puts right after that."""
    late = {77, 862, 1022, 1218, 1774, 1875, 1885, 1918, 2196, 2575, 2655, 2821, 2921, 3036}
    for seed in {*range(50 * DEPTH), *late}:
        registry = MemoryRegistry()
        first, *others = (moving(registry.add_foreign("m")) for _ in range(4))
        first(registry)
        ends = interleave(seed, *((work, registry) for work in (*others[:2], settling, others[2])))
        assert [type(end) for end in ends] == [AliasMove, AliasMove, list, AliasMove], (seed, ends)
        assert registry.alias("m", CHAMPION) == standing(registry, "m").moves[CHAMPION].target


def moving(target: int) -> Any:
    """Somebody's move to a version."""
    at = "2026-01-01T00:00:00+00:00"
    return lambda registry: move_alias(registry, Move("m", CHAMPION, target, "ann", at, "why"))


def settling(registry: Any) -> list[int]:
    """As a run looks after what others left."""
    return [len(settle(registry, "m")) for _ in range(2)]
