"""Hostile input: every place where bytes of somebody else's come in, as a function that takes any bytes.

One rule: a target raises on a defect and on nothing else.  Whatever the bytes are, being told so in the
way that the documents promise is no defect; a traceback, a hang, a leak, a secret told, or harm to
somebody else is.
"""

import sys
from pathlib import Path

# As pytest's configuration has it: the guard stands beside the daemon, not in it.
sys.path.insert(0, str(Path(__file__).parents[2] / "agent"))
