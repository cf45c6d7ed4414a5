#!/usr/bin/env python3
"""Small good inputs for every fuzz target: python3 make_seeds.py FOLDER RECIPES. The standard library alone."""

import gzip
import hashlib
import json
import pathlib
import shutil
import struct
import sys


def text(value):
    value = value if isinstance(value, bytes) else value.encode()
    return struct.pack("<Q", len(value)) + value


def safetensors(tensors):
    header, data = {"__metadata__": {"format": "pt"}}, b""
    for name, (dtype, shape, size) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + size]}
        data += bytes(size)
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    return struct.pack("<Q", len(head)) + head + data


def value(item):
    """Type number and bytes of a metadata value."""
    if isinstance(item, bool):
        return 7, struct.pack("<B", item)
    if isinstance(item, int):
        return 4, struct.pack("<I", item)
    if isinstance(item, float):
        return 6, struct.pack("<f", item)
    if isinstance(item, str):
        return 8, text(item)
    kind = {str: 8, float: 6, int: 5}[type(item[0])]
    packed = b"".join(text(one) if kind == 8 else struct.pack("<f" if kind == 6 else "<i", one) for one in item)
    return 9, struct.pack("<IQ", kind, len(item)) + packed


def gguf(pairs, tensors):
    """tensors: name -> (ne, type, bytes)."""
    out = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(pairs))
    for key, item in pairs.items():
        kind, packed = value(item)
        out += text(key) + struct.pack("<I", kind) + packed
    data = b""
    for name, (ne, kind, size) in tensors.items():
        out += text(name) + struct.pack("<I", len(ne)) + b"".join(struct.pack("<Q", n) for n in ne) + struct.pack("<IQ", kind, len(data))
        data += bytes(size + -size % 32)
    return out + bytes(-len(out) % 32) + data


def model_gguf(architecture, tokenizer, more=()):
    sizes = {"block_count": 1, "context_length": 64, "embedding_length": 32, "feed_forward_length": 32, "attention.head_count": 2,
             "attention.head_count_kv": 1, "attention.key_length": 8, "attention.value_length": 8, "attention.layer_norm_rms_epsilon": 1e-5,
             "rope.freq_base": 10000.0, "rope.dimension_count": 8}
    pairs = {"general.architecture": architecture, "general.name": "seed", "general.base_model.count": 1, "general.base_model.0.name": "base"}
    pairs |= {f"{architecture}.{key}": item for key, item in sizes.items()} | tokenizer
    tensors = {"token_embd.weight": ([32, len(tokenizer["tokenizer.ggml.tokens"])], 8, 34 * len(tokenizer["tokenizer.ggml.tokens"]))}
    tensors |= {f"blk.0.{name}.weight": (ne, 0, 4 * ne[0] * (ne[1] if len(ne) > 1 else 1)) for name, ne in
                {"attn_norm": [32], "attn_q": [32, 16], "attn_k": [32, 8], "attn_v": [32, 8], "attn_output": [16, 32], "ffn_norm": [32],
                 "ffn_gate": [32, 32], "ffn_up": [32, 32], "ffn_down": [32, 32]}.items()}
    tensors["output_norm.weight"] = ([32], 0, 128)
    return gguf(pairs | dict(more), tensors)


def byte_alphabet():
    """GPT-2's printable characters for the 256 bytes."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    return [chr(byte) if byte in plain else chr(next(others)) for byte in range(256)]


def byte_level():
    tokens = ["<eos>", *byte_alphabet(), "ab", "\u0120a"]
    return {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "gpt-2", "tokenizer.ggml.tokens": tokens, "tokenizer.ggml.merges": ["a b", "\u0120 a"],
            "tokenizer.ggml.token_type": [3] + [1] * (len(tokens) - 1), "tokenizer.ggml.eos_token_id": 0, "tokenizer.ggml.add_bos_token": False}


def pieces():
    """Text, score, type: as our trainer numbers them."""
    special = [("<unk>", 0.0, 2), ("<s>", 0.0, 3), ("</s>", 0.0, 3), ("<pad>", 0.0, 3)]
    return special + [(f"<0x{byte:02X}>", 0.0, 6) for byte in range(256)] + [("\u2581", -1.0, 1), ("a", -2.0, 1), ("\u2581a", -3.0, 1)]


def sentencepiece_gguf():
    texts, scores, kinds = map(list, zip(*pieces()))
    return {"tokenizer.ggml.model": "llama", "tokenizer.ggml.tokens": texts, "tokenizer.ggml.scores": scores, "tokenizer.ggml.token_type": kinds,
            "tokenizer.ggml.bos_token_id": 1, "tokenizer.ggml.eos_token_id": 2, "tokenizer.ggml.add_space_prefix": False, "tokenizer.chat_template": "{{ x }}"}


def varint(number):
    out = b""
    while number >= 128:
        out += bytes([number % 128 | 128])
        number //= 128
    return out + bytes([number])


def field(number, packed):
    if isinstance(packed, int):
        return varint(number << 3) + varint(packed)
    if isinstance(packed, float):
        return varint(number << 3 | 5) + struct.pack("<f", packed)
    return varint(number << 3 | 2) + varint(len(packed)) + packed


def sentencepiece():
    out = b"".join(field(1, field(1, piece.encode()) + field(2, score) + field(3, kind)) for piece, score, kind in pieces())
    trainer = field(3, 2) + field(35, 1) + field(40, 0) + field(41, 1) + field(42, 2) + field(43, 3)  # BPE, byte fallback, ids
    normalizer = field(1, b"identity") + field(3, 0) + field(4, 0) + field(5, 1)
    return out + field(2, trainer) + field(3, normalizer)


def tokenizer_json(pre_tokenizer):
    tokens = ["<eos>", *byte_alphabet(), "ab", "\u0120a"]
    return json.dumps({"version": "1.0", "truncation": None, "padding": None,
                       "added_tokens": [{"id": 0, "content": "<eos>", "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}],
                       "normalizer": None, "pre_tokenizer": pre_tokenizer, "post_processor": None,
                       "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
                       "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None,
                                 "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
                                 "vocab": {token: number for number, token in enumerate(tokens)}, "merges": [["a", "b"], ["\u0120", "a"]]}}).encode()


def warc():
    """Plain, by record and whole in gzip, behind the byte that says so; bodies in chunks, packed, in other charsets."""
    bodies = [("Content-Type: text/html; charset=koi8-r", b"<p>\xf0"), ("Transfer-Encoding: chunked", b"3\r\n<p>\r\n0\r\n\r\n"),
              ("Content-Encoding: gzip", gzip.compress(b"<p>x")), ("X-Robots-Tag: noai", b"<meta charset=gbk><p>\x81\x30\x81\x30")]
    records = []
    for headers, body in bodies:
        block = f"HTTP/1.1 200 OK\r\n{headers}\r\n\r\n".encode() + body
        records.append(f"WARC/1.0\r\nWARC-Type: response\r\nContent-Length: {len(block)}\r\n\r\n".encode() + block + b"\r\n\r\n")
    whole = b"".join(records)
    return [b"\0" + whole, b"\1" + b"".join(map(gzip.compress, records)), b"\1" + gzip.compress(whole), b"\0" + whole[:-30], b"\2(\xb5/\xfd"]
def fasttext(loss, ngrams, bucket, maxn):
    """Two words, two labels, two dimensions."""
    out = struct.pack("<14id", 793712314, 12, 2, 5, 5, 1, 5, ngrams, loss, 3, bucket, 1, maxn, 100, 1e-4) + struct.pack("<3i2q", 4, 2, 2, 9, -1)
    for entry, count, kind in (("a", 5, 0), ("b", 4, 0), ("__label__x", 3, 1), ("__label__y", 2, 1)):
        out += entry.encode() + b"\0" + struct.pack("<qb", count, kind)
    for rows in (2 + bucket, 2):
        out += struct.pack("<Bqq", 0, rows, 2) + struct.pack(f"<{2 * rows}f", *(i / 4 for i in range(2 * rows)))
    return out


def sealed(head):
    return head + hashlib.sha256(head).hexdigest().encode()


def main():
    out, recipes = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
    byte_level_step = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    split = {"type": "Split", "pattern": {"Regex": "(?i:'s|'t)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}|\\s+(?!\\S)|\\s+"}, "behavior": "Isolated", "invert": False}
    templates = ["{%- for m in messages -%}\n {{- '<|im_start|>' + m['role'] + '\\n' + m.content | trim ~ eos_token }}\n{%- endfor %}{% if add_generation_prompt %}<|im_start|>{% endif %}",
                 "{% set ns = namespace(n=0, x='') %}{% for i in range(3) %}{% set ns.n = ns.n + i %}{% endfor %}{# n #}{{ ns.n % 2 == 0 and ns.x is defined }}",
                 "{% set x %}{{ messages[::-1][0].content.split(' ')[-1] }}{% endset %}{{ x[1:] if 'a' in x else raise_exception('no') }}{{ strftime_now('%d %b %Y') }}",
                 "{{ messages | selectattr('role', 'equalto', 'user') | list | length - 1 }}{% if not tools or x %}{% elif y %}{% else %}{% endif %}{% macro f(x) %}{% endmacro %}"]
    lines = ['{"text": "One."}', '{"text": "a\\u00e9\\ud83d\\ude00", "id": 12, "source": "x", "metadata": {"license": "mit", "n": 1e400}, "url": ["a", {"b": null}]}',
             '{"text": "a", "url": "http://x.org/a?b", "date": "2024-01-02", "license": ["MIT", null], "metadata": {"language": "de", "scores": {"s": 0.5}, "a\\u0062": NaN, "x": {"y": [1e400, "\\""]}}}',
             '{"metadata": {"lang\\u0075age": "fr", "language": null}, "path": "a/b.c", "text": "\\ud800 b"}',
             '{"id": "no text"}', '{"text": ["a"]}', "[" * 70]
    pages = [b"<html lang=en><head><title>A &amp; B | C</title><meta name=robots content='index, nofollow'><meta property=og:url content=http://x/></head><body class=main>"
             b"<nav><a href='#x'>n</a></nav><div id=story class='article-body'><h1>A</h1><p>One, two, three and some more words to read.<p hidden>no<ul><li>a<li>b</ul>"
             b"<table summary=s><tr><th>1<td>2</table><pre>a\n b</pre><aside>x</aside></div><div class=comments>c</div><footer>f",
             b"<p><math display=block><mfrac><mi>a</mi><msup><mi>b</mi><mn>2</mn></msup></mfrac></math><script type='math/tex; mode=display'>x^2</script>"
             b"<span class=katex><span class=katex-mathml><math><annotation encoding='application/x-tex'>y</annotation></math></span><span class=katex-html>y</span></span>"
             b"<img src='https://latex.codecogs.com/gif.latex?\\dpi{150}%5Cfrac%7Ba%7D' alt=z><span class=MathJax data-mathml='&lt;math&gt;&lt;mi&gt;q'></span>",
             b"<style>p{}</style>\xff\xc3\x00<p style='display : none'>x&#0;&#x110000;&nbsp;\xcc\x81e\xcc\x81<b><i></b></table></p><!-- <a x=1 x=2 y"]
    seeds = {
        "safetensors": [safetensors({}), safetensors({"a.weight": ("F32", [2, 3], 24), "b": ("BF16", [4], 8), "c": ("F16", [0], 0)})],
        "gguf": [gguf({}, {}), model_gguf("llama", sentencepiece_gguf(), {"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 1.0}.items()),
                 model_gguf("qwen3", byte_level()), model_gguf("qwen2", byte_level(), {"general.alignment": 32}.items())],
        "tokenizer_json": [tokenizer_json(byte_level_step), tokenizer_json({"type": "Sequence", "pretokenizers": [split, byte_level_step | {"use_regex": False}]})],
        "sentencepiece": [sentencepiece()],
        "recipe": [path.read_bytes() for path in sorted(recipes.glob("*.toml"))],
        "document": [line.encode() for line in lines],
        "html": pages,
        "model_card": [b"---\nlicense: other\nlicense_name: 'a b'\nlicense_link: https://example.org/x\nmodel_name: m\nbase_model: [o/m, &a n, *a]\n---\n# m\n",
                       b"\xef\xbb\xbf---\r\nlicense:\r\n- mit\r\n- {a: [!!str 1, ~, 1.5]}\r\n---\r\n", b"# no front matter\n"],
        "warc": warc(),
        "fasttext": [fasttext(1, 2, 7, 3), fasttext(2, 1, 0, 0), fasttext(3, 3, 5, 0), fasttext(4, 1, 3, 4)],
        "classifier": [sealed(b"\x89HDF\r\n\x1a\n" + bytes(range(256)))],
        "selectors": [b".post > p, #a b[c^='d']@data-n\n<div class=post><p data-n=1>a</div><i id=a><b c=de data-n>b", b"[a=b] *\n<table><tr a=b><td>1<td>2"],
        "chat_template": [template.encode() for template in templates],
    }
    for parser, inputs in seeds.items():
        shutil.rmtree(out / parser, ignore_errors=True)
        (out / parser).mkdir(parents=True)
        for number, data in enumerate(inputs):
            (out / parser / f"seed-{number}").write_bytes(data)


main()
