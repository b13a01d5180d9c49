#!/usr/bin/env python3
"""Holds `sela` against other engines on this machine, in interleaved rounds.

    python bench/peers.py --sela target/release/sela --model DIR --work DIR

In every round each contender in turn runs every workload in a process of its own, so drift of the
machine (clock, heat, neighbours) falls on all alike. The table goes to stdout, talk to stderr.
See README.md for what is measured and what has to be installed.
"""

import argparse
import importlib.metadata
import importlib.util
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import corpus
import export
import report

HERE = Path(__file__).resolve().parent
GOLDEN = HERE.parent / "crates/sela/golden"
EMBED = ("sela", "ort", "ort-int8", "ov", "ov-bf16", "ov-int8", "torch")
SEARCH = ("sela", "numpy", "torch", "faiss", "usearch")
DEFAULT = "sela,ort,ov,torch,numpy,faiss,usearch"
NEEDS = {
    "ort": ("onnxruntime", "onnx", "safetensors", "tokenizers"),
    "ort-int8": ("onnxruntime", "onnx", "safetensors", "tokenizers"),
    "ov-int8": ("openvino", "nncf", "onnx", "safetensors", "tokenizers"),
    "ov": ("openvino", "onnx", "safetensors", "tokenizers"),
    "ov-bf16": ("openvino", "onnx", "safetensors", "tokenizers"),
    "torch": ("torch", "sentence_transformers"),
    "faiss": ("faiss",),
    "usearch": ("usearch",),
}
PACKAGES = ("numpy", "onnxruntime", "openvino", "torch", "sentence-transformers", "tokenizers", "faiss-cpu", "usearch")
THREAD_SETTINGS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS")
CALL_SECONDS_MAX = 1800


def note(text):
    print(text, file=sys.stderr, flush=True)


def options_of(arguments):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sela", type=Path, default=Path("target/release/sela"), help="the binary")
    parser.add_argument("--model", type=Path, required=True, help="folder of all-MiniLM-L6-v2")
    parser.add_argument("--work", type=Path, required=True, help="folder for texts, vectors and exported models")
    parser.add_argument("--only", default="embed,search", help="embed, search, or workloads: single,batch,bulk,long,search")
    parser.add_argument("--contenders", default=DEFAULT, help=f"default {DEFAULT}; there are ov-bf16, ort-int8 and ov-int8 besides")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--dtype", default="f32", help="what sela computes in: f32, auto or int8")
    parser.add_argument("--bulk", type=int, default=10_000, help="texts of the bulk workload")
    parser.add_argument("--sizes", default="10k,all,1m", help="collections to search")
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--prepare", action="store_true", help="fill the work folder, measure nothing")
    parser.add_argument("--json", type=Path, help="write everything measured here")
    options = parser.parse_args(arguments)
    options.model, options.work, options.sela = (path.resolve() for path in (options.model, options.work, options.sela))
    options.only = options.only.replace("embed", "single,batch,bulk,long").split(",")
    options.contenders, options.sizes = options.contenders.split(","), options.sizes.split(",")
    if unknown := set(options.contenders) - set(EMBED) - set(SEARCH):
        parser.error(f"unknown contenders: {', '.join(sorted(unknown))}")
    options.contenders = [name for name in options.contenders if installed(name)]
    if "sela" in options.contenders and not options.prepare and not options.sela.exists():
        parser.error(f"there is no {options.sela}: build it, or name contenders without sela")
    return options


def installed(contender):
    missing = [package for package in NEEDS.get(contender, ()) if importlib.util.find_spec(package) is None]
    if missing:
        note(f"{contender} is left out: {', '.join(missing)} not installed")
    return not missing


def environment(threads):
    settings = {name: str(threads) for name in THREAD_SETTINGS}
    more = {"TOKENIZERS_PARALLELISM": "true" if threads > 1 else "false", "HF_HUB_OFFLINE": "1"}
    return os.environ | settings | more


def call(command, options):
    """Runs a command that writes JSON to the path after `--json`; returns that, or the error."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "out.json"
        try:
            done = subprocess.run(
                [*map(str, command), "--json", str(path)], env=environment(options.threads),
                capture_output=True, text=True, timeout=CALL_SECONDS_MAX,
            )
        except subprocess.TimeoutExpired:
            return {"error": f"took longer than {CALL_SECONDS_MAX} s"}
        if done.returncode:
            return {"error": done.stderr.strip()[-2000:] or f"exit {done.returncode}"}
        return json.loads(path.read_text())


def worker(contender, only, options, *more):
    base = [sys.executable, HERE / "worker.py", "--contender", contender, "--only", only]
    return call([*base, "--threads", options.threads, "--k", options.k, *more], options)


def run_embed(contender, options):
    only = ",".join(name for name in ("single", "batch", "bulk", "long") if name in options.only)
    if contender != "sela":
        return worker(contender, only, options, "--model", options.model, "--work", options.work)
    files = {"--texts": "bulk", "--batch-texts": "batch", "--long-texts": "long"}
    texts = [part for flag, name in files.items() for part in (flag, options.work / f"{name}.txt")]
    answer = call([*sela(options), "--only", only, *texts], options)
    check_tokens(answer.get("results", []), options)
    return answer


def check_tokens(results, options):
    """Says so when sela counts other tokens than the peers do: real word pieces, no padding."""
    bulk = json.loads((options.work / "texts.json").read_text())["bulk"]
    for result in results:
        if result["name"] == "bulk":
            counted = result["tokens_per_s"] / result["texts_per_s"]
            if abs(counted / (bulk["tokens"] / bulk["texts"]) - 1) > 0.001:
                note(f"warning: sela counts {counted:.2f} tokens a text, peers {bulk['tokens'] / bulk['texts']:.2f}")


def run_search(contender, rows, options):
    vectors = ["--vectors", options.work / f"rows-{rows}.npy", "--queries", options.work / "queries.npy"]
    if contender != "sela":
        return worker(contender, "search", options, *vectors, "--truth", corpus.truth_path(options.work, rows, options.k))
    return call([*sela(options), "--only", "search", *vectors, "--k", options.k], options)


def sela(options):
    named = ["--device", "cpu", "--model", options.model, "--dtype", options.dtype, "--threads", options.threads]
    return [options.sela, "bench", *named, "--repeat", 1]


def prepare(options, embeds):
    """Fills the work folder with what is missing; returns what the texts hold, and {size: rows}."""
    options.work.mkdir(parents=True, exist_ok=True)
    needed, sizes = embeds, {}
    if "search" in options.only:
        maker = next((name for name in ("ort", "ov", "torch") if name in options.contenders), "ort")
        needed = [*embeds, maker]
    texts = corpus.make_texts(str(options.model), options.work, options.bulk)
    calibration = corpus.some_texts(options.work)
    export.export(needed, options.model, options.work, calibration, note)
    if "search" in options.only:
        sizes = corpus.make_vectors(maker, options.model, options.work, options.threads, options.sizes, options.k, note)
    tune(options, [name for name in embeds if name != "sela"])
    return texts, sizes


def tune(options, embeds):
    """Finds each peer's best batch size and number of streams once, and keeps it in plans.json."""
    path = options.work / "plans.json"
    plans = json.loads(path.read_text()) if path.exists() else {}
    for contender in embeds:
        key = f"{contender}/{options.threads}"
        if key not in plans:
            note(f"{contender}: finding the best batch size")
            found = worker(contender, "tune", options, "--model", options.model, "--work", options.work, "--golden", GOLDEN)
            if "error" in found:
                note(f"{contender}: {found['error']}")
                continue
            plans[key] = found
            path.write_text(json.dumps(plans, indent=1))
        note(f"{contender}: {json.dumps(plans[key])}")


def measure(options, embeds, searches, sizes):
    """All rounds, as a list of {round, contender, workload, figure...}; each starts with another contender."""
    tasks = {name: [] for name in dict.fromkeys([*embeds, *searches])}
    for name in embeds:
        tasks[name].append(lambda name=name: run_embed(name, options))
    for rows in sizes.values():
        for name in searches:
            tasks[name].append(lambda name=name, rows=rows: run_search(name, rows, options))
    order, figures = list(tasks), []
    for index in range(options.rounds):
        turn = index % len(order)
        for name in order[turn:] + order[:turn]:
            start = time.perf_counter()
            for task in tasks[name]:
                answer = task()
                if "error" in answer:
                    note(f"{name}: {answer['error']}")
                if answer.get("recall", 1) < 0.98:
                    note(f"{name}: only {answer['recall']:.3f} of the true nearest were found")
                figures += report.figures(index, name, answer.get("results", []))
            note(f"round {index + 1} of {options.rounds}: {name}, {time.perf_counter() - start:.0f} s")
    return figures


def machine(options):
    cpu = platform.processor()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), cpu)
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            pass
    return {"cpu": cpu, "cores": os.cpu_count(), "system": platform.platform(), "threads": options.threads, "versions": versions}


def main(arguments=None):
    options = options_of(arguments)
    wanted = set(options.only) & {"single", "batch", "bulk", "long"}
    embeds = [name for name in options.contenders if name in EMBED] if wanted else []
    searches = [name for name in options.contenders if name in SEARCH] if "search" in options.only else []
    texts, sizes = prepare(options, embeds)
    if options.prepare:
        return
    if hasattr(os, "getloadavg") and os.getloadavg()[0] > 0.5:
        note(f"warning: the machine is busy (load {os.getloadavg()[0]:.1f}); figures will be worse than they are")
    figures = measure(options, embeds, searches, sizes)
    summary = report.summary(figures)
    print(report.table(summary))
    if options.json:
        settings = {"rounds": options.rounds, "dtype": options.dtype, "k": options.k, "texts": texts}
        whole = {"machine": machine(options), "settings": settings, "summary": summary, "figures": figures}
        options.json.write_text(json.dumps(whole, indent=1))


if __name__ == "__main__":
    main()
