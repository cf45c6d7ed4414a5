"""datatrove's MinHash and ours over 20,000 documents with planted copies of known similarity: clusters connected, nothing verified, as datatrove does it. Their
hash functions differ, so pairs of middling similarity may be caught by one alone; as many are as the curve says, and everything else agrees."""

import json
import math
import random
import subprocess

import pytest
from conftest import BUILD

minhash = pytest.importorskip("datatrove.pipeline.dedup.minhash", reason="datatrove is not installed")

DOCUMENTS, WORDS, SHINGLES, FILES = 20_000, 120, 116, 4
CHANGED = (0, 2, 6, 10, 14, 19, 25, 32, 38, 70)  # words at the beginning that are drawn anew: similarity (116 - c) / (116 + c)


def similarity(changed):
    return (SHINGLES - changed) / (SHINGLES + changed)


def texts():
    """{number: text}: every fifth document is followed by a copy of it, number + 1, with so many words changed."""
    draw = random.Random(7)
    vocabulary = ["".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=draw.randint(3, 9))) for _ in range(20_000)]
    made = {}
    for number in range(DOCUMENTS):
        words = draw.choices(vocabulary, k=WORDS)
        if number % 5 == 1:
            changed = CHANGED[number // 5 % len(CHANGED)]
            words[changed:] = made[number - 1][changed:]
        made[number] = words
    return {number: " ".join(words) for number, words in made.items()}


def removed_by_datatrove(files, folder):
    from datatrove.data import Document

    config = minhash.MinhashConfig()
    for rank, documents in enumerate(files):
        step = minhash.MinhashDedupSignature(output_folder=str(folder / "signatures"), config=config, language="eng")
        step.run([Document(text=text, id=str(number)) for number, text in documents], rank=rank, world_size=len(files))
    for rank in range(config.num_buckets):
        minhash.MinhashDedupBuckets(input_folder=str(folder / "signatures"), output_folder=str(folder / "buckets"), config=config).run(rank=rank, world_size=config.num_buckets)
    minhash.MinhashDedupCluster(input_folder=str(folder / "buckets"), output_folder=str(folder / "removed"), config=config).run(world_size=1)
    removed = set()
    for rank, documents in enumerate(files):
        places = (folder / "removed" / f"{rank:06d}.remove").read_bytes()
        removed |= {documents[int.from_bytes(places[i:i + 4], "little")][0] for i in range(0, len(places), 4)}
    return removed


def removed_by_coppice(files, folder):
    for rank, documents in enumerate(files):
        (folder / "documents").mkdir(exist_ok=True)
        (folder / "documents" / f"{rank}.jsonl").write_text("".join(json.dumps({"id": str(number), "text": text}) + "\n" for number, text in documents))
    (folder / "options.toml").write_text('cluster = "connected"\nverify = "none"\n')
    lines = subprocess.run([BUILD / "tests" / "parity_dedup", folder / "options.toml", str(10**8), folder / "documents", folder / "work"],
                           check=True, capture_output=True, text=True).stdout.splitlines()
    return {int(line.split("\t")[0]) for line in lines}


def test_the_same_documents_go_as_with_datatrove(tmp_path):
    everything = list(texts().items())
    files = [everything[i * DOCUMENTS // FILES:(i + 1) * DOCUMENTS // FILES] for i in range(FILES)]
    theirs, ours = removed_by_datatrove(files, tmp_path), removed_by_coppice(files, tmp_path)
    assert all(number % 5 == 1 for number in theirs | ours)  # the copies, and nothing else
    differ = {similarity(CHANGED[number // 5 % len(CHANGED)]) for number in theirs ^ ours}
    assert all(0.5 < s < 0.95 for s in differ), differ
    for changed in CHANGED:
        pairs = {number for number in range(1, DOCUMENTS, 5) if CHANGED[number // 5 % len(CHANGED)] == changed}
        s = similarity(changed)
        caught = 1 - (1 - s**8) ** 14
        spread = math.sqrt(caught * (1 - caught) / len(pairs))
        share_ours, share_theirs = len(ours & pairs) / len(pairs), len(theirs & pairs) / len(pairs)
        print(f"similarity {s:.3f}: {len(pairs)} pairs, coppice {share_ours:.3f}, datatrove {share_theirs:.3f}, curve {caught:.3f}")
        assert abs(share_ours - caught) <= 3 * spread + 1e-9
        assert abs(share_theirs - caught) <= 3 * spread + 1e-9
        assert abs(share_ours - share_theirs) <= 3 * math.sqrt(2) * spread + 1e-9
