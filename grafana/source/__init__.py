"""Alerts, recording rules, examples of them, dashboards: data, and the few functions that write it down."""
