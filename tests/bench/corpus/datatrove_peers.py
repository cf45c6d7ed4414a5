"""datatrove on one core, on the user's own documents and pages: the steps `pii` and `decontaminate`, and from a WARC file to kept documents.

    datatrove_peers.py pii DOCUMENTS.jsonl
    datatrove_peers.py decontaminate DOCUMENTS.jsonl BENCHMARK.jsonl     its 12-grams of the items' texts
    datatrove_peers.py make-benchmark DOCUMENTS.jsonl --items 20000      passages of 8 to 60 words as items {"text"}, on stdout
    datatrove_peers.py pages CRAWL.warc.gz                               trafilatura, then the four filters in FineWeb's order
    datatrove_peers.py coppice CRAWL.warc.gz                             the same with `coppice data run` ($COPPICE), one thread; to be set beside it by pair.py
    datatrove_peers.py make-crawl PAGES/ > CRAWL.warc.gz                 a WARC file of a folder's pages, a gzip member each

Needs datatrove, spacy, tokenizers, "xxhash<4"; `pages` trafilatura and fastwarc, too. Processor time; one JSON line a case, read by pair.py; MB are UTF-8 bytes of text.
"""
import argparse
import gzip
import json
import logging
import os
import pathlib
import random
import resource
import statistics
import subprocess
import sys
import tempfile
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


def emit_pages(case, times, pages, kept):
    middle = statistics.median(times)
    print(json.dumps({"case": case, "median_s": middle, "pages": pages, "pages_per_s": round(pages / middle, 1), "kept": kept}), flush=True)


def pages(args):
    import trafilatura
    from datatrove.data import Document
    from datatrove.pipeline.filters import C4QualityFilter, FineWebQualityFilter, GopherQualityFilter, GopherRepetitionFilter
    from fastwarc.warc import ArchiveIterator, WarcRecordType
    filters = [GopherRepetitionFilter(), C4QualityFilter(filter_no_terminal_punct=False), GopherQualityFilter(), FineWebQualityFilter()]
    for step in filters:
        step.stat_update = lambda *a, **k: None

    def keeps(text):
        document = Document(text=text, id="0")
        return all(verdict is True or isinstance(verdict, tuple) and verdict[0] for verdict in (step.filter(document) for step in filters))

    times = []
    for _ in range(args.repeats):
        begin, count, kept = time.process_time(), 0, 0
        with open(args.input, "rb") as stream:
            for record in ArchiveIterator(stream, record_types=WarcRecordType.response):
                text = trafilatura.extract(record.reader.read(), include_comments=False)
                count, kept = count + 1, kept + bool(text and keeps(text))
        times.append(time.process_time() - begin)
    emit_pages("pages", times, count, kept)


def coppice(args):
    times = []
    for _ in range(args.repeats):
        with tempfile.TemporaryDirectory() as folder:
            recipe = pathlib.Path(folder) / "corpus.toml"
            recipe.write_text(f'''[data]
threads = 1
source = [{{ name = "crawl", path = "{os.path.abspath(args.input)}" }}]
step = [{{ kind = "extract" }}, {{ kind = "quality", rules = ["gopher_repetition", "c4", "gopher_quality", "fineweb"], terminal = false }}]
''')
            begin = resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run([os.environ["COPPICE"], "--quiet", "data", "run", recipe, "--out", recipe.parent / "out"], check=True, stdout=subprocess.DEVNULL)
            end = resource.getrusage(resource.RUSAGE_CHILDREN)
            times.append(end.ru_utime + end.ru_stime - begin.ru_utime - begin.ru_stime)
            report = json.loads((recipe.parent / "out/report.json").read_text())
    emit_pages("coppice", times, report["in"]["documents"], report["out"]["documents"])


def make_crawl(args):
    files = sorted(file for file in pathlib.Path(args.input).rglob("*.html") if file.is_file())
    for number, file in enumerate(random.Random(1).sample(files, min(args.items, len(files)))):
        http = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n" + file.read_bytes()
        head = (f"WARC/1.0\r\nWARC-Type: response\r\nWARC-Record-ID: <urn:uuid:00000000-0000-4000-8000-{number:012d}>\r\nWARC-Date: 2026-01-31T00:00:00Z\r\n"
                f"WARC-Target-URI: https://example.org/{number}\r\nContent-Type: application/http; msgtype=response\r\nContent-Length: {len(http)}\r\n\r\n")
        sys.stdout.buffer.write(gzip.compress(head.encode() + http + b"\r\n\r\n"))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["pii", "decontaminate", "make-benchmark", "pages", "coppice", "make-crawl"])
    parser.add_argument("input")
    parser.add_argument("benchmark", nargs="?")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--limit-mb", type=float, default=5)
    parser.add_argument("--items", type=int, default=20000)
    parser.add_argument("--index-items", type=int, default=2000)
    args = parser.parse_args()
    {"pii": pii, "decontaminate": decontaminate, "make-benchmark": make_benchmark, "pages": pages, "coppice": coppice, "make-crawl": make_crawl}[args.what](args)


if __name__ == "__main__":
    main()
