"""The daemon's control socket, from the outside: HTTP over a Unix socket, with a time-out on everything.

One rule: a daemon that is not there, and one that does not answer, are told apart in words and alike in
their exit code.
"""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import cast
from urllib.parse import quote, urlencode

from supervisor.cli.documents import VERSION, Conflicts, Rooms, Status
from supervisor.cli.errors import CliError, ExitCode
from supervisor.cli.own_commands import about
from supervisor.cli.text import plain

TIMEOUT = 5.0
WAITING = f"waiting for the daemon's answer ({TIMEOUT:g} s at most) ..."
"""For whoever looks on while a question is open."""


class NotRunning(CliError):
    def __init__(self, message: str) -> None:
        super().__init__(message, ExitCode.NOT_RUNNING)


class NotAnswering(NotRunning):
    """Somebody listens, and keeps silent."""


class Refused(CliError):
    """The daemon answered, and said no."""


class Client:
    """Asks the daemon behind one control socket; a connection for each question."""

    def __init__(self, socket_path: Path, config: Path | None = None) -> None:
        self._path = socket_path
        self.config = config
        """What the commands that people are told to type have to name, if anything."""

    @property
    def start(self) -> str:
        """What to type for a daemon that is not running."""
        return about(self.config, "livekit-supervisor run")

    def status(self) -> Status:
        return cast(Status, self._document("/v1/status"))

    def rooms(self) -> Rooms:
        return cast(Rooms, self._document("/v1/rooms"))

    def conflicts(self, since: float | None) -> Conflicts:
        query = "" if since is None else "?" + urlencode({"since": f"{since:.3f}"})
        return cast(Conflicts, self._document(f"/v1/conflicts{query}"))

    def command(self, name: str, arguments: Mapping[str, object] | None = None) -> dict[str, object]:
        return self._ask("POST", f"/v1/commands/{quote(name)}", json.dumps(dict(arguments or {})).encode())

    def _document(self, path: str) -> dict[str, object]:
        document = self._ask("GET", path)
        if document.get("version") != VERSION:
            spoken = plain(document.get("version"))
            raise CliError(
                f"the daemon speaks version {spoken} of this document, and this command version {VERSION}: "
                "use the command of the daemon's own installation",
                ExitCode.USAGE,
            )
        return document

    def _ask(self, method: str, path: str, body: bytes | None = None) -> dict[str, object]:
        connection = _UnixConnection(self._path, TIMEOUT)
        try:
            headers = {} if body is None else {"Content-Type": "application/json"}
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            return _answer(response.status, response.read())
        except TimeoutError as error:
            raise NotAnswering(
                f"the daemon behind {self._path} does not answer within {TIMEOUT:g} s; is it stopped?"
            ) from error
        except PermissionError as error:
            raise NotRunning(
                f"{self._path}: not permitted; use the command as the user that the daemon runs as"
            ) from error
        except (http.client.HTTPException, ConnectionResetError, BrokenPipeError) as error:
            why = type(error).__name__
            raise NotRunning(f"{self._path}: the daemon broke off its answer ({why})") from error
        except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError) as error:
            raise NotRunning(
                f"the daemon is not running (nobody listens on {self._path}); start it with: {self.start}"
            ) from error
        except OSError as error:
            raise NotRunning(f"{self._path}: {error}") from error
        finally:
            connection.close()


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("daemon", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def _answer(status: int, body: bytes) -> dict[str, object]:
    try:
        answer = json.loads(body)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise CliError(f"the daemon's answer makes no sense (HTTP {status})", ExitCode.WRONG)
    if status < 400:
        return answer
    message = answer.get("error")
    raise Refused(
        str(message) if message else f"the daemon refused (HTTP {status})",
        _exit_code(answer.get("exit_code")),
    )


def _exit_code(value: object) -> ExitCode:
    try:
        return ExitCode(value) if isinstance(value, int) and value else ExitCode.WRONG
    except ValueError:
        return ExitCode.WRONG
