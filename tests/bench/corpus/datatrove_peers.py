"""datatrove on one core, on the user's own documents: the steps that `pii` and `decontaminate` do.

    datatrove_peers.py pii DOCUMENTS.jsonl
    datatrove_peers.py decontaminate DOCUMENTS.jsonl BENCHMARK.jsonl     its 12-grams of the items' texts
    datatrove_peers.py make-benchmark DOCUMENTS.jsonl --items 20000      passages of 8 to 60 words as items {"text"}, on stdout

Needs datatrove, spacy, tokenizers, "xxhash<4". Processor time; one JSON line a case, read by pair.py; MB are UTF-8 bytes of text.
"""
import argparse
import json
import logging
import random
import statistics
import time
import warnings

warnings.simplefilter("ignore")
logging.disable(logging.CRITICAL)


def texts_of(path, limit=float("inf")):
    texts, size = [], 0
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            texts.append(json.loads(line)["text"])
            size += len(texts[-1].encode())
            if size > limit:
                break
    return texts


def timed(case, work, texts, repeats, **more):
    megabytes = sum(len(text.encode()) for text in texts) / 1e6
    times = []
    for _ in range(repeats):
        begin = time.process_time()
        for text in texts:
            work(text)
        times.append(time.process_time() - begin)
    middle = statistics.median(times)
    print(json.dumps({"case": case, "median_s": middle, "mb": megabytes, "mb_per_s": round(megabytes / middle, 3), **more}), flush=True)


def pii(args):
    from datatrove.pipeline.formatters import PIIFormatter
    timed("pii", PIIFormatter().format, texts_of(args.input, args.limit_mb * 1e6), args.repeats)


def decontaminate(args):
    import tempfile

    from datatrove.data import Document
    from datatrove.pipeline.decont.n_grams import NGramsDecontFilter
    from datatrove.utils.text import ngrams, simplify_text
    step = NGramsDecontFilter(index_folder=tempfile.mkdtemp())
    step.stat_update = lambda *a, **k: None
    words = lambda text: step.tokenizer.word_tokenize(simplify_text(text, step.config.norm_config))
    step._index_hashes = {step.hash_func(" ".join(gram)): "task" for text in texts_of(args.benchmark)[: args.index_items] for gram in ngrams(words(text), step.config.n_grams)}
    timed("decontaminate", lambda text: step.filter(Document(text=text, id="0")), texts_of(args.input, args.limit_mb * 1e6), args.repeats, ngrams=len(step._index_hashes))


def make_benchmark(args):
    draw, texts = random.Random(1), [text.split() for text in texts_of(args.input)]
    texts = [words for words in texts if len(words) > 100]
    for _ in range(args.items):
        words = draw.choice(texts)
        begin, count = draw.randrange(len(words) - 60), draw.randint(8, 60)
        print(json.dumps({"text": " ".join(words[begin:begin + count])}))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["pii", "decontaminate", "make-benchmark"])
    parser.add_argument("input")
    parser.add_argument("benchmark", nargs="?")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--limit-mb", type=float, default=5)
    parser.add_argument("--items", type=int, default=20000)
    parser.add_argument("--index-items", type=int, default=2000)
    args = parser.parse_args()
    {"pii": pii, "decontaminate": decontaminate, "make-benchmark": make_benchmark}[args.what](args)


if __name__ == "__main__":
    main()
