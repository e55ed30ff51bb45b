"""``status --watch``: a live screen.  One rule: it outlives the daemon, and says when it has gone."""

from __future__ import annotations

import sys
import time

from supervisor.cli.client import WAITING, Client, NotRunning
from supervisor.cli.progress import while_waiting
from supervisor.cli.screen import BAD, console, print_json
from supervisor.cli.status_view import render, show
from supervisor.cli.text import plain

_INTERVAL = 1.0


def watch_status(client: Client, *, as_json: bool) -> None:
    try:
        if as_json:
            _lines(client)
        elif sys.stdout.isatty():
            _screen(client)
        else:
            _pages(client)
    except KeyboardInterrupt:
        return


def _lines(client: Client) -> None:
    while True:
        print_json(client.status(), one_line=True)
        time.sleep(_INTERVAL)


def _pages(client: Client) -> None:
    """Not on a terminal: one after the other."""
    while True:
        show(client.status(), client.config)
        print(flush=True)
        time.sleep(_INTERVAL)


def _screen(client: Client) -> None:
    from rich.console import Group, RenderableType
    from rich.live import Live
    from rich.text import Text

    target = console()
    with while_waiting(WAITING):
        client.status()  # a daemon that never was there is an error, not a screen
    with Live(console=target, screen=True, auto_refresh=False) as live:
        while True:
            picture: RenderableType
            try:
                picture = render(client.status(), config=client.config)
            except NotRunning as error:
                picture = Text(plain(error.message), BAD)
            hint = Text("\nCtrl-C leaves", "dim")
            live.update(Group(picture, hint), refresh=True)
            time.sleep(_INTERVAL)
