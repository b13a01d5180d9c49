"""all-MiniLM-L6-v2 as others run it on the CPU: f32 unless their name says otherwise, cut at 256 tokens, mean pooling, length 1.

`embed(texts, plan)` returns an array of n x 384. A plan is {"batch": texts in a batch, "streams":
batches at a time}; `plans(workload)` lists those worth trying. Threads are split evenly over streams.
"""

import os
import queue
from concurrent.futures import ThreadPoolExecutor

import numpy as np

TOKENS_MAX = 256
BATCHES = {"batch": (16, 32, 64, 100), "bulk": (8, 16, 32, 64, 128), "long": (1, 2, 4, 8, 16, 32)}


def tokenizer_of(model):
    """The model's tokenizer, cut at 256 tokens, without padding."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(os.path.join(model, "tokenizer.json"))
    tokenizer.enable_truncation(TOKENS_MAX)
    tokenizer.no_padding()
    return tokenizer


class Padded:
    """What runtimes without texts need around them: tokens, batches of like lengths, padding."""

    def __init__(self, model, threads):
        self.tokenizer, self.threads = tokenizer_of(model), threads
        self.opened, self.pool = {}, ThreadPoolExecutor(threads)

    def plans(self, workload):
        streams = {1, self.threads}
        return [{"batch": batch, "streams": s} for s in sorted(streams) for batch in BATCHES[workload]]

    def forward(self, streams):
        """The call (ids, mask, types) -> vectors for so many streams; made once."""
        if streams not in self.opened:
            self.opened[streams] = self.open(streams)
        return self.opened[streams]

    def embed(self, texts, plan):
        if plan is None:
            encoded = [self.tokenizer.encode(text) for text in texts]
            return self.forward(1)(*padded(encoded))
        forward, size = self.forward(plan["streams"]), plan["batch"]
        encoded = self.tokenizer.encode_batch_fast(texts)
        order = sorted(range(len(encoded)), key=lambda index: -len(encoded[index]))
        vectors = np.empty((len(texts), 384), np.float32)

        def run(part):
            vectors[part] = forward(*padded([encoded[index] for index in part]))

        parts = [order[at:at + size] for at in range(0, len(order), size)]
        list(self.pool.map(run, parts) if plan["streams"] > 1 else map(run, parts))
        return vectors


def padded(encoded):
    """Token ids, attention mask and token types as int64 arrays of one width."""
    shape = (len(encoded), max(len(one) for one in encoded))
    ids, mask = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    for row, one in enumerate(encoded):
        ids[row, :len(one)] = one.ids
        mask[row, :len(one)] = 1
    return ids, mask, np.zeros(shape, np.int64)


class OnnxRuntime(Padded):
    """ONNX Runtime on a graph of its own fused operators (see export.py)."""

    def __init__(self, model, work, threads, file="minilm.fused.onnx"):
        super().__init__(model, threads)
        self.path = os.path.join(work, file)

    def open(self, streams):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = max(1, self.threads // streams)
        options.inter_op_num_threads = 1
        session = onnxruntime.InferenceSession(self.path, options, providers=["CPUExecutionProvider"])
        names = [one.name for one in session.get_inputs()]
        return lambda *arrays: session.run(None, dict(zip(names, arrays)))[0]


class OpenVino(Padded):
    """OpenVINO with the latency hint, or its throughput hint where there are several streams."""

    def __init__(self, model, work, threads, precision="f32", file="minilm.xml"):
        super().__init__(model, threads)
        self.path, self.precision = os.path.join(work, file), precision

    def open(self, streams):
        import openvino

        settings = {"INFERENCE_NUM_THREADS": self.threads, "INFERENCE_PRECISION_HINT": self.precision}
        if streams > 1:
            settings |= {"PERFORMANCE_HINT": "THROUGHPUT", "NUM_STREAMS": streams}
        else:
            settings |= {"PERFORMANCE_HINT": "LATENCY"}
        compiled = openvino.Core().compile_model(self.path, "CPU", settings)
        requests = queue.Queue()
        for _ in range(streams):
            requests.put(compiled.create_infer_request())
        names = [one.any_name for one in compiled.inputs]

        def call(*arrays):
            request = requests.get()
            try:
                return request.infer(dict(zip(names, arrays)), share_inputs=True)[0].copy()
            finally:
                requests.put(request)

        return call


class SentenceTransformers:
    """sentence-transformers on PyTorch."""

    def __init__(self, model, work, threads):
        import torch
        from sentence_transformers import SentenceTransformer

        torch.set_num_threads(threads)
        self.encoder = SentenceTransformer(model, device="cpu")
        self.encoder.max_seq_length = TOKENS_MAX

    def plans(self, workload):
        return [{"batch": batch, "streams": 1} for batch in BATCHES[workload]]

    def embed(self, texts, plan):
        batch = plan["batch"] if plan else 1
        return self.encoder.encode(texts, batch_size=batch, show_progress_bar=False)


OPEN = {
    "ort": OnnxRuntime,
    "ort-int8": lambda model, work, threads: OnnxRuntime(model, work, threads, "minilm.fused.int8.onnx"),
    "ov": OpenVino,
    "ov-bf16": lambda model, work, threads: OpenVino(model, work, threads, "bf16"),
    "ov-int8": lambda model, work, threads: OpenVino(model, work, threads, file="minilm.int8.xml"),
    "torch": SentenceTransformers,
}
