"""Renders the chart and checks every object by the published schema of its kind."""

import json
import pathlib

import jsonschema
import kubernetes_validate
import yaml

from conftest import DEPLOY, passes, run

HERE = pathlib.Path(__file__).resolve().parent
CHART = DEPLOY / "helm/understudy"
# The oldest version that Chart.yaml admits, and the newest whose schemas are known.
KUBERNETES = ["1.30", "1.37"]
POOL = json.loads((HERE / "inferencepool.schema.json").read_text())
# Kinds of others, and where their types are.
CUSTOM = {
    "HTTPRoute": "@kubernetes-models/gateway-api/gateway.networking.k8s.io/v1/HTTPRoute",
    "ScaledObject": "@kubernetes-models/keda/keda.sh/v1alpha1/ScaledObject",
    "ServiceMonitor": "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/ServiceMonitor",
}


def template(helm, values: dict, release: str = "release"):
    words = [helm, "template", release, CHART, "--namespace", "models", "--kube-version", "1.30", "--values", "-"]
    return run(words, input=json.dumps(values))


def render(helm, values: dict, release: str = "release") -> list[dict]:
    done = template(helm, values, release)
    assert done.returncode == 0, f"{values}\n{done.stderr}"
    return [document for document in yaml.safe_load_all(done.stdout) if document]


def of_kind(objects: list[dict], kind: str) -> dict:
    found = [o for o in objects if o["kind"] == kind]
    assert len(found) == 1, f"{len(found)} objects of kind {kind}"
    return found[0]


def kinds(objects: list[dict]) -> set[str]:
    return {o["kind"] for o in objects}


def check_schemas(objects: list[dict]) -> list[dict]:
    """Checks what has a JSON schema; returns the custom objects, for `check_custom`."""
    custom = []
    for o in objects:
        assert len(o["metadata"]["name"]) <= 63
        if o["kind"] == "InferencePool":
            jsonschema.validate(o, POOL)
        elif o["kind"] in CUSTOM:
            custom.append(o)
        else:
            for version in KUBERNETES:
                kubernetes_validate.validate(o, version, strict=True)
    return custom


def check_custom(objects: list[dict], folder: pathlib.Path) -> None:
    """By the compiler, which knows every field and type, and by the patterns and limits."""
    unique = {json.dumps(o, sort_keys=True): o for o in objects}
    lines, calls = [], []
    for kind, module in CUSTOM.items():
        lines.append(f'import {{ {kind}, type I{kind} }} from "{module}";')
    for i, (text, o) in enumerate(unique.items()):
        lines.append(f"const object{i}: I{o['kind']} = {text};")
        calls.append(f"new {o['kind']}(object{i}).validate();")
    # Beside node_modules, so that the imports resolve.
    source = HERE / "node_modules" / f"objects-{folder.name}.ts"
    source.write_text("\n".join(lines + calls) + "\n")
    try:
        tsc = HERE / "node_modules/.bin/tsc"
        options = ["--module", "nodenext", "--target", "es2022", "--skipLibCheck", "--strict"]
        passes([tsc, *options, source], cwd=HERE)
        passes(["node", source.with_suffix(".js")], cwd=HERE)
    finally:
        source.unlink()
        source.with_suffix(".js").unlink(missing_ok=True)
