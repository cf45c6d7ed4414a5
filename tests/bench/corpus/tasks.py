"""A corpus by one task and by two at once, a thread each, in turns: wall time, and that the bytes are the same.

    COPPICE=build/release/coppice tasks.py DOCUMENTS.jsonl --files 16 --repeat 4 --rounds 5

The documents are dealt to --files input files, --repeat times over, each time with every paragraph's words turned further round (so that they are no copies), and go through quality rules,
personal data, copies and n-grams of a benchmark. `apart` is what the machine can give at most: two corpora of half the files each, at once, that know nothing of each other.
One JSON line: median seconds of each, and their ratios to one task.
"""
import argparse
import filecmp
import json
import os
import pathlib
import statistics
import subprocess
import tempfile
import time

COPPICE = os.environ.get("COPPICE", pathlib.Path(__file__).resolve().parents[3] / "build" / "release" / "coppice")


def turned(text, share):
    lines = []
    for line in text.split("\n"):
        words = line.split(" ")
        first = int(share * len(words))
        lines.append(" ".join(words[first:] + words[:first]))
    return "\n".join(lines)


def deal(documents, count, repeat, folder):
    texts = [json.loads(line)["text"] for line in open(documents, encoding="utf-8")]
    files = [open(folder / f"{i:03d}.jsonl", "w", encoding="utf-8") for i in range(count)]
    for turn in range(repeat):
        for number, text in enumerate(texts):
            print(json.dumps({"id": f"{turn}-{number}", "text": turned(text, turn / repeat)}), file=files[number % count])
    for file in files:
        file.close()


def recipe(path, inputs, benchmark):
    path.write_text(f"""[data]
memory = "200MB"
threads = 1
source = [{{ name = "text", path = "{inputs}" }}]
step = [{{ kind = "quality" }}, {{ kind = "pii" }}, {{ kind = "dedup" }}, {{ kind = "decontaminate", benchmarks = "{benchmark}" }}]
""")
    return path


def at_once(commands):
    begin = time.monotonic()
    running = [subprocess.Popen([COPPICE, "data", "run", *map(str, command)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for command in commands]
    codes = [process.wait() for process in running]
    if any(codes):
        raise SystemExit(f"coppice ended with {codes}")
    return time.monotonic() - begin


def same(a, b):
    names = sorted(path.relative_to(a) for path in a.rglob("*") if path.is_file())
    return names == sorted(path.relative_to(b) for path in b.rglob("*") if path.is_file()) and not filecmp.cmpfiles(a, b, names, shallow=False)[1]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("documents")
    parser.add_argument("--files", type=int, default=16)
    parser.add_argument("--repeat", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        for part in ("all", "first", "second"):
            (folder / part).mkdir()
        deal(args.documents, args.files, args.repeat, folder / "all")
        for number, path in enumerate(sorted((folder / "all").iterdir())):
            os.link(path, folder / ("second" if number % 2 else "first") / path.name)
        benchmark = folder / "benchmark.jsonl"
        benchmark.write_text('{"text": "a sentence of nine words that stands in no document of these"}\n')
        whole, first, second = (recipe(folder / f"{part}.toml", folder / part, benchmark) for part in ("all", "first", "second"))
        times, equal = {"one": [], "two": [], "apart": []}, True
        for turn in range(args.rounds):
            out = {part: folder / f"{turn}-{part}" for part in ("one", "two", "first", "second")}
            for case in list(times)[:: -1 if turn % 2 else 1]:
                commands = {"one": [(whole, "--out", out["one"])],
                            "two": [(whole, "--out", out["two"], "--task", f"{task}/2", "--wait") for task in (0, 1)],
                            "apart": [(first, "--out", out["first"]), (second, "--out", out["second"])]}[case]
                times[case].append(at_once(commands))
            equal &= same(out["one"], out["two"])
        ratios = {case: sorted(one / other for one, other in zip(times["one"], times[case])) for case in ("two", "apart")}
        print(json.dumps({"case": "tasks", "files": args.files, "rounds": args.rounds, **{f"{case}_s": round(statistics.median(values), 2) for case, values in times.items()},
                          "two_ratio": round(statistics.median(ratios["two"]), 3), "two_low": round(ratios["two"][0], 3), "two_high": round(ratios["two"][-1], 3),
                          "apart_ratio": round(statistics.median(ratios["apart"]), 3), "same_bytes": equal}))


if __name__ == "__main__":
    main()
