"""Ids of 10,000 strings: ours, sentencepiece, tokenizers and AutoTokenizer must agree on every one, with our own tokenizers and with odd ones."""

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


# Missing, added and renumbered pieces, with and without a dummy prefix: tests/tokens/tokenizer_models.h. Ids of unk, bos, eos and pad.
TABLE = {
    "ours": (0, 1, 2, 3),
    "dummy_prefix": (0, 1, 2, 3),
    "llama": (0, 1, 2, None),
    "no_bos": (0, None, 1, None),
    "gemma": (3, 2, 1, 0),
    "specials_last": (511, 510, 509, 508),
    "one_end": (0, 7, 7, 7),
    "unk_by_another_name": (100, 0, 1, 2),
    "controls": (0, 1, 2, 5),
    "user_defined": (0, 1, 2, 3),
    "user_defined_and_prefix": (0, 1, 2, 3),
    "unused": (0, 1, 2, 3),
    "other_scores": (0, 1, 2, 3),
    "self_test": (0, 1, 2, 3),
}


def test_the_table_is_whole(work):
    assert json.loads((work / "table" / "names.json").read_text()) == list(TABLE)


@pytest.mark.parametrize("name", TABLE)
def test_odd_tokenizers(work, strings, name):
    processor = sentencepiece.SentencePieceProcessor(model_file=str(work / "table" / f"{name}.model"))
    mine = json.loads((work / "table" / f"{name}-ids.json").read_text(encoding="utf-8"))
    assert_same_ids(strings, mine, processor.encode(strings))
    texts = processor.decode([answer["ids"] for answer in mine])
    assert [answer["decoded"] for answer in mine] == texts == [text.replace("▁", " ") for text in strings]

    exported = tokenizers.Tokenizer.from_file(str(work / "table" / name / "tokenizer.json"))
    exported.encode_special_tokens = True
    assert json.loads(exported.to_str()) == json.loads((work / "table" / name / "tokenizer.json").read_text(encoding="utf-8"))
    assert exported.decode_batch([answer["ids"] for answer in mine], skip_special_tokens=False) == texts
    auto = transformers.AutoTokenizer.from_pretrained(work / "table" / name)
    # One text, and only with user-defined pieces and a dummy prefix: exactly the name of such a piece (see tokenizer_json.cpp).
    user_defined = {"<|im_start|>", "[INST]", "\n\n", "of", "▁▁"} if name == "user_defined_and_prefix" else set()
    kept = [i for i, text in enumerate(strings) if text.replace(" ", "▁") not in user_defined]
    assert len(kept) > 9_900
    kept_strings, kept_mine = [strings[i] for i in kept], [mine[i] for i in kept]
    assert_same_ids(kept_strings, kept_mine, [encoding.ids for encoding in exported.encode_batch(kept_strings)])
    assert_same_ids(kept_strings, kept_mine, auto(kept_strings)["input_ids"])


@pytest.mark.parametrize("name", TABLE)
def test_special_ids_of_odd_tokenizers(work, name):
    auto = transformers.AutoTokenizer.from_pretrained(work / "table" / name)
    assert (auto.unk_token_id, auto.bos_token_id, auto.eos_token_id, auto.pad_token_id) == TABLE[name]
    for config in (transformers.AutoConfig.from_pretrained(work / "table" / name), transformers.GenerationConfig.from_pretrained(work / "table" / name)):
        assert (config.bos_token_id, config.eos_token_id, config.pad_token_id) == TABLE[name][1:]


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
