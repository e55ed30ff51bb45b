"""The configuration, whole and validated, for the commands that need all of it.

One rule: a bad configuration is one message with every problem in it, and exit code 2.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from supervisor.cli.errors import CliError, ExitCode
from supervisor.config import ConfigError, Settings, load


def load_settings(file: Path, environ: Mapping[str, str]) -> Settings:
    try:
        return load(file, environ)
    except ConfigError as error:
        raise CliError(str(error), ExitCode.USAGE) from error
