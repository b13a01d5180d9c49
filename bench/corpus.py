"""Texts and vectors for the comparison, made once into the work folder.

Texts: WordNet glosses (Debian package wordnet-base) where installed, else verses; the Bible is the
repository's own copy. Vectors: the glosses (or verses) embedded; the million rows are mixtures of
them with noise; queries are verses that are in none of the sets.
"""

import gzip
import json
import os
import random
from pathlib import Path

import numpy as np

import embedders

KJV = Path(__file__).resolve().parent.parent / "crates/sela/demo/kjv.txt.gz"
WORDNET = Path("/usr/share/wordnet")
QUERIES = 100
LONG_TEXTS = 200
MILLION = 1_000_000


def read_verses():
    lines = gzip.decompress(KJV.read_bytes()).decode().splitlines()
    return [tuple(line.split("\t", 1)) for line in lines]


def read_glosses(folder=WORDNET):
    """Every gloss of WordNet in file order, or nothing where it is not installed."""
    glosses = []
    for part in ("noun", "verb", "adj", "adv"):
        path = folder / f"data.{part}"
        if not path.exists():
            return []
        for line in path.read_text("latin-1").splitlines():
            if not line.startswith("  ") and " | " in line:
                glosses.append(line.split(" | ", 1)[1].strip())
    return glosses


def make_texts(model, work, bulk):
    """Writes batch, bulk and long texts, and texts.json with what they hold."""
    verses = read_verses()
    words = [words for _, words in verses]
    source = read_glosses() or words
    tokenizer = embedders.tokenizer_of(model)
    count = lambda text: len(tokenizer.encode(text))  # noqa: E731
    texts = {
        "batch": [words for place, words in verses if place.startswith("Psalms ")][:100],
        "bulk": random.Random(0).sample(source, min(bulk, len(source))),
        "long": [long_text(words, at * 150, count) for at in range(LONG_TEXTS)],
    }
    described = {}
    for name, rows in texts.items():
        write_lines(work / f"{name}.txt", rows)
        tokens = sum(len(one) for one in tokenizer.encode_batch(rows))
        described[name] = {"file": f"{name}.txt", "texts": len(rows), "tokens": tokens}
    (work / "texts.json").write_text(json.dumps(described, indent=1))
    return described


def some_texts(work):
    """A few hundred of the texts, short and long, to calibrate a quantization with."""
    lines = lambda name: (work / f"{name}.txt").read_text(encoding="utf-8").split("\n")[:-1]  # noqa: E731
    return lines("bulk")[:200] + lines("long")[:40]


def long_text(words, start, count):
    """Verses from `start` on, joined until they fill 256 tokens."""
    end = start + 1
    while count(text := " ".join(words[start:end])) < embedders.TOKENS_MAX:
        end += 1
    return text


def write_lines(path, rows):
    assert not any("\n" in row for row in rows)
    path.write_text("".join(row + "\n" for row in rows), encoding="utf-8")


def embed(contender, model, work, threads, texts, note):
    """Vectors of many texts, with word of how far it is."""
    embedder = embedders.OPEN[contender](str(model), str(work), threads)
    vectors = np.empty((len(texts), 384), np.float32)
    for at in range(0, len(texts), 4096):
        part = texts[at:at + 4096]
        vectors[at:at + len(part)] = embedder.embed(part, {"batch": 32, "streams": 1})
        note(f"vectors: {at + len(part)} of {len(texts)} texts")
    return vectors


def make_vectors(contender, model, work, threads, sizes, k, note):
    """Writes queries.npy, rows-N.npy and truth-N-K.npy; returns {size: number of rows}."""
    every = len(read_verses()) // QUERIES
    verses = [words for _, words in read_verses()]
    queries, base = work / "queries.npy", work / "base.npy"
    if not queries.exists():
        np.save(queries, embed(contender, model, work, threads, verses[::every][:QUERIES], note))
    if not base.exists():
        held_out = {index * every for index in range(QUERIES)}
        rows = read_glosses() or [text for index, text in enumerate(verses) if index not in held_out]
        np.save(base, embed(contender, model, work, threads, rows, note))
    have = len(np.load(base, mmap_mode="r"))
    rows = {"10k": 10_000, "all": have, "1m": MILLION}
    for size in sizes:
        path = work / f"rows-{rows[size]}.npy"
        if not path.exists():
            note(f"vectors: writing {path.name}")
            if size == "1m":
                mix(np.load(base), path)
            else:
                np.save(path, np.load(base)[:rows[size]])
        truth = truth_path(work, rows[size], k)
        if not truth.exists():
            np.save(truth, nearest(np.load(path, mmap_mode="r"), np.load(queries), k))
    return {size: rows[size] for size in sizes}


def truth_path(work, rows, k):
    return work / f"truth-{rows}-{k}.npy"


def mix(base, path, seed=7):
    """A million rows: a weighted sum of two base rows that lie together and a third from
    anywhere, plus noise of length 1/4, brought back to length 1."""
    rng = np.random.Generator(np.random.PCG64(seed))
    base = base[rng.permutation(len(base))]
    friend = np.concatenate([near_in_block(base[at:at + 4096]) + at for at in range(0, len(base), 4096)])
    rows = np.lib.format.open_memmap(path.with_suffix(".part"), "w+", np.float32, (MILLION, base.shape[1]))
    for at in range(0, MILLION, 50_000):
        first = rng.integers(0, len(base), 50_000)
        third = rng.integers(0, len(base), 50_000)
        near, far = rng.uniform(0, 0.5, 50_000), rng.uniform(0, 0.2, 50_000)
        part = base[first] * (1 - near - far)[:, None] + base[friend[first]] * near[:, None] + base[third] * far[:, None]
        part += rng.standard_normal(part.shape) * (0.25 / base.shape[1] ** 0.5)
        rows[at:at + 50_000] = part / np.linalg.norm(part, axis=1, keepdims=True)
    rows.flush()
    os.replace(path.with_suffix(".part"), path)


def near_in_block(block):
    """The nearest other row of each row of a block."""
    scores = block @ block.T
    np.fill_diagonal(scores, -2)
    return scores.argmax(1)


def nearest(rows, queries, k):
    """The true k nearest rows of each query, in f64, block by block."""
    scores, found = np.empty((len(queries), 0)), np.empty((len(queries), 0), np.int64)
    for at in range(0, len(rows), 50_000):
        part = queries.astype(np.float64) @ np.asarray(rows[at:at + 50_000], np.float64).T
        scores = np.concatenate([scores, part], 1)
        found = np.concatenate([found, np.broadcast_to(np.arange(at, at + part.shape[1]), part.shape)], 1)
        best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        scores, found = np.take_along_axis(scores, best, 1), np.take_along_axis(found, best, 1)
    return found
