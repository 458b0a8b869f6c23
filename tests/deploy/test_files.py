"""Dockerfile, Compose file, dashboard, Prometheus rules, nginx and systemd, each by its own tool."""

import json
import pathlib
import re
import shutil
import sys

import compose_spec
import pytest
import yaml

from conftest import DEPLOY, ROOT, passes, run

HADOLINT = pathlib.Path(sys.executable).with_name("hadolint")
COMPOSE = ["compose.yaml", "compose.gpu.yaml"]


def test_dockerfile():
    passes([HADOLINT, "--failure-threshold", "style", ROOT / "Dockerfile"])
    text = (ROOT / "Dockerfile").read_text()
    assert re.findall(r"^FROM \S+ AS (\w+)$", text, re.M) == ["build", "base", "gpu", "cpu"]


def compose(name: str) -> str:
    """The file with its variables filled in, as Compose does first."""
    return re.sub(r"\$\{(\w+)(?::[-?][^}]*)?\}", r"\1", (DEPLOY / "compose" / name).read_text())


@pytest.mark.parametrize("name", COMPOSE)
def test_compose(name):
    compose_spec.PyCompose.from_yaml(compose(name)).validate()
    with pytest.raises(ValueError, match="read_onyl"):
        compose_spec.PyCompose.from_yaml(compose(name).replace("  understudy:", "  understudy:\n    read_onyl: true", 1))


def test_compose_mounts_what_exists():
    services = yaml.safe_load(compose("compose.yaml"))["services"]
    mounts = [mount.split(":")[0] for service in services.values() for mount in service.get("volumes", [])]
    paths = [mount for mount in mounts if mount.startswith(".")]
    assert len(paths) == 3
    for path in paths:
        assert (DEPLOY / "compose" / path).is_dir(), path
    image = services["understudy"]["image"]
    assert image.startswith("understudy:") and services["understudy"]["build"]["context"] == "../.."


def test_dashboard():
    folder = DEPLOY / "compose/grafana"
    dashboard = json.loads((folder / "dashboards/understudy.json").read_text())
    panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(panels) >= 20 and len(set(ids)) == len(ids)
    for panel in panels:
        box = panel["gridPos"]
        assert panel["description"] and panel["targets"] and box["x"] + box["w"] <= 24, panel["title"]
    provisioned = yaml.safe_load((folder / "provisioning/datasources/prometheus.yaml").read_text())
    assert provisioned["datasources"][0]["type"] == "prometheus"


def test_dashboard_queries_are_promql(promtool, tmp_path):
    """As rules, since that is what promtool parses; Grafana's variables filled in."""
    dashboard = json.loads((DEPLOY / "compose/grafana/dashboards/understudy.json").read_text())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
    filled = [re.sub(r"\$__(rate_interval|range)", "5m", query).replace("$job", ".*").replace("$instance", ".*") for query in queries]
    assert len(filled) > 30 and not any("$" in query for query in filled)
    rules = tmp_path / "dashboard.yml"
    group = {"name": "d", "rules": [{"record": f"d:{i}", "expr": query} for i, query in enumerate(filled)]}
    rules.write_text(yaml.safe_dump({"groups": [group]}))
    passes([promtool, "check", "rules", rules])


def test_prometheus(promtool):
    folder = DEPLOY / "prometheus"
    passes([promtool, "check", "config", "--syntax-only", folder / "prometheus.yml"])
    passes([promtool, "check", "rules", folder / "rules.yml"])
    passes([promtool, "test", "rules", folder / "rules_test.yml"])


def test_every_alert_is_tested():
    folder = DEPLOY / "prometheus"
    rules = yaml.safe_load((folder / "rules.yml").read_text())
    for group in rules["groups"]:
        for rule in group["rules"]:
            if "alert" in rule:
                assert {"summary", "description"} <= rule["annotations"].keys(), rule["alert"]
                assert rule["alert"] in (folder / "rules_test.yml").read_text(), rule["alert"]


def test_nginx(nginx, tmp_path):
    config = tmp_path / "nginx.conf"
    text = (DEPLOY / "proxy/nginx.conf").read_text().replace("/var/log/nginx/", f"{tmp_path}/")
    # Where Debian's nginx would write, if it were installed.
    temporary = [f"{name}_temp_path {tmp_path}/{name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")]
    text = text.replace("http {", "http {\n" + "\n".join(temporary), 1)
    config.write_text(f"pid {tmp_path}/pid;\n" + text)
    passes([nginx, "-t", "-q", "-e", tmp_path / "error.log", "-p", tmp_path, "-c", config])


@pytest.mark.parametrize("name", ["envoy.yaml", "litellm.yaml"])
def test_proxies_are_yaml(name):
    assert yaml.safe_load((DEPLOY / "proxy" / name).read_text())


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed")
def test_systemd(tmp_path):
    unit = tmp_path / "understudy.service"
    text = (DEPLOY / "systemd/understudy.service").read_text()
    # The program need not be installed for its unit to be checked.
    unit.write_text(text.replace("/usr/local/bin/understudy", "/bin/true"))
    told = run(["systemd-analyze", "verify", unit])
    assert told.returncode == 0 and unit.name not in told.stderr, told.stderr
    # Exposure on systemd's scale of 0 to 10, times ten.
    passes(["systemd-analyze", "security", "--offline=true", "--threshold=20", unit])
