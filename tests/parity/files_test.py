"""Our HDF5 files in h5py: checkpoint parts and token shards hold what they say, readable by any HDF5 program."""

import hashlib
import json

import h5py
import numpy
import sentencepiece
from safetensors.numpy import load_file


def check_seal(path):
    """The manifest's last member is the digest of every byte before it."""
    text = path.read_bytes()
    body, seal = text[: -len(b',"sha256":"') - 64 - 3], text[-64 - 3 : -3]
    assert text == body + b',"sha256":"' + seal + b'"}\n'
    assert hashlib.sha256(body).hexdigest() == seal.decode()
    return json.loads(text)


def check_files(folder, entries):
    for entry in entries:
        data = (folder / entry["name"]).read_bytes()
        assert len(data) == entry["bytes"]
        assert hashlib.sha256(data).hexdigest() == entry["sha256"]


def test_checkpoint_part(work):
    folder = work / "ckpt" / "step-00000005"
    manifest = check_seal(folder / "manifest.json")
    assert (manifest["format"], manifest["version"], manifest["step"]) == ("coppice.checkpoint", 1, 5)
    check_files(folder, manifest["files"])
    expected = load_file(work / "ckpt.safetensors")
    found = {}
    with h5py.File(folder / "part-00000.h5") as part:

        def visit(name, item):
            if isinstance(item, h5py.Dataset):
                assert item.attrs["dtype"] in (b"f32", "f32")
                assert item.chunks is None and item.dtype == numpy.float32
                assert set(item.attrs) == {"dtype"}
                found["/" + name] = item[...]

        part.visititems(visit)
    assert found.keys() == expected.keys()
    assert "/model/layers.1.mlp.up_proj.weight" in found and "/optim/v/norm.weight" in found
    for name, values in found.items():
        assert values.shape == expected[name].shape
        assert values.tobytes() == expected[name].tobytes(), name


def test_token_shards(work):
    manifest = check_seal(work / "tokens" / "manifest.json")
    check_files(work / "tokens", manifest["shards"])
    processor = sentencepiece.SentencePieceProcessor(model_file=str(work / "tokenizer-512.model"))
    lines = (work / "training.txt").read_text(encoding="utf-8").split("\n")[:300]
    documents, ids = [], []
    assert len(manifest["shards"]) > 1
    for entry in manifest["shards"]:
        with h5py.File(work / "tokens" / entry["name"]) as shard:
            tokens, ends = shard["tokens"][...], shard["doc_end"][...]
            assert tokens.dtype == numpy.uint16 and ends.dtype == numpy.uint64
            assert shard["tokens"].fletcher32
            assert len(tokens) == entry["tokens"] == ends[-1]
            documents += [list(document) for document in numpy.split(tokens, ends[:-1].astype(int))]
            ids += list(shard["doc_id"][...])
    assert ids == list(range(1000, 1300))
    assert documents == [processor.encode(line) + [2] for line in lines]
