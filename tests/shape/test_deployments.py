"""What stands in deployments/ agrees with the code, as far as that shows without a Docker engine."""

import http.server
import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from processor.runtime.probes import Probes
from processor.settings import Settings

TOP = Path(__file__).parents[2]
COMPOSE = TOP / "deployments" / "docker-compose.yaml"
DOCKERFILE = TOP / "deployments" / "Dockerfile"
IMAGE = "event-processor:local"


def _compose() -> Mapping[str, Any]:
    found: Mapping[str, Any] = YAML(typ="safe").load(COMPOSE)
    return found


def _services() -> Mapping[str, Mapping[str, Any]]:
    found: Mapping[str, Mapping[str, Any]] = _compose()["services"]
    return found


def _instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions with their arguments, in order."""
    text = re.sub(r"\\\n", "", DOCKERFILE.read_text(encoding="utf-8"))
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(line.split()[0], line.split(maxsplit=1)[1]) for line in lines]


def _last(instruction: str) -> str:
    return [argument for name, argument in _instructions() if name == instruction][-1]


# ── docker-compose.yaml ───────────────────────────────────────────────────────────────────────────────


def test_the_compose_file_fits_the_specification() -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]

    result = subprocess.run([*command, str(COMPOSE)], capture_output=True, text=True, check=False)

    assert result.returncode == 0, result.stdout + result.stderr


def test_our_services_are_given_settings_that_exist() -> None:
    known = {name.upper() for name in Settings.model_fields} | {"PGPASSWORD"}

    for name, service in _services().items():
        if service["image"] == IMAGE:
            assert set(service.get("environment", {})) <= known, name


@pytest.mark.parametrize("name", ["processor", "producers"])
def test_what_talks_to_the_queue_has_valid_settings(name: str) -> None:
    values = {key.lower(): value for key, value in _services()[name]["environment"].items()}

    settings = Settings.load(_env_file=None, **values)

    assert settings.queue_name() == "events"
    assert settings.aws_client_options()["region_name"]


def test_no_password_has_a_default() -> None:
    text = COMPOSE.read_text(encoding="utf-8")
    variables = re.findall(r"\$\{(\w+)([^}]*)\}", text)

    assert {name for name, _ in variables} == {"POSTGRES_PASSWORD", "PROCESSOR_PASSWORD"}
    assert all(rest.startswith(":?") for _, rest in variables)
    for service in _services().values():
        for name, value in service.get("environment", {}).items():
            assert "PASSWORD" not in name or value.startswith("${"), name
            assert not re.search(r"://[^/@]*:[^/@]*@", str(value)), name


def test_the_processor_is_no_owner_of_the_tables() -> None:
    services = _services()

    assert (
        services["processor"]["environment"]["DATABASE_URL"]
        != services["migrate"]["environment"]["DATABASE_URL"]
    )
    assert "//processor@" in services["processor"]["environment"]["DATABASE_URL"]


def test_each_service_waits_for_what_it_needs() -> None:
    services = _services()
    needs = {
        name: {other: how["condition"] for other, how in service.get("depends_on", {}).items()}
        for name, service in services.items()
    }

    assert needs["migrate"] == {"postgres": "service_healthy"}
    assert needs["login"] == {"migrate": "service_completed_successfully"}
    assert needs["processor"] == {
        "login": "service_completed_successfully",
        "localstack": "service_healthy",
    }
    for waiting in needs.values():
        for other, condition in waiting.items():
            assert condition != "service_healthy" or "test" in services[other]["healthcheck"]


def test_only_this_machine_can_reach_the_ports() -> None:
    for service in _services().values():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))


def test_a_stop_has_time_to_finish() -> None:
    processor = _services()["processor"]

    grace_s = float(processor["stop_grace_period"].removesuffix("s"))

    assert grace_s > float(processor["environment"]["STOP_TIMEOUT_S"])
    assert grace_s > Settings.model_fields["stop_timeout_s"].default


def test_files_that_are_mounted_exist() -> None:
    for service in _services().values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert not source.startswith(".") or (COMPOSE.parent / source).is_file()


def test_producers_run_only_when_asked_for() -> None:
    services = _services()

    assert {name for name, service in services.items() if service.get("profiles") == ["producers"]} == {
        "seed",
        "producers",
    }


# ── Dockerfile and .dockerignore ──────────────────────────────────────────────────────────────────────


def test_the_image_runs_the_processor_as_nobody_in_particular() -> None:
    assert json.loads(_last("ENTRYPOINT")) == ["processor"]
    assert json.loads(_last("CMD")) == ["run"]
    assert _last("STOPSIGNAL") == "SIGTERM"
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", _last("USER"))
    assert "HTTP_HOST=0.0.0.0" in _last("ENV")
    assert all("[" not in argument for name, argument in _instructions() if name == "RUN"), "an extra"


def test_only_what_the_image_needs_is_sent_to_the_engine() -> None:
    lines = [
        line
        for line in (TOP / ".dockerignore").read_text(encoding="utf-8").splitlines()
        if line and not line.startswith("#")
    ]
    sources = {
        source
        for name, argument in _instructions()
        if name == "COPY" and not argument.startswith("--from")
        for source in argument.split()[:-1]
    }

    assert lines[0] == "*"
    assert {line.removeprefix("!") for line in lines if line.startswith("!")} == sources
    assert all((TOP / source).exists() for source in sources)


def _health_command() -> list[str]:
    command: list[str] = json.loads(_last("HEALTHCHECK").split(" CMD ", 1)[1])
    return [sys.executable, *command[1:]]


@pytest.fixture(params=[True, False])
def probed(request: pytest.FixtureRequest) -> Iterator[tuple[int, bool]]:
    """The port of probes that are alive, or not."""
    probes = Probes("127.0.0.1", 0, alive=lambda: request.param, trouble=lambda: "an outage")
    probes.start()
    yield probes.port, request.param
    probes.stop()


def test_the_health_check_asks_whether_it_is_alive(probed: tuple[int, bool]) -> None:
    port, alive = probed

    result = subprocess.run(_health_command(), env={"HTTP_PORT": str(port)}, check=False)

    assert (result.returncode == 0) == alive


def test_the_health_check_notices_that_nobody_is_there() -> None:
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as server:
        port = server.server_port

    result = subprocess.run(_health_command(), env={"HTTP_PORT": str(port)}, capture_output=True, check=False)

    assert result.returncode != 0
