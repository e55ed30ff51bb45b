"""A diagnosis on the terminal: what is wrong first, each with its evidence and what mends it.

One rule: what is right takes one line, so that nobody has to read past it.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from supervisor.cli.diagnose_findings import Finding, Report, Severity
from supervisor.cli.screen import BAD, GOOD, QUIET, WARN, table
from supervisor.cli.text import count

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table
    from rich.text import Text

_MARKS = {
    Severity.ERROR: ("✗", BAD),
    Severity.WARNING: ("!", WARN),
    Severity.UNKNOWN: ("?", QUIET),
    Severity.OK: ("✓", GOOD),
}


def render(report: Report) -> RenderableType:
    """To be printed without ``crop``: the lines that are there to be copied are as long as they are."""
    from rich.console import Group

    return Group(_headline(report), *_parts(report.findings))


def as_text(report: Report) -> str:
    """The same without colours, for the bundle."""
    from rich.console import Console

    out = io.StringIO()
    Console(file=out, width=120, color_system=None, markup=False, emoji=False, highlight=False).print(
        render(report), crop=False
    )
    return out.getvalue()


def _headline(report: Report) -> Text:
    from rich.text import Text

    found = {s: sum(f.severity is s for f in report.findings) for s in Severity}
    rest = f"{count(found[Severity.WARNING], 'warning')}, {found[Severity.UNKNOWN]} not to be seen"
    if report.wrong:
        return Text(f"✗ {count(found[Severity.ERROR], 'thing')} wrong now; {rest}", BAD)
    return Text(f"✓ Nothing is wrong now; {rest}", GOOD)


def _parts(findings: Sequence[Finding]) -> Iterator[RenderableType]:
    for severity in (Severity.ERROR, Severity.WARNING, Severity.UNKNOWN, Severity.OK):
        group = [f for f in findings if f.severity is severity]
        if group:
            yield ""
        for finding in group:
            yield from _finding(finding, brief=severity is Severity.OK)


def _finding(finding: Finding, *, brief: bool) -> Iterator[RenderableType]:
    from rich.text import Text

    told = Text.assemble((f"{finding.area.value}: ", QUIET), finding.message)
    if brief and finding.evidence:
        told.append(f"  {'; '.join(finding.evidence)}", QUIET)
    yield _marked(Text(*_MARKS[finding.severity]), told)
    if brief:
        return
    for evidence in finding.evidence:
        yield _marked(Text(" "), Text(evidence, QUIET))
    for number, row in enumerate((finding.fix or "").splitlines()):
        # Not wrapped: it is there to be copied.
        yield Text(f"  {' ' if number else '→'} {row}", no_wrap=True, overflow="ignore")


def _marked(mark: Text, text: Text) -> Table:
    """Further lines of the text begin where its first one does."""
    grid = table(header=False)
    grid.padding = (0, 1, 0, 0)
    grid.add_row(mark, text)
    return grid
