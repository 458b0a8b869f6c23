"""Models of common shapes with random weights in bf16, as GGUF and in Hugging Face layout, with the
demo model's tokenizer.

What a step costs does not depend on what the weights say, so such files stand for models that
cannot be fetched. Weights repeat every few megabytes; both servers read every byte all the same.
"""

import json
import random
import struct
from pathlib import Path

ALIGNMENT = 32
F32, BF16 = 0, 30
# GGUF's types of metadata values.
UINT32, FLOAT32, STRING, ARRAY = 4, 6, 8, 9
SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}

SHAPES = {
    # The vocabulary is the demo model's.
    "qwen2.5-0.5b": dict(arch="qwen2", hidden=896, inner=4864, layers=24, heads=14, kv=2, dim=64, bias=True),
    "smollm2-135m": dict(arch="llama", hidden=576, inner=1536, layers=30, heads=9, kv=3, dim=64, bias=False),
    "llama-3.2-1b": dict(arch="llama", hidden=2048, inner=8192, layers=16, heads=32, kv=8, dim=64, bias=False),
}


def tokenizer_entries(path):
    """The raw bytes of all `tokenizer.*` entries of a GGUF file, and the length of its vocabulary."""
    data = Path(path).read_bytes()
    assert data[:4] == b"GGUF"
    n_entries = struct.unpack_from("<Q", data, 16)[0]
    at, kept, vocabulary = 24, [], 0
    for _ in range(n_entries):
        start = at
        length = struct.unpack_from("<Q", data, at)[0]
        key = data[at + 8 : at + 8 + length].decode()
        at += 8 + length
        kind = struct.unpack_from("<I", data, at)[0]
        if key == "tokenizer.ggml.tokens":
            vocabulary = struct.unpack_from("<Q", data, at + 8)[0]
        at = skip(data, at + 4, kind)
        if key.startswith("tokenizer."):
            kept.append(data[start:at])
    return kept, vocabulary


def skip(data, at, kind):
    """Where the value of a type that begins at `at` ends."""
    if kind == STRING:
        return at + 8 + struct.unpack_from("<Q", data, at)[0]
    if kind == ARRAY:
        kind, n = struct.unpack_from("<IQ", data, at)
        at += 12
        if kind not in (STRING, ARRAY):
            return at + n * SIZES[kind]
        for _ in range(n):
            at = skip(data, at, kind)
        return at
    return at + SIZES[kind]


def text(value):
    return struct.pack("<Q", len(value)) + value.encode()


def entry(key, value):
    if isinstance(value, str):
        return text(key) + struct.pack("<I", STRING) + text(value)
    if isinstance(value, float):
        return text(key) + struct.pack("<If", FLOAT32, value)
    return text(key) + struct.pack("<II", UINT32, value)


def tensors(shape, vocabulary):
    """Names and dimensions, the fastest first."""
    hidden, inner = shape["hidden"], shape["inner"]
    q, kv = shape["heads"] * shape["dim"], shape["kv"] * shape["dim"]
    yield "token_embd.weight", [hidden, vocabulary]
    for i in range(shape["layers"]):
        block = f"blk.{i}."
        yield block + "attn_norm.weight", [hidden]
        yield block + "attn_q.weight", [hidden, q]
        yield block + "attn_k.weight", [hidden, kv]
        yield block + "attn_v.weight", [hidden, kv]
        if shape["bias"]:
            yield block + "attn_q.bias", [q]
            yield block + "attn_k.bias", [kv]
            yield block + "attn_v.bias", [kv]
        yield block + "attn_output.weight", [q, hidden]
        yield block + "ffn_norm.weight", [hidden]
        yield block + "ffn_gate.weight", [hidden, inner]
        yield block + "ffn_up.weight", [hidden, inner]
        yield block + "ffn_down.weight", [inner, hidden]
    yield "output_norm.weight", [hidden]


def write(name, tokenizer_from, path):
    """Writes a model of SHAPES to `path`."""
    shape = SHAPES[name]
    kept, vocabulary = tokenizer_entries(tokenizer_from)
    arch = shape["arch"]
    values = {
        "general.architecture": arch,
        "general.name": name,
        f"{arch}.context_length": 8192,
        f"{arch}.embedding_length": shape["hidden"],
        f"{arch}.block_count": shape["layers"],
        f"{arch}.feed_forward_length": shape["inner"],
        f"{arch}.attention.head_count": shape["heads"],
        f"{arch}.attention.head_count_kv": shape["kv"],
        f"{arch}.attention.layer_norm_rms_epsilon": 1e-6,
        f"{arch}.rope.freq_base": 1e6,
        f"{arch}.rope.dimension_count": shape["dim"],
        f"{arch}.vocab_size": vocabulary,
    }
    entries = [entry(key, value) for key, value in values.items()] + kept
    infos, sizes, offset = [], [], 0
    for tensor, dimensions in tensors(shape, vocabulary):
        kind = BF16 if len(dimensions) == 2 else F32
        size = (2 if kind == BF16 else 4) * dimensions[0] * (dimensions[1] if len(dimensions) == 2 else 1)
        info = text(tensor) + struct.pack(f"<I{len(dimensions)}QIQ", len(dimensions), *dimensions, kind, offset)
        infos.append(info)
        sizes.append((kind, size))
        offset += -(-size // ALIGNMENT) * ALIGNMENT
    head = b"GGUF" + struct.pack("<IQQ", 3, len(infos), len(entries)) + b"".join(entries) + b"".join(infos)
    pattern = random_bf16(4 << 20)
    ones = struct.pack("<f", 1.0)
    partial = Path(f"{path}.partial")
    with open(partial, "wb") as out:
        out.write(head + bytes(-len(head) % ALIGNMENT))
        for kind, size in sizes:
            source = pattern if kind == BF16 else ones * (size // 4)
            for start in range(0, size, len(source)):
                out.write(source[: min(len(source), size - start)])
            out.write(bytes(-size % ALIGNMENT))
    partial.rename(path)


# GGUF's names of tensors, and those of Hugging Face layout.
HF_NAMES = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def hf_name(tensor):
    if tensor in HF_NAMES:
        return HF_NAMES[tensor]
    _, layer, part, kind = tensor.split(".")
    return f"model.layers.{layer}.{HF_NAMES[part]}.{kind}"


def write_hf(name, tokenizer_from, folder):
    """Writes the same shape to `folder` as config.json, tokenizer.json and one safetensors file in bf16."""
    shape = SHAPES[name]
    folder.mkdir(parents=True, exist_ok=True)
    _, vocabulary = tokenizer_entries(tokenizer_from)
    architecture = {"qwen2": "Qwen2ForCausalLM", "llama": "LlamaForCausalLM"}[shape["arch"]]
    config = {
        "architectures": [architecture],
        "model_type": shape["arch"],
        "vocab_size": vocabulary,
        "hidden_size": shape["hidden"],
        "intermediate_size": shape["inner"],
        "num_hidden_layers": shape["layers"],
        "num_attention_heads": shape["heads"],
        "num_key_value_heads": shape["kv"],
        "head_dim": shape["dim"],
        "max_position_embeddings": 8192,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1e6,
        "hidden_act": "silu",
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "eos_token_id": 0,
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    write_tokenizer(tokenizer_from, folder)
    header, offset, sizes = {}, 0, []
    for tensor, dimensions in tensors(shape, vocabulary):
        size = 2 * dimensions[0] * (dimensions[1] if len(dimensions) == 2 else 1)
        span = [offset, offset + size]
        header[hf_name(tensor)] = {"dtype": "BF16", "shape": dimensions[::-1], "data_offsets": span}
        sizes.append((len(dimensions), size))
        offset += size
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    pattern, ones = random_bf16(4 << 20), b"\x80\x3f"
    partial = folder / "model.partial"
    with open(partial, "wb") as out:
        out.write(struct.pack("<Q", len(head)) + head)
        for n_dimensions, size in sizes:
            source = pattern if n_dimensions == 2 else ones * (size // 2)
            for start in range(0, size, len(source)):
                out.write(source[: min(len(source), size - start)])
    partial.rename(folder / "model.safetensors")


def write_tokenizer(gguf, folder):
    """A tokenizer.json of the byte-level vocabulary and merges of a GGUF file."""
    lists = string_lists(gguf)
    tokens, merges = lists["tokenizer.ggml.tokens"], lists["tokenizer.ggml.merges"]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    tokenizer = {
        "version": "1.0",
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": None,
        "decoder": byte_level,
        "model": {"type": "BPE", "vocab": vocabulary, "merges": merges},
    }
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    about = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 8192}
    (folder / "tokenizer_config.json").write_text(json.dumps(about) + "\n")


def string_lists(path):
    """The lists of strings among a GGUF file's entries."""
    data = Path(path).read_bytes()
    at, found = 24, {}

    def string(at):
        length = struct.unpack_from("<Q", data, at)[0]
        return data[at + 8 : at + 8 + length].decode(), at + 8 + length

    for _ in range(struct.unpack_from("<Q", data, 16)[0]):
        key, at = string(at)
        kind = struct.unpack_from("<I", data, at)[0]
        value, at = at + 4, skip(data, at + 4, kind)
        if kind == ARRAY and struct.unpack_from("<I", data, value)[0] == STRING:
            n, item = struct.unpack_from("<Q", data, value + 4)[0], value + 12
            found[key] = []
            for _ in range(n):
                text_, item = string(item)
                found[key].append(text_)
    return found


def random_bf16(n_values):
    """Values of a size between 2^-6 and 2^-5, of either sign."""
    rng = random.Random(1)
    low = bytes(byte & 0x7F | 0x80 for byte in range(256))
    high = bytes(0x3C if byte & 1 else 0xBC for byte in range(256))
    out = bytearray(2 * n_values)
    out[0::2] = rng.randbytes(n_values).translate(low)
    out[1::2] = rng.randbytes(n_values).translate(high)
    return bytes(out)
