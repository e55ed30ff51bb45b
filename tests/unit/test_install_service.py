"""``install-service``: what it shows is what it writes, and it says what the operator has to see to."""

from __future__ import annotations

import json
import os
import pwd
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from supervisor.cli import app as cli_app
from supervisor.cli import install_service
from supervisor.cli.clean_up import clean_up
from supervisor.cli.errors import CliError
from supervisor.cli.install_service import DIRECTORIES, Plan
from supervisor.cli.locate import Installation
from tests.unit.closed import NOBODY, closed

Write = Callable[..., Path]

PATHS = (
    f"paths: {{state: {DIRECTORIES['STATE_DIRECTORY']}, runtime: {DIRECTORIES['RUNTIME_DIRECTORY']}, "
    f"logs: {DIRECTORIES['LOGS_DIRECTORY']}}}\n"
)


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(agent: str = "", *, secret: str = "api_secret: abcdefgh", paths: str = PATHS) -> Path:
        file = tmp_path / "config.yaml"
        file.write_text(
            f"livekit: {{url: 'ws://127.0.0.1:7880', api_key: devkey, {secret}}}\n"
            f"agents:\n  - {{id: one, command: [/bin/sleep, '1'], {agent or 'cwd: /'}}}\n{paths}"
        )
        return file

    return write


def plan(file: Path, **changes: object) -> Plan:
    options: dict[str, object] = {"user": False, "program": "/usr/bin/true", **changes}
    return install_service.plan(file, {"HOME": "/home/somebody"}, **options)  # type: ignore[arg-type]


def unit(plan: Plan) -> list[str]:
    return plan.units[0].content.splitlines()


def test_the_files_of_the_machine(write: Write) -> None:
    file = write()
    made = plan(file)
    assert [str(u.path) for u in made.units] == [
        "/etc/systemd/system/livekit-supervisor.service",
        "/etc/sysusers.d/livekit-supervisor.conf",
    ]
    lines = unit(made)
    assert f"ExecStart=/usr/bin/true --config {file} run" in lines
    assert f"ExecStopPost=/usr/bin/true --config {file} clean-up --after-stop" in lines
    assert made.commands[:3:2] == ("systemd-sysusers", "systemctl daemon-reload")


def test_the_file_of_a_user(write: Write) -> None:
    made = plan(write(), user=True)
    assert str(made.units[0].path) == "/home/somebody/.config/systemd/user/livekit-supervisor.service"
    lines = unit(made)
    assert "WantedBy=default.target" in lines
    assert "EnvironmentFile=-%h/.config/livekit-supervisor/environment" in lines
    assert made.notes == ()
    assert not [line for line in lines if line.startswith(("User=", "ProtectSystem="))]


@pytest.mark.parametrize("user", [False, True])
def test_variables_that_the_service_lacks(write: Write, tmp_path: Path, user: bool) -> None:
    """The command has them; systemd gives the service a bare environment and one file."""
    file = write(secret="api_secret: '${LK_SECRET}${LK:-}$${LITERAL}'")
    environ = {"HOME": str(tmp_path), "LK_SECRET": "s", "LK_SEC": "no", "LITERAL": "no", "PATH": "/bin"}

    def made() -> Plan:
        return install_service.plan(file, environ, user=user, program="/usr/bin/true", root=tmp_path / "root")

    environment = tmp_path / ".config/livekit-supervisor/environment" if user else None
    told = f"put LK_SECRET into {environment or '/etc/livekit-supervisor/environment'}"
    assert [n for n in made().notes if "your variables" in n] == [
        f"the service does not have your variables: {told}"
    ]
    environment = environment or tmp_path / "root/etc/livekit-supervisor/environment"
    environment.parent.mkdir(parents=True)
    environment.write_text("LK_SECRET=another\n")
    environment.chmod(0o644)
    environ.pop("LK_SECRET")
    assert not [n for n in made().notes if "your variables" in n]
    if user:
        assert made().notes == (f"{environment} holds secrets and has mode 0644: chmod 0600 {environment}",)


def test_a_users_shell_that_keeps_its_state_elsewhere(write: Write, tmp_path: Path) -> None:
    environ = {"HOME": "/home/somebody", "XDG_STATE_HOME": "/elsewhere", "XDG_RUNTIME_DIR": "/run/user/1"}
    file = write(paths="")
    [note] = install_service.plan(file, environ, user=True, program="/usr/bin/true").notes
    assert "look elsewhere" in note
    assert "state: /home/somebody/.local/state/livekit-supervisor, runtime: /run/user/1/" in note
    assert install_service.plan(write(), environ, user=True, program="/usr/bin/true").notes == ()


@pytest.mark.parametrize(("stop", "seconds"), [("{drain: 1h, kill: 10s}", 3630), ("{drain: 0, kill: 0}", 20)])
def test_the_time_to_stop_is_above_drain_and_kill(write: Write, stop: str, seconds: int) -> None:
    file = write(f"stop: {stop}")
    for made in (plan(file), plan(file, user=True)):
        assert f"TimeoutStopSec={seconds}s" in unit(made)


def test_a_credential_only_where_it_is_used(write: Write, tmp_path: Path) -> None:
    assert not [line for line in unit(plan(write())) if line.startswith("LoadCredential=")]
    (tmp_path / "livekit-api-secret").write_text("s")
    used = write(secret=f"api_secret_file: '${{CREDENTIALS_DIRECTORY:-{tmp_path}}}/livekit-api-secret'")
    assert [line for line in unit(plan(used)) if line.startswith("LoadCredential=livekit-api-secret:")]
    told_of = write(secret=f"api_secret_file: {tmp_path}/livekit-api-secret # no CREDENTIALS_DIRECTORY\n ")
    assert not [line for line in unit(plan(told_of)) if line.startswith("LoadCredential=")]


def test_a_script_in_somebodys_home_may_be_read(write: Write, tmp_path: Path) -> None:
    assert "ProtectHome=yes" in unit(plan(write()))
    assert "ProtectHome=read-only" in unit(plan(write("cwd: /root"))) or not Path("/root").is_dir()


def test_directories_of_ones_own_can_be_written_to(write: Write, tmp_path: Path) -> None:
    made = plan(write(paths=f"paths: {{state: {tmp_path}/state}}\n"))
    assert f"ReadWritePaths={tmp_path}/state" in unit(made)
    assert any("must belong to user livekit-supervisor" in note for note in made.notes)


def test_commands_typed_by_hand_must_look_where_the_service_writes(write: Write) -> None:
    assert not [n for n in plan(write()).notes if "look elsewhere" in n]
    [note] = [n for n in plan(write(paths="")).notes if "look elsewhere" in n]
    assert PATHS.strip() in note


def test_what_the_services_user_cannot_reach(write: Write, runtime_dir: Path) -> None:
    work = runtime_dir / "work"
    work.mkdir()
    told = f"{work}: user livekit-supervisor may not get past {runtime_dir}, unless by its group"
    assert told in plan(write(f"cwd: {work}")).notes
    runtime_dir.chmod(0o755)
    assert told not in plan(write(f"cwd: {work}")).notes


def test_secrets_that_others_may_read(write: Write, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("s")
    secret.chmod(0o644)
    file = write(secret=f"api_secret_file: {secret}")
    assert f"{secret} holds secrets and has mode 0644: chmod o= {secret}" in plan(file).notes
    assert f"{secret} holds secrets and has mode 0644: chmod 0600 {secret}" in plan(file, user=True).notes
    secret.chmod(0o640)
    assert not [n for n in plan(file).notes if "holds secrets" in n], "the service's group reads it"
    credential = write(secret=f"api_secret_file: '${{CREDENTIALS_DIRECTORY:-{tmp_path}}}/secret'")
    assert f"{secret} holds secrets and has mode 0640: chmod 0600 {secret}" in plan(credential).notes
    secret.chmod(0o600)
    assert not [n for n in plan(credential).notes if "holds secrets" in n]


def test_a_secret_that_the_services_user_cannot_read(write: Write, runtime_dir: Path) -> None:
    runtime_dir.chmod(0o755)
    secret = runtime_dir / "secret"
    secret.write_text("s")
    secret.chmod(0o640)
    told = f"{secret}: user livekit-supervisor may not get past {secret}, unless by its group"
    assert told in plan(write(secret=f"api_secret_file: {secret}")).notes
    by_systemd = write(secret=f"api_secret_file: '${{CREDENTIALS_DIRECTORY:-{runtime_dir}}}/secret'")
    assert told not in plan(by_systemd).notes


def test_a_way_that_the_services_user_cannot_go(write: Write, runtime_dir: Path) -> None:
    file = write(paths=f"paths: {{state: {runtime_dir}/state}}\n")
    [note] = [n for n in plan(file).notes if "may not get past" in n and "state" in n]
    assert note.startswith(f"{runtime_dir}/state: user livekit-supervisor may not get past {runtime_dir},")
    runtime_dir.chmod(0o755)
    (runtime_dir / "state").mkdir(mode=0o700)
    assert not [n for n in plan(file).notes if "may not get past" in n and "state" in n]


def test_a_secret_or_a_directory_in_somebodys_home(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "secret").write_text("s")
    monkeypatch.setattr(install_service, "_HOMES", (str(tmp_path / "secret"), "/home"))
    assert "ProtectHome=yes" in unit(plan(write()))
    assert "ProtectHome=read-only" in unit(plan(write(secret=f"api_secret_file: {tmp_path}/secret")))
    of_home = unit(plan(write(paths=PATHS.replace("/var/log/", "/home/"))))
    assert "ProtectHome=read-only" in of_home
    assert "ReadWritePaths=/home/livekit-supervisor" in of_home


def test_a_bad_configuration_is_not_installed(write: Write) -> None:
    with pytest.raises(CliError, match="max_room: is unknown"):
        plan(write("max_room: 3"))


@pytest.mark.parametrize(
    "program", ["/opt/with space/livekit-supervisor", "/opt/%n/x", "/opt/$HOME/x", '/o"x']
)
def test_a_path_that_systemd_would_take_apart(write: Write, program: str) -> None:
    with pytest.raises(CliError, match="take this path apart"):
        plan(write(), program=program)


@pytest.mark.parametrize("program", ["livekit-supervisor", "./bin/livekit-supervisor"])
def test_a_program_is_named_by_its_whole_path(write: Write, program: str) -> None:
    with pytest.raises(CliError, match="by its whole path"):
        plan(write(), program=program)


def test_what_is_shown_is_what_is_written(write: Write, tmp_path: Path) -> None:
    made = install_service.plan(write(), {}, user=False, program="/usr/bin/true", root=tmp_path / "root")
    install_service.write(made.units)
    for each in made.units:
        assert each.path.read_text() == each.content
        assert each.path.stat().st_mode & 0o777 == each.mode
    assert sorted(p.name for p in (tmp_path / "root").rglob("*") if p.is_file()) == [
        "livekit-supervisor.conf",
        "livekit-supervisor.service",
    ]


def test_where_it_cannot_be_written(write: Write, tmp_path: Path) -> None:
    (tmp_path / "etc").write_text("a file where a folder is to be")
    made = install_service.plan(write(), {}, user=False, program="/usr/bin/true", root=tmp_path)
    with pytest.raises(CliError, match="cannot be written"):
        install_service.write(made.units)


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["livekit-supervisor", *arguments])
    with pytest.raises(SystemExit) as end:
        cli_app.main()
    assert isinstance(end.value.code, int)
    return end.value.code


def test_the_command(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    arguments = ("--config", str(write()), "install-service", "--user", "--program", "/bin/true")
    assert run(monkeypatch, *arguments) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"# would write {tmp_path}/home/systemd/user/livekit-supervisor.service\n")
    assert not (tmp_path / "home").exists()
    assert run(monkeypatch, *arguments, "--write", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["version"] == 1
    assert document["written"] is True
    [file] = document["files"]
    assert Path(file["path"]).read_text() == file["content"]
    assert file["content"] in shown
    assert run(monkeypatch, "install-service", "--no-such-option") == 2
    assert run(monkeypatch, "--config", "/no/such/file", "install-service") == 2


def test_clean_up_without_anything_to_do(
    write: Write, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = write(paths=f"paths: {{state: {tmp_path}/never-made}}\n")
    assert run(monkeypatch, "--config", str(file), "clean-up", "--after-stop") == 0
    assert capsys.readouterr().out == ""
    assert run(monkeypatch, "--config", str(file), "clean-up") == 0
    assert capsys.readouterr().out == f"nothing to end in {tmp_path}/never-made\n"
    assert not (tmp_path / "never-made").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
@pytest.mark.parametrize("variables", ["", "env STATE_DIRECTORY={state} "])
def test_clean_up_in_a_state_directory_of_another_user(
    write: Write,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    variables: str,
) -> None:
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    os.chown(state, NOBODY, NOBODY)
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    if variables:
        monkeypatch.setenv("STATE_DIRECTORY", str(state))
    file = write(paths="" if variables else f"paths: {{state: {state}}}\n")
    assert run(monkeypatch, "--config", str(file), "clean-up") == 2
    told = capsys.readouterr().err
    assert f"{state}: belongs to user {NOBODY}, not to us (user 0); run it as that user:\n" in told
    command = f"{variables.format(state=state)}livekit-supervisor --config {file} clean-up"
    assert told.endswith(f"  sudo -u {pwd.getpwuid(NOBODY).pw_name} {command}\n")


def test_clean_up_below_a_directory_that_this_user_may_not_look_at(tmp_path: Path) -> None:
    folder = tmp_path / "of-another-user"
    folder.mkdir()
    places = Installation(tmp_path / "config.yaml", folder / "state", folder, folder, ())
    with closed(folder), pytest.raises(CliError, match="state: cannot be looked at: Permission denied"):
        clean_up(places, {}, after_stop=False)
