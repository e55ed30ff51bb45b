"""``import``: what each kind of old file tells, and that ``check`` accepts what is made of it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from supervisor.cli import app as cli_app
from supervisor.cli.errors import CliError
from supervisor.cli.importing import Imported, import_files
from supervisor.cli.importing_commands import substitute, worker_of
from supervisor.cli.importing_render import quoted
from supervisor.config import AgentSettings, Settings, load
from tests.unit.closed import closed

SCRIPT = """
from livekit.agents import AgentServer, cli
server = AgentServer()
@server.rtc_session(agent_name="Agent_66")
async def entry(ctx): ...
if __name__ == "__main__":
    cli.run_app(server)
"""

ENV = """
LIVEKIT_URL=wss://livekit.example.org
LIVEKIT_API_KEY=APIabc
LIVEKIT_API_SECRET="the secret of LiveKit, 32 characters"
VOICE_PRIMARY_AGENT_ID=agent-4dfca708-49a8-4982-8e36-0f1146f9a66e
VOICE_PRIMARY_AGENT_NAME=Agent_66
LETTA_BASE_URL=http://127.0.0.1:8283
LETTA_API_KEY=the-key-of-letta
"""


class Old:
    """An old installation: a folder with a script and its environment."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.write("agent.py", SCRIPT)
        self.write(".venv/bin/python", "").chmod(0o755)

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.replace("HERE", str(self.folder)))
        return path

    def imported(self, *names: str, observe: bool = False) -> Imported:
        paths = [self.folder / name for name in names]
        return import_files(paths, {}, output=self.folder / "config.yaml", observe=observe)

    def settings(self, *names: str, observe: bool = False) -> Settings:
        """As ``check`` reads it."""
        imported = self.imported(*names, observe=observe)
        print(imported.config)
        self.write("config.yaml", "").write_text(imported.config)
        if imported.secret is not None:
            self.write("livekit-api-secret", imported.secret)
        return load(self.folder / "config.yaml", {"PATH": os.defpath, "HOME": "/"})

    def agent(self, *names: str) -> AgentSettings:
        [agent] = self.settings(*names).agents
        return agent


@pytest.fixture
def old(tmp_path: Path) -> Old:
    return Old(tmp_path)


# --- the whole ------------------------------------------------------------------------------------------


def test_env_unit_start_script_and_monitor_together(old: Old) -> None:
    """The set-up that docs/migration.md is about."""
    old.write(".env", ENV)
    old.write(
        "start_voice_agent_safe.sh",
        '#!/bin/bash\nset -e\nSCRIPT_DIR="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"\ncd "$SCRIPT_DIR"\n'
        "if pgrep -f agent.py; then echo running; exit 1; fi\n"
        "source .venv/bin/activate\nset -a; source .env; set +a\n"
        "nohup python agent.py start >> agent.log 2>&1 &\necho $! > agent.pid\n",
    )
    old.write(
        "room_health_monitor.service", "[Service]\nExecStart=HERE/.venv/bin/python room_health_monitor.py\n"
    )
    settings = old.settings(".env", "start_voice_agent_safe.sh", "room_health_monitor.service")
    [agent] = settings.agents
    assert agent.id == "agent-4dfca708-49a8-4982-8e36-0f1146f9a66e"
    assert agent.name == "Agent_66"
    assert agent.script == old.folder / "agent.py"
    assert agent.python == old.folder / ".venv/bin/python"
    assert agent.env_file is not None
    assert agent.env_file.variables["LETTA_API_KEY"] == "the-key-of-letta"
    assert settings.livekit.url == "wss://livekit.example.org"
    assert settings.livekit.api_secret.get_secret_value() == "the secret of LiveKit, 32 characters"
    assert (agent.rogue, settings.rooms.enforce, agent.rooms) == ("report", False, ("*",))
    text = (old.folder / "config.yaml").read_text()
    assert "not needed any more" in text
    assert "room_health_monitor.service" in text
    assert "the secret of LiveKit" not in text
    assert "the-key-of-letta" not in text


def test_a_folder_is_looked_through(old: Old) -> None:
    old.write(".env", ENV)
    old.write(
        "agent.service", "[Service]\nWorkingDirectory=HERE\nExecStart=HERE/.venv/bin/python agent.py start\n"
    )
    old.write("notes.txt", "nothing")
    assert old.agent(".").id == "agent-4dfca708-49a8-4982-8e36-0f1146f9a66e"


def test_to_observe_nothing_is_started(old: Old) -> None:
    old.write(".env", ENV)
    old.write("start.sh", "cd HERE\n.venv/bin/python agent.py start\n")
    settings = old.settings(".env", "start.sh", observe=True)
    [agent] = settings.agents
    assert agent.command == ("sleep", "infinity")
    assert (agent.name, agent.rooms, settings.rooms.enforce) == ("Agent_66", ("*",), False)


def test_without_an_output_the_secret_stays_where_it_is(old: Old) -> None:
    old.write(".env", ENV)
    old.write("start.sh", "cd HERE\n.venv/bin/python agent.py start\n")
    imported = import_files([old.folder / ".env", old.folder / "start.sh"], {}, output=None, observe=False)
    assert imported.secret is None
    assert "${LIVEKIT_API_SECRET:-CHANGE-ME}" in imported.config
    assert "the secret of" not in imported.config


def test_no_worker_is_one_message(old: Old) -> None:
    old.write(".env", ENV)
    with pytest.raises(CliError, match="no LiveKit worker was found"):
        old.imported(".env")
    with pytest.raises(CliError, match="there is no such file"):
        old.imported("gone.service")


# --- systemd --------------------------------------------------------------------------------------------


def test_a_unit(old: Old) -> None:
    old.write("agent.env", "LETTA_AGENT_ID=agent-1\n")
    old.write(
        "voice-agent.service",
        "[Unit]\nDescription=x\n[Service]\nUser=voice\nWorkingDirectory=HERE\nEnvironmentFile=-HERE/agent.env\n"
        'Environment=LOG_LEVEL=debug "GREETING=Good day"\nEnvironment=OPENAI_API_KEY=sk-secret\n'
        "Environment=LIVEKIT_URL=wss://other.example.org\n"
        "ExecStartPre=/bin/true\n"
        "ExecStart=HERE/.venv/bin/python \\\n  agent.py start --log-level ${LOG_LEVEL}\n"
        "TimeoutStopSec=2min\nMemoryMax=2G\n",
    )
    settings = old.settings("voice-agent.service")
    [agent] = settings.agents
    assert (agent.id, agent.name) == ("voice-agent", "Agent_66")
    assert agent.args == ("start", "--log-level", "debug")
    assert agent.env == {"LOG_LEVEL": "debug", "GREETING": "Good day"}
    assert agent.env_file is not None
    assert agent.env_file.path == old.folder / "agent.env"
    assert (agent.stop.drain, agent.memory_limit) == (120.0, 2 * 1024**3)
    assert settings.livekit.url == "wss://other.example.org"
    text = (old.folder / "config.yaml").read_text()
    assert "sk-secret" not in text
    assert "# OPENAI_API_KEY is a secret" in text
    assert "# ran as user voice" in text
    assert "# not taken over: ExecStartPre=/bin/true" in text


@pytest.mark.parametrize(
    "command",
    [
        '/bin/bash -c "cd HERE && source .venv/bin/activate && exec python agent.py start"',
        "/bin/bash HERE/start.sh",
        "HERE/start.sh",
        "HERE/.venv/bin/python -m livekit.agents start HERE/agent.py",
        "/usr/bin/env FOO=bar HERE/.venv/bin/python -u HERE/agent.py start",
        "/usr/bin/uv run agent.py start",
        "/usr/bin/uv run python agent.py start",
        "/usr/bin/uv run --frozen python -m livekit.agents start agent.py",
    ],
)
def test_ways_to_start_a_worker(old: Old, command: str) -> None:
    old.write("start.sh", "#!/bin/sh\ncd HERE\nexec .venv/bin/python agent.py start\n")
    old.write("a.service", f"[Service]\nWorkingDirectory=HERE\nExecStart={command}\n")
    agent = old.agent("a.service")
    assert agent.script == old.folder / "agent.py"
    assert agent.python == old.folder / ".venv/bin/python"
    assert agent.args in ((), ("start",))


def test_a_unit_and_the_script_that_it_runs_are_one_worker(old: Old) -> None:
    old.write("start.sh", "#!/bin/sh\ncd HERE\nexec .venv/bin/python agent.py start\n")
    old.write("a.service", "[Service]\nExecStart=HERE/start.sh\n")
    assert len(old.settings("a.service", "start.sh").agents) == 1


# --- supervisord and PM2 --------------------------------------------------------------------------------


def test_supervisords_programs(old: Old) -> None:
    old.write(
        "supervisord.conf",
        "[supervisord]\nlogfile=/tmp/x\n[program:voice]\n"
        "command=%(here)s/.venv/bin/python agent.py start ; go\n"
        'directory=%(here)s\nenvironment=LANG="de",LETTA_AGENT_ID=agent-2\nstopwaitsecs=90\nnumprocs=2\n'
        "[program:web]\ncommand=/usr/bin/nginx\n[program:monitor]\ncommand=python3 room_health_monitor.py\n",
    )
    settings = old.settings("supervisord.conf")
    [agent] = settings.agents
    assert (agent.id, agent.stop.drain) == ("voice", 90.0)
    assert agent.env == {"LANG": "de", "LETTA_AGENT_ID": "agent-2"}
    text = (old.folder / "config.yaml").read_text()
    assert "# ran 2 times" in text
    assert "program web is no LiveKit worker" in text
    assert "supervisord.conf: monitor" in text


ECOSYSTEM = """
const path = require('path');
// what we run
module.exports = {
  apps : [{
    name: "voice-agent",   /* the main one */
    script: path.join(__dirname, 'agent.py'),
    interpreter: `.venv/bin/python`,
    args: 'start',
    cwd: __dirname,
    instances: 1,
    autorestart: true,
    kill_timeout: 30000,
    env: { LOG_LEVEL: "info", URL:"http://x//y", HOME_OF: process.env.HOME, },
  }, {
    name: 'web', script: './server.js',
  }],
};
"""


def test_pm2s_ecosystem(old: Old) -> None:
    old.write("ecosystem.config.js", ECOSYSTEM)
    agent = old.agent("ecosystem.config.js")
    assert (agent.id, agent.script, agent.stop.drain) == ("voice-agent", old.folder / "agent.py", 30.0)
    assert agent.python == old.folder / ".venv/bin/python"
    assert agent.env == {"LOG_LEVEL": "info", "URL": "http://x//y", "HOME_OF": "/"}


def test_pm2_in_json_and_what_it_starts_by_a_script(old: Old) -> None:
    old.write("run.sh", "#!/bin/sh\ncd HERE\n.venv/bin/python agent.py dev\n")
    old.write("ecosystem.config.json", '{"apps": [{"name": "v", "script": "./run.sh", "instances": "max"}]}')
    agent = old.agent("ecosystem.config.json")
    assert agent.args == ("dev",)


@pytest.fixture(params=["pm2", "supervisord"])
def from_the_environment(request: pytest.FixtureRequest, old: Old) -> str:
    """A file that takes everything from the environment it is run in."""
    if request.param == "pm2":
        old.write(
            "ecosystem.config.js",
            "module.exports = {apps: [{name: 'voice', script: 'agent.py', interpreter: '.venv/bin/python',\n"
            "args: ['start', '--log-level', process.env.LOG_LEVEL], env: {\n"
            "  LIVEKIT_URL: process.env.LIVEKIT_URL, LIVEKIT_API_KEY: process.env.LIVEKIT_API_KEY,\n"
            "  LIVEKIT_API_SECRET: process.env.LIVEKIT_API_SECRET, LOG_LEVEL: process.env.LOG_LEVEL,\n"
            "  VOICE_PRIMARY_AGENT_NAME: process.env.AGENT_NAME, PLACE: process.env.PLACE}}]}",
        )
        return "ecosystem.config.js"
    old.write(
        "voice.conf",
        "[program:voice]\ncommand=%(here)s/.venv/bin/python agent.py start --log-level %(ENV_LOG_LEVEL)s\n"
        "environment=LIVEKIT_URL=%(ENV_LIVEKIT_URL)s,LIVEKIT_API_KEY=%(ENV_LIVEKIT_API_KEY)s,"
        "LIVEKIT_API_SECRET=%(ENV_LIVEKIT_API_SECRET)s,LOG_LEVEL=%(ENV_LOG_LEVEL)s,PLACE=%(ENV_PLACE)s,"
        "VOICE_PRIMARY_AGENT_NAME=%(ENV_AGENT_NAME)s\n",
    )
    return "voice.conf"


def test_what_stood_in_the_environment_is_taken_from_there_again(old: Old, from_the_environment: str) -> None:
    old.write("agent.py", SCRIPT.replace('agent_name="Agent_66"', ""))
    imported = old.imported(from_the_environment)
    assert imported.secret is None
    assert any("LIVEKIT_URL names a variable" in remark for remark in imported.remarks)
    agent = old.agent(from_the_environment)
    assert (agent.name, agent.env["LOG_LEVEL"]) == (None, "")
    environ = {
        "PATH": os.defpath,
        "HOME": "/",
        "LIVEKIT_URL": "wss://of.the.environment",
        "LIVEKIT_API_SECRET": "s3",
        "LOG_LEVEL": "debug",
        "PLACE": 'a "place": ${X}',
    }
    settings = load(old.folder / "config.yaml", environ)
    [agent] = settings.agents
    assert settings.livekit.url == "wss://of.the.environment"
    assert settings.livekit.api_secret.get_secret_value() == "s3"
    assert agent.args == ("start", "--log-level", "debug")
    assert (agent.env["LOG_LEVEL"], agent.env["PLACE"]) == ("debug", 'a "place": ${X}')


def test_a_script_in_a_folder_that_the_environment_names(old: Old) -> None:
    old.write(
        "voice.conf",
        "[program:voice]\ncommand=%(ENV_BASE)s/.venv/bin/python %(ENV_BASE)s/agent.py start\n",
    )
    old.write("config.yaml", old.imported("voice.conf").config)
    environ = {"PATH": os.defpath, "HOME": "/", "BASE": str(old.folder)}
    [agent] = load(old.folder / "config.yaml", environ).agents
    assert (agent.script, agent.python) == (old.folder / "agent.py", old.folder / ".venv/bin/python")


def test_javascript_that_is_more_than_values_is_not_run(old: Old) -> None:
    old.write("ecosystem.config.js", "module.exports = { apps: [make({name: 'x'})].map(f) }")
    with pytest.raises(CliError, match="more than plain values"):
        old.imported("ecosystem.config.js")


def test_a_worker_in_another_language(old: Old) -> None:
    old.write(
        "a.service", "[Service]\nWorkingDirectory=HERE\nExecStart=/usr/bin/env sh -c 'node agent.js start'\n"
    )
    old.write("b.service", "[Service]\nWorkingDirectory=HERE\nExecStart=node dist/agent.js start\n")
    imported = old.imported("b.service")
    assert "command: [node, dist/agent.js, start]" in imported.config
    assert "no Python script: it is kept single, and not guarded" in imported.config


# --- what is not to be believed -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "lines",
    [
        'LIVEKIT_URL=myproject.livekit.cloud\nLIVEKIT_API_KEY="a\\nb"\n',
        "LIVEKIT_URL=${BASE}/rtc\nLIVEKIT_API_KEY=$KEY\nLIVEKIT_API_SECRET=${LIVEKIT_API_SECRET}\n",
    ],
)
def test_what_can_be_no_address_key_or_secret_counts_as_not_told(old: Old, lines: str) -> None:
    old.write(".env", lines)
    old.write("start.sh", "cd HERE\nset -a; . ./.env; set +a\n.venv/bin/python agent.py start\n")
    settings = old.settings(".env", "start.sh")
    assert settings.livekit.url == "ws://127.0.0.1:7880"
    assert settings.livekit.api_key == settings.livekit.api_secret.get_secret_value() == "CHANGE-ME"
    text = (old.folder / "config.yaml").read_text()
    assert f"# not told: {old.folder}/.env: LIVEKIT_URL " in text
    assert f"# not told: {old.folder}/.env: LIVEKIT_API_KEY " in text


def test_a_later_file_tells_what_the_first_did_not(old: Old) -> None:
    old.write("a.env", "LIVEKIT_URL=${LIVEKIT_URL}\n")
    old.write("b.env", ENV)
    old.write("start.sh", "cd HERE\n.venv/bin/python agent.py start\n")
    assert old.settings("a.env", "b.env", "start.sh").livekit.url == "wss://livekit.example.org"


def test_a_variable_that_a_script_only_passes_on(old: Old) -> None:
    old.write(
        "start.sh",
        'export LIVEKIT_URL="$LIVEKIT_URL"\nexport LEVEL="${LEVEL}" GREETING=hello\nexport LEVEL="${LEVEL}"\n'
        "export KEPT=${UNKNOWN:-kept}\ncd HERE\n.venv/bin/python agent.py start --url $LIVEKIT_URL\n",
    )
    settings = old.settings("start.sh")
    assert settings.livekit.url == "ws://127.0.0.1:7880"
    assert settings.agents[0].env == {"KEPT": "kept"}
    text = (old.folder / "config.yaml").read_text()
    assert "# not told: LIVEKIT_URL, which names a variable" in text
    assert "# not told: LEVEL, which names a variable" in text
    assert "# not told: what the variables in that line stand for" in text


# --- homes ----------------------------------------------------------------------------------------------

UNIT_AT_HOME = (
    "[Service]\nWorkingDirectory=%h/voice\nEnvironment=DATA=%h/data SHARE=5%%\n"
    "ExecStart=%h/voice/.venv/bin/python %h/voice/agent.py start\n"
)


@pytest.mark.parametrize("place", [".config/systemd/user", ".local/share/systemd/user", "copied"])
def test_the_home_of_a_users_unit(tmp_path: Path, place: str) -> None:
    old = Old(tmp_path / "voice")
    unit = tmp_path / place / "voice.service"
    unit.parent.mkdir(parents=True)
    unit.write_text(UNIT_AT_HOME)
    environ = {"HOME": str(tmp_path) if place == "copied" else "/elsewhere"}
    imported = import_files([unit], environ, output=old.folder / "config.yaml", observe=False)
    old.write("config.yaml", imported.config)
    [agent] = load(old.folder / "config.yaml", {"PATH": os.defpath, "HOME": "/"}).agents
    assert (agent.script, agent.python) == (old.folder / "agent.py", old.folder / ".venv/bin/python")
    assert agent.env == {"DATA": f"{tmp_path}/data", "SHARE": "5%"}


def test_in_a_unit_of_the_machine_it_is_roots_home(old: Old) -> None:
    old.write("voice.service", f"{UNIT_AT_HOME}User=voice\n")
    imported = import_files([old.folder / "voice.service"], {"HOME": "/h"}, output=None, observe=False)
    assert "script: /root/voice/agent.py" in imported.config
    assert "python: /root/voice/.venv/bin/python" in imported.config


def test_a_home_that_nobody_knows(old: Old) -> None:
    old.write("start.sh", "cd ~nobody-of-that-name/voice\ncd HERE\n.venv/bin/python agent.py start\n")
    assert old.agent("start.sh").script == old.folder / "agent.py"
    old.write("voice.service", UNIT_AT_HOME)
    with pytest.raises(CliError, match="whose home %h is, is not known"):
        old.imported("voice.service")
    old.write("voice.service", "[Service]\nWorkingDirectory=~\nUser=nobody-of-that-name\nExecStart=HERE/a\n")
    with pytest.raises(CliError, match="whose home that is, is not known"):
        old.imported("voice.service")


# --- doubts ---------------------------------------------------------------------------------------------


def test_what_was_not_told_is_a_comment_and_check_accepts_it(old: Old) -> None:
    old.write("start.sh", "cd HERE\npython3 agent.py start\n")
    settings = old.settings("start.sh")
    assert settings.livekit.url == "ws://127.0.0.1:7880"
    text = (old.folder / "config.yaml").read_text()
    for told in ("# not told: LiveKit's address", "# not told: LiveKit's key", "the environment beside it"):
        assert told in text


def test_several_agents_have_ids_of_their_own(old: Old) -> None:
    old.write(".env", ENV)
    for name in ("one", "two"):
        old.write(f"{name}/agent.py", SCRIPT)
        old.write(f"{name}/start.sh", f"cd HERE/{name}\nHERE/.venv/bin/python agent.py start\n")
    settings = old.settings(".env", "one/start.sh", "two/start.sh")
    assert [agent.id for agent in settings.agents] == ["start", "start-2"]
    assert [agent.rooms for agent in settings.agents] == [(), ()]


def test_an_env_file_that_is_none_is_not_named(old: Old) -> None:
    old.write(".env", "LIVEKIT_URL=ws://x\nthis is no assignment\n")
    old.write("start.sh", "cd HERE\n. ./.env\n.venv/bin/python agent.py start\n")
    agent = old.agent(".env", "start.sh")
    assert agent.env_file is None
    assert "not taken as env_file" in (old.folder / "config.yaml").read_text()


@pytest.mark.parametrize(
    "line",
    ["vim agent.py", "python agent.py console", "pytest agent.py start", "tail -f agent.py start", "", "'"],
)
def test_what_is_no_worker(tmp_path: Path, line: str) -> None:
    assert worker_of(line.split(), tmp_path, "s", "t") is None


@given(st.text(max_size=60))
@example("@")
@example("%")
@example("- a")
@example(".inf")
def test_whatever_a_value_is_it_is_read_as_it_was(value: str) -> None:
    from supervisor.config.document import parse

    if any(0xD800 <= ord(c) < 0xE000 for c in value):
        return
    assert parse(f"key: {quoted(value)}\n", {}).data == {"key": value}


def test_variables_that_are_known() -> None:
    assert substitute("$A/${B}/${C:-c}/$D", {"A": "a", "B": "b"}) == "a/b/c/$D"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=60)
@given(
    name=st.sampled_from([".env", "a.service", "a.sh", "a.conf", "ecosystem.config.js", "pm2.json"]),
    text=st.text(
        alphabet=st.sampled_from("[]{}()=:,;#'\"$\\\n\t abcpython.py start-mExecStart/&|<>%`"), max_size=200
    ),
)
def test_whatever_a_file_holds_there_is_no_traceback(old: Old, name: str, text: str) -> None:
    header = "[Service]\nExecStart=" if name.endswith("service") else "[program:a]\ncommand="
    old.write(name, f"{header if name.endswith(('service', 'conf')) else ''}{text}")
    codes = []
    try:
        old.settings(name)
    except CliError as error:
        codes.append(error.code)
    assert codes in ([], [2])


# --- the command ----------------------------------------------------------------------------------------


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    def run(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["livekit-supervisor", *arguments])
        with pytest.raises(SystemExit) as end:
            cli_app.main()
        assert isinstance(end.value.code, int)
        return end.value.code

    return run


def test_the_command(old: Old, run: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    old.write(".env", ENV)
    old.write("start.sh", "cd HERE\n.venv/bin/python agent.py start\n")
    files = [str(old.folder / ".env"), str(old.folder / "start.sh")]
    assert run("import", *files) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("# Written by")
    output = old.folder / "config.yaml"
    assert run("import", *files, "--output", str(output)) == 0
    assert f"wrote {output}" in capsys.readouterr().out
    for path in (output, old.folder / "livekit-api-secret"):
        assert path.stat().st_mode & 0o777 == 0o600
    assert run("import", *files, "--output", str(output)) == 2
    assert "is there already" in capsys.readouterr().err
    assert run("import") == 2
    assert run("import", "/no/such/file") == 2


@pytest.mark.parametrize("name", ["", ".env"])
def test_what_this_user_may_not_look_at(
    old: Old, run: Callable[..., int], capsys: pytest.CaptureFixture[str], name: str
) -> None:
    old.write(".env", ENV)
    path = old.folder / name
    with closed(old.folder):
        assert run("import", str(path)) == 2
    assert f"{path}: cannot be looked at: Permission denied" in capsys.readouterr().err


def test_an_environment_that_this_user_may_not_look_at(runtime_dir: Path) -> None:
    environment = runtime_dir / "of-another-user"
    environment.mkdir()
    (runtime_dir / "agent.py").write_text(SCRIPT)
    runtime_dir.chmod(0o755)
    with closed(environment):
        worker = worker_of(["python3", "agent.py", "start"], runtime_dir, "s", "t", environment)
    assert worker is not None
    assert worker.python != environment / "bin/python"


def test_a_second_import_beside_the_first_keeps_its_secret_and_overwrites_nothing(
    old: Old, run: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    """As in docs/migration.md: to observe first, then in earnest, in the same folder."""
    old.write(".env", ENV)
    old.write("start.sh", "cd HERE\n.venv/bin/python agent.py start\n")
    files = [str(old.folder / ".env"), str(old.folder / "start.sh")]
    observe, config = old.folder / "observe.yaml", old.folder / "config.yaml"
    secret = old.folder / "livekit-api-secret"
    assert run("import", "--observe", *files, "--output", str(observe)) == 0
    before = secret.read_bytes()
    assert run("import", *files, "--output", str(config)) == 0
    assert secret.read_bytes() == before
    config.unlink()
    secret.write_text("another\n")
    capsys.readouterr()
    assert run("import", *files, "--output", str(config)) == 2
    assert f"{secret} is there already" in capsys.readouterr().err
    assert not config.exists(), "nothing was written by halves"
    assert secret.read_text() == "another\n"
