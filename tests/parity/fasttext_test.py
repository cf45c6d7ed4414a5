"""fastText's own program trains small models, and ours gives the probabilities that it gives: every loss, with and without subwords
and word n-grams, on 1,000 documents. Debian: fasttext."""

import random
import shutil
import subprocess

import pytest
from conftest import BUILD

pytestmark = pytest.mark.skipif(shutil.which("fasttext") is None, reason="Debian's package fasttext is not installed")

LABELS = ["press", "forum", "shop", "code", "verse"]
SEPARATORS = [" ", " ", " ", "  ", "\t", " \x0b", "\x00", "\r "]


def documents(count, seed):
    """(label, text): words of made-up vocabularies that overlap, in several scripts, with labels and rare words among them."""
    draw = random.Random(seed)
    letters = "abcdefghijklmnopqrstuvwxyzéüßжщ文字語한"
    shared = ["".join(draw.choices(letters, k=draw.randint(1, 9))) for _ in range(300)]
    own = {label: ["".join(random.Random(f"{label}{i}").choices(letters, k=5)) for i in range(60)] for label in LABELS}
    for i in range(count):
        label = LABELS[min(i % 9, 4)]
        words = draw.choices(shared, k=draw.randint(0, 60)) + draw.choices(own[label], k=draw.randint(0, 6))
        words += ["".join(draw.choices(letters, k=draw.randint(1, 30))) for _ in range(draw.randint(0, 3))]
        words += draw.choices(["__label__unknown", "__label__shop", "x" * 300], k=1) if i % 50 == 0 else []
        draw.shuffle(words)
        yield label, "".join(word + draw.choice(SEPARATORS) for word in words)


def probabilities(model, texts):
    """{label: probability} of each text, by fastText."""
    out = subprocess.run(["fasttext", "predict-prob", model, "-", "-1"], input="\n".join(texts) + "\n", check=True, capture_output=True, text=True).stdout
    parts = [line.split() for line in out.split("\n")[:-1]]
    return [dict(zip(line[::2], map(float, line[1::2]))) for line in parts]


@pytest.mark.parametrize("flags", [
    ["-loss", "softmax", "-wordNgrams", "2", "-bucket", "5000"],
    ["-loss", "hs", "-minn", "2", "-maxn", "4", "-bucket", "5000"],
    ["-loss", "ns"],
    ["-loss", "ova", "-wordNgrams", "3", "-minn", "1", "-maxn", "3", "-bucket", "777"],
], ids=lambda flags: flags[1])
def test_probabilities_are_those_of_fasttext(flags, tmp_path):
    lines = tmp_path / "lines.txt"
    lines.write_text("".join(f"__label__{label} {text}\n" for label, text in documents(1500, 1)))
    model = str(tmp_path / "model")
    subprocess.run(["fasttext", "supervised", "-input", lines, "-output", model, "-dim", "17", "-epoch", "5", "-lr", "0.5", "-thread", "1", "-minCount", "2", *flags],
                   check=True, capture_output=True)
    texts = [text for _, text in documents(1000, 2)]
    expected = probabilities(model + ".bin", texts)
    out = subprocess.run([BUILD / "tests" / "parity_fasttext", model + ".bin"], input="\n".join(texts) + "\n", check=True, capture_output=True, text=True).stdout
    labels, *rows = out.split("\n")[:-1]
    assert len(rows) == len(expected) == 1000
    compared, worst = 0, 0.0
    for row, peer in zip(rows, expected):
        ours = dict(zip(labels.split(" "), map(float, row.split())))
        assert ours.keys() == peer.keys()
        compared += len(ours)
        worst = max([worst, *(abs(ours[label] - peer[label]) for label in ours)])
    assert compared > 4500
    assert worst <= 1e-5
