"""Every Prometheus name of this program, and nothing that decides anything.

``catalogue`` names the series and their label values, ``subscriber`` moves them as events happen,
``exposition`` writes them down for a scrape.
"""

from supervisor.metrics.subscriber import Metrics as Metrics
