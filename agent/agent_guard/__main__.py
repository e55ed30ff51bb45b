"""``python -m agent_guard [--] SCRIPT [ARGS...]``."""

from __future__ import annotations

import os
import sys

from agent_guard.launcher import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
