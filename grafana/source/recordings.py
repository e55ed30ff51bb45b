"""What is worth having over weeks, at the price of one series: everything else is cheap enough to ask anew.

The rule: no alert depends on these, so that the alerts work where only Grafana evaluates rules.
"""

from __future__ import annotations

from grafana.source.model import Recording

GROUP = "livekit-supervisor-recordings"
INTERVAL = "30s"

RECORDINGS: tuple[Recording, ...] = (
    Recording(
        # The promise as a number: of the rooms with a human, how many have exactly their one agent?
        "job_instance:livekit_supervisor_rooms_served:ratio",
        """\
sum without (state) (livekit_supervisor_rooms{state="healthy"})
/ (sum without (state) (livekit_supervisor_rooms{state=~"healthy|missing_agent|conflict"}) > 0)""",
    ),
    Recording(
        "job_instance_kind:livekit_supervisor_conflicts:increase5m",
        "sum without (resolution) (increase(livekit_supervisor_conflicts_total[5m]))",
    ),
    Recording(
        "job_instance:livekit_supervisor_recovery_seconds:p90_1h",
        "histogram_quantile(0.9, sum without (cause) (rate(livekit_supervisor_recovery_seconds_bucket[1h])))",
    ),
)
