"""The Helm chart: rendered by Helm for a grid of values, each object checked by its schema."""

import json

import jsonschema
import kubernetes_validate
import pytest
import yaml

from chart import CHART, check_custom, check_schemas, kinds, of_kind, render, template
from conftest import DEPLOY, passes, run

SECRET = {"auth": {"existingSecret": "keys"}}
CLIENTS = [{"podSelector": {"matchLabels": {"app": "gateway"}}}]

# Each line is one choice. The grid takes every pair of choices together at least once.
GRID = {
    "gpu": [{}, {"gpu": {"count": 2, "runtimeClassName": "nvidia"}}],
    "cache": [
        {},
        {"cache": {"type": "pvc", "accessModes": ["ReadWriteMany"], "storageClassName": "fast"}},
        {"cache": {"type": "pvc", "existingClaim": "mine"}},
    ],
    "scale": [
        {"replicas": 3},
        {"autoscaling": {"hpa": {"enabled": True}}},
        {"autoscaling": {"keda": {"enabled": True}}},
    ],
    "entry": [
        SECRET,
        SECRET | {"httpRoute": {"enabled": True, "parentRefs": [{"name": "gateway"}], "hostnames": ["llm.example.com"]}},
        {
            "auth": {"enabled": False},
            "inferencePool": {"enabled": True, "endpointPicker": {"name": "epp"}},
            "httpRoute": {"enabled": True, "parentRefs": [{"name": "gateway", "namespace": "edge"}]},
            "networkPolicy": {"from": CLIENTS},
        },
    ],
    "rest": [
        {"networkPolicy": {"enabled": True, "egressPort": 0, "from": CLIENTS}},
        {
            "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
            "model": {"source": "hf:org/name", "servedNames": ["one", "two"]},
            "extraArgs": ["--max-model-len", "8192"],
            "extraEnv": [{"name": "RUST_LOG", "value": "info"}],
            "hub": {"existingSecret": "hub"},
            "shutdown": {"drainSeconds": 0},
            "podDisruptionBudget": {"maxUnavailable": "25%"},
            "podLabels": {"team": "a"},
            "podAnnotations": {"note": "b"},
            "nodeSelector": {"pool": "llm"},
            "tolerations": [{"key": "gpu", "operator": "Exists"}],
            "imagePullSecrets": [{"name": "pull"}],
            "service": {"type": "LoadBalancer", "port": 80, "annotations": {"a": "b"}},
            "serviceAccount": {"create": True, "annotations": {"a": "b"}},
            "priorityClassName": "high",
        },
        {"serviceAccount": {"create": False}, "podDisruptionBudget": {"enabled": False}},
    ],
}


def merged(parts) -> dict:
    values = {}
    for part in parts:
        for key, value in part.items():
            both = isinstance(value, dict) and key in values
            values[key] = values[key] | value if both else value
    return values


def pairs() -> list[tuple]:
    """Nine rows of a Latin square hold every pair of four times three choices; with each GPU choice."""
    gpu, *others = GRID.values()
    rows = [(i, j, (i + j) % 3, (i + 2 * j) % 3) for i in range(3) for j in range(3)]
    picked = [[choices[i] for choices, i in zip(others, row, strict=True)] for row in rows]
    return [(one, *row) for one in gpu for row in picked]


def test_grid(helm, tmp_path):
    seen = {}
    for parts in pairs():
        objects = render(helm, merged(parts))
        check_pod(of_kind(objects, "Deployment"))
        seen |= {json.dumps(o, sort_keys=True): o for o in objects}
    check_custom(check_schemas(list(seen.values())), tmp_path)
    assert len(kinds(list(seen.values()))) == 12, kinds(list(seen.values()))


def check_pod(deployment: dict) -> None:
    """What must hold whatever the values."""
    spec = deployment["spec"]["template"]["spec"]
    container = spec["containers"][0]
    assert spec["securityContext"]["runAsNonRoot"] and not spec["automountServiceAccountToken"]
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    # Time before SIGTERM and after it fits into what Kubernetes grants.
    drain = container.get("lifecycle", {"preStop": {"sleep": {"seconds": 0}}})["preStop"]["sleep"]["seconds"]
    flag = next(word for word in container["args"] if word.startswith("--shutdown-timeout="))
    assert spec["terminationGracePeriodSeconds"] > drain + int(flag.split("=")[1])
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    selector = deployment["spec"]["selector"]["matchLabels"]
    assert selector.items() <= labels.items()


def test_flags_are_those_of_the_binary(helm):
    """The container's words are understood: an unknown flag is told before a missing model."""
    binary = DEPLOY.parent / "target/release/understudy"
    values = SECRET | {"model": {"source": "/no/such/model", "servedNames": ["one", "two"]}}
    container = of_kind(render(helm, values), "Deployment")["spec"]["template"]["spec"]["containers"][0]
    told = run([binary, *container["args"]])
    assert told.returncode != 0 and "/no/such/model" in told.stderr, told.stderr
    wrong = run([binary, *container["args"], "--no-such-flag"])
    assert "--no-such-flag" in wrong.stderr


@pytest.mark.parametrize("path", sorted((DEPLOY / "helm/examples").glob("*.yaml")), ids=lambda path: path.stem)
def test_examples(helm, tmp_path, path):
    passes([helm, "lint", CHART, "--strict", "--values", path])
    objects = render(helm, yaml.safe_load(path.read_text()))
    check_custom(check_schemas(objects), tmp_path)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "auth.existingSecret is empty"),
        (SECRET | {"autoscaling": {"hpa": {"enabled": True}, "keda": {"enabled": True}}}, "choose one"),
        (SECRET | {"autoscaling": {"minReplicas": 9}}, "above autoscaling.maxReplicas"),
        (SECRET | {"replicas": 2, "cache": {"type": "pvc"}}, "ReadWriteMany"),
        (SECRET | {"updateStrategy": {"maxSurge": 0, "maxUnavailable": 0}}, "both 0"),
        (SECRET | {"inferencePool": {"enabled": True, "endpointPicker": {"name": "e"}}}, "auth.enabled=false"),
        ({"auth": {"enabled": False}, "inferencePool": {"enabled": True}}, "endpointPicker.name"),
        (
            {"auth": {"enabled": False}, "inferencePool": {"enabled": True, "endpointPicker": {"name": "e"}}},
            "networkPolicy.from",
        ),
        (SECRET | {"httpRoute": {"enabled": True}}, "httpRoute.parentRefs"),
        (SECRET | {"replica": 2}, "additional properties 'replica' not allowed"),
        (SECRET | {"shutdown": {"timeoutSeconds": "60"}}, "timeoutSeconds"),
    ],
)
def test_values_that_make_no_sense_are_refused(helm, values, message):
    done = template(helm, values)
    assert done.returncode != 0 and message in done.stderr, done.stderr


def test_the_checks_can_fail(helm, tmp_path):
    """A misspelt field is found in each of the three ways."""
    values = merged([*(choices[-1] for choices in GRID.values()), {"serviceMonitor": {"enabled": True}}])
    objects = render(helm, values)
    deployment = of_kind(objects, "Deployment")
    deployment["spec"]["template"]["spec"]["containers"][0]["livenessProb"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        check_schemas([deployment])
    pool = of_kind(objects, "InferencePool")
    pool["spec"]["targetPortNumber"] = 8000
    with pytest.raises(jsonschema.ValidationError):
        check_schemas([pool])
    route = json.loads(json.dumps(of_kind(objects, "HTTPRoute")))
    route["spec"]["rules"][0]["timeout"] = {"request": "0s"}
    with pytest.raises(AssertionError, match="timeout"):
        check_custom([route], tmp_path)
    route = of_kind(objects, "HTTPRoute")
    route["spec"]["rules"][0]["timeouts"]["request"] = "forever"
    with pytest.raises(AssertionError, match="pattern"):
        check_custom([route], tmp_path)
