"""Defects that are known and not mended yet.

The targets pass over them, so that they find others; ``tests/unit/test_fuzz.py`` expects them, and fails when
one is gone: then it leaves this file.
"""

from __future__ import annotations

PASSED_OVER = True

NAMELESS = b'0{"type":"hello","v":1,"role":"job","agent_id":"tree","room":"","job_id":""}\n'
"""The daemon gives a room without a name to a job without an ID, and asks LiveKit for it."""

EPOCH_TRUE = b'0{"type":"hello","v":1,"role":"job","agent_id":"tree","room":"r","job_id":"j","epoch":true}\n'
"""``true`` is taken for an epoch and given back, which the guard does not understand."""

INPUTS = {"nameless": ("guard-socket", NAMELESS), "epoch-true": ("guard-socket", EPOCH_TRUE)}
