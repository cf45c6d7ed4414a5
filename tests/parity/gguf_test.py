"""GGUF files: ours in the gguf package and in llama.cpp (xllamacpp), and files of the gguf package read by us."""

import json
import subprocess
import urllib.request

import gguf
import gguf.quants
import numpy
import pytest
import xllamacpp
from conftest import BUILD
from safetensors.numpy import load_file

import invented_text

MODELS = ["llama", "qwen2", "qwen3", "untied", "ragged", "scaled", "cut", "cut_qwen2"]
TYPES = {"f32": "F32", "f16": "F16", "bf16": "BF16", "q8_0": "Q8_0", "q4_0": "Q4_0"}
EOS = 2
READ_TYPES = ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q4_K", "Q5_K", "Q6_K"]


def parity_gguf(*arguments):
    subprocess.run([BUILD / "tests" / "parity_gguf", *arguments], check=True)


@pytest.fixture(scope="session")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gguf")
    (folder / "training.txt").write_text("\n".join(invented_text.training_lines()) + "\n", encoding="utf-8")
    parity_gguf("produce", folder)
    return folder


def tensors_of(path):
    return {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}


def field(path, key):
    found = gguf.GGUFReader(path).get_field(key)
    return None if found is None else found.contents()


@pytest.mark.parametrize("model", MODELS)
def test_the_reader_lists_what_we_wrote(files, model):
    path = files / f"{model}-f32.gguf"
    architecture = {"untied": "llama", "scaled": "llama", "ragged": "qwen3", "cut": "qwen3", "cut_qwen2": "qwen2"}.get(model, model)
    assert field(path, "general.architecture") == architecture
    assert field(path, "general.alignment") == 32
    assert len(field(path, "tokenizer.ggml.tokens")) == 512
    layers = field(path, f"{architecture}.block_count")
    width = field(path, f"{architecture}.feed_forward_length")
    names = ["attn_norm", "attn_q", "attn_k", "attn_v", "attn_output", "ffn_norm", "ffn_gate", "ffn_up", "ffn_down"]
    names = [f"{name}.weight" for name in names]
    if architecture == "qwen3":
        names += ["attn_q_norm.weight", "attn_k_norm.weight"]
    if architecture == "qwen2":
        names += ["attn_q.bias", "attn_k.bias", "attn_v.bias"]
    expected = {f"blk.{layer}.{name}" for layer in range(layers) for name in names} | {"token_embd.weight", "output_norm.weight"}
    if model == "untied":
        expected.add("output.weight")
    if model == "scaled":
        expected.add("rope_freqs.weight")
    found = tensors_of(path)
    assert set(found) == expected
    assert list(found["blk.0.ffn_down.weight"].shape) == [width, 32 if model.startswith("cut") else 64]  # innermost first
    if model == "ragged":
        assert field(path, "coppice.feed_forward_length_unpadded") == [96, 33, 64]


@pytest.mark.parametrize("kind", ["f16", "bf16", "q8_0", "q4_0"])
@pytest.mark.parametrize("model", ["llama", "qwen3", "untied"])
def test_blocks_are_those_of_the_reference(files, model, kind):
    exact = tensors_of(files / f"{model}-f32.gguf")
    compared = 0
    for name, tensor in tensors_of(files / f"{model}-{kind}.gguf").items():
        values = exact[name].data
        expected = "F32" if values.ndim == 1 else "Q8_0" if kind == "q4_0" and name in ("token_embd.weight", "output.weight") else TYPES[kind]
        assert tensor.tensor_type.name == expected
        blocks = gguf.quants.quantize(values, tensor.tensor_type)
        assert blocks.tobytes() == tensor.data.tobytes(), name
        compared += blocks.nbytes
    assert compared > 40_000


def with_finite_scales(blocks, kind, random):
    """Random bytes, but scales and minima that are numbers: halves of moderate size."""
    halves = {"Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208]}
    for at in halves[kind]:
        scale = random.standard_normal(len(blocks)).astype(numpy.float16)
        scale[: len(blocks) // 8] *= numpy.float16(2**-14)  # subnormal ones as well
        blocks[:, at : at + 2] = scale.view(numpy.uint8).reshape(-1, 2)
    return blocks


@pytest.mark.parametrize("kind", READ_TYPES)
def test_values_are_those_of_the_reference(tmp_path, kind):
    """A file of the gguf package with random blocks in every matrix."""
    random = numpy.random.default_rng(len(kind) * 1000 + ord(kind[-1]))
    hidden, width, vocabulary = 256, 512, 40
    writer = gguf.GGUFWriter(tmp_path / "a.gguf", "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(hidden)
    writer.add_block_count(1)
    writer.add_feed_forward_length(width)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    shapes = {"token_embd": (vocabulary, hidden), "blk.0.attn_q": (256, hidden), "blk.0.attn_k": (128, hidden), "blk.0.attn_v": (128, hidden),
              "blk.0.attn_output": (hidden, 256), "blk.0.ffn_gate": (width, hidden), "blk.0.ffn_up": (width, hidden), "blk.0.ffn_down": (hidden, width)}
    expected = {}
    kind_id = gguf.GGMLQuantizationType[kind]
    elements, size = gguf.GGML_QUANT_SIZES[kind_id]
    for name, (rows, columns) in shapes.items():
        if elements == 1:
            blocks = gguf.quants.quantize(random.standard_normal((rows, columns)).astype(numpy.float32), kind_id)
        else:
            blocks = random.integers(0, 256, (rows * columns // elements, size), dtype=numpy.uint8)
            blocks = with_finite_scales(blocks, kind, random).reshape(rows, -1)
        writer.add_tensor(f"{name}.weight", blocks, raw_dtype=kind_id)
        values = gguf.quants.dequantize(blocks, kind_id).astype(numpy.float32).reshape(rows, columns)
        if name in ("blk.0.attn_q", "blk.0.attn_k"):  # neighbouring pairs -> halves of a head
            values = values.reshape(rows // 64, 32, 2, columns).swapaxes(1, 2).reshape(rows, columns)
        expected[f"{name}.weight"] = values
    for name in ("blk.0.attn_norm", "blk.0.ffn_norm", "output_norm"):
        expected[f"{name}.weight"] = random.standard_normal(hidden).astype(numpy.float32)
        writer.add_tensor(f"{name}.weight", expected[f"{name}.weight"])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    parity_gguf("import", tmp_path / "a.gguf", tmp_path / "out.safetensors")
    found = load_file(tmp_path / "out.safetensors")
    assert set(found) == set(expected)
    for name, values in expected.items():
        assert found[name].tobytes() == values.tobytes(), name


class Server:
    """llama.cpp over one file, keys and values in F32."""

    def __init__(self, path):
        parameters = xllamacpp.CommonParams()
        parameters.model.path, parameters.n_ctx, parameters.verbosity, parameters.port = str(path), 256, 0, 0
        parameters.cache_type_k = parameters.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
        parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = 2
        parameters.warmup = False
        self.server = xllamacpp.Server(parameters)

    def post(self, path, request):
        request = urllib.request.Request(self.server.listening_address + path, json.dumps(request).encode(), {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    def greedy(self, prompt):
        """Ids up to and with EOS."""
        answer = self.post("/completion", {"prompt": prompt, "n_predict": 32, "temperature": 0, "return_tokens": True, "cache_prompt": False})
        return answer["tokens"]


# llama.cpp's own rounding, relative to the largest logit: where two texts of these random models part, float64 (transformers) is on our
# side, and its two best logits lie up to 4.1e-3 apart. A wrong order of rows or a wrong frequency parts them at the first token, at any margin.
MAX_MARGIN = 1e-2


@pytest.mark.parametrize("model", MODELS)
def test_llama_cpp_says_the_same(files, model):
    server = Server(files / f"{model}-f32.gguf")
    equal = 0
    for text in json.loads((files / "greedy.json").read_text())[model]:
        ours, theirs = text["tokens"], server.greedy(text["prompt"])
        if ours[-1] == EOS and theirs[-1] != EOS:
            ours = ours[:-1]
        parted = next((place for place, (a, b) in enumerate(zip(ours, theirs)) if a != b), None)
        if parted is None:
            assert len(ours) == len(theirs)
            equal += 1
        else:
            assert text["margins"][parted] <= MAX_MARGIN, (parted, ours, theirs)
    assert equal >= 2  # of four


@pytest.mark.parametrize("kind", ["f16", "bf16", "q8_0", "q4_0"])
@pytest.mark.parametrize("model", ["llama", "qwen3"])
def test_llama_cpp_opens_every_type(files, model, kind):
    assert len(Server(files / f"{model}-{kind}.gguf").greedy([5, 6, 7])) > 0
