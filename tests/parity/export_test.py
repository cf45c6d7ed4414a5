"""Exported folders in transformers: every tensor found its place, logits of four prompts within 1e-4. (Folders of transformers opened by us: families_test.py.)"""

import json

import pytest
import safetensors
import torch
import transformers
from safetensors.torch import load_file

MODELS = ["qwen3", "llama", "ragged", "untied", "sharded", "bf16", "cut", "cut_heads", "cut_layers", "cut_llama", "cut_qwen2"]
MAX_DIFFERENCE = 1e-4


def load(folder):
    model, info = transformers.AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True, dtype=torch.float32)
    return model.eval(), info


def largest_difference(model, work, logits_file):
    prompts = json.loads((work / "prompts.json").read_text())
    ours = load_file(logits_file)
    assert len(prompts) == 4
    worst = 0.0
    for number, ids in enumerate(prompts):
        with torch.no_grad():
            theirs = model(torch.tensor([ids])).logits[0]
        mine = ours[f"prompt.{number}"]
        assert mine.shape == theirs.shape
        assert theirs.std() > 0.1  # logits that say something
        worst = max(worst, (mine - theirs).abs().max().item())
    return worst


@pytest.mark.parametrize("name", MODELS)
def test_transformers_opens_it(work, name):
    model, info = load(work / "hf" / name)
    family = "Llama" if name in ("llama", "untied", "cut_llama") else "Qwen2" if name == "cut_qwen2" else "Qwen3"
    assert type(model).__name__ == family + "ForCausalLM"
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        assert not info[kind], f"{kind}: {info[kind]}"
    difference = largest_difference(model, work, work / f"logits-{name}.safetensors")
    print(f"{name}: {difference:.2e}")
    assert difference <= MAX_DIFFERENCE


@pytest.mark.parametrize("name", MODELS)
def test_safe_open_lists_what_the_model_has(work, name):
    found = {}
    for path in sorted((work / "hf" / name).glob("*.safetensors")):
        with safetensors.safe_open(path, "pt") as file:
            assert file.metadata() == {"format": "pt"}
            for tensor in file.keys():
                assert tensor not in found
                found[tensor] = (file.get_slice(tensor).get_dtype(), tuple(file.get_slice(tensor).get_shape()))
    model, _ = load(work / "hf" / name)
    dtype = "BF16" if name == "bf16" else "F32"
    expected = {key: (dtype, tuple(value.shape)) for key, value in model.state_dict().items()}
    if model.config.tie_word_embeddings:
        del expected["lm_head.weight"]
    assert found == expected


def test_generation_config(work):
    config = transformers.GenerationConfig.from_pretrained(work / "hf" / "qwen3")
    assert (config.bos_token_id, config.eos_token_id, config.pad_token_id) == (1, 2, 3)


def test_settings_of_an_imported_model(work):
    config = transformers.GenerationConfig.from_pretrained(work / "hf" / "chat")
    assert (config.eos_token_id, config.do_sample, config.temperature) == ([2, 3], True, 0.6)
    assert transformers.AutoConfig.from_pretrained(work / "hf" / "chat").eos_token_id == [2, 3]
