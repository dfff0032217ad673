"""Code that came with a model: imported only where it is allowed, after everything else."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator

import pytest

from selfheal_cli.errors import ModelError
from selfheal_cli.model import brought
from selfheal_cli.model.allowed import VARIABLE
from selfheal_cli.model.brought import BroughtCode, bring, code_in, known_as


@pytest.fixture
def finder(monkeypatch: pytest.MonkeyPatch) -> Iterator[BroughtCode]:
    """One that is asked last; what it brought is forgotten."""
    own, before = BroughtCode(), set(sys.modules)
    monkeypatch.setattr(brought, "_brought", own)
    sys.meta_path.append(own)
    yield own
    sys.meta_path.remove(own)
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_a_module_is_imported_by_its_name_where_it_is_allowed(
    finder: BroughtCode, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = {"shop_net/__init__.py": "", "shop_net/net.py": "from shop_net import more\nX = 3",
            "shop_net/more.py": ""}  # fmt: skip
    monkeypatch.setenv(VARIABLE, "shop_net")  # a name says nothing of what a registry has
    with pytest.raises(ModelError, match=rf"--allow-module {known_as(code)}"):
        bring(code)
    monkeypatch.setenv(VARIABLE, known_as(code))
    bring(code)
    assert importlib.import_module("shop_net.net").X == 3
    with pytest.raises(ModelError, match="shop_other"):
        bring({**code, "shop_net/more.py": "raise SystemExit", "shop_other.py": ""})


def test_what_is_installed_is_taken_first(
    finder: BroughtCode, monkeypatch: pytest.MonkeyPatch
) -> None:
    finder.add({"wave.py": "raise SystemExit"})
    monkeypatch.delitem(sys.modules, "wave", raising=False)
    assert importlib.import_module("wave").__spec__.origin.endswith("wave.py")


def test_too_much_code_and_what_is_no_text_are_refused(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path_factory.mktemp("code")
    (folder / "net.py").write_bytes(b"\xff\xfe")
    with pytest.raises(ModelError, match=r"net\.py, which came with the model, is not UTF-8"):
        code_in(folder)
    monkeypatch.setattr("selfheal_cli.model.brought.MOST", 1)
    with pytest.raises(ModelError, match="1 Python files of 2 bytes"):
        code_in(folder)
