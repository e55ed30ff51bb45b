"""The steady voice agent with an inference process, as turn detectors have; its pid is in INFERENCE_PID."""

from __future__ import annotations

import os
from pathlib import Path

from livekit.agents.inference_runner import _InferenceRunner
from steady_voice import server as server


class PidRunner(_InferenceRunner):
    """Infers nothing."""

    INFERENCE_METHOD = "pid"

    def initialize(self) -> None:
        Path(os.environ["INFERENCE_PID"]).write_text(str(os.getpid()))

    def run(self, data: bytes) -> bytes | None:
        return data


_InferenceRunner.register_runner(PidRunner)
