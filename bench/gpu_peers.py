"""What PyTorch does on the same GPU: sentence-transformers for texts, a product and `topk` for search.

    python bench/gpu_peers.py --model DIR [--only embed,model,search] [--json FILE]

Weights and activations are f16, as in `sela --device gpu`. Every figure is the median of many calls
with the least and the most; the clock stops when the result is on the host.
"""

import argparse
import gzip
import json
import os
import statistics
import sys
import time

SHORT = "The Lord is my shepherd, I shall not want"
VERSES = os.path.join(os.path.dirname(__file__), "..", "crates", "sela", "demo", "kjv.txt.gz")


def verses():
    with gzip.open(VERSES, "rt", encoding="utf-8") as file:
        return [line.rstrip("\n").split("\t")[1] for line in file]


def times(call, seconds=1.5, least=5, most=300):
    """Seconds of one call after another; the first two are rehearsals."""
    for _ in range(2):
        call()
    taken, began = [], time.perf_counter()
    while len(taken) < most and (len(taken) < least or time.perf_counter() - began < seconds):
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    return taken


def figure(name, taken, **more):
    line = {"name": name, "p50_ms": statistics.median(taken) * 1e3, "min_ms": min(taken) * 1e3,
            "max_ms": max(taken) * 1e3, "calls": len(taken), **more}
    print(json.dumps(line), flush=True)
    return line


def embed(model_dir):
    """sentence-transformers end to end: text on the host to vectors on the host."""
    import torch
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(model_dir, device="cuda", model_kwargs={"torch_dtype": torch.float16})
    model.eval()
    texts = verses()

    def run(batch, size):
        return model.encode(batch, batch_size=size, convert_to_numpy=True, show_progress_bar=False)

    found = [figure("single", times(lambda: run([SHORT], 1)))]
    hundred = texts[:: len(texts) // 100][:100]
    found.append(figure("batch100", times(lambda: run(hundred, 100))))
    short = [" ".join(text.split()[:9]) for text in hundred]
    found.append(figure("batch100, nine words each", times(lambda: run(short, 100))))
    bulk = texts[:: len(texts) // 4000][:4000]
    tokens = sum(len(ids) for ids in model.tokenizer(bulk, truncation=True, max_length=256)["input_ids"])
    best = None
    for size in (256, 1024):
        taken = times(lambda: run(bulk, size), seconds=2, least=2, most=5)
        line = {"batch": size, "texts_per_s": len(bulk) / statistics.median(taken),
                "tokens_per_s": tokens / statistics.median(taken)}
        if best is None or line["texts_per_s"] > best[1]["texts_per_s"]:
            best = (taken, line)
    found.append(figure("bulk", best[0], **best[1]))
    return found


def model_only(model_dir):
    """The transformer alone on 128 sequences of 252 tokens that are on the GPU already."""
    import torch
    from transformers import AutoModel

    found = []
    ids = torch.randint(1000, 20000, (128, 252), device="cuda")
    mask = torch.ones_like(ids)
    for attention in ("sdpa", "eager"):
        model = AutoModel.from_pretrained(model_dir, torch_dtype=torch.float16, attn_implementation=attention)
        model = model.cuda().eval()

        def run():
            with torch.inference_mode():
                hidden = model(input_ids=ids, attention_mask=mask).last_hidden_state
                torch.nn.functional.normalize(hidden.mean(dim=1), dim=-1)
            torch.cuda.synchronize()

        taken = times(run)
        found.append(figure(f"model 128x252 {attention}", taken,
                            tokens_per_s=128 * 252 / statistics.median(taken)))
    return found


def search(sizes):
    """The 10 nearest of f16 rows by inner product: one query, and 64 together."""
    import torch

    found = []
    for rows in sizes:
        data = torch.randn(rows, 384, device="cuda", dtype=torch.float16)
        data /= data.norm(dim=1, keepdim=True)
        for count in (1, 64):
            host = torch.nn.functional.normalize(torch.randn(count, 384), dim=1)

            def run():
                queries = host.to("cuda", dtype=torch.float16)
                scores, index = torch.topk(queries @ data.T, 10, dim=1)
                return scores.cpu(), index.cpu()

            found.append(figure(f"search {rows} rows, {count} queries", times(run), rows=rows, queries=count))
        del data
        torch.cuda.empty_cache()
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="folder of all-MiniLM-L6-v2")
    parser.add_argument("--only", default="embed,model,search")
    parser.add_argument("--sizes", default="10000,1000000,10000000")
    parser.add_argument("--json", help="write the figures here too")
    options = parser.parse_args()
    import torch

    if not torch.cuda.is_available():
        sys.exit("no CUDA device")
    print(json.dumps({"gpu": torch.cuda.get_device_name(0), "torch": torch.__version__,
                      "threads": torch.get_num_threads()}), flush=True)
    found = []
    if "embed" in options.only:
        found += embed(options.model)
    if "model" in options.only:
        found += model_only(options.model)
    if "search" in options.only:
        found += search([int(size) for size in options.sizes.split(",")])
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump({"gpu": torch.cuda.get_device_name(0), "results": found}, file, indent=1)


if __name__ == "__main__":
    main()
