"""The demo's timeline and its summary.

One rule: what is written down is true without colour and without a live screen, too.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Self

from supervisor.cli.human import Happening, Human, What
from supervisor.cli.screen import BAD, GOOD, QUIET, WARN, console, table
from supervisor.cli.text import plain, short_seconds

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live
    from rich.text import Text

TICK = 0.25
_STRIP = 60
_SILENT, _ONE, _MORE = "·", "▇", "2"

_TOLD = {
    What.JOINED: ("the human is in the room", QUIET),
    What.LEFT: ("the human has left", QUIET),
    What.RECONNECTING: ("the human has lost LiveKit and tries again", WARN),
    What.RECONNECTED: ("the human is back in the room", QUIET),
    What.LOST: ("the human gave up reconnecting", WARN),
    What.AGENT_CAME: ("{who} is in the room", ""),
    What.AGENT_WENT: ("{who} is no longer in the room", ""),
    What.AGENT_HEARD: ("{who} is heard", GOOD),
}


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one disturbance."""

    name: str
    key: str
    most_in_room: int
    most_audible: int
    seconds_two_audible: float
    seconds_until_audible: float | None
    """0 when the agent was heard throughout; None when it was not heard again."""
    healed: bool

    def document(self) -> dict[str, object]:
        return {
            "disturbance": self.key,
            "most_agents_in_room": self.most_in_room,
            "most_agents_audible": self.most_audible,
            "seconds_two_audible": round(self.seconds_two_audible, 3),
            "seconds_until_audible": None
            if self.seconds_until_audible is None
            else round(self.seconds_until_audible, 3),
            "healed": self.healed,
        }


class Timeline:
    """Lines as things happen; on a terminal with a live strip of what the human hears."""

    def __init__(self, *, to_stderr: bool) -> None:
        self._console = console(stderr=to_stderr)
        self._start = time.monotonic()
        self._strip: deque[int] = deque(maxlen=_STRIP)
        self._live: Live | None = None
        self._human: Human | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def watch(self, human: Human) -> None:
        """From now on the strip shows what this human hears."""
        from rich.live import Live

        self._human = human
        if self._console.is_terminal and self._live is None:
            self._live = Live(console=self._console, auto_refresh=False, transient=True)
            self._live.start()

    def stop(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def tick(self) -> None:
        if self._human is not None:
            self._strip.append(len(self._human.agents.audible()))
        if self._live is not None and self._human is not None:
            self._live.update(self._picture(self._human), refresh=True)

    def tell(self, text: str, style: str = QUIET) -> None:
        self._line(time.monotonic(), text, style)

    def announce(self, text: str) -> None:
        self._line(time.monotonic(), f"→ {text}", "bold")

    def happened(self, happening: Happening) -> None:
        text, style = _TOLD[happening.what]
        self._line(happening.at, text.format(who=plain(happening.who)), style)

    def summary(self, results: Sequence[Result], *, one_audible: bool) -> None:
        self.stop()
        self._console.print()
        self._console.print(_table(results))
        self._console.print()
        self._console.print(_verdict(one_audible))

    def _line(self, at: float, text: str, style: str) -> None:
        from rich.text import Text

        target = self._live.console if self._live is not None else self._console
        target.print(Text.assemble((f"{at - self._start:6.1f} s  ", QUIET), (text, style)))

    def _picture(self, human: Human) -> RenderableType:
        from rich.text import Text

        there, heard = len(human.agents.present()), len(human.agents.audible())
        strip = Text.assemble(("heard  ", QUIET))
        for audible in self._strip:
            strip.append_text(_mark(audible))
        where = "in the room" if human.connected else "away"
        return Text.assemble(
            "\n", strip, "\n", (f"agents in the room {there}, heard {heard}; the human is {where}", QUIET)
        )


def _mark(audible: int) -> Text:
    from rich.text import Text

    if audible == 0:
        return Text(_SILENT, QUIET)
    return Text(_ONE, GOOD) if audible == 1 else Text(_MORE, BAD)


def _table(results: Sequence[Result]) -> RenderableType:
    from rich.text import Text

    listing = table()
    listing.add_column("WHAT WAS DONE", no_wrap=True)
    listing.add_column("AGENTS SEEN", justify="right")
    listing.add_column("HEARD AT ONCE", justify="right")
    listing.add_column("AUDIBLE AGAIN", justify="right")
    listing.add_column("")
    for result in results:
        listing.add_row(
            result.name,
            str(result.most_in_room),
            Text(str(result.most_audible), BAD if result.most_audible > 1 else ""),
            _again(result.seconds_until_audible),
            Text("healed", GOOD) if result.healed else Text("not healed", BAD),
        )
    return listing


def _again(seconds: float | None) -> str:
    if seconds is None:
        return "never"
    return "not interrupted" if seconds == 0 else f"after {short_seconds(seconds)}"


def _verdict(one_audible: bool) -> Text:
    from rich.text import Text

    if one_audible:
        return Text("The room ended with exactly one audible agent.", GOOD)
    return Text("The room did not end with exactly one audible agent.", BAD)
