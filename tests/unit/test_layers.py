"""What import-linter cannot see: that the daemon's environment needs no livekit-agents."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

PROGRAM = """
import pkgutil, importlib, sys
import supervisor
for module in pkgutil.walk_packages(supervisor.__path__, "supervisor."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
agents = ("livekit.agents", "livekit.rtc", "agent_guard")
print(*sorted(name for name in sys.modules if name.startswith(agents)))
"""


def test_no_module_of_the_supervisor_imports_what_belongs_to_agents() -> None:
    """``livekit.rtc`` comes with livekit-agents: the demo imports it late, and says if it is missing."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []
