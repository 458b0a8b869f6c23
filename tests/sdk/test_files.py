"""Files through the official SDKs."""

import io
import random
import time

import openai
import pytest

from conftest import Server, run_node


@pytest.fixture(scope="module")
def keeper(tmp_path_factory):
    """A server that has somewhere to keep files."""
    running = Server("--store-dir", str(tmp_path_factory.mktemp("store")), "--max-file-size", "40MiB")
    yield running
    running.stop()


@pytest.fixture
def files(keeper):
    return openai.OpenAI(base_url=f"{keeper.url}/v1", api_key="unused", max_retries=0).files


def test_upload_list_content_delete(files, tmp_path):
    path = tmp_path / "requests.jsonl"
    path.write_text('{"custom_id": "1"}\n')
    made = files.create(file=path, purpose="batch", expires_after={"anchor": "created_at", "seconds": 7200})
    assert made.filename == "requests.jsonl" and made.bytes == 19 and made.status == "processed"
    assert made.expires_at == made.created_at + 7200
    other = files.create(file=("notes.txt", b"x"), purpose="user_data")
    assert files.retrieve(made.id) == made
    assert files.wait_for_processing(made.id, poll_interval=0.1) == made
    assert files.content(made.id).text == path.read_text()
    # The SDK asks for page after page.
    assert [file.id for file in files.list(limit=1)] == [other.id, made.id]
    assert [file.id for file in files.list(purpose="batch")] == [made.id]
    for file in (made, other):
        assert files.delete(file.id).deleted
    with pytest.raises(openai.NotFoundError):
        files.retrieve(made.id)
    assert not list(files.list())


def test_large_files_are_not_held_in_memory(files, keeper):
    large = random.Random(3).randbytes(39 << 20)
    before = settled_memory(keeper)
    made = files.create(file=("large", io.BytesIO(large)), purpose="user_data")
    with files.with_streaming_response.content(made.id) as answer:
        assert b"".join(answer.iter_bytes()) == large
    assert memory(keeper, "VmHWM") - before < 10 << 20
    with pytest.raises(openai.APIStatusError) as refused:
        files.create(file=("larger", io.BytesIO(large + large)), purpose="user_data")
    assert refused.value.status_code == 413 and refused.value.code == "file_too_large"
    files.delete(made.id)


def settled_memory(server) -> int:
    """Bytes in memory, once the first pages of the KV cache are there, which a server goes on to make
    real when it is ready; from here on its peak is counted."""
    seen = []
    # Three readings must agree: a second of quiet could be a pause.
    while len(seen) < 3 or seen[-1] - seen[-3] > 1 << 20:
        time.sleep(1)
        seen.append(memory(server, "VmRSS"))
    with open(f"/proc/{server.process.pid}/clear_refs", "w") as clear:
        clear.write("5")
    return seen[-1]


def memory(server, name: str) -> int:
    with open(f"/proc/{server.process.pid}/status") as status:
        line = next(line for line in status if line.startswith(name))
    return int(line.split()[1]) << 10


def test_node_sdk(keeper):
    run_node("files.test.js", keeper, 1)
