"""Exact inner-product search as others do it: `one` query or `many`, the k best row numbers, best first."""

import time

import numpy as np


class Numpy:
    """One matrix product, then argpartition and a sort of the k."""

    def __init__(self, rows, k, threads):
        self.rows, self.k = rows, k  # threads: by the environment of the process

    def one(self, query):
        scores = self.rows @ query
        best = np.argpartition(scores, -self.k)[-self.k:]
        return best[np.argsort(-scores[best])]

    def many(self, queries):
        scores = queries @ self.rows.T
        best = np.argpartition(scores, -self.k, axis=1)[:, -self.k:]
        order = np.argsort(-np.take_along_axis(scores, best, 1), axis=1)
        return np.take_along_axis(best, order, 1)


class Torch:
    """One matrix product, then topk."""

    def __init__(self, rows, k, threads):
        import torch

        torch.set_num_threads(threads)
        self.torch, self.rows, self.k = torch, torch.from_numpy(rows), k

    def one(self, query):
        return (self.rows @ self.torch.from_numpy(query)).topk(self.k).indices.numpy()

    def many(self, queries):
        return (self.torch.from_numpy(queries) @ self.rows.T).topk(self.k, dim=1).indices.numpy()


def fastest(settings, call):
    """The setting under which `call(setting)` took least, of three tries each."""

    def seconds(setting):
        start = time.perf_counter()
        call(setting)
        return time.perf_counter() - start

    return min(settings, key=lambda setting: min(seconds(setting) for _ in range(3)))


class Faiss:
    """IndexFlatIP under its best setting: all threads or one, and BLAS (which some builds only use
    when told to) or not."""

    BLAS_FROM = 20  # queries

    def __init__(self, rows, k, threads):
        import faiss

        self.faiss, self.k = faiss, k
        self.index = faiss.IndexFlatIP(rows.shape[1])
        self.index.add(rows)
        plain = faiss.cvar.distance_compute_blas_threshold
        some = rows[:100].copy()
        both = sorted({1, threads})
        settings = [(count, limit) for count in both for limit in (plain, self.BLAS_FROM)]
        self.for_one = fastest(settings[::2], lambda setting: self.search(some[:1], setting))
        self.for_many = fastest(settings, lambda setting: self.search(some, setting))

    def search(self, queries, setting):
        self.faiss.omp_set_num_threads(setting[0])
        self.faiss.cvar.distance_compute_blas_threshold = setting[1]
        return self.index.search(queries, self.k)[1]

    def one(self, query):
        return self.search(query[None], self.for_one)[0]

    def many(self, queries):
        return self.search(queries, self.for_many)


class Usearch:
    """usearch.index.search with exact=True, on all threads or one, whichever is faster."""

    def __init__(self, rows, k, threads):
        from usearch.index import MetricKind, search

        self.find = lambda queries, count: search(rows, queries, k, MetricKind.IP, exact=True, threads=count).keys
        both = sorted({1, threads})
        self.for_one = fastest(both, lambda count: self.find(rows[0], count))
        self.for_many = threads

    def one(self, query):
        return np.asarray(self.find(query, self.for_one))

    def many(self, queries):
        return np.asarray(self.find(queries, self.for_many))


OPEN = {"numpy": Numpy, "torch": Torch, "faiss": Faiss, "usearch": Usearch}
