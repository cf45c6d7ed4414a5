"""The quality rules on 1,500 documents of Debian's manuals, ours beside datatrove's: words, values and decisions.

    quality_parity.py make WORK                            downloads five Debian packages, extracts their pages, writes WORK/documents.jsonl
    quality_parity.py compare WORK --ours QUALITY_VALUES   runs both, prints what is equal, ends with 1 below the bar

Needs datatrove 0.10.1, spacy 3.8, "xxhash<4", tokenizers, resiliparse. The packages are those of Debian 12.
"""
import argparse
import difflib
import glob
import gzip
import hashlib
import json
import math
import os
import subprocess
import sys

PACKAGES = ("anarchism", "python3.11-doc", "perl-doc", "postgresql-doc-15", "debian-handbook")
DOCUMENTS, CHARACTERS = 1500, 20_000
BAR_TOGETHER, BAR_EACH, BAR_WORDS = 0.999, 0.996, 0.998
NAMES = {"gopher_short_doc": "words", "gopher_long_doc": "words", "gopher_below_avg_threshold": "mean_word_length", "gopher_above_avg_threshold": "mean_word_length",
         "gopher_too_many_hashes": "hash_ratio", "gopher_too_many_ellipsis": "ellipsis_ratio", "gopher_too_many_bullets": "bullet_line_ratio",
         "gopher_too_many_end_ellipsis": "ellipsis_line_ratio", "gopher_below_alpha_threshold": "alpha_word_ratio", "gopher_enough_stop_words": "stop_words",
         "dup_para_frac": "dup_paragraph_ratio", "dup_para_char_frac": "dup_paragraph_char_ratio", "dup_line_frac": "dup_line_ratio", "dup_line_char_frac": "dup_line_char_ratio",
         "too_few_sentences": "sentences", **{f"duplicated_{n}_n_grams": f"dup_{n}_gram" for n in range(5, 11)}}


def make(work):
    from resiliparse.extract.html2text import extract_plain_text
    os.makedirs(work, exist_ok=True)
    subprocess.run(["apt-get", "download", *PACKAGES], cwd=work, check=True)
    pages = []
    for package in PACKAGES:
        subprocess.run(["dpkg-deb", "-x", *glob.glob(f"{work}/{package}_*.deb"), f"{work}/{package}"], check=True)
        found = sorted(path for path in glob.glob(f"{work}/{package}/**/*.htm*", recursive=True) if os.path.isfile(path))
        share = max(1, math.ceil(len(found) * len(PACKAGES) / (2 * DOCUMENTS)))  # more than are needed: some hold no text
        pages += [(package, path) for path in found[::share]]
    written = 0
    with open(f"{work}/documents.jsonl", "w", encoding="utf-8") as out:
        for package, path in sorted(pages, key=lambda page: hashlib.sha256(os.path.relpath(page[1], work).encode()).digest()):
            with gzip.open(path) if path.endswith(".gz") else open(path, "rb") as page:
                text = extract_plain_text(page.read().decode("utf-8", "replace"), main_content=True, alt_texts=False)[:CHARACTERS]
            if text.strip() and written < DOCUMENTS:
                out.write(json.dumps({"id": os.path.relpath(path, work), "source": package, "text": text}) + "\n")
                written += 1
    print(f"{written} documents in {work}/documents.jsonl")


def filters():
    from datatrove.pipeline import filters as theirs
    units = {"gopher_repetition": theirs.GopherRepetitionFilter, "gopher_quality": theirs.GopherQualityFilter, "c4": theirs.C4QualityFilter, "fineweb": theirs.FineWebQualityFilter}
    made = {name: unit(language="eng") for name, unit in units.items()}
    for unit in made.values():
        unit.stat_update = lambda *a, **k: None
    return made


def repetition_values(text, words):
    """Gopher's values, by datatrove's own functions."""
    import re

    from datatrove.pipeline.filters import gopher_repetition_filter as theirs
    values = {}
    for name, pieces in (("paragraph", re.split(r"\n{2,}", text.strip())), ("line", re.split("\n+", text))):
        count, characters = theirs.find_duplicates(pieces)
        values[f"dup_{name}_ratio"], values[f"dup_{name}_char_ratio"] = count / len(pieces), characters / len(text)
    for n in (2, 3, 4):
        if len(words) >= n:
            values[f"top_{n}_gram"] = theirs.find_top_duplicate(theirs.get_n_grams(words, n)) / len(text)
    for n in range(5, 11):
        values[f"dup_{n}_gram"] = theirs.find_all_duplicate(words, n) / len(text)
    return values


def compare(work, ours):
    from datatrove.data import Document
    from datatrove.utils.text import split_into_parts, split_into_words
    from datatrove.utils.word_tokenizers import load_word_tokenizer
    load_word_tokenizer("eng").word_tokenize("Warm up.")
    units = filters()
    with open(f"{work}/documents.jsonl", encoding="utf-8") as lines:
        documents = [json.loads(line) for line in lines]
    rows = [json.loads(line) for line in subprocess.run([ours, f"{work}/documents.jsonl"], check=True, capture_output=True, text=True).stdout.splitlines()]
    assert [row["id"] for row in rows] == [document["id"] for document in documents]
    verdicts, reasons = dict.fromkeys(units, 0), dict.fromkeys(units, 0)
    together = equal_words = num_words = equal_values = num_values = equal_texts = kept_texts = 0
    for document, row in zip(documents, rows):
        split_into_parts.cache_clear()
        text, words, keeps = document["text"], split_into_words(document["text"], "eng"), {}
        for name, unit in units.items():
            seen = Document(text=text, id="0")
            try:
                result = unit.filter(seen)
            except ZeroDivisionError:
                result = (False, "undefined")
            reason = "keep" if result is True else NAMES.get(result[1], result[1])
            keeps[name] = result is True
            mine = row["decisions"][name]
            verdicts[name] += (mine == "keep") == (result is True)
            reasons[name] += mine == reason
            if name == "c4" and result is True:
                kept_texts += 1
                equal_texts += row["c4_sha256"] == hashlib.sha256(seen.text.encode()).hexdigest()
        by_words = ("gopher_repetition", "gopher_quality", "fineweb")
        together += all(keeps[name] for name in by_words) == all(row["decisions"][name] == "keep" for name in by_words)
        num_words += len(words)
        equal_words += len(words) if words == row["words"] else sum(block.size for block in difflib.SequenceMatcher(None, words, row["words"], autojunk=False).get_matching_blocks())
        for name, value in repetition_values(text, words).items():
            num_values += 1
            equal_values += row["rules"].get(name) == value
    shares = {"words": equal_words / num_words, "together": together / len(rows), **{name: count / len(rows) for name, count in verdicts.items()}}
    print(json.dumps({"documents": len(rows), "words": num_words, "equal": {name: round(share, 6) for name, share in shares.items()},
                      "same_reason": {name: round(count / len(rows), 6) for name, count in reasons.items()},
                      "repetition_values_to_the_last_bit": [equal_values, num_values], "c4_texts": [equal_texts, kept_texts]}, indent=1))
    return shares["words"] >= BAR_WORDS and shares["together"] >= BAR_TOGETHER and all(shares[name] >= BAR_EACH for name in units)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("make", "compare"))
    parser.add_argument("work")
    parser.add_argument("--ours", default="build/release/tests/corpus/parity/quality_values")
    args = parser.parse_args()
    if args.what == "make":
        make(args.work)
    else:
        sys.exit(0 if compare(args.work, args.ours) else 1)


if __name__ == "__main__":
    main()
