"""``selfheal export``."""

from __future__ import annotations

import tempfile
from pathlib import Path

import click

from selfheal_cli.cli import options
from selfheal_cli.cli.command import Command
from selfheal_cli.cli.say import say
from selfheal_cli.cli.version_name import VersionName, version_number


@click.command("export", cls=Command, old={"--export-dir": "--output"})
@options.run("latest")
@click.option(
    "--output",
    "export_dir",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("monitoring_export"),
    show_default=True,
    help="Folder of the monitoring files.",
)
@click.option("--no-plots", is_flag=True, help="Draw no pictures.")
@click.option(
    "--bundle",
    type=click.Path(path_type=Path, file_okay=False),
    help="Instead: write version RUN of --model, a number or an alias, with all that it needs "
    "to score, into this folder.",
)
@options.model
@options.tracking_uri
@options.as_json
def command(
    run: str,
    export_dir: Path,
    no_plots: bool,
    bundle: Path | None,
    model_name: str,
    tracking_uri: str | None,
    as_json: bool,
) -> None:
    """Make the monitoring files, page and plots of RUN again, from its event log alone.

    RUN is an id, the beginning of one, or latest. A run that is not in this folder is fetched
    from the registry by its whole id. With --bundle, mlflow.pyfunc.load_model(FOLDER) needs no
    store and no selfheal; a version of 0.1.0 is written in today's form.
    """
    if bundle is not None:
        _bundle(run, bundle, model_name, tracking_uri, as_json=as_json)
        return
    from selfheal_cli.cli import output
    from selfheal_cli.cli.output import log_of
    from selfheal_cli.events.log import read
    from selfheal_cli.report.export import export
    from selfheal_cli.report.page import PAGE, write_page
    from selfheal_cli.report.summary import tell

    with tempfile.TemporaryDirectory() as folder:
        story = tell(read(log_of(run, tracking_uri, Path(folder))))
    view = story.view
    files = [*export(view, export_dir), write_page(story, export_dir / PAGE)]
    if not no_plots and view.rows:
        from selfheal_cli.report.plots import draw_all

        files += draw_all(story, export_dir / "plots")
    if as_json:
        output.print_json({"run_id": view.run_id, "files": [str(f) for f in files]})
    else:
        say(f"{len(files)} files of run {view.run_id} in {export_dir}/")


def _bundle(
    named: str, folder: Path, model: str, tracking_uri: str | None, *, as_json: bool
) -> None:
    from selfheal_cli.cli import output
    from selfheal_cli.registry.bundle import write_bundle
    from selfheal_cli.registry.mlflow.registry import MlflowRegistry
    from selfheal_cli.rollback.verify import load_verified

    registry = MlflowRegistry(tracking_uri)
    named = VersionName()(named)
    number = version_number(registry, model, named)
    version = registry.version(model, number)
    load_verified(registry, version)
    write_bundle(registry, version, folder)
    if as_json:
        output.print_json({"model": model, "version": number, "folder": str(folder)})
    else:
        say(f"{model} v{number} in {folder}/: mlflow.pyfunc.load_model takes the folder")
