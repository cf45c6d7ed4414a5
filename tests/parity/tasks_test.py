"""Multiple choice beside the rules of lm-evaluation-harness, written out again on transformers' tokenizer and model of an exported folder."""

import json

import torch
import transformers

MAX_RELATIVE_DIFFERENCE = 1e-5


def request(tokenizer, context, continuation):
    """Ids of context and continuation: both encoded as one text, white space at the context's end moved to the continuation."""
    words = context.rstrip()
    continuation, context = context[len(words) :] + continuation, words
    context_ids = tokenizer.encode(context, add_special_tokens=False)
    whole_ids = tokenizer.encode(context + continuation, add_special_tokens=False)
    return context_ids or [tokenizer.bos_token_id], whole_ids[len(context_ids) :]


def log_likelihood(model, context_ids, continuation_ids, max_length):
    inputs = (context_ids + continuation_ids)[-(max_length + 1) :][:-1]
    with torch.no_grad():
        logits = model(torch.tensor([inputs])).logits[0].float()
    logp = torch.log_softmax(logits, dim=-1)[-len(continuation_ids) :]
    return logp.gather(1, torch.tensor(continuation_ids).unsqueeze(1)).double().sum().item()


def test_choices_are_scored_as_the_harness_does(work):
    folder = work / "hf" / "qwen3"
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    max_length = model.config.max_position_embeddings
    items = [json.loads(line) for line in (work / "items.jsonl").read_text(encoding="utf-8").splitlines()]
    ours = json.loads((work / "item_sums.json").read_text())
    assert len(ours) == len(items) == 61
    cut = 0
    for item, sums in zip(items, ours, strict=True):
        assert len(sums) == len(item["choices"])
        for choice, mine in zip(item["choices"], sums, strict=True):
            context_ids, continuation_ids = request(tokenizer, item["context"], item.get("delimiter", " ") + choice)
            cut += len(context_ids) + len(continuation_ids) - 1 > max_length
            theirs = log_likelihood(model, context_ids, continuation_ids, max_length)
            assert theirs < -1
            assert abs(mine - theirs) <= MAX_RELATIVE_DIFFERENCE * abs(theirs), item
    assert cut >= 5  # sequences that lost their beginning
