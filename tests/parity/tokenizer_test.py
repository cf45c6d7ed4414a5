"""Ids of 10,000 strings: ours, sentencepiece, tokenizers and AutoTokenizer must agree on every one."""

import json

import pytest
import sentencepiece
import tokenizers
import transformers


def ours(work, vocab_size):
    return json.loads((work / f"ids-{vocab_size}.json").read_text(encoding="utf-8"))


def assert_same_ids(strings, ours, theirs):
    different = [(text, mine["ids"], other) for text, mine, other in zip(strings, ours, theirs, strict=True) if mine["ids"] != list(other)]
    assert not different, f"{len(different)} strings differ, the first: {different[0]!r}"


@pytest.mark.parametrize("vocab_size", [512, 3000])
def test_sentencepiece(work, strings, vocab_size):
    processor = sentencepiece.SentencePieceProcessor(model_file=str(work / f"tokenizer-{vocab_size}.model"))
    assert processor.vocab_size() == vocab_size
    assert_same_ids(strings, ours(work, vocab_size), processor.encode(strings))


@pytest.mark.parametrize("vocab_size", [512, 3000])
def test_round_trip(work, strings, vocab_size):
    """Only U+2581 is lost: it comes back as a space."""
    decoded = [answer["decoded"] for answer in ours(work, vocab_size)]
    assert decoded == [text.replace("▁", " ") for text in strings]


@pytest.mark.parametrize("vocab_size", [512, 3000])
def test_tokenizers(work, strings, vocab_size):
    tokenizer = tokenizers.Tokenizer.from_file(str(work / f"tokenizer-{vocab_size}.json"))
    tokenizer.encode_special_tokens = True  # a literal "<s>" in text stays text
    encodings = tokenizer.encode_batch(strings)
    assert_same_ids(strings, ours(work, vocab_size), [encoding.ids for encoding in encodings])
    decoded = tokenizer.decode_batch([encoding.ids for encoding in encodings], skip_special_tokens=False)
    assert decoded == [text.replace("▁", " ") for text in strings]


@pytest.mark.parametrize("vocab_size", [512, 3000])
def test_form_is_the_library_s_own(work, vocab_size):
    text = (work / f"tokenizer-{vocab_size}.json").read_text(encoding="utf-8")
    assert json.loads(tokenizers.Tokenizer.from_str(text).to_str()) == json.loads(text)


@pytest.mark.parametrize("name", ["qwen3", "llama"])
def test_auto_tokenizer(work, strings, name):
    tokenizer = transformers.AutoTokenizer.from_pretrained(work / "hf" / name)
    assert len(tokenizer) == 512
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id, tokenizer.pad_token_id) == (1, 2, 0, 3)
    assert tokenizer.model_max_length == 256
    assert_same_ids(strings, ours(work, 512), tokenizer(strings)["input_ids"])


def test_bos_when_asked_for(work):
    plain = transformers.AutoTokenizer.from_pretrained(work / "hf" / "qwen3")
    with_bos = transformers.AutoTokenizer.from_pretrained(work / "hf" / "bos")
    for text in ["", "x y", "<s>"]:
        assert with_bos(text)["input_ids"] == [1] + plain(text)["input_ids"]
        assert with_bos(text, add_special_tokens=False)["input_ids"] == plain(text)["input_ids"]


def test_tokenizer_model_in_the_folder(work, strings):
    assert (work / "hf" / "qwen3" / "tokenizer.model").read_bytes() == (work / "tokenizer-512.model").read_bytes()


def test_bos_and_chat_of_an_imported_model(work, strings):
    tokenizer = transformers.AutoTokenizer.from_pretrained(work / "hf" / "chat")
    special = [piece for piece in tokenizer.get_vocab() if piece.startswith("<") and piece.endswith(">")]
    texts = [(text, answer["ids"]) for text, answer in zip(strings, ours(work, 512), strict=True) if not any(piece in text for piece in special)]
    assert len(texts) > 5000
    for (text, ids), theirs in zip(texts, tokenizer([text for text, _ in texts])["input_ids"], strict=True):
        assert theirs == [1, *ids], text
    chat = [{"role": "user", "content": "one two"}, {"role": "assistant", "content": "three"}]
    ids = tokenizer.apply_chat_template(chat, tokenize=True, return_dict=False)
    assert ids.count(2) == 2 and ids[-1] == 2  # the template's end of text is the piece, not three characters
    assert tokenizer.decode(ids) == "user: one two</s>assistant: three</s>"
