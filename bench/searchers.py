"""Exact inner-product search as others do it: `one` query or `many`, the k best row numbers, best first."""

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


class Faiss:
    """IndexFlatIP; batches go through BLAS, which some wheels only do when told to."""

    BLAS_FROM = 20  # queries

    def __init__(self, rows, k, threads):
        import faiss

        faiss.omp_set_num_threads(threads)
        self.faiss, self.k = faiss, k
        self.plain = faiss.cvar.distance_compute_blas_threshold
        self.index = faiss.IndexFlatIP(rows.shape[1])
        self.index.add(rows)

    def one(self, query):
        self.faiss.cvar.distance_compute_blas_threshold = self.plain
        return self.index.search(query[None], self.k)[1][0]

    def many(self, queries):
        self.faiss.cvar.distance_compute_blas_threshold = self.BLAS_FROM
        return self.index.search(queries, self.k)[1]


class Usearch:
    """usearch.index.search with exact=True."""

    def __init__(self, rows, k, threads):
        from usearch.index import MetricKind, search

        self.find = lambda queries: search(rows, queries, k, MetricKind.IP, exact=True, threads=threads)

    def one(self, query):
        return np.asarray(self.find(query).keys)

    def many(self, queries):
        return np.asarray(self.find(queries).keys)


OPEN = {"numpy": Numpy, "torch": Torch, "faiss": Faiss, "usearch": Usearch}
