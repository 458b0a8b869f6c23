"""Text completions and models through the official Python SDK."""

import math

import pytest

from conftest import MODEL

PROMPT = "The capital of France is"


def test_prompt_forms_agree(client):
    by_text = client.completions.create(model=MODEL, prompt=PROMPT, temperature=0, max_tokens=6)
    echoed = client.completions.create(
        model=MODEL, prompt=PROMPT, temperature=0, max_tokens=6, logprobs=0, echo=True,
        extra_body={"return_tokens_as_token_ids": True},
    )
    ids = [int(t.removeprefix("token_id:")) for t in echoed.choices[0].logprobs.tokens]
    n_prompt = echoed.usage.prompt_tokens
    by_ids = client.completions.create(model=MODEL, prompt=ids[:n_prompt], temperature=0, max_tokens=6)
    assert by_ids.choices[0].text == by_text.choices[0].text
    assert echoed.choices[0].text == PROMPT + by_text.choices[0].text

    several = client.completions.create(
        model=MODEL, prompt=[PROMPT, "One, two, three,"], n=2, temperature=0, max_tokens=6
    )
    assert [c.index for c in several.choices] == [0, 1, 2, 3]
    assert several.choices[0].text == several.choices[1].text == by_text.choices[0].text
    lists = client.completions.create(
        model=MODEL, prompt=[ids[:n_prompt], ids[:n_prompt]], temperature=0, max_tokens=6
    )
    assert [c.text for c in lists.choices] == [by_text.choices[0].text] * 2


def test_default_length_is_sixteen_tokens(client):
    reply = client.completions.create(
        model=MODEL, prompt=PROMPT, temperature=0, extra_body={"ignore_eos": True}
    )
    assert reply.usage.completion_tokens == 16
    assert reply.choices[0].finish_reason == "length"


def test_echo_scores_the_prompt_without_generating(client):
    reply = client.completions.create(
        model=MODEL, prompt=PROMPT, max_tokens=0, echo=True, logprobs=2, temperature=0
    )
    choice = reply.choices[0]
    scores = choice.logprobs
    assert choice.text == PROMPT
    assert reply.usage.completion_tokens == 0
    assert scores.token_logprobs[0] is None
    assert all(p <= 0 for p in scores.token_logprobs[1:])
    assert "".join(scores.tokens) == PROMPT
    assert scores.text_offset == [
        len("".join(scores.tokens[:i])) for i in range(len(scores.tokens))
    ]
    for chosen, token, top in zip(scores.token_logprobs[1:], scores.tokens[1:], scores.top_logprobs[1:]):
        assert max(top.values()) >= chosen - 1e-6
        if token in top:
            assert top[token] == pytest.approx(chosen)


def test_scores_agree_with_generation(client):
    made = client.completions.create(model=MODEL, prompt=PROMPT, max_tokens=5, temperature=0, logprobs=1)
    text = PROMPT + made.choices[0].text
    scored = client.completions.create(model=MODEL, prompt=text, max_tokens=0, echo=True, logprobs=1)
    ours = made.choices[0].logprobs.token_logprobs
    assert scored.choices[0].logprobs.token_logprobs[-len(ours):] == pytest.approx(ours, abs=1e-6)
    assert all(math.isfinite(p) for p in ours)


def test_min_tokens_holds_the_end_back(client):
    reply = client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": "What is 2+2?"}], temperature=0,
        max_tokens=40, extra_body={"min_tokens": 30},
    )
    assert reply.usage.completion_tokens >= 30


def test_models_list_and_retrieve(client):
    listed = client.models.list()
    assert [m.id for m in listed.data] == [MODEL]
    assert client.models.retrieve(MODEL).id == MODEL


def test_streamed_completion(client):
    whole = client.completions.create(model=MODEL, prompt=PROMPT, temperature=0, max_tokens=8)
    stream = client.completions.create(model=MODEL, prompt=PROMPT, temperature=0, max_tokens=8, stream=True)
    assert "".join(c.choices[0].text for c in stream if c.choices) == whole.choices[0].text
