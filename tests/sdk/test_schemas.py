"""Whatever the schema, an answer that ends matches it: 200 generated schemas, validated by another
implementation."""

import concurrent.futures
import json

import jsonschema
import openai
import pytest

from running import MODEL
from schemas import Draw

N_SCHEMAS = 200
MAX_TOKENS = 100


def ask(client, seed: int, schema: dict):
    messages = [{"role": "user", "content": f"Give example number {seed}, as short as possible."}]
    format = {"type": "json_schema", "json_schema": {"name": "drawn", "schema": schema}}
    return client.chat.completions.create(
        model=MODEL, messages=messages, response_format=format, max_tokens=MAX_TOKENS, temperature=1, seed=seed,
    ).choices[0]


def test_every_completed_answer_is_valid(client):
    schemas = [Draw(seed).schema() for seed in range(N_SCHEMAS)]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        choices = list(pool.map(lambda pair: ask(client, *pair), enumerate(schemas)))
    n_completed = 0
    for seed, (schema, choice) in enumerate(zip(schemas, choices)):
        if choice.finish_reason != "stop":
            assert choice.finish_reason == "length"
            continue
        n_completed += 1
        value = json.loads(choice.message.content)
        jsonschema.Draft202012Validator(schema).validate(value)
    assert n_completed >= N_SCHEMAS * 0.75, n_completed


def test_the_schemas_are_of_all_kinds():
    words = json.dumps([Draw(seed).schema() for seed in range(N_SCHEMAS)])
    for word in ["enum", "const", "pattern", "format", "minLength", "multipleOf", "prefixItems", "anyOf", "$ref",
                 "required", "additionalProperties", "exclusiveMinimum", "maxItems", "next"]:
        assert words.count(f'"{word}"') >= 10, word


@pytest.mark.parametrize(
    ("schema", "word"),
    [
        ({"type": "array", "uniqueItems": True}, "uniqueItems"),
        ({"not": {"type": "null"}}, "not"),
        ({"type": "object", "propertyNames": {"maxLength": 3}}, "propertyNames"),
        ({"if": {"type": "null"}, "then": False}, "if"),
        ({"type": "string", "format": "no-such-format"}, "no-such-format"),
        ({"type": "object", "dependentRequired": {"a": ["b"]}}, "dependentRequired"),
        ({"type": "array", "contains": {"type": "null"}}, "contains"),
    ],
)
def test_what_cannot_be_enforced_is_refused_by_name(client, schema, word):
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, 0, schema)
    assert word in caught.value.message and caught.value.code == "invalid_json_schema"
