"""Tiny models of every family and option, made by transformers: opened by us, and written again by us for transformers, with equal logits each time."""

import json

import pytest
import torch
import transformers
from conftest import parity_export
from safetensors.torch import load_file, save_file

MAX_RELATIVE = 1e-5  # of the largest logit
SIZES = dict(vocab_size=512, hidden_size=48, intermediate_size=80, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
             max_position_embeddings=256, initializer_range=0.2)
LLAMA3 = dict(rope_type="llama3", rope_theta=10000.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=64)

FAMILIES = {
    "llama": (transformers.LlamaConfig, {}, "LlamaForCausalLM"),
    "llama_tied": (transformers.LlamaConfig, dict(tie_word_embeddings=True), "LlamaForCausalLM"),
    "llama_mha": (transformers.LlamaConfig, dict(num_key_value_heads=4), "LlamaForCausalLM"),
    "llama_one_kv_head": (transformers.LlamaConfig, dict(num_key_value_heads=1), "LlamaForCausalLM"),
    "llama_head_dim": (transformers.LlamaConfig, dict(head_dim=32), "LlamaForCausalLM"),
    "llama_theta": (transformers.LlamaConfig, dict(rope_parameters=dict(rope_type="default", rope_theta=500000.0)), "LlamaForCausalLM"),
    "llama3": (transformers.LlamaConfig, dict(rope_parameters=LLAMA3), "LlamaForCausalLM"),
    "llama3_tied": (transformers.LlamaConfig, dict(rope_parameters=dict(LLAMA3, factor=32.0), tie_word_embeddings=True), "LlamaForCausalLM"),
    "llama_bias": (transformers.LlamaConfig, dict(attention_bias=True), "Qwen2ForCausalLM"),
    "mistral": (transformers.MistralConfig, dict(sliding_window=None), "LlamaForCausalLM"),
    "mistral_window": (transformers.MistralConfig, dict(sliding_window=220), "LlamaForCausalLM"),
    "qwen2": (transformers.Qwen2Config, {}, "Qwen2ForCausalLM"),
    "qwen2_tied": (transformers.Qwen2Config, dict(tie_word_embeddings=True), "Qwen2ForCausalLM"),
    "qwen2_llama3": (transformers.Qwen2Config, dict(rope_parameters=LLAMA3), "Qwen2ForCausalLM"),
    "qwen3": (transformers.Qwen3Config, dict(head_dim=32), "Qwen3ForCausalLM"),
    "qwen3_tied": (transformers.Qwen3Config, dict(head_dim=12, tie_word_embeddings=True), "Qwen3ForCausalLM"),
}


def make(name, dtype=torch.float32):
    """A model with norms away from 1 and biases away from 0, where no o_proj has one."""
    kind, options, _ = FAMILIES[name]
    torch.manual_seed(4)
    model = transformers.AutoModelForCausalLM.from_config(kind(**SIZES | options)).eval()
    with torch.no_grad():
        for key, value in model.named_parameters():
            if value.dim() == 1 and "o_proj" not in key:
                value.add_(torch.randn_like(value) * 0.3)
    return model.to(dtype)


def load(folder):
    model, info = transformers.AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True, dtype=torch.float32)
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        assert not info[kind], f"{kind}: {info[kind]}"
    return model.eval()


@pytest.fixture(scope="session")
def prompts(tmp_path_factory):
    """Longer than what the scaled models were first trained on, and shorter."""
    generator = torch.Generator().manual_seed(1)
    path = tmp_path_factory.mktemp("prompts") / "ids.json"
    path.write_text(json.dumps([torch.randint(512, (length,), generator=generator).tolist() for length in (1, 7, 200)]))
    return path


def relative_difference(model, prompts, logits):
    """Of model, and the logits that we made for the prompts, as a share of what may be: MAX_RELATIVE of the largest logit, and what angles in
    float32, as transformers' RoPE has them, lose: 2^-24 rad a position."""
    worst = 0.0
    for number, ids in enumerate(json.loads(prompts.read_text())):
        with torch.no_grad():
            theirs = model(torch.tensor([ids])).logits[0].float()
        ours = logits[f"prompt.{number}"]
        assert ours.shape == theirs.shape
        assert theirs.std() > 0.1  # logits that say something
        worst = max(worst, ((ours - theirs).abs().max() / theirs.abs().max()).item() / (MAX_RELATIVE + len(ids) * 2**-24))
    return worst


def our_logits(folder, prompts):
    parity_export("import", folder, prompts, folder.parent / "logits.safetensors")
    return load_file(folder.parent / "logits.safetensors")


def change_config(folder, change):
    path = folder / "config.json"
    config = json.loads(path.read_text())
    change(config)
    path.write_text(json.dumps(config))


def keys_of_transformers_4(config):
    rope = config.pop("rope_parameters")
    config["rope_theta"] = rope.pop("rope_theta")
    config["rope_scaling"] = None if rope["rope_type"] == "default" else rope
    config["torch_dtype"] = config.pop("dtype")


@pytest.mark.parametrize("keys", [4, 5])
@pytest.mark.parametrize("name", FAMILIES)
def test_import(work, prompts, tmp_path, name, keys):
    model = make(name)
    model.save_pretrained(tmp_path / "theirs")
    if keys == 4:
        change_config(tmp_path / "theirs", keys_of_transformers_4)
    difference = relative_difference(model, prompts, our_logits(tmp_path / "theirs", prompts))
    print(f"{name}: {difference:.2e}")
    assert difference <= 1


@pytest.mark.parametrize("name", FAMILIES)
def test_import_and_export(work, prompts, tmp_path, name):
    model = make(name)
    model.save_pretrained(tmp_path / "theirs")
    parity_export("again", tmp_path / "theirs", work / "tokenizer-512.model", tmp_path / "ours")
    again = load(tmp_path / "ours")
    assert type(again).__name__ == FAMILIES[name][2]
    logits = our_logits(tmp_path / "theirs", prompts)
    assert relative_difference(again, prompts, logits) <= 1
    # What transformers 4 reads of it, transformers 5 reading as it does where the new keys are absent.
    change_config(tmp_path / "ours", lambda config: [config.pop(key) for key in ("rope_parameters", "dtype")])
    assert relative_difference(load(tmp_path / "ours"), prompts, logits) <= 1


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["llama3", "qwen2", "qwen3_tied"])
def test_import_of_16_bits(work, prompts, tmp_path, name, dtype):
    model = make(name, dtype)
    model.save_pretrained(tmp_path / "theirs", max_shard_size="60KB")
    assert (tmp_path / "theirs" / "model.safetensors.index.json").exists()
    assert relative_difference(load(tmp_path / "theirs"), prompts, our_logits(tmp_path / "theirs", prompts)) <= 1


def test_import_of_mixed_types(work, prompts, tmp_path):
    make("qwen2").save_pretrained(tmp_path / "theirs")
    path = tmp_path / "theirs" / "model.safetensors"
    tensors = load_file(path)
    types = [torch.float32, torch.bfloat16, torch.float16]
    save_file({name: tensor.to(types[number % 3]) for number, (name, tensor) in enumerate(tensors.items())}, path, {"format": "pt"})
    assert relative_difference(load(tmp_path / "theirs"), prompts, our_logits(tmp_path / "theirs", prompts)) <= 1
