"""What an operator sees of livekit-supervisor in Prometheus and Grafana.

The rule: what is in ``source/`` is written by people, and every other file that it can make is generated
from it by ``python -m grafana.generate``; a test proves that they match.
"""
