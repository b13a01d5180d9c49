"""One contender, one process: loads it, runs the workloads asked for, writes JSON as `sela bench` does.

Loading, compiling and warming up are never part of a figure. peers.py starts this; it can also be
run by hand.
"""

import argparse
import json
import os
import statistics
import time

import numpy as np

import embedders
import searchers

SINGLE_TEXT = "The Lord is my shepherd, I shall not want"  # 12 tokens with [CLS] and [SEP]
SINGLE_CALLS, SINGLE_WARM = 200, 20
BATCH_CALLS = 5
SEARCH_SECONDS, SEARCH_CALLS_MIN = 3.0, 5  # slow contenders stop early, but not before this many
TUNE_TEXTS, TUNE_LONG = 500, 16


def timed(call):
    start = time.perf_counter()
    result = call()
    return time.perf_counter() - start, result


def percentile(values, share):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, round(share * (len(ordered) - 1)))]


def read_lines(path):
    with open(path, encoding="utf-8") as file:
        return file.read().split("\n")[:-1]


def tune(embedder, files):
    """The fastest plan (batch size, streams) for each workload, as {workload: plan}."""
    texts = {
        "batch": read_lines(files["batch"]),
        "bulk": read_lines(files["bulk"])[:TUNE_TEXTS],
        "long": read_lines(files["long"])[:TUNE_LONG],
    }
    best = {}
    for workload, sample in texts.items():
        speeds = []
        for plan in embedder.plans(workload):
            embedder.embed(sample[: plan["batch"] * plan["streams"]], plan)
            seconds = min(timed(lambda: embedder.embed(sample, plan))[0] for _ in range(2))
            speeds.append((seconds, plan))
        best[workload] = min(speeds, key=lambda pair: pair[0])[1]
    return best


def fidelity(embedder, folder):
    """How far the contender is from the golden vectors: largest difference, lowest and mean cosine."""
    with open(os.path.join(folder, "subset.jsonl"), encoding="ascii") as file:
        texts = [json.loads(line)["text"] for line in file]
    golden = np.load(os.path.join(folder, "subset.npy"))
    vectors = embedder.embed(texts, {"batch": 16, "streams": 1})
    cosines = (vectors * golden).sum(1)
    largest = float(np.abs(vectors - golden).max())
    return {"max_abs": largest, "min_cosine": float(cosines.min()), "mean_cosine": float(cosines.mean())}


def run_embed(embedder, only, files, tokens, plans):
    results = []
    if "single" in only:
        one = [SINGLE_TEXT]
        seconds = [timed(lambda: embedder.embed(one, None))[0] for _ in range(SINGLE_WARM + SINGLE_CALLS)][SINGLE_WARM:]
        results.append({"name": "single", "unit": "ms", "p50": 1e3 * percentile(seconds, 0.5), "p99": 1e3 * percentile(seconds, 0.99)})
    if "batch" in only:
        texts = read_lines(files["batch"])
        seconds = [timed(lambda: embedder.embed(texts, plans["batch"]))[0] for _ in range(BATCH_CALLS + 1)][1:]
        results.append({"name": "batch100", "unit": "ms", "median": 1e3 * statistics.median(seconds)})
    for workload in ("bulk", "long"):
        if workload in only:
            texts = read_lines(files[workload])
            embedder.embed(texts[:256] if workload == "bulk" else texts[:16], plans[workload])
            seconds, vectors = timed(lambda: embedder.embed(texts, plans[workload]))
            assert vectors.shape == (len(texts), 384) and np.isfinite(vectors).all()
            results.append({"name": workload, "texts_per_s": len(texts) / seconds, "tokens_per_s": tokens[workload] / seconds})
    return results


def repeat(call):
    """Seconds of one call after another, until there are enough."""
    seconds = []
    while len(seconds) < SINGLE_CALLS and (len(seconds) < SEARCH_CALLS_MIN or sum(seconds) < SEARCH_SECONDS):
        seconds.append(timed(lambda: call(len(seconds)))[0])
    return seconds


def run_search(name, options):
    rows, queries = np.load(options.vectors), np.load(options.queries)
    searcher = searchers.OPEN[name](rows, options.k, options.threads)
    found = searcher.many(queries)
    for at in range(5):
        searcher.one(queries[at])
    single = repeat(lambda at: searcher.one(queries[at % len(queries)]))
    many = repeat(lambda _: searcher.many(queries))
    truth = np.load(options.truth)
    recall = np.mean([len(set(row) & set(want)) / options.k for row, want in zip(found.tolist(), truth.tolist())])
    return [
        {"name": "search1", "rows": len(rows), "p50": 1e3 * percentile(single, 0.5), "p99": 1e3 * percentile(single, 0.99)},
        {"name": "search100", "rows": len(rows), "median": 1e3 * statistics.median(many)},
    ], {"recall": float(recall)}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--contender", required=True)
    parser.add_argument("--only", required=True, help="single,batch,bulk,long | search | tune")
    parser.add_argument("--model", help="folder of all-MiniLM-L6-v2")
    parser.add_argument("--work", help="folder with the exported models and texts")
    parser.add_argument("--golden", help="folder of the golden vectors")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--vectors")
    parser.add_argument("--queries")
    parser.add_argument("--truth", help="row numbers of the true nearest, for a check")
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--json", required=True)
    options = parser.parse_args()

    only = options.only.split(",")
    if only == ["search"]:
        results, extra = run_search(options.contender, options)
        answer = {"results": results, **extra}
    else:
        with open(os.path.join(options.work, "texts.json"), encoding="utf-8") as file:
            described = json.load(file)
        files = {name: os.path.join(options.work, entry["file"]) for name, entry in described.items()}
        tokens = {name: entry["tokens"] for name, entry in described.items()}
        embedder = embedders.OPEN[options.contender](options.model, options.work, options.threads)
        if only == ["tune"]:
            answer = {"plans": tune(embedder, files), "fidelity": fidelity(embedder, options.golden)}
        else:
            with open(os.path.join(options.work, "plans.json"), encoding="utf-8") as file:
                plans = json.load(file)[f"{options.contender}/{options.threads}"]["plans"]
            answer = {"results": run_embed(embedder, only, files, tokens, plans)}
    with open(options.json, "w", encoding="utf-8") as file:
        json.dump(answer, file)


if __name__ == "__main__":
    main()
