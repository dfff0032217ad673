"""Whatever a user gives, in arguments, files and variables: exit 1 is for faults of ours alone."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from selfheal_cli.cli.main import COMMANDS, main
from tests.conftest import DEPTH, enter

pytestmark = pytest.mark.slow

# what starts a server or another program, or trains for long; and what ends it before that
LONG = {"ui": [], "serve": ["nothing"], "drill": ["--policy", "nothing.yaml"],
        "demo": ["--seed", "-1"],
        "compare": ["nothing.csv", "--target", "label"]}  # fmt: skip
ODD = st.sampled_from([
    "", " ", "-", "--", "0", "-1", "1e400", "nan", "99999999999999999999", "../..", "/",
    "/dev/null", "a/b",
    "models:/x/1", "models:/", "models:/@", "[/]", "{}", "[]", "null", "é\u202e",
    "\x1b[2J", "a,b",
    "1,1", "x" * 5_000, "file://", "sqlite:///", "http://", "data.csv", "odd.yaml",
    "odd.json", ".", "2026-01-01", "2026-13-99T99:99", "full", "lora:0", "auto", "os:getcwd",
    "torch.nn:Linear",
])  # fmt: skip
FEW = settings(database=None,
               suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, store_template: Path) -> Path:
    """A folder with odd files and an empty store, of all examples."""
    folder = tmp_path_factory.mktemp("fuzz")
    shutil.copy(store_template, folder / "mlflow.db")
    (folder / "data.csv").write_text("a,b,label\n" + "1,x,0\n2,y,1\n" * 9)
    (folder / "odd.yaml").write_text("model_name: [1]\n")
    (folder / "odd.json").write_text('{"dataframe_split": 3}')
    return folder


def fell(arguments: list[str]) -> str:
    """What was unexpected of a command; empty where nothing was."""
    result = CliRunner().invoke(main, arguments, input="n\n")
    fault = result.exit_code not in (0, 2, 3, 4, 5, 6) or "Traceback" in result.output
    return f"{arguments!r}: {result.output[-300:]} {result.exception!r}" if fault else ""


def options_of(names: Iterable[str]) -> dict[tuple[str, ...], list[str]]:
    """Each command, a group's as well, with its options."""
    context = click.Context(main)
    by_command: dict[tuple[str, ...], list[str]] = {}
    for name in names:
        command = main.get_command(context, name)
        inside = command.commands if isinstance(command, click.Group) else {"": command}
        for below, one in inside.items():
            assert one is not None
            options = [max(o.opts, key=len) for o in one.params if isinstance(o, click.Option)]
            by_command[(name, below) if below else (name,)] = options
    return by_command


@settings(FEW, max_examples=25 * DEPTH)
@given(st.data())
def test_no_argument_is_unexpected(
    place: Path, monkeypatch: pytest.MonkeyPatch, data: st.DataObject
) -> None:
    enter(place, monkeypatch)
    known = options_of(COMMANDS.keys() - LONG)
    name = data.draw(st.sampled_from(sorted(known)))
    words = st.one_of(ODD, st.sampled_from(["--help", *known[name]]))
    arguments = [*name, *data.draw(st.lists(words, max_size=4))]
    if name == ("run",):
        arguments += ["nothing.csv", "--target", "label"]
    assert not fell(arguments)


@settings(FEW, max_examples=25 * DEPTH)
@given(st.data())
def test_no_argument_of_what_serves_or_trains_long_is_unexpected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: st.DataObject
) -> None:
    enter(tmp_path, monkeypatch)  # without a store
    monkeypatch.setattr(os, "execv", lambda *_: None)
    known = options_of(LONG)
    name = data.draw(st.sampled_from(sorted(known)))
    words = st.one_of(ODD, st.sampled_from(["--help", *known[name]]))
    drawn = data.draw(st.lists(words, max_size=4))
    assert not fell([*name, *drawn, *LONG[name[0]]])


SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=6), ODD)
DOCUMENTS = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.one_of(
                st.sampled_from(["source", "heal", "policy", "rules", "labels", "monitors", "path",
                                 "kind", "name", "rule", "version", "model_name", "recipe"]),
                st.text(max_size=4),
            ),
            inner, max_size=4,
        ),
    ),
    max_leaves=8,
)  # fmt: skip
BYTES = st.one_of(
    DOCUMENTS.map(lambda one: json.dumps(one).encode()),
    st.binary(max_size=40),
    st.text(alphabet="ab:,-[]{}&*!|>'\"\n\t #%@0\ud800", max_size=30).map(
        lambda one: one.encode("utf-8", "surrogatepass")
    ),
)
BRIEF = ("--no-plots", "--set", "network.epochs=1", "--set", "batches=2")
READERS = [
    ("config", "check", "given"), ("policy", "validate", "given"), ("policy", "show", "given"),
    ("rules", "check", "given", "data.csv", "--target", "label"),
    ("rules", "suggest", "given", "--target", "label"), ("init", "given", "--target", "label"),
    ("run", "given", "--target", "label", *BRIEF), ("run", "--config", "given", *BRIEF),
    ("run", "--policy", "given", *BRIEF),
    ("run", "data.csv", "--target", "label", "--rules", "given", *BRIEF),
    ("wrap", "--from", "torch.nn:Linear", "--weights", "given", "--as", "x"),
    ("audit", "--verify", "given"), ("export", "given"), ("report", "given"),
]  # fmt: skip
ENDINGS = ["", ".yaml", ".json", ".csv", ".parquet", ".ndjson", ".toml", ".csv.gz"]


@settings(FEW, max_examples=40 * DEPTH)
@given(st.sampled_from(READERS), st.sampled_from(ENDINGS), BYTES)
def test_no_file_is_unexpected(
    place: Path, monkeypatch: pytest.MonkeyPatch, reader: tuple[str, ...], ending: str, text: bytes
) -> None:
    enter(place, monkeypatch)
    (place / f"given{ending}").write_bytes(text)
    assert not fell([f"given{ending}" if one == "given" else one for one in reader])


VARIABLES = ["MLFLOW_TRACKING_URI", "SELFHEAL_MODEL_NAME", "SELFHEAL_HEAL_STEPS", "SELFHEAL_POLICY",
             "SELFHEAL_SOURCE", "SELFHEAL_RULES", "SELFHEAL_CONFIG", "SELFHEAL_ACTOR", "SELFHEAL_X",
             "SELFHEAL_HEAL__STEPS", "COLUMNS", "NO_COLOR", "FORCE_COLOR"]  # fmt: skip
LOOKING = [("config", "show"), ("snapshots",), ("champion",), ("doctor",), ("history",),
           ("status",), ("hold", "--reason", "x")]  # fmt: skip


@settings(FEW, max_examples=20 * DEPTH)
@given(st.sampled_from(LOOKING), st.dictionaries(st.sampled_from(VARIABLES), ODD, max_size=3))
def test_no_variable_is_unexpected(
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: tuple[str, ...],
    variables: dict[str, str],
) -> None:
    enter(place, monkeypatch)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        assert not fell(list(command))
    os.environ.pop("MLFLOW_TRACKING_URI", None)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("hold", "--reason", "a\udcff"), 2, r"'a\udcff' is not UTF-8 text"),
        (("wrap", "--from", "nn.Linear", "--weights", "data.csv", "--list"), 3, "data.csv"),
        (("wrap", "--from", "nn.Linear", "--weights", "w", "--list"), 3, "package.module:Class"),
    ],
)
def test_what_was_unexpected_once_is_said_in_words(
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    code: int,
    message: str,
) -> None:
    enter(place, monkeypatch)
    save_file(nn.Linear(3, 1).state_dict(), "w")
    result = CliRunner().invoke(main, arguments)
    assert (result.exit_code, message in result.output) == (code, True), result.output


def test_rows_that_are_drawn_fit_into_memory_whatever_the_shape(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    enter(place, monkeypatch)
    init = '{"in_features": 3, "out_features": 1}'
    save_file(nn.Linear(3, 1).state_dict(), "w")
    arguments = ["wrap", "--from", "torch.nn:Linear", "--init", init, "--weights", "w", "--list",
                 "--shape", "2097152"]  # fmt: skip
    assert "does not take float32 (n, 2097152)" in CliRunner().invoke(main, arguments).output
