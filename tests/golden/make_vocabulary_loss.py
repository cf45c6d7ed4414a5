#!/usr/bin/env python3
"""Regenerates vocabulary_loss.json: losses over parts of a vocabulary, put together again and compared with the whole. Standard library only.

    python3 make_vocabulary_loss.py            write vocabulary_loss.json next to this script
    python3 make_vocabulary_loss.py --check    recompute and compare with the file on disk
"""
import json
import math
import os
import sys

from make_vectors import LCG_NOTE, Lcg, close, same

HERE = os.path.dirname(os.path.abspath(__file__))
IGNORED = -100


def part(n, ranks, rank):
    """Contiguous, as even as can be: [floor(n r / R), floor(n (r + 1) / R))."""
    return [n * rank // ranks, n * (rank + 1) // ranks]


def make_vocabulary_loss():
    rng = Lcg(41)
    N, V, w, zeta, tau = 5, 11, 0.9, 1e-2, 2.0
    z = [[3.0 * rng.bell() for _ in range(V)] for _ in range(N)]
    u = [[3.0 * rng.bell() for _ in range(V)] for _ in range(N)]
    z[1][7] = 400.0  # one shard far above the others: without the common maximum the sums overflow
    y, teacher = [3, 7, IGNORED, 10, 0], [9, 7, 4, 2, 0]
    live = [n for n in range(N) if y[n] != IGNORED]
    scale = 1.0 / len(live)

    def whole():
        loss, grad = 0.0, [[0.0] * V for _ in range(N)]
        for n in live:
            top = max(z[n])
            lse = top + math.log(math.fsum(math.exp(x - top) for x in z[n]))
            loss += lse - (1 - w) * z[n][y[n]] - w * z[n][teacher[n]] + zeta * lse * lse
            for v in range(V):
                grad[n][v] = scale * (math.exp(z[n][v] - lse) * (1 + 2 * zeta * lse) - (1 - w) * (v == y[n]) - w * (v == teacher[n]))
        return loss, grad

    def kl_whole():
        loss, grad = 0.0, [[0.0] * V for _ in range(N)]
        for n in live:
            p, q = softmax([x / tau for x in z[n]]), softmax([x / tau for x in u[n]])
            loss += tau * tau * math.fsum(q[v] * (math.log(q[v]) - math.log(p[v])) for v in range(V) if q[v] > 0)
            for v in range(V):
                grad[n][v] = scale * tau * (p[v] - q[v])
        return loss, grad

    def softmax(xs):
        top = max(xs)
        e = [math.exp(x - top) for x in xs]
        s = math.fsum(e)
        return [x / s for x in e]

    loss, grad = whole()
    kl, kl_grad = kl_whole()
    cases = []
    for ranks in (1, 2, 3):
        shards = [part(V, ranks, r) for r in range(ranks)]
        rows, total, kl_total = [], 0.0, 0.0
        for n in range(N):
            if y[n] == IGNORED:
                rows.append(None)
                continue
            first = []
            for begin, end in shards:  # what each rank sends: maximum, sum of exponentials, the logits that it owns
                top = max(z[n][begin:end])
                first.append([top, math.fsum(math.exp(x - top) for x in z[n][begin:end]), z[n][y[n]] if begin <= y[n] < end else 0.0,
                              z[n][teacher[n]] if begin <= teacher[n] < end else 0.0])
            top = max(f[0] for f in first)
            lse = top + math.log(sum(f[1] * math.exp(f[0] - top) for f in first))
            row = lse - (1 - w) * sum(f[2] for f in first) - w * sum(f[3] for f in first) + zeta * lse * lse
            for (begin, end), f in zip(shards, first):  # the gradient needs only this rank's logits and lse
                for v in range(begin, end):
                    g = scale * (math.exp(z[n][v] - lse) * (1 + 2 * zeta * lse) - (1 - w) * (v == y[n]) - w * (v == teacher[n]))
                    close(g, grad[n][v], 1e-13, f"vocabulary gradient {n} {v}")
            # a divergence: log-sum-exps first, then sums of products
            def lse_of(xs):
                tops = [max(xs[b:e]) for b, e in shards]
                big = max(tops)
                return big + math.log(sum(math.fsum(math.exp(x - t) for x in xs[b:e]) * math.exp(t - big) for (b, e), t in zip(shards, tops)))
            lp, lq = lse_of([x / tau for x in z[n]]), lse_of([x / tau for x in u[n]])
            second = [math.fsum(math.exp(u[n][v] / tau - lq) * (u[n][v] - z[n][v]) / tau for v in range(b, e)) for b, e in shards]
            divergence = tau * tau * (sum(second) - lq + lp)
            total, kl_total = total + row, kl_total + divergence
            rows.append({"first": first, "lse": lse, "loss": row, "kl_lse": [lp, lq], "kl_second": second, "kl": divergence})
        close(total, loss, 1e-13, f"loss over {ranks} shards")
        close(kl_total, kl, 1e-12, f"divergence over {ranks} shards")
        cases.append({"ranks": ranks, "shards": shards, "rows": rows})
    return {"rule": "labels: one exchange of [max, sum of exp(z - max), z_true or 0, z_teacher or 0] per row, combined in rank order; divergences: a second one of row sums. "
                    "An ignored row sends nothing that counts", "tolerance": {"double": 1e-12, "float32": 2e-6},
            "vocab": V, "teacher_weight": w, "z_loss": zeta, "kl_temperature": tau, "scale": scale, "logits": z, "teacher_logits": u, "true_label": y, "teacher_label": teacher,
            "loss_sum": loss, "gradient": grad, "kl_sum": kl, "kl_gradient": kl_grad, "cases": cases}


def main():
    text = json.dumps({"inputs": LCG_NOTE, **make_vocabulary_loss()}, indent=1, allow_nan=False) + "\n"
    path = os.path.join(HERE, "vocabulary_loss.json")
    if "--check" in sys.argv[1:]:
        with open(path, encoding="utf-8") as file:
            same(json.load(file), json.loads(text), "vocabulary_loss.json")
        print("checked vocabulary_loss.json")
    else:
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        print("wrote vocabulary_loss.json")


if __name__ == "__main__":
    main()
