"""scripts/label-frontier on a run written by hand: the table, where the picture puts its marks, and what it refuses in one line."""

import json
import pathlib
import subprocess
import sys
import xml.etree.ElementTree as xml

import pytest

SCRIPT = pathlib.Path(__file__).resolve().parents[2] / "scripts" / "label-frontier"
STYLE = "<style>\nsvg .s0{stroke:#123456}\n</style>"
LOSSES = {"kl": (3.0, 3.1), "plain": (3.05, 3.15), "top1": (4.0, 4.2), "top_4": (3.03, 3.15), "top_16": (3.01, 3.12), "top_64": (3.0, 3.11)}
BYTES = {"top1": 250, "top_4": 2000, "top_16": 8000, "top_64": 32000}  # of 125 tokens: 2, 16, 64 and 256 a token


@pytest.fixture
def run(tmp_path):
    arms = [{"name": name, "seeds": [{"seed": seed, "loss": loss, "accuracy": 0.3, "teacher_agreement": 0.7}
                                     for seed, loss in zip((1, 2), losses)]} for name, losses in LOSSES.items()]
    (tmp_path / "ablation.json").write_text(json.dumps({"comparisons": [{"stage": "core", "arms": arms}]}))
    (tmp_path / "ablation.svg").write_text(f"<svg>{STYLE}<rect/></svg>")
    for name, size in BYTES.items():
        for seed in (1, 2):
            folder = tmp_path / name / f"seed-{seed}" / "labels"
            folder.mkdir(parents=True)
            manifest = {"tokens": 125, "results": {"label_bytes": size}} if seed == 1 else {"same_as": f"{name}/seed-1/labels"}
            (folder / "manifest.json").write_text(json.dumps(manifest))
    return tmp_path


def frontier(*arguments):
    return subprocess.run([sys.executable, SCRIPT, *map(str, arguments)], capture_output=True, text=True)


def test_table(run):
    done = frontier(run)
    assert done.returncode == 0, done.stderr
    head, _, *rows = done.stdout.splitlines()
    assert head.startswith("| arm | bytes a token | seeds | loss | behind kl |")
    assert [row.split(" | ")[0][2:] for row in rows] == ["top1", "top_4", "top_16", "top_64", "kl", "plain"]
    # behind under each seed 0.03 and 0.05: sd 0.02 / sqrt 2
    assert rows[1] == "| top_4 | 16.0 | 2 | 3.090 ± 0.085 | 0.0400 ± 0.0141 | 0.0500 | 30.0% ± 0.0 | 70.0% ± 0.0 |"
    assert rows[4] == "| kl | – | 2 | 3.050 ± 0.071 | – | – | 30.0% ± 0.0 | 70.0% ± 0.0 |"
    assert rows[5].startswith("| plain | – | 2 | 3.100 ± 0.071 | 0.0500 ± 0.0000 | 0.0500 |")


def test_picture(run, tmp_path):
    picture = tmp_path / "there.svg"
    assert frontier(run, "--svg", picture).returncode == 0
    assert not (run / "frontier.svg").exists()
    text = picture.read_text()
    assert STYLE in text
    name = "{http://www.w3.org/2000/svg}"
    root = xml.fromstring(text)
    means = [(float(c.get("cx")), float(c.get("cy"))) for c in root.iter(name + "circle") if c.get("r") == "4.5"]
    assert len(means) == 3  # top1 lies beyond the ceiling: named, not drawn
    texts = [t.text for t in root.iter(name + "text")]
    assert "↑ top1 +1.050" in texts and "plain" in texts and "kl" in texts
    (x4, y4), (x16, y16), (x64, y64) = means
    assert x16 - x4 == pytest.approx(x64 - x16, abs=0.2)  # four times the bytes each: equal steps
    assert (y16 - y4) / (y64 - y16) == pytest.approx((0.04 - 0.015) / (0.015 - 0.005), rel=0.02)
    bar = next(l for l in root.iter(name + "line") if l.get("x1") == l.get("x2") == f"{x4:.1f}" and "thick" in l.get("class"))
    nat = (y64 - y4) / (0.04 - 0.005)
    assert abs(float(bar.get("y1")) - float(bar.get("y2"))) == pytest.approx(2 * 0.0141421 * nat, rel=0.02)
    dots = [c for c in root.iter(name + "circle") if c.get("class") == "fother"]
    assert len(dots) == 6
    (line,) = root.iter(name + "polyline")  # top_4, top_16 and top_64
    assert len(line.get("points").split()) == 3


def test_what_is_no_such_run_is_refused(run):
    def refusal(*arguments):
        done = frontier(run, *arguments)
        assert done.returncode == 1 and len(done.stderr.splitlines()) == 1, done.stderr
        return done.stderr

    assert "stage 'pruned' is not compared" in refusal("--stage", "pruned")
    assert "arm 'live' has no model" in refusal("--live", "live")
    assert "no arm has a label stage 'other'" in refusal("--labels", "other")
    (run / "top_4" / "seed-1" / "labels" / "manifest.json").write_text("{}")
    assert refusal().startswith(str(run / "top_4" / "seed-1" / "labels" / "manifest.json"))
    (run / "ablation.json").write_text('{"comparisons": [{"stage": "core", "arms": [{"seeds": []}]}]}')
    assert "no ablation.json with" in refusal()
    (run / "ablation.json").write_text("[")
    assert "no JSON" in refusal()
    (run / "ablation.json").unlink()
    assert refusal().startswith(str(run / "ablation.json"))
