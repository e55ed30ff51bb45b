"""The few kinds of panels that the dashboards are made of, with Grafana's builder library.

The rule: every panel has a unit, a description and our data source, and every query chooses by job and
instance; who writes a dashboard cannot forget it.
"""

from __future__ import annotations

from collections.abc import Sequence

from grafana_foundation_sdk.builders import common as common_builders
from grafana_foundation_sdk.builders import dashboard as dashboards
from grafana_foundation_sdk.builders import heatmap, prometheus, stat, statetimeline, table, timeseries
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import common, dashboard
from grafana_foundation_sdk.models.heatmap import HeatmapColorMode
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

DATASOURCE = dashboard.DataSourceRef("prometheus", "${datasource}")
PREFIX = "livekit_supervisor_"
OURS = 'job=~"$job", instance=~"$instance"'
RATE, RANGE = "[$__rate_interval]", "[$__range]"

GREEN, YELLOW, ORANGE, RED, BLUE, GREY = "green", "yellow", "orange", "red", "blue", "text"

Steps = Sequence[tuple[float | None, str]]
"""From this value on, this colour; None: from the start."""

ANY_IS_BAD: Steps = ((None, GREEN), (1, RED))
ANY_IS_ODD: Steps = ((None, GREEN), (1, ORANGE))
NEUTRAL: Steps = ((None, BLUE),)


def series(metric: str, *matchers: str) -> str:
    """A selector of one of our metrics."""
    return f"{PREFIX}{metric}{{{', '.join((OURS, *matchers))}}}"


def agents(metric: str, *matchers: str) -> str:
    """The same, of the chosen agents."""
    return series(metric, 'agent_id=~"$agent"', *matchers)


def process(metric: str) -> str:
    """A metric of the daemon's own process; others export it, too; the choices offer our targets alone."""
    return f"process_{metric}{{{OURS}}}"


# --- queries ------------------------------------------------------------------------------------------


def query(expr: str, legend: str = "") -> prometheus.Dataquery:
    return prometheus.Dataquery().datasource(DATASOURCE).expr(expr).legend_format(legend).range()


def instant(expr: str, legend: str = "") -> prometheus.Dataquery:
    return prometheus.Dataquery().datasource(DATASOURCE).expr(expr).legend_format(legend).instant()


def columns(expr: str, ref: str) -> prometheus.Dataquery:
    return instant(expr).format(PromQueryFormat.TABLE).ref_id(ref)


def buckets(expr: str) -> prometheus.Dataquery:
    return query(expr, "{{le}}").format(PromQueryFormat.HEATMAP)


# --- parts --------------------------------------------------------------------------------------------


def runbook(alert: str) -> dashboards.DashboardLink:
    return link(f"Runbook: {alert}", f"${{docs}}/runbook.md#{alert.lower()}").target_blank(True)


def link(title: str, url: str) -> dashboards.DashboardLink:
    return dashboards.DashboardLink(title).type(dashboard.DashboardLinkType.LINK).url(url)


def to_dashboard(title: str, uid: str) -> dashboards.DashboardLink:
    """With the same choices and the same time."""
    return link(title, f"/d/{uid}").include_vars(True).keep_time(True)


def steps(wanted: Steps) -> dashboards.ThresholdsConfig:
    absolute = dashboards.ThresholdsConfig().mode(dashboard.ThresholdsMode.ABSOLUTE)
    return absolute.steps([dashboard.Threshold(value, color) for value, color in wanted])


def texts(**by_value: tuple[str, str]) -> dashboard.ValueMap:
    """``_1=("up", "green")``: this text and colour for that value."""
    return dashboard.ValueMap(
        {
            value.removeprefix("_"): dashboard.ValueMappingResult(text, color, index=index)
            for index, (value, (text, color)) in enumerate(by_value.items())
        }
    )


UP_OR_DOWN = texts(_0=("DOWN", RED), _1=("up", GREEN))


def _legend(calcs: Sequence[str]) -> common_builders.VizLegendOptions:
    legend = common_builders.VizLegendOptions().show_legend(True).placement(common.LegendPlacement.BOTTOM)
    mode = common.LegendDisplayMode.TABLE if calcs else common.LegendDisplayMode.LIST
    return legend.display_mode(mode).calcs(list(calcs))


# --- panels -------------------------------------------------------------------------------------------


def number(
    title: str,
    description: str,
    expr: str,
    *,
    thresholds: Steps,
    unit: str = "short",
    decimals: int = 0,
    mapping: dashboard.ValueMap | None = None,
    alert: str | None = None,
    width: int = 4,
) -> stat.Panel:
    """One number on a coloured ground, to be read from across the room."""
    panel = stat.Panel().title(title).description(description).unit(unit).decimals(decimals)
    panel = panel.datasource(DATASOURCE).span(width).height(5).with_target(instant(expr))
    panel = panel.color_mode(common.BigValueColorMode.BACKGROUND_SOLID).thresholds(steps(thresholds))
    panel = panel.graph_mode(common.BigValueGraphMode.NONE).text_mode(common.BigValueTextMode.VALUE)
    panel = panel.reduce_options(common_builders.ReduceDataOptions().calcs(["lastNotNull"])).no_value(
        "no data"
    )
    if mapping is not None:
        panel = panel.mappings([mapping])
    return panel.links([runbook(alert)]) if alert is not None else panel


def graph(
    title: str,
    description: str,
    *queries: prometheus.Dataquery,
    unit: str = "short",
    alert: str | None = None,
    width: int = 12,
    bars: bool = False,
    stacked: bool = False,
    calcs: Sequence[str] = (),
    top: float | None = None,
) -> timeseries.Panel:
    """Lines over time, or bars for what is counted."""
    panel = timeseries.Panel().title(title).description(description).unit(unit).min(0)
    panel = panel.datasource(DATASOURCE).span(width).height(8).targets(list(queries))
    panel = panel.draw_style(common.GraphDrawStyle.BARS if bars else common.GraphDrawStyle.LINE)
    panel = panel.fill_opacity(60 if bars else 10).line_width(1 if bars else 2)
    panel = panel.show_points(common.VisibilityMode.NEVER).legend(_legend(calcs))
    tooltip = common_builders.VizTooltipOptions().mode(common.TooltipDisplayMode.MULTI)
    panel = panel.tooltip(tooltip.sort(common.SortOrder.DESCENDING).hide_zeros(True))
    if stacked or bars:
        panel = panel.stacking(common_builders.StackingConfig().mode(common.StackingMode.NORMAL))
    if top is not None:
        panel = panel.max(top)
    return panel.links([runbook(alert)]) if alert is not None else panel


def density(
    title: str, description: str, expr: str, *, alert: str | None = None, width: int = 12
) -> heatmap.Panel:
    """How long things took: time to the right, duration upwards, how many as colour."""
    panel = heatmap.Panel().title(title).description(description).unit("s")
    panel = panel.datasource(DATASOURCE).span(width).height(8).with_target(buckets(expr))
    panel = panel.calculate(False).y_axis(heatmap.YAxisConfig().unit("s"))
    panel = panel.color(
        heatmap.HeatmapColorOptions().mode(HeatmapColorMode.SCHEME).scheme("Oranges").steps(64)
    )
    return panel.links([runbook(alert)]) if alert is not None else panel


def timeline(
    title: str,
    description: str,
    wanted: prometheus.Dataquery,
    mapping: dashboard.ValueMap,
    *,
    alert: str,
    width: int = 24,
) -> statetimeline.Panel:
    panel = statetimeline.Panel().title(title).description(description).unit("none").mappings([mapping])
    panel = panel.datasource(DATASOURCE).span(width).height(8).with_target(wanted).merge_values(True)
    panel = panel.show_value(common.VisibilityMode.AUTO).row_height(0.8).fill_opacity(80)
    return panel.legend(_legend(())).links([runbook(alert)])


def rows(
    title: str,
    description: str,
    *queries: prometheus.Dataquery,
    names: dict[str, str],
    unit: str = "short",
    width: int = 24,
    overrides: Sequence[tuple[str, Sequence[dashboard.DynamicConfigValue]]] = (),
) -> table.Panel:
    """One table of several queries with the same labels; ``names``: what to call each column, in order."""
    panel = table.Panel().title(title).description(description).unit(unit)
    panel = panel.datasource(DATASOURCE).span(width).height(8).targets(list(queries)).filterable(True)
    panel = panel.with_transformation(dashboard.DataTransformerConfig("merge", options={}))
    order = {column: index for index, column in enumerate(names)}
    organize = {"excludeByName": {"Time": True}, "indexByName": order, "renameByName": names}
    panel = panel.with_transformation(dashboard.DataTransformerConfig("organize", options=organize))
    for column, properties in overrides:
        panel = panel.override_by_name(column, list(properties))
    return panel


def of_column(**properties: object) -> list[dashboard.DynamicConfigValue]:
    return [dashboard.DynamicConfigValue(key, value) for key, value in properties.items()]


# --- a dashboard --------------------------------------------------------------------------------------


class _Annotation(dashboard.AnnotationQuery):
    """The library leaves out what Prometheus's annotations are titled and tagged with."""

    def __init__(self, name: str, color: str, expr: str, title: str, tags: Sequence[str]) -> None:
        super().__init__(name=name, datasource=DATASOURCE, enable=True, icon_color=color, expr=expr)
        self.title_format = title
        self.tag_keys = tags

    def to_json(self) -> dict[str, object]:
        more: dict[str, object] = {
            "titleFormat": self.title_format,
            "tagKeys": ",".join(self.tag_keys),
            "step": "30s",
        }
        return {**super().to_json(), **more}


class Annotation(Builder[dashboard.AnnotationQuery]):
    """Marks where ``expr`` has a result."""

    def __init__(self, name: str, color: str, expr: str, title: str, tags: Sequence[str]) -> None:
        self._built = _Annotation(name, color, expr, title, tags)

    def build(self) -> dashboard.AnnotationQuery:
        return self._built


CONFLICTS_MARKED = Annotation(
    "Conflicts",
    ORANGE,
    f"sum by (kind, resolution) (increase({series('conflicts_total')}{RATE})) > 0",
    "conflict: {{kind}}, {{resolution}}",
    ("kind", "resolution"),
)
RESTARTS_MARKED = Annotation(
    "Workers restarted",
    RED,
    f"sum by (agent_id, reason) (increase({series('agent_restarts_total')}{RATE})) > 0",
    "{{agent_id}} restarted: {{reason}}",
    ("agent_id", "reason"),
)
STARTS_MARKED = Annotation(
    "Supervisor started",
    BLUE,
    f"changes({process('start_time_seconds')}{RATE}) > 0",
    "supervisor started on {{instance}}",
    ("instance",),
)


def choice(name: str, label: str, expr: str, *, every: str | None = None) -> dashboards.QueryVariable:
    """*All* is what ``expr`` has found; or the pattern ``every``, for a label that nobody else has."""
    variable = dashboards.QueryVariable(name).label(label).datasource(DATASOURCE).query(expr)
    variable = variable.refresh(dashboard.VariableRefresh.ON_TIME_RANGE_CHANGED)
    variable = variable.sort(dashboard.VariableSort.ALPHABETICAL_ASC).multi(True).include_all(True)
    if every is not None:
        variable = variable.all_value(every)
    return variable.current(dashboard.VariableOption(True, "All", "$__all"))


def empty_dashboard(uid: str, title: str, description: str, docs: str) -> dashboards.Dashboard:
    """With everything but panels."""
    board = (
        dashboards.Dashboard(title).uid(uid).description(description).tags(["livekit", "livekit-supervisor"])
    )
    board = (
        board.readonly().tooltip(dashboard.DashboardCursorSync.CROSSHAIR).refresh("30s").time("now-6h", "now")
    )
    board = board.timezone("browser").version(1)
    board = board.with_variable(
        dashboards.DatasourceVariable("datasource").label("Prometheus").type("prometheus")
    )
    build_info = f"{PREFIX}build_info"
    board = board.with_variable(choice("job", "Job", f"label_values({build_info}, job)"))
    board = board.with_variable(
        choice("instance", "Supervisor", f'label_values({build_info}{{job=~"$job"}}, instance)')
    )
    board = board.with_variable(
        choice("agent", "Agent", f"label_values({series('agent_up')}, agent_id)", every=".*")
    )
    board = board.with_variable(
        dashboards.TextBoxVariable("docs")
        .label("Docs")
        .default_value(docs)
        .description("The address of the docs folder, for links to the runbook.")
    )
    board = board.annotation(CONFLICTS_MARKED).annotation(RESTARTS_MARKED).annotation(STARTS_MARKED)
    return board.link(link("Runbook", "${docs}/runbook.md").icon("doc").target_blank(True))
