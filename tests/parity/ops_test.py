"""The registered operations, loaded into Python, against plain PyTorch in double: values and gradients.

    pytest tests/parity/ops_test.py        (COPPICE_BUILD: another build folder than build/release)
"""
import os
import pathlib
import sys

import pytest
import torch
import torch.nn.functional as F

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "bench"))
import soft_top_k_cd  # noqa: E402  (the peer; its exact() sorts in double)


@pytest.fixture(scope="module")
def ops():
    torch.ops.load_library(os.path.join(os.environ.get("COPPICE_BUILD", ROOT / "build" / "release"), "libcoppice_ops.so"))
    return torch.ops.coppice


def close(ours, wanted, limit):
    """Largest difference relative to the largest wanted value; false for a NaN on either side."""
    return bool((ours.double() - wanted.double()).abs().max() <= limit * max(1.0, wanted.double().abs().max().item()))


def exact_with_gradient(scores, weight, k, epsilon):
    leaf = scores.double().requires_grad_()
    soft_mask = soft_top_k_cd.exact(leaf, k, epsilon)
    (soft_mask * weight.double()).sum().backward()
    return soft_mask.detach(), leaf.grad


@pytest.mark.parametrize("epsilon", [1.0, 0.1, 0.02, 0.002])
@pytest.mark.parametrize("rows,n,k", [(1, 7, 3), (3, 257, 86), (4, 4096, 1365), (2, 1000, 999), (1, 300, 1)])
def test_soft_top_k_equals_the_sorted_solution(ops, rows, n, k, epsilon):
    torch.manual_seed(n + k)
    scores, weight = torch.randn(2, rows, n)
    wanted, wanted_grad = exact_with_gradient(scores, weight, k, epsilon)
    leaf = scores.clone().requires_grad_()
    soft_mask = ops.soft_top_k(leaf, float(k), epsilon)
    (soft_mask * weight).sum().backward()
    assert soft_mask.dtype == torch.float32 and soft_mask.shape == scores.shape
    assert close(soft_mask.detach(), wanted, 2e-6)
    assert ((soft_mask.double().sum(-1) - k).abs() <= 1e-6 * k).all()
    assert (leaf.grad.double() - wanted_grad).abs().max() <= 5e-6 * weight.abs().max() / epsilon


def test_soft_top_k_of_k_equal_to_n_is_one_without_gradient(ops):
    leaf = torch.randn(2, 5, requires_grad=True)
    soft_mask = ops.soft_top_k(leaf, 5.0, 0.1)
    (soft_mask * torch.randn(2, 5)).sum().backward()
    assert soft_mask.eq(1).all() and leaf.grad.eq(0).all()


def test_soft_top_k_of_one_is_the_softmax(ops):
    scores = torch.randn(3, 64)
    assert close(ops.soft_top_k(scores, 1.0, 0.5), (scores.double() / 0.5).softmax(-1), 5e-7)


def test_soft_top_k_refuses_what_it_cannot_solve(ops):
    with pytest.raises(RuntimeError, match="k: got 6"):
        ops.soft_top_k(torch.randn(2, 5), 6.0, 0.1)
    with pytest.raises(RuntimeError, match="row 1: 1 of 3 scores are not finite"):
        ops.soft_top_k(torch.tensor([[0.0, 1, 2], [0, float("nan"), 1]]), 1.0, 0.1)


def torch_loss(logits, true_label, teacher_label, teacher_weight, z_loss):
    """The mixture out of stock parts: mean over live rows, a missing teacher label is the true one."""
    live = true_label != -100
    if not live.any():
        return logits.sum() * 0
    logits, true_label, teacher_label = logits[live], true_label[live], teacher_label[live]
    teacher_label = torch.where(teacher_label == -100, true_label, teacher_label)
    loss = (1 - teacher_weight) * F.cross_entropy(logits, true_label) + teacher_weight * F.cross_entropy(logits, teacher_label)
    return loss + z_loss * logits.logsumexp(-1).square().mean()


def loss_problem(tokens, width, vocab):
    torch.manual_seed(tokens)
    hidden, head = torch.randn(tokens, width), torch.randn(vocab, width) * width**-0.5
    true_label, teacher_label = torch.randint(vocab, (2, tokens))
    true_label[::7] = -100
    teacher_label[1::7] = -100
    return hidden, head, true_label, teacher_label


@pytest.mark.parametrize("teacher_weight,z_loss", [(0.0, 0.0), (0.9, 0.0), (0.9, 1e-3), (1.0, 1e-3)])
@pytest.mark.parametrize("tokens,width,vocab", [(1, 4, 3), (33, 16, 257), (3000, 96, 512), (300, 64, 5000)])
def test_linear_mixed_cross_entropy_equals_torch(ops, tokens, width, vocab, teacher_weight, z_loss):
    hidden, head, true_label, teacher_label = loss_problem(tokens, width, vocab)
    results = []
    for dtype in (torch.float64, torch.float32):
        leaves = [tensor.detach().to(dtype).clone().requires_grad_() for tensor in (hidden, head)]
        loss = torch_loss(leaves[0] @ leaves[1].T, true_label, teacher_label, teacher_weight, z_loss)
        loss.backward()
        results.append([loss.detach(), leaves[0].grad, leaves[1].grad])
    leaves = [hidden.clone().requires_grad_(), head.clone().requires_grad_()]
    loss = ops.linear_mixed_cross_entropy(*leaves, true_label, teacher_label, teacher_weight, z_loss)
    assert loss.dtype == torch.float32 and loss.shape == ()
    loss.backward()
    for ours, wanted, stock in zip([loss.detach(), leaves[0].grad, leaves[1].grad], *results):
        stock_error = (stock.double() - wanted).abs().max()
        assert (ours.double() - wanted).abs().max() <= 2 * stock_error + 2e-6 * wanted.abs().max()


def test_linear_mixed_cross_entropy_without_weight_is_plain_cross_entropy_bit_for_bit(ops):
    hidden, head, true_label, teacher_label = loss_problem(500, 32, 700)
    results = []
    for teacher in (teacher_label, true_label):
        leaves = [hidden.clone().requires_grad_(), head.clone().requires_grad_()]
        loss = ops.linear_mixed_cross_entropy(*leaves, true_label, teacher, 0.0, 1e-4)
        loss.backward()
        results.append([loss.detach(), leaves[0].grad, leaves[1].grad])
    assert all(torch.equal(a, b) for a, b in zip(*results))


def test_linear_mixed_cross_entropy_with_no_live_row_is_zero(ops):
    leaves = [torch.randn(4, 8, requires_grad=True), torch.randn(9, 8, requires_grad=True)]
    nothing = torch.full((4,), -100)
    loss = ops.linear_mixed_cross_entropy(*leaves, nothing, nothing, 0.9, 1e-3)
    loss.backward()
    assert loss == 0 and all(leaf.grad.eq(0).all() for leaf in leaves)


def test_linear_mixed_cross_entropy_takes_part_in_a_larger_graph(ops):
    """Only the hidden states need a gradient, which goes on through what made them; no graph without one."""
    hidden, head, true_label, teacher_label = loss_problem(40, 8, 30)
    leaf = hidden.clone().requires_grad_()
    (3 * ops.linear_mixed_cross_entropy((2 * leaf)[:, :], head, true_label, teacher_label, 0.9, 0.0)).backward()
    wanted = hidden.double().requires_grad_()
    (3 * torch_loss(2 * wanted @ head.double().T, true_label, teacher_label, 0.9, 0.0)).backward()
    assert close(leaf.grad, wanted.grad, 1e-6)
    with torch.no_grad():
        assert not ops.linear_mixed_cross_entropy(leaf, head, true_label, teacher_label, 0.9, 0.0).requires_grad


def test_linear_mixed_cross_entropy_refuses_labels_outside_the_vocabulary(ops):
    hidden, head, true_label, teacher_label = loss_problem(4, 8, 9)
    true_label[2] = 9
    with pytest.raises(RuntimeError, match=r"true_label_N\[2\]: got 9"):
        ops.linear_mixed_cross_entropy(hidden, head, true_label, teacher_label, 0.9, 0.0)


def divergence(kind, logits, teacher_logits, temperature, beta):
    """Per row, times temperature squared."""
    student, teacher = F.log_softmax(logits / temperature, -1), F.log_softmax(teacher_logits / temperature, -1)
    kl = lambda target, of: F.kl_div(of, target, log_target=True, reduction="none").sum(-1)
    if kind == "jsd":
        mean = torch.log(beta * teacher.exp() + (1 - beta) * student.exp())
        value = beta * kl(teacher, mean) + (1 - beta) * kl(student, mean)
    else:
        value = kl(teacher, student) if kind == "kl" else kl(student, teacher)
    return temperature**2 * value


def top_k_divergence(logits, top_id, top_logp, tail_logp, temperature):
    """KL between two distributions over k ids and everything else."""
    log_p = F.log_softmax(logits / temperature, -1)
    inside = log_p.gather(-1, top_id)
    outside = log_p.exp().scatter(-1, top_id, 0.0).sum(-1)
    value = (top_logp.exp() * (top_logp - inside)).sum(-1) + torch.special.xlogy(tail_logp.exp(), tail_logp.exp() / outside)
    return temperature**2 * value


def mixed_with(teacher_term, logits, true_label, teacher_weight, z_loss):
    live = true_label != -100
    ce = F.cross_entropy(logits[live], true_label[live])
    return (1 - teacher_weight) * ce + teacher_weight * teacher_term[live].mean() + z_loss * logits[live].logsumexp(-1).square().mean()


def check_against_torch(hidden, head, ours, stock):
    """Value and both gradients: our error at most twice that of float32 PyTorch, both against float64."""
    results = []
    for dtype in (torch.float64, torch.float32):
        leaves = [tensor.detach().to(dtype).clone().requires_grad_() for tensor in (hidden, head)]
        loss = stock(leaves[0] @ leaves[1].T, dtype)
        loss.backward()
        results.append([loss.detach(), leaves[0].grad, leaves[1].grad])
    leaves = [hidden.clone().requires_grad_(), head.clone().requires_grad_()]
    loss = ours(*leaves)
    assert loss.dtype == torch.float32 and loss.shape == ()
    loss.backward()
    for got, wanted, plain in zip([loss.detach(), leaves[0].grad, leaves[1].grad], *results):
        plain_error = (plain.double() - wanted).abs().max()
        assert (got.double() - wanted).abs().max() <= 2 * plain_error + 3e-6 * wanted.abs().max()


SHAPES = [(2, 4, 3), (33, 16, 257), (3000, 96, 512), (400, 64, 5000)]
MIXES = [(1.0, 1.0, 0.0), (0.9, 1.0, 1e-3), (0.5, 2.0, 1e-3), (0.0, 1.0, 0.0)]


@pytest.mark.parametrize("teacher_weight,temperature,z_loss", MIXES)
@pytest.mark.parametrize("kind,beta", [("kl", 0.5), ("reverse_kl", 0.5), ("jsd", 0.5), ("jsd", 0.2)])
@pytest.mark.parametrize("tokens,width,vocab", SHAPES)
def test_linear_distillation_equals_torch(ops, tokens, width, vocab, kind, beta, teacher_weight, temperature, z_loss):
    hidden, head, true_label, _ = loss_problem(tokens, width, vocab)
    teacher_hidden, teacher_head = torch.randn(tokens, 2 * width), torch.randn(vocab, 2 * width) * width**-0.5
    teacher_logits = teacher_hidden.double() @ teacher_head.double().T
    check_against_torch(
        hidden, head,
        lambda hidden, head: ops.linear_distillation(hidden, head, teacher_hidden, teacher_head, true_label, kind, teacher_weight, temperature, beta, z_loss),
        lambda logits, dtype: mixed_with(divergence(kind, logits, teacher_logits.to(dtype), temperature, beta), logits, true_label, teacher_weight, z_loss))


@pytest.mark.parametrize("teacher_weight,temperature,z_loss", MIXES)
@pytest.mark.parametrize("tokens,width,vocab", SHAPES)
def test_linear_top_k_cross_entropy_equals_torch(ops, tokens, width, vocab, teacher_weight, temperature, z_loss):
    hidden, head, true_label, _ = loss_problem(tokens, width, vocab)
    log_q = F.log_softmax(3 * torch.randn(tokens, vocab, dtype=torch.double) / temperature, -1)
    top_logp, top_id = log_q.topk(min(64, vocab - 1), -1)
    tail_logp = log_q.exp().scatter(-1, top_id, 0.0).sum(-1).log()
    check_against_torch(
        hidden, head,
        lambda hidden, head: ops.linear_top_k_cross_entropy(hidden, head, true_label, top_id, top_logp.float(), tail_logp.float(), teacher_weight, temperature, z_loss),
        lambda logits, dtype: mixed_with(top_k_divergence(logits, top_id, top_logp.to(dtype), tail_logp.to(dtype), temperature), logits, true_label, teacher_weight, z_loss))


def test_linear_distillation_refuses_what_it_does_not_know(ops):
    hidden, head, true_label, _ = loss_problem(4, 8, 9)
    with pytest.raises(RuntimeError, match="loss: got 'kld'"):
        ops.linear_distillation(hidden, head, hidden, head, true_label, "kld", 0.9, 1.0, 0.5, 0.0)
    with pytest.raises(RuntimeError, match="teacher_head_VE"):
        ops.linear_distillation(hidden, head, hidden, head[:8], true_label, "kl", 0.9, 1.0, 0.5, 0.0)
