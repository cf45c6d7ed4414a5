"""scripts/refit-gaps on a table written by hand: shares under each seed, and what it refuses in one line."""

import pathlib
import subprocess
import sys

SCRIPT = pathlib.Path(__file__).resolve().parents[2] / "scripts" / "refit-gaps"
HEADER = "stage,arm,against,seed,parameters,training_tokens,loss,bits_per_byte\n"


def gaps(path, *arguments):
    return subprocess.run([sys.executable, SCRIPT, str(path), *arguments], capture_output=True, text=True)


def row(stage, arm, seed, loss):
    return f"{stage},{arm},masks,{seed},132000,0,{loss},1\n"


def test_shares_under_each_seed(tmp_path):
    table = tmp_path / "ablation.csv"
    lines = [row("plain", arm, seed, 3.0) for arm in ("flap", "flap_refit", "masks") for seed in (1, 2)]
    lines += [row("pruned", "flap", 1, 4.0), row("pruned", "flap", 2, 5.0), row("pruned", "masks", 1, 3.1)]
    lines += [row("pruned", "flap_refit", 1, 3.5), row("pruned", "flap_refit", 2, 4.5)]  # a half, and a quarter
    table.write_text(HEADER + "".join(lines))
    done = gaps(table)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[2:] == ["| flap | 2 | 0 | 3.000 ± 0.000 | 4.500 ± 0.707 | 4.000 ± 0.707 | 37.5% ± 17.7 | 25.0% |"]
    assert gaps(table, "--cut", "core").stderr.strip() == f"{table}: no arm of stage 'core' ends in _refit"
    assert "has no seed with 'dense' of its own" in gaps(table, "--uncut", "dense").stderr


def test_seeds_without_a_gap_are_counted(tmp_path):
    table = tmp_path / "ablation.csv"
    lines = [row("plain", "flap_refit", seed, 3.0) for seed in (1, 2, 3)]
    lines += [row("pruned", "flap", 1, 4.0), row("pruned", "flap", 2, 2.9)]  # the second cut costs nothing, the third is missing
    lines += [row("pruned", "flap_refit", seed, 3.5) for seed in (1, 2, 3)]
    table.write_text(HEADER + "".join(lines))
    done = gaps(table)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "| cut by | seeds | left out | uncut | cut | refitted | closed | smallest |"
    assert done.stdout.splitlines()[2:] == ["| flap | 2 | 2 | 3.000 ± 0.000 | 3.450 ± 0.778 | 3.500 ± 0.000 | 50.0% | 50.0% |"]
    table.write_text(HEADER + "".join(line for line in lines if ",1,132000" not in line))
    assert "under none of 1 seeds does the cut cost anything" in gaps(table).stderr


def test_what_is_no_table_is_refused(tmp_path):
    table = tmp_path / "other.csv"
    table.write_text("a,b\n1,2\n")
    for path in (table, tmp_path / "missing.csv"):
        done = gaps(path)
        assert done.returncode == 1
        assert done.stderr.startswith(str(path)) and len(done.stderr.splitlines()) == 1
