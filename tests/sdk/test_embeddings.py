"""Embeddings through the official SDK: an encoder alone, beside a model, and a model's own states."""

import json
import math
import struct

import openai
import pytest
from conftest import MODEL, ROOT, Server, run_node

ENCODER = ROOT / "target/test-data/minilm"
GOLDEN = json.loads((ROOT / "tests/fixtures/goldens/embeddings.json").read_text())


def client_of(server):
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=0)


@pytest.fixture(scope="module")
def encoder():
    running = Server(str(ENCODER))
    yield running
    running.stop()


@pytest.fixture(scope="module")
def pooled():
    running = Server("--embeddings", "mean", "--max-num-batched-tokens", "64")
    yield running
    running.stop()


def singles(values):
    """As 32-bit floats: decimals are the shortest that give the same."""
    return list(struct.unpack(f"<{len(values)}f", struct.pack(f"<{len(values)}f", *values)))


def cosine(a, b):
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    return dot / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))


def test_texts_match_the_goldens(encoder):
    rows = [row for row in GOLDEN["rows"] if row["max_length"] == 256]
    texts = [row["text"] for row in rows]
    answer = client_of(encoder).embeddings.create(model="minilm", input=texts)
    assert [item.index for item in answer.data] == list(range(len(texts)))
    for item, row in zip(answer.data, rows, strict=True):
        assert cosine(item.embedding, row["vector"]) > 0.99999
        assert max(abs(a - b) for a, b in zip(item.embedding, row["vector"], strict=True)) < 1e-5
    assert answer.usage.prompt_tokens == sum(len(row["ids"]) for row in rows)
    assert answer.usage.total_tokens == answer.usage.prompt_tokens
    assert answer.model == "minilm"


def test_64_texts_in_one_call_equal_64_calls(encoder):
    client = client_of(encoder)
    texts = [f"Text {i}: " + "one more word " * (i * i % 23) for i in range(64)]
    together = client.embeddings.create(model="minilm", input=texts).data
    for text, item in zip(texts, together, strict=True):
        alone = client.embeddings.create(model="minilm", input=text).data[0]
        assert alone.embedding == item.embedding


def test_all_forms_of_input_and_output(encoder):
    client = client_of(encoder)
    row = GOLDEN["rows"][0]
    vectors = [
        client.embeddings.create(model="minilm", input=row["text"]),
        client.embeddings.create(model="minilm", input=row["text"], encoding_format="float"),
        client.embeddings.create(model="minilm", input=row["ids"]),
        client.embeddings.create(model="minilm", input=[row["ids"]], user="somebody"),
        client.embeddings.create(model="minilm", input=row["text"], dimensions=384),
    ]
    for answer in vectors:
        assert singles(answer.data[0].embedding) == vectors[0].data[0].embedding
        assert answer.usage.prompt_tokens == len(row["ids"])


def test_a_long_text_is_cut_as_the_model_says(encoder):
    client = client_of(encoder)
    words = "word " * 400
    answer = client.embeddings.create(model="minilm", input=words)
    assert answer.usage.prompt_tokens == 256
    shorter = client.embeddings.create(model="minilm", input="word " * 254)
    assert answer.data[0].embedding == shorter.data[0].embedding


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"input": ""}, "input"),
        ({"input": []}, "input"),
        ({"input": [99999]}, "input[0]"),
        ({"input": [101] * 300}, "input"),
        ({"dimensions": 100}, "dimensions"),
        ({"dimensions": 385}, "dimensions"),
        ({"encoding_format": "hex"}, "encoding_format"),
    ],
)
def test_what_cannot_be_answered_is_named(encoder, changes, param):
    with pytest.raises(openai.BadRequestError) as caught:
        client_of(encoder).embeddings.create(**{"model": "minilm", "input": "a", **changes})
    assert caught.value.param == param


def test_an_encoder_does_not_generate(encoder):
    with pytest.raises(openai.PermissionDeniedError):
        client_of(encoder).chat.completions.create(
            model="minilm", messages=[{"role": "user", "content": "Hello."}]
        )
    assert [model.id for model in client_of(encoder).models.list()] == ["minilm"]


def test_a_model_without_vectors_says_so(client):
    with pytest.raises(openai.PermissionDeniedError):
        client.embeddings.create(model=MODEL, input="Hello.")


def test_an_encoder_beside_a_model():
    running = Server("--embedding-model", str(ENCODER))
    try:
        client = client_of(running)
        row = GOLDEN["rows"][0]
        answer = client.embeddings.create(model="minilm", input=row["text"])
        assert cosine(answer.data[0].embedding, row["vector"]) > 0.99999
        assert [model.id for model in client.models.list()] == [MODEL, "minilm"]
        said = client.completions.create(model=MODEL, prompt="The sky is", max_tokens=2)
        assert said.usage.completion_tokens == 2
        with pytest.raises(openai.PermissionDeniedError):
            client.completions.create(model="minilm", prompt="The sky is")
        assert running.metric("understudy_embedded_texts_total") == 1
    finally:
        running.stop()


def test_a_models_own_states(pooled):
    """Chunks, company and the prefix cache do not change a vector."""
    client = client_of(pooled)
    texts = ["A cat sits on the mat. " * n for n in (1, 12, 40)] + ["Stocks fell on Monday."]
    together = client.embeddings.create(model=MODEL, input=texts).data
    for text, item in zip(texts, together, strict=True):
        again = client.embeddings.create(model=MODEL, input=text).data[0]
        assert again.embedding == item.embedding
        assert math.isclose(sum(x * x for x in item.embedding), 1.0, abs_tol=1e-5)
    close, far = (cosine(together[0].embedding, together[i].embedding) for i in (1, 3))
    assert close > far


def test_node_sdk(encoder):
    run_node("embeddings.test.js", encoder, 2)
