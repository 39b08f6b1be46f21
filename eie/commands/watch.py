"""``eie watch``: a page that shows runs while they are under way."""

from __future__ import annotations

from pathlib import Path

import click

from eie.options import example, json_option
from eie.output import Output

__all__ = ["watch"]


@click.command(
    epilog=example(
        "eie watch build/run",
        "eie watch build/nightly --port 8500",
        "eie watch build/run --json",
    ),
    short_help="Show runs under way in a browser.",
)
@click.argument("folder", metavar="RUN/", type=click.Path(path_type=Path))
@click.option("--port", type=click.IntRange(0, 65535), default=8400, show_default=True, help="0 takes a free one.")
@click.option("--host", default="127.0.0.1", show_default=True,
              help="Address to listen at; by default only this machine can see the page.")  # fmt: skip
@json_option
def watch(folder: Path, port: int, host: str, json_to: str | None) -> None:
    """Serve a page about the run in RUN/, or about every run below it: progress, loss, weights left, trials, failures.

    RUN/ is what -o names for eie train, experiment, search, verify and fuzz, which may be started before or after; the
    page shows what their lines say as they come (progress.jsonl, cases.jsonl). It goes on when the run or this command
    is started again. Ctrl-C ends it. With --json what is known now is written once, and nothing is served.
    """
    output = Output(json_to)

    if folder.exists() and not folder.is_dir():
        raise click.UsageError(f"{folder} is a file; expected the folder of a run, or one with runs in it")
    if json_to is not None:
        from sim.pages.progress import state

        output.result(state(folder))
        return
    from sim.pages.server import LOOPBACK, Server

    with Server(folder, host, port) as server:
        if host not in (LOOPBACK, "localhost"):
            output.note(f"eie: everybody who reaches {host} can read along, without a password")
        there = "" if folder.exists() else ", which is not there yet"
        click.echo(f"{server.url}  shows {folder}{there}; Ctrl-C ends it")
        try:
            server.serve_forever(poll_interval=0.2)
        except KeyboardInterrupt:
            output.text()
