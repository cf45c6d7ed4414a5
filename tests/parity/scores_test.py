"""One-shot scores beside torch-pruning (magnitude, Taylor) and beside their formulas on the activations that transformers computes."""

import json
import warnings

import pytest
import torch
import transformers
from safetensors.torch import load_file

MAX_RELATIVE_DIFFERENCE = 1e-4


@pytest.fixture(scope="module")
def model(work):
    return transformers.AutoModelForCausalLM.from_pretrained(work / "hf" / "qwen3", dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def scores(work):
    """Ours: name -> [L, F], on the prompts of prompts.json, each a sample."""
    return load_file(work / "scores.safetensors")


@pytest.fixture(scope="module")
def samples(work):
    return [torch.tensor([ids]) for ids in json.loads((work / "prompts.json").read_text()) if len(ids) > 1]


def close(ours, theirs):
    assert ours.shape == theirs.shape
    assert theirs.std() > 0  # not all alike
    return (ours - theirs).abs().max() <= MAX_RELATIVE_DIFFERENCE * theirs.abs().max()


def group_importance(mlp, importance):
    """torch-pruning's score of the FFN channels, by the columns of down_proj alone."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import torch_pruning
    hidden = mlp.down_proj.out_features
    graph = torch_pruning.DependencyGraph().build_dependency(mlp, example_inputs=torch.randn(1, 3, hidden))
    group = graph.get_pruning_group(mlp.down_proj, torch_pruning.prune_linear_in_channels, list(range(mlp.down_proj.in_features)))
    return importance(torch_pruning.importance)(group)


def test_magnitude_is_that_of_torch_pruning(model, scores):
    for layer, block in enumerate(model.model.layers):
        theirs = group_importance(block.mlp, lambda tp: tp.GroupMagnitudeImportance(p=2, group_reduction="first", normalizer=None)).sqrt()
        assert close(scores["magnitude"][layer], theirs)


def test_taylor_is_that_of_torch_pruning(model, scores, samples):
    total = None
    for ids in samples:  # ours averages over samples what theirs gives for one
        model.zero_grad()
        logits = model(ids).logits[0, :-1]
        torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="mean").backward()
        rows = [
            group_importance(block.mlp, lambda tp: tp.GroupTaylorImportance(multivariable=True, group_reduction="first", normalizer=None))
            for block in model.model.layers
        ]
        total = torch.stack(rows) if total is None else total + torch.stack(rows)
    assert close(scores["taylor"], total / len(samples))


def test_activation_scores_are_their_formulas(model, scores, samples):
    hidden = [[] for _ in model.model.layers]  # per layer, per sample: what enters down_proj, without the last position, which has no label
    hooks = [
        block.mlp.down_proj.register_forward_pre_hook(lambda _, inputs, layer=layer: hidden[layer].append(inputs[0][0, :-1].detach().double()))
        for layer, block in enumerate(model.model.layers)
    ]
    with torch.no_grad():
        for ids in samples:
            model(ids)
    for hook in hooks:
        hook.remove()
    for layer, block in enumerate(model.model.layers):
        down = block.mlp.down_proj.weight.detach().double()
        tokens = torch.cat(hidden[layer])
        expected = {
            "activation": torch.stack([one.abs().mean(0) for one in hidden[layer]]).square().sum(0).sqrt(),
            "wanda_sp": down.abs().mean(0) * tokens.square().mean(0).sqrt(),
            "flap": down.square().sum(0) * tokens.var(0, unbiased=False),
        }
        for name, theirs in expected.items():
            assert close(scores[name][layer].double(), theirs), name
