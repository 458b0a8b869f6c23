"""Every parameter that the SDKs can send is described, or refused by its name: a new version of an
SDK that knows more makes these tests fail."""

import importlib
import json
import re
import typing
import urllib.error
import urllib.request

import pytest
import typing_extensions
from conftest import MODEL, ROOT

PYTHON = {
    "/v1/chat/completions": ("openai.types.chat.completion_create_params", "CompletionCreateParams"),
    "/v1/completions": ("openai.types.completion_create_params", "CompletionCreateParams"),
    "/v1/responses": ("openai.types.responses.response_create_params", "ResponseCreateParams"),
    "/v1/responses/input_tokens": (
        "openai.types.responses.input_token_count_params", "InputTokenCountParams"),
    "/v1/embeddings": ("openai.types.embedding_create_params", "EmbeddingCreateParams"),
    "/v1/decisions": ("openai.types.decision_create_params", "DecisionCreateParams"),
    "/v1/conversations": (
        "openai.types.conversations.conversation_create_params", "ConversationCreateParams"),
}
NODE = {
    "/v1/chat/completions": ("chat/completions/completions.d.ts", "ChatCompletionCreateParamsBase"),
    "/v1/completions": ("completions.d.ts", "CompletionCreateParamsBase"),
    "/v1/responses": ("responses/responses.d.ts", "ResponseCreateParamsBase"),
    "/v1/embeddings": ("embeddings.d.ts", "EmbeddingCreateParams"),
    "/v1/decisions": ("decisions.d.ts", "DecisionCreateParams"),
}


@pytest.fixture(scope="module")
def described(server):
    """Names that a body may have, and names that are refused, for each route."""
    api = json.load(urllib.request.urlopen(f"{server.url}/openapi.json"))

    def of(path):
        schema = api["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
        if "$ref" in schema:
            schema = api["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]]
        return set(schema["properties"]), set(schema.get("x-unsupported", []))

    return of


def python_parameters(module, name):
    found = getattr(importlib.import_module(module), name)
    variants = typing.get_args(found) or (found,)
    return set().union(*(typing.get_type_hints(variant) for variant in variants))


def node_parameters(file, name):
    folder = ROOT / "tests/sdk/node_modules/openai/resources"
    text = (folder / file).read_text()
    body = re.search(rf"export interface {name}\b[^{{]*{{\n(.*?)\n}}", text, re.S).group(1)
    return set(re.findall(r"^    (\w+)\??:", body, re.M))


def check(parameters, described):
    accepted, refused = described
    assert len(parameters) > 1
    assert parameters - accepted - refused == set(), "neither described nor refused"
    assert accepted & refused == set()


@pytest.mark.parametrize("path", PYTHON)
def test_python_parameters(described, path):
    check(python_parameters(*PYTHON[path]), described(path))


@pytest.mark.parametrize("path", NODE)
def test_node_parameters(described, path):
    check(node_parameters(*NODE[path]), described(path))


def post(server, path, body):
    request = urllib.request.Request(
        server.url + path, json.dumps(body).encode(), {"content-type": "application/json"})
    try:
        return 200, json.load(urllib.request.urlopen(request))
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)["error"]


MINIMAL = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "x"}], "max_tokens": 1},
    "/v1/completions": {"prompt": "x", "max_tokens": 1},
    "/v1/responses": {"input": "x", "max_output_tokens": 16},
}


@pytest.mark.parametrize("path", MINIMAL)
def test_names_are_known_and_refused_as_described(server, described, path):
    accepted, refused = described(path)
    # No parameter of any endpoint is such an object: whoever reads it says so by its name.
    strange = {"?": [[]]}
    for name in accepted - {"model", "adapter", "adapters"}:
        _, answer = post(server, path, {"model": MODEL, **MINIMAL[path], name: strange})
        if "message" in answer:
            assert answer["code"] != "unknown_parameter" or answer["param"] != name, name
    for name in refused:
        status, answer = post(server, path, {"model": MODEL, **MINIMAL[path], name: strange})
        assert (status, answer["code"], answer["param"]) == (400, "unsupported_parameter", name)


def type_literals(union):
    """Values of `type` of all variants of a union."""
    found = set()
    for variant in typing.get_args(union) or (union,):
        if typing.get_args(variant):
            found |= type_literals(variant)
        elif typing_extensions.is_typeddict(variant):
            hint = typing_extensions.get_type_hints(variant).get("type")
            found |= {value for value in typing.get_args(hint) if isinstance(value, str)}
    return found


KINDS = [
    ("openai.types.responses.response_input_item_param", "ResponseInputItemParam",
     "/v1/responses", lambda kind: {"input": [{"type": kind}]}),
    ("openai.types.responses.tool_param", "ToolParam",
     "/v1/responses", lambda kind: {"input": "x", "tools": [{"type": kind}]}),
    ("openai.types.chat.chat_completion_content_part_param", "ChatCompletionContentPartParam",
     "/v1/chat/completions",
     lambda kind: {"messages": [{"role": "user", "content": [{"type": kind}]}]}),
    ("openai.types.chat.chat_completion_tool_union_param", "ChatCompletionToolUnionParam",
     "/v1/chat/completions", lambda kind: MINIMAL["/v1/chat/completions"] | {"tools": [{"type": kind}]}),
    ("openai.types.chat.chat_completion_tool_choice_option_param",
     "ChatCompletionToolChoiceOptionParam", "/v1/chat/completions",
     lambda kind: MINIMAL["/v1/chat/completions"] | {
         "tools": [{"type": "function", "function": {"name": "f"}}], "tool_choice": {"type": kind}}),
    ("openai.types.responses.response_create_params", "ToolChoice", "/v1/responses",
     lambda kind: {"input": "x", "tools": [{"type": "function", "name": "f"}],
                   "tool_choice": {"type": kind}}),
]


@pytest.mark.parametrize("module, union, path, body", KINDS)
def test_kinds_are_known(server, module, union, path, body):
    """What the SDK has a type for is not told to be no type at all."""
    kinds = type_literals(getattr(importlib.import_module(module), union))
    assert kinds
    unknown = []
    for kind in sorted(kinds):
        status, answer = post(server, path, {"model": MODEL, **body(kind)})
        assert status in (200, 400), answer
        if status == 400 and answer["code"] == "invalid_value" and "Supported values" in answer["message"]:
            unknown.append(kind)
    assert unknown == []
