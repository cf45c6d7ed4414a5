"""Crawls and Parquet as FastWARC and pyarrow read them: equal documents, from sound files and from cut ones."""

import gzip
import json
import random
import subprocess

import pyarrow
import pyarrow.parquet
import pytest
from fastwarc.warc import ArchiveIterator, WarcRecordType

from conftest import BUILD


def read_documents(kind, path, text="text"):
    done = subprocess.run([BUILD / "tests" / "read_documents", kind, text, path], capture_output=True, text=True)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return done, lines[:-1], lines[-1] if lines else {}


def made_records(count=60):
    """Responses among requests; bodies of several lengths, in chunks and packed, with their text in UTF-8."""
    rng = random.Random(7)
    records = []
    for number in range(count):
        words = " ".join(rng.choice(["alpha", "beta", "d\u00e9j\u00e0", "\u65e5\u672c", "\r\n\r\n", "WARC/1.0"]) for _ in range(rng.choice([3, 300, 8000])))
        body = f"<html><body><p>{number} {words}</p></body></html>".encode()
        headers = "Content-Type: text/html; charset=utf-8\r\n"
        if number % 5 == 1:
            body, headers = gzip.compress(body), headers + "Content-Encoding: gzip\r\n"
        if number % 5 == 2:
            half = len(body) // 2
            body = b"%x\r\n%s\r\n%x\r\n%s\r\n0\r\n\r\n" % (half, body[:half], len(body) - half, body[half:])
            headers += "Transfer-Encoding: chunked\r\n"
        for kind, block in (("request", b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n"), ("response", f"HTTP/1.1 200 OK\r\n{headers}\r\n".encode() + body)):
            head = (f"WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Record-ID: <urn:uuid:{kind}-{number}>\r\nWARC-Target-URI: http://example.com/{number}\r\n"
                    f"Content-Type: application/http; msgtype={kind}\r\nContent-Length: {len(block)}\r\n\r\n")
            records.append(head.encode() + block + b"\r\n\r\n")
    return records


def fastwarc_documents(path):
    found = []
    for record in ArchiveIterator(str(path), record_types=WarcRecordType.response, parse_http=True, auto_decode="all", fsspec_args=False):
        found.append({"id": record.record_id, "text": record.reader.read().decode(), "url": record.headers["WARC-Target-URI"]})
    return found


@pytest.mark.parametrize("packing", ["plain", "by-record", "whole"])
def test_warc(tmp_path, packing):
    records = made_records()
    path = tmp_path / ("x.warc" if packing == "plain" else "x.warc.gz")
    path.write_bytes(b"".join(records) if packing == "plain" else b"".join(map(gzip.compress, records)) if packing == "by-record" else gzip.compress(b"".join(records)))
    done, ours, counts = read_documents("warc", path)
    assert done.returncode == 0, done.stderr
    assert len(ours) == 60 and ours == fastwarc_documents(path)
    assert counts == {"passed": {"type request": 60}, "bad": {}}


@pytest.mark.parametrize("packing", ["plain", "by-record", "whole"])
def test_cut_warc(tmp_path, packing):
    """The records before the cut are the same; the one that is cut is counted."""
    records = made_records()
    sound = tmp_path / "sound.warc"
    sound.write_bytes(b"".join(records))
    whole = sound.read_bytes() if packing == "plain" else b"".join(map(gzip.compress, records)) if packing == "by-record" else gzip.compress(sound.read_bytes())
    path = tmp_path / ("x.warc" if packing == "plain" else "x.warc.gz")
    path.write_bytes(whole[: len(whole) * 2 // 3])
    done, ours, counts = read_documents("warc", path)
    assert done.returncode == 0, done.stderr
    assert counts["bad"] == {"cut short": 1}
    assert 10 < len(ours) < 60 and ours == fastwarc_documents(sound)[: len(ours)]


@pytest.mark.parametrize("codec", ["zstd", "snappy", "gzip"])
def test_parquet(tmp_path, codec):
    rng = random.Random(3)
    texts = [None if i % 17 == 0 else "".join(rng.choice("ab \n\"\\\u00e9\u65e5\U0001F600\x01") for _ in range(rng.choice([0, 1, 50, 3000]))) for i in range(1500)]
    for number, column in enumerate([pyarrow.array(texts), pyarrow.array(texts, pyarrow.large_string()), pyarrow.array(texts).dictionary_encode()]):
        path = tmp_path / f"{number}.parquet"
        table = pyarrow.table({"id": [f"d{i}" for i in range(len(texts))], "text": column, "url": [f"http://example.com/{i}" for i in range(len(texts))]})
        pyarrow.parquet.write_table(table, path, compression=codec, row_group_size=600)
        done, ours, counts = read_documents("parquet", path)
        assert done.returncode == 0, done.stderr
        rows = pyarrow.parquet.read_table(path).to_pylist()
        assert ours == [row for row in rows if row["text"]]
        assert counts == {"passed": {"empty": len(rows) - len(ours)}, "bad": {}}


def test_damaged_parquet(tmp_path):
    path = tmp_path / "x.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"text": ["x" * 1000] * 100}), path, compression="none")
    whole = path.read_bytes()
    for damaged in (whole[:-1], whole[: len(whole) // 2], b"PAR1" + bytes(100) + b"PAR1", b""):
        path.write_bytes(damaged)
        assert read_documents("parquet", path)[0].returncode == 3
