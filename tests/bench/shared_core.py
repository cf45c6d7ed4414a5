"""What a program keeps of its speed when its cores are shared with other busy processes, for several settings of how long OpenMP's threads spin.

    shared_core.py --rounds 5 --spins own,0,10000,300000 -- ../../build/release/tests/bench/train_step_bench --threads 2 --repeats 20

Each round runs the program for each setting idle and beside the busy processes. A setting is a GOMP_SPINCOUNT; `own` leaves the environment alone, so that
the program's own default counts. The program prints JSON lines with `case` and `mean_s`: beside others single steps come in two speeds, and a median
shows one of them. idle_s and busy_s are medians over the rounds, kept = idle_s / busy_s.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys

SPINNING = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "KMP_BLOCKTIME", "KMP_LIBRARY")


def seconds(command, spin):
    """{case: mean_s} of one run."""
    environment = {name: value for name, value in os.environ.items() if name not in SPINNING}
    if spin != "own":
        environment["GOMP_SPINCOUNT"] = spin
    out = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment).stdout
    lines = map(json.loads, filter(lambda text: text.startswith("{"), out.splitlines()))
    return {line["case"]: line["mean_s"] for line in lines if "mean_s" in line}


def main():
    if "--" not in sys.argv:
        sys.exit(__doc__)
    mark = sys.argv.index("--")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--spins", default="own,300000")
    parser.add_argument("--busy", type=int, default=1, help="busy processes beside it")
    args = parser.parse_args(sys.argv[1:mark])
    command, spins = sys.argv[mark + 1:], args.spins.split(",")

    times = {}
    for turn in range(args.rounds):
        for spin in spins[::-1] if turn % 2 else spins:
            for beside in ("idle", "busy"):
                others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(args.busy if beside == "busy" else 0)]
                try:
                    for case, spent in seconds(command, spin).items():
                        times.setdefault((case, spin), {"idle": [], "busy": []})[beside].append(spent)
                finally:
                    for other in others:
                        other.kill()
                        other.wait()

    for (case, spin), spent in times.items():
        idle, busy = statistics.median(spent["idle"]), statistics.median(spent["busy"])
        kept = sorted(a / b for a, b in zip(spent["idle"], spent["busy"]))
        print(json.dumps({"case": case, "spin": spin, "rounds": args.rounds, "busy_processes": args.busy, "idle_s": round(idle, 6), "busy_s": round(busy, 6),
                          "kept": round(idle / busy, 3), "kept_low": round(kept[0], 3), "kept_high": round(kept[-1], 3)}))


if __name__ == "__main__":
    main()
