"""Chat completions through the official Python SDK."""

import openai
import pytest

from conftest import MODEL

ASK = [{"role": "user", "content": "What is 2+2?"}]
ANSWER = "The answer to this classic math problem is 4."


def test_greedy_answer_and_usage(client):
    reply = client.chat.completions.create(model=MODEL, messages=ASK, temperature=0)
    assert reply.choices[0].message.content == ANSWER
    assert reply.choices[0].message.role == "assistant"
    assert reply.choices[0].finish_reason == "stop"
    assert reply.object == "chat.completion"
    assert reply.usage.prompt_tokens == 37
    assert reply.usage.completion_tokens == 12
    assert reply.usage.total_tokens == 49
    assert reply._request_id


def test_an_answer_is_taken_back_as_it_came(client):
    first = client.chat.completions.create(model=MODEL, messages=ASK, temperature=0).choices[0].message
    whole = {
        **first.model_dump(),
        "function_call": None, "audio": None, "tool_calls": None, "annotations": [],
    }
    texts = set()
    for message in [{"role": "assistant", "content": ANSWER}, first, first.model_dump(), whole]:
        again = client.chat.completions.create(
            model=MODEL, messages=[*ASK, message, *ASK], temperature=0, max_tokens=8
        )
        texts.add((again.choices[0].message.content, again.usage.prompt_tokens))
    assert len(texts) == 1


def test_stream_folds_to_the_same_text(client):
    stream = client.chat.completions.create(
        model=MODEL, messages=ASK, temperature=0, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == ANSWER
    assert chunks[0].choices[0].delta.role == "assistant"
    assert len({c.id for c in chunks}) == 1
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
    assert chunks[-1].choices == [] and chunks[-1].usage.completion_tokens == 12
    assert all(c.usage is None for c in chunks[:-1])


def test_usage_so_far_in_every_chunk(client):
    options = {"include_usage": True, "continuous_usage_stats": True}
    common = dict(model=MODEL, n=2, max_tokens=6, stream=True, stream_options=options, extra_body={"ignore_eos": True})
    for chunks in (
        list(client.chat.completions.create(messages=ASK, **common)),
        list(client.completions.create(prompt="Once upon a time", **common)),
    ):
        drawn = [c.usage.completion_tokens for c in chunks]
        assert drawn == sorted(drawn) and drawn[-1] == 12 and len(set(drawn)) > 3
        assert len({c.usage.prompt_tokens for c in chunks}) == 1
        assert all(c.usage.total_tokens == c.usage.prompt_tokens + c.usage.completion_tokens for c in chunks)
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(**{**common, "messages": ASK, "stream_options": {"continuous_usage_stats": True}})
    assert refused.value.param == "stream_options.continuous_usage_stats"


def test_stream_helper_accumulates_n_choices(client):
    with client.chat.completions.stream(
        model=MODEL, messages=ASK, n=3, seed=11, temperature=0.8, max_tokens=40
    ) as stream:
        final = None
        for event in stream:
            final = event.snapshot if hasattr(event, "snapshot") else final
    assert [c.index for c in final.choices] == [0, 1, 2]
    whole = client.chat.completions.create(
        model=MODEL, messages=ASK, n=3, seed=11, temperature=0.8, max_tokens=40
    )
    assert [c.message.content for c in whole.choices] == [c.message.content for c in final.choices]


def test_n_counts_all_choices_in_usage(client):
    reply = client.chat.completions.create(
        model=MODEL, messages=ASK, n=3, max_tokens=5, temperature=1, seed=3, extra_body={"ignore_eos": True}
    )
    assert reply.usage.completion_tokens == 15
    assert [c.finish_reason for c in reply.choices] == ["length"] * 3


def test_same_seed_same_text_other_seed_other_text(client):
    def draw(seed):
        reply = client.chat.completions.create(
            model=MODEL, messages=ASK, seed=seed, temperature=1.5, max_tokens=24
        )
        return reply.choices[0].message.content, reply.system_fingerprint

    assert draw(7) == draw(7)
    assert len({draw(seed)[0] for seed in range(6)}) > 1
    assert draw(7)[1] is not None


def test_logprobs_rebuild_the_text_from_bytes(client):
    reply = client.chat.completions.create(
        model=MODEL, messages=ASK, temperature=0, logprobs=True, top_logprobs=5
    )
    content = reply.choices[0].logprobs.content
    assert b"".join(bytes(t.bytes) for t in content).decode() == ANSWER
    for token in content:
        assert len(token.top_logprobs) == 5
        ranked = [t.logprob for t in token.top_logprobs]
        assert ranked == sorted(ranked, reverse=True)
        assert token.token == token.top_logprobs[0].token
        assert token.logprob == pytest.approx(ranked[0])
        assert token.logprob <= 0


def test_stop_string_is_never_emitted(client):
    for stop in ["math", ["problem", "classic math"], "is 4", ANSWER[-3:]]:
        reply = client.chat.completions.create(model=MODEL, messages=ASK, temperature=0, stop=stop)
        stops = [stop] if isinstance(stop, str) else stop
        cut = min(ANSWER.find(s) for s in stops)
        assert reply.choices[0].message.content == ANSWER[:cut]
        assert reply.choices[0].finish_reason == "stop"
        stream = client.chat.completions.create(
            model=MODEL, messages=ASK, temperature=0, stop=stop, stream=True
        )
        assert "".join(c.choices[0].delta.content or "" for c in stream) == ANSWER[:cut]


def test_penalties_bias_and_truncation_act(client):
    def ask(**more):
        return client.chat.completions.create(
            model=MODEL, messages=ASK, temperature=0, max_tokens=12, **more
        ).choices[0].message.content

    plain = ask()
    assert ask(logit_bias={"504": -100}) != plain

    def repeat(**more):
        return client.completions.create(
            model=MODEL, prompt="ha ha ha ha ha ha ha ha ha ha", temperature=0, max_tokens=12, **more
        ).choices[0].text

    assert repeat().count("ha") > 2
    assert repeat(frequency_penalty=2).count("ha") < repeat().count("ha")
    assert repeat(presence_penalty=2).count("ha") < repeat().count("ha")
    assert repeat(extra_body={"repetition_penalty": 3.0}).count("ha") < repeat().count("ha")

    def sample(**more):
        return client.chat.completions.create(
            model=MODEL, messages=ASK, temperature=2, max_tokens=12, seed=5, **more
        ).choices[0].message.content

    assert sample(top_p=1e-6) == plain
    assert sample(extra_body={"top_k": 1}) == plain
    assert sample(extra_body={"min_p": 1.0}) == plain
    assert sample() != plain


def test_repeated_prompt_reports_cached_tokens(client):
    long = [{"role": "user", "content": "Count the words: " + "alpha beta gamma delta " * 40}]
    first = client.chat.completions.create(model=MODEL, messages=long, max_tokens=2, temperature=0)
    again = client.chat.completions.create(model=MODEL, messages=long, max_tokens=2, temperature=0)
    assert again.usage.prompt_tokens_details.cached_tokens > 100
    assert first.choices[0].message.content == again.choices[0].message.content
