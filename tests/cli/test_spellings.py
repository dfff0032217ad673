"""One word for one thing; a spelling of before works for one version, and says what it is now."""

from __future__ import annotations

import json
from pathlib import Path

import click
import pytest

from selfheal_cli.cli.main import COMMANDS, SECTIONS, main
from tests.conftest import Invoke

WIDTH = 80


def commands() -> dict[str, click.Command]:
    """Each command by what is typed."""
    context = click.Context(main)
    by_name: dict[str, click.Command] = {}
    for name in COMMANDS:
        command = main.get_command(context, name)
        assert command is not None
        inside = command.commands if isinstance(command, click.Group) else {}
        by_name |= {f"{name} {below}": one for below, one in inside.items()} or {name: command}
    return by_name


def options_of(command: click.Command) -> list[click.Option]:
    return [one for one in command.params if isinstance(one, click.Option) and not one.hidden]


def test_commands_stand_in_the_order_of_a_users_day_and_fit_80_columns(invoke: Invoke) -> None:
    lines = invoke("--help").stdout.splitlines()
    titles = [line.removesuffix(":") for line in lines if line.endswith(":") and line[0] != " "]
    assert titles == ["Options", "Start", "Look", "Decide", "Serve", "Check", "Set up"]
    assert titles[1:] == list(SECTIONS)
    assert max(map(len, lines)) <= WIDTH
    assert sum(line.startswith("  ") for line in lines) == len(COMMANDS) + 6  # none is wrapped


@pytest.mark.parametrize("name", sorted(commands()))
def test_help_fits_80_columns_and_ends_with_the_options_that_all_have(
    invoke: Invoke, name: str
) -> None:
    lines = invoke(*name.split(), "--help").stdout.splitlines()
    assert max(map(len, lines)) <= WIDTH
    example = lines.index("Example:")
    assert lines[example - 2].split()[:2] == ["-h,", "--help"]
    assert lines[-1].strip().startswith(f"selfheal {name}")


def test_one_thing_is_called_by_one_word_in_all_commands() -> None:
    known = {name: {opt for one in options_of(command) for opt in one.opts}
             for name, command in commands().items()}  # fmt: skip
    every = set().union(*known.values())
    old = {"--model-name", "--out", "--apply", "--plot", "--max-rules", "--export-dir"}
    assert not every & old
    assert {name for name, options in known.items() if "--yes" in options} == {
        "approve", "canary promote", "canary try", "canary withdraw", "delete", "labels erase",
        "labels revoke", "mode", "prune", "rollback",
    }  # fmt: skip
    assert {"--gives", "--classes", "--from", "--weights", "--as", "--drop"} <= known["wrap"]
    assert not {"--output", "--labels"} & known["wrap"]
    assert {name for name, options in known.items() if "--quiet" in options} == {
        "compare", "demo", "flush", "run", "score",
    }  # fmt: skip
    assert {name for name, options in known.items() if "--run" in options} == {
        "ask-labels", "export", "flush", "history", "label", "report",
    }  # fmt: skip
    for name in ("init", "report", "export", "config schema", "run", "compare"):
        assert "--output" in known[name], name


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (("config", "schema", "--out", "s.json"), ("--out", "--output")),
        (("init", "--out=there.yaml"), ("--out", "--output")),
    ],
)
def test_an_old_spelling_works_and_names_the_new_one_in_one_line(
    empty_dir: Path, invoke: Invoke, old: tuple[str, ...], new: tuple[str, str]
) -> None:
    result = invoke(*old)
    assert result.stderr == (
        f"selfheal: old, and gone with the next version: {new[0]} (now {new[1]})\n"
    )
    assert list(Path().iterdir())


def test_where_a_command_ends_in_an_error_its_line_stands_alone(
    empty_dir: Path, invoke: Invoke
) -> None:
    Path("there.yaml").touch()
    result = invoke("init", "--out", "there.yaml", expect=3)
    assert result.stderr.startswith("selfheal: there.yaml: is there already")
    assert result.stderr.count("\n") == 1


def test_run_keeps_the_articles_options_and_those_of_daily_use() -> None:
    """Every other key of the file is ``--set``."""
    by_section: dict[str, list[str]] = {}
    for option in options_of(commands()["run"]):
        by_section.setdefault(getattr(option, "section", ""), []).append(option.opts[0])
    common = by_section.pop("Common options")
    assert by_section.pop("As in the article") == [
        "--drift-strength", "--heal-steps", "--heal-lr", "--fidi-threshold", "--conflict-min",
        "--rollback-f1-drop",
    ]  # fmt: skip
    written = next(title for title in by_section if title.startswith("How DATA is written"))
    assert len(by_section.pop(written)) == 6
    assert sum(map(len, by_section.values())) <= 28
    assert {"--set", "--config", "--tracking-uri", "--quiet", "--json"} <= set(common)


def test_what_stands_behind_two_dashes_is_no_option(empty_dir: Path, invoke: Invoke) -> None:
    result = invoke("init", "--", "--out", expect=3)
    assert "old" not in result.stderr


@pytest.mark.parametrize(
    ("slip", "nearest"),
    [
        (("snapshtos",), "snapshots"),
        (("config", "shwo"), "show"),
        (("snapshots", "--limt", "3"), "--limit"),
        (("snapshots", "--modle-name", "x"), "--model"),
    ],
)
def test_a_slip_is_told_the_nearest_name(
    invoke: Invoke, slip: tuple[str, ...], nearest: str
) -> None:
    assert f"Did you mean '{nearest}'?" in invoke(*slip, expect=2).stderr


def test_an_old_spelling_writes_nothing_into_a_json_document(
    in_article_run: Path, invoke: Invoke
) -> None:
    told = invoke("snapshots", "--model-name", "fraud", "--limit", "1", "--json")
    assert json.loads(told.stdout)
    assert "--model-name (now --model)" in told.stderr


@pytest.mark.parametrize("named", ["5", "v5", "V5", "champion", "nobody"])
def test_a_version_is_a_number_with_or_without_v_or_an_alias(
    in_article_run: Path, invoke: Invoke, named: str
) -> None:
    from selfheal_cli.registry.mlflow.registry import MlflowRegistry

    code = 4 if named == "nobody" else 0
    shown = invoke("show", named, "--json", expect=code)
    if code:
        assert "model 'fraud' has no alias 'nobody'" in shown.stderr
        return
    number = json.loads(shown.stdout)["version"]
    assert number == (MlflowRegistry().alias("fraud", "champion") if named == "champion" else 5)
    assert json.loads(invoke("history", "--version", named, "--limit", "3", "--json").stdout)
    plan = json.loads(invoke("rollback", "--to", named, "--dry-run", "--json").stdout)
    assert plan["target"]["version"] == number


@pytest.mark.parametrize("named", ["0", "v0", "-1", "1.5", "", "a b", "9" * 30])
def test_what_can_be_no_version_is_refused(invoke: Invoke, named: str) -> None:
    told = invoke("show", "--", named, expect=2).stderr
    assert "a version is 3, v3 or an alias such as champion" in told


def test_a_run_may_be_named_by_the_option_of_other_commands(invoke: Invoke) -> None:
    assert "no run 'nope'" in invoke("flush", "--run", "nope", expect=4).stderr
    both = invoke("report", "latest", "--run", "latest", expect=2).stderr
    assert "RUN and --run exclude each other" in both
