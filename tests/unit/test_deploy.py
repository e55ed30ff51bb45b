"""The examples for containers and Kubernetes: by schema, and that what they name is there.

No image is built and no cluster is run here: docs/security.md says so.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml

from supervisor.config import Settings, load

ROOT = Path(__file__).parents[2]
CONTAINERFILE = (ROOT / "deploy/container/Containerfile").read_text()
MANIFESTS: list[dict[str, Any]] = list(
    yaml.safe_load_all((ROOT / "deploy/kubernetes/livekit-supervisor.yaml").read_text())
)
DEPLOYMENT = next(m for m in MANIFESTS if m["kind"] == "Deployment")
POD = DEPLOYMENT["spec"]["template"]["spec"]
CONTAINER = POD["containers"][0]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Of the ConfigMap, with the files that the image has put where a test may."""
    text = next(m for m in MANIFESTS if m["kind"] == "ConfigMap")["data"]["config.yaml"]
    for path in ("/app/voice.py", "/opt/agents/bin/python", "/etc/livekit-supervisor/secret/api-secret"):
        file = tmp_path / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("secret")
        file.chmod(0o755)
        text = text.replace(path, str(file))
    (tmp_path / "config.yaml").write_text(text)
    return load(tmp_path / "config.yaml", {"LIVEKIT_API_KEY": "key"})


@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda m: m["kind"])
def test_each_manifest_fits_its_schema(manifest: dict[str, Any]) -> None:
    kubernetes_validate.validate(manifest, "1.31", strict=True)


def test_one_replica_never_two_at_a_time() -> None:
    assert DEPLOYMENT["spec"]["replicas"] == 1
    assert DEPLOYMENT["spec"]["strategy"] == {"type": "Recreate"}


def test_the_grace_period_is_above_drain_and_kill(settings: Settings) -> None:
    longest = max(agent.stop.drain + agent.stop.kill for agent in settings.agents)
    assert POD["terminationGracePeriodSeconds"] > longest + 15


def test_probes_ask_where_the_daemon_listens(settings: Settings) -> None:
    ports = {p["name"]: p["containerPort"] for p in CONTAINER["ports"]}
    for probe, path in (
        ("livenessProbe", "/healthz"),
        ("readinessProbe", "/readyz"),
        ("startupProbe", "/healthz"),
    ):
        asked = CONTAINER[probe]["httpGet"]
        assert (asked["path"], ports[asked["port"]]) == (path, settings.http.listen.port)
    assert settings.http.listen.host == "0.0.0.0"


def test_what_is_written_lies_in_a_volume(settings: Settings) -> None:
    mounted = [Path(m["mountPath"]) for m in CONTAINER["volumeMounts"] if not m.get("readOnly")]
    for path in (settings.paths.state, settings.paths.runtime, settings.paths.logs):
        # In a directory of its own: a volume itself may be written to by others, which is refused.
        assert any(path != place and path.is_relative_to(place) for place in mounted)
    volumes = {v["name"] for v in POD["volumes"]}
    assert {m["name"] for m in CONTAINER["volumeMounts"]} == volumes


def test_what_the_containerfile_copies_is_there() -> None:
    copied = re.findall(r"^COPY (?!--from)(.*) \S+$", CONTAINERFILE, re.MULTILINE)
    assert copied
    for name in " ".join(copied).split():
        assert (ROOT / name).exists(), name


def test_the_image_has_a_reaping_first_process_and_its_own_user() -> None:
    assert 'ENTRYPOINT ["tini", "--", "livekit-supervisor"]' in CONTAINERFILE
    assert re.findall(r"^USER (.*)$", CONTAINERFILE, re.MULTILINE) == [
        str(POD["securityContext"]["runAsUser"])
    ]


def test_only_what_is_locked_gets_into_the_daemons_environment() -> None:
    assert "--require-hashes -r requirements/daemon.txt" in CONTAINERFILE
    locked = (ROOT / "requirements/daemon.txt").read_text()
    assert "livekit-agents" not in re.findall(r"^([a-z0-9-]+)==", locked, re.MULTILINE)
