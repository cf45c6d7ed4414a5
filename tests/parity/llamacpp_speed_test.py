"""scripts/measure-llamacpp on a tiny GGUF in llama.cpp itself: the file it leaves, and what it refuses in one line."""

import importlib.machinery
import importlib.util
import json
import pathlib
import subprocess
import sys

import gguf
import numpy
import pytest

SCRIPT = pathlib.Path(__file__).resolve().parents[2] / "scripts" / "measure-llamacpp"
VOCABULARY, WIDTH, FFN, POSITIONS = 260, 32, 64, 128


def write_model(path, kind):
    """One layer of random weights; its matrices in the type `kind`."""
    random = numpy.random.default_rng(3)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(POSITIONS)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(1)
    writer.add_feed_forward_length(FFN)
    writer.add_head_count(2)
    writer.add_head_count_kv(1)
    writer.add_rope_dimension_count(WIDTH // 2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(VOCABULARY)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(["<unk>", "<s>", "</s>", "a"] + [f"<0x{byte:02X}>" for byte in range(256)])
    writer.add_token_scores([0.0] * VOCABULARY)
    writer.add_token_types([2, 3, 3, 1] + [6] * 256)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    for name in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"):
        writer.add_tensor(f"{name}.weight", numpy.ones(WIDTH, dtype=numpy.float32))
    for name, rows, columns in (("token_embd", VOCABULARY, WIDTH), ("blk.0.attn_q", WIDTH, WIDTH), ("blk.0.attn_k", WIDTH // 2, WIDTH),
                                ("blk.0.attn_v", WIDTH // 2, WIDTH), ("blk.0.attn_output", WIDTH, WIDTH), ("blk.0.ffn_gate", FFN, WIDTH),
                                ("blk.0.ffn_up", FFN, WIDTH), ("blk.0.ffn_down", WIDTH, FFN)):
        values = random.standard_normal((rows, columns)).astype(numpy.float32)
        writer.add_tensor(f"{name}.weight", gguf.quants.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("speed") / "release" / "gguf"
    folder.mkdir(parents=True)
    return {name: write_model(folder / f"model-{name}.gguf", kind)
            for name, kind in (("F32", gguf.GGMLQuantizationType.F32), ("Q8_0", gguf.GGMLQuantizationType.Q8_0))}


def measure(*arguments):
    return subprocess.run([sys.executable, SCRIPT, *map(str, arguments)], capture_output=True, text=True)


def script_as_module():
    loader = importlib.machinery.SourceFileLoader("measure_llamacpp", str(SCRIPT))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("measure_llamacpp", loader))
    loader.exec_module(module)
    return module


def test_header_is_what_the_writer_wrote(models):
    read_header = script_as_module().read_header
    assert read_header(models["F32"]) == (VOCABULARY, POSITIONS, gguf.GGMLQuantizationType.F32)
    assert read_header(models["Q8_0"]) == (VOCABULARY, POSITIONS, gguf.GGMLQuantizationType.Q8_0)


def test_leaves_figures_of_every_file(models, tmp_path):
    done = measure(*models.values(), "--threads", 1, "--prompt-tokens", 12, "--tokens", 5, "--repeats", 3, "-o", tmp_path / "llamacpp.json")
    assert done.returncode == 0, done.stderr
    document = json.loads((tmp_path / "llamacpp.json").read_text())
    assert {key: document[key] for key in ("format", "version", "threads", "prompt_tokens", "tokens", "repeats")} == {
        "format": "coppice.llamacpp", "version": 1, "threads": 1, "prompt_tokens": 12, "tokens": 5, "repeats": 3}
    assert [row["type"] for row in document["files"]] == ["F32", "Q8_0"]
    for row, path in zip(document["files"], models.values()):
        assert row["path"] == f"release/gguf/{path.name}"
        assert row["bytes"] == path.stat().st_size
        assert row["peak_bytes"] > 0
        for key in ("prefill_tokens_per_s", "decode_tokens_per_s"):
            assert 0 < row[key]["low"] <= row[key]["median"] <= row[key]["high"] < float("inf")


def test_refuses_in_one_line(models, tmp_path):
    output = tmp_path / "llamacpp.json"
    long = measure(models["F32"], "--prompt-tokens", 100, "--tokens", 29, "-o", output)
    assert long.returncode == 1 and "100 + 29 tokens are more than the 128 positions of the model" in long.stderr.splitlines()[-1]
    (tmp_path / "broken.gguf").write_bytes(b"GGUX" + bytes(60))
    broken = measure(tmp_path / "broken.gguf", "-o", output)
    assert broken.returncode == 1 and "no GGUF file" in broken.stderr.splitlines()[-1] and len(broken.stderr.splitlines()) == 1
    assert not output.exists()
