#!/usr/bin/env python3
"""Writes the golden vectors of the fidelity test beside this script.

    python make_golden.py --model <folder of all-MiniLM-L6-v2>

texts.jsonl.gz, vectors.npy   all texts, and what sentence-transformers makes of each on the CPU in
                              f32, one text at a time, one thread
subset.jsonl, subset.npy      some 120 of them, small enough to be compiled into a program

Needs torch, sentence-transformers and numpy, the Debian package wordnet-base for the glosses, and
the Bible of ../demo. The texts are the same on each run; the vectors follow torch and the CPU.
"""

import argparse
import gzip
import io
import json
from pathlib import Path

import numpy as np
import sentence_transformers
import torch
import transformers
from sentence_transformers import SentenceTransformer
from tokenizers import Tokenizer, __version__ as tokenizers_version

import golden_texts

HERE = Path(__file__).parent
TOKENS_MAX = 256
SUBSET = 120
SUBSET_TEXT_MAX = 12_000  # bytes of one text


def read_kjv():
    lines = gzip.decompress((HERE / "../demo/kjv.txt.gz").read_bytes()).decode().splitlines()
    return [line.split("\t", 1)[1] for line in lines]


def read_glosses(folder):
    glosses = []
    for part in ("noun", "verb", "adj", "adv"):
        for line in (folder / f"data.{part}").read_text("latin-1").splitlines():
            if not line.startswith("  ") and " | " in line:
                glosses.append(line.split(" | ", 1)[1].strip())
    return glosses


def plain_tokenizer(model):
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def check_tokens(encoder, tokenizer, records):
    """The ids sentence-transformers feeds the model must be those counted here."""
    for record in records:
        fed = encoder.tokenize([record["text"]])["input_ids"][0].tolist()
        ids = tokenizer.encode(record["text"]).ids
        cut = ids if len(ids) <= TOKENS_MAX else [*ids[:TOKENS_MAX - 1], ids[-1]]
        if fed != cut or record["tokens"] != len(fed):
            raise SystemExit(f"token mismatch: {record!r:.200} {fed[:20]} {cut[:20]}")


def pick_subset(records):
    """Indexes of about SUBSET texts, spread over all groups but the glosses (a licence apart)."""
    groups = {}
    for index, record in enumerate(records):
        if record["group"] != "glosses" and len(record["text"].encode()) <= SUBSET_TEXT_MAX:
            groups.setdefault(record["group"], []).append(index)
    for group, members in groups.items():
        members.sort(key=lambda index: records[index]["tokens_total"])
        wanted = max(1, min(len(members), SUBSET // len(groups)))
        groups[group] = spread(members, wanted)
    rest = [i for i, r in enumerate(records) if r["group"] in ("passages", "tokens-each")]
    rest.sort(key=lambda index: records[index]["tokens_total"])
    chosen = {index for members in groups.values() for index in members}
    rest = [index for index in rest if index not in chosen]
    return sorted(chosen | set(spread(rest, SUBSET - len(chosen))))


def spread(members, n):
    """n of the members at even distances, the first and last among them."""
    return [members[round(i * (len(members) - 1) / max(1, n - 1))] for i in range(n)]


def lines(records):
    """One JSON object a line, in plain ASCII: no editor can mangle what no editor can see."""
    return "".join(json.dumps(record) + "\n" for record in records).encode("ascii")


def write(records, vectors):
    assert np.isfinite(vectors).all() and vectors.dtype == np.float32
    packed = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", compresslevel=9, fileobj=packed, mtime=0) as file:
        file.write(lines(records))
    (HERE / "texts.jsonl.gz").write_bytes(packed.getvalue())
    np.save(HERE / "vectors.npy", vectors)
    subset = pick_subset(records)
    (HERE / "subset.jsonl").write_bytes(lines([records[i] for i in subset]))
    np.save(HERE / "subset.npy", vectors[subset])
    return subset


def compare(name, vectors, other):
    vectors = vectors.astype(np.float64)
    off = np.abs(vectors - other)
    cosine = (vectors * other).sum(1) / np.linalg.norm(other, axis=1) / np.linalg.norm(vectors, axis=1)
    print(f"{name}: max abs difference {off.max():.3g}, 99.9 % {np.quantile(off, .999):.3g}, min cosine {cosine.min():.9f}, mean {cosine.mean():.9f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--wordnet", type=Path, default=Path("/usr/share/wordnet"))
    options = parser.parse_args()

    tokenizer = plain_tokenizer(options.model)
    count = lambda text: len(tokenizer.encode(text).ids)  # noqa: E731
    records = []
    for group, text in golden_texts.make(read_kjv(), read_glosses(options.wordnet), count):
        total = count(text)
        records.append({"text": text, "group": group, "tokens": min(total, TOKENS_MAX), "tokens_total": total})

    torch.set_num_threads(1)
    encoder = SentenceTransformer(str(options.model), device="cpu", model_kwargs={"dtype": torch.float32})
    assert encoder.max_seq_length == TOKENS_MAX
    check_tokens(encoder, tokenizer, records)
    texts = [record["text"] for record in records]
    vectors = np.stack([encoder.encode([text])[0] for text in texts])
    subset = write(records, vectors)

    groups = {}
    for record in records:
        groups[record["group"]] = groups.get(record["group"], 0) + 1
    print(f"{len(records)} texts, {sum(r['tokens'] for r in records)} tokens, subset {len(subset)}, groups {groups}")
    print(f"torch {torch.__version__}, transformers {transformers.__version__}, sentence-transformers {sentence_transformers.__version__}, tokenizers {tokenizers_version}, numpy {np.__version__}")
    norms = np.linalg.norm(vectors.astype(np.float64), axis=1)
    print(f"norms {norms.min():.8f} to {norms.max():.8f}")
    compare("batches of 32, f32", vectors, encoder.encode(texts, batch_size=32, show_progress_bar=False).astype(np.float64))
    encoder.double()
    compare("one at a time, f64", vectors, np.stack([encoder.encode([text])[0] for text in texts]))


if __name__ == "__main__":
    main()
