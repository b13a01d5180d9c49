"""The model in the form each runtime likes best, made once into the work folder."""

import os

import numpy as np

import embedders

HEADS, LAYERS, EPSILON = 12, 6, 1e-12
INPUTS = ("input_ids", "attention_mask", "token_type_ids")


def weights_of(model):
    from safetensors.numpy import load_file

    tensors = load_file(os.path.join(model, "model.safetensors"))
    return {name.removeprefix("bert."): tensor for name, tensor in tensors.items() if tensor.dtype == np.float32}


class Graph:
    """Nodes and constants of an ONNX graph, gathered call by call."""

    def __init__(self):
        self.nodes, self.constants = [], []

    def constant(self, name, array):
        from onnx import numpy_helper

        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def add(self, kind, inputs, output, *more, domain="", **settings):
        from onnx import helper

        self.nodes.append(helper.make_node(kind, inputs, [output, *more], name=output, domain=domain, **settings))
        return output


def onnx_fused(model, path):
    """The best graph ONNX Runtime has for BERT, out of its own operators: fused embedding and norm,
    attention over packed QKV, norms that take the residual and the bias in, GELU with its bias."""
    import onnx
    from onnx import TensorProto, helper

    weights, graph, own = weights_of(model), Graph(), {"domain": "com.microsoft"}
    weight = lambda name: graph.constant(name, weights[name])  # noqa: E731
    turned = lambda name: graph.constant(name, weights[name].T)  # noqa: E731
    ids, mask, types = (graph.add("Cast", [name], f"{name}.32", to=TensorProto.INT32) for name in INPUTS)
    tables = [weight(f"embeddings.{kind}_embeddings.weight") for kind in ("word", "position", "token_type")]
    norm = [weight(f"embeddings.LayerNorm.{part}") for part in ("weight", "bias")]
    x = graph.add("EmbedLayerNormalization", [ids, types, *tables, *norm], "x", "x.mask", epsilon=EPSILON, **own)
    for index in range(LAYERS):
        at = f"encoder.layer.{index}."
        parts = [f"{at}attention.self.{part}." for part in ("query", "key", "value")]
        qkv = graph.constant(at + "qkv.weight", np.concatenate([weights[part + "weight"].T for part in parts], 1))
        qkv_bias = graph.constant(at + "qkv.bias", np.concatenate([weights[part + "bias"] for part in parts]))
        heads = graph.add("Attention", [x, qkv, qkv_bias, mask], at + "heads", num_heads=HEADS, **own)
        x = half_block(graph, weight, turned, heads, x, at + "attention.output.")
        wide = graph.add("MatMul", [x, turned(at + "intermediate.dense.weight")], at + "wide")
        wide = graph.add("BiasGelu", [wide, weight(at + "intermediate.dense.bias")], at + "gelu", **own)
        x = half_block(graph, weight, turned, wide, x, at + "output.")
    # The mean's divisor falls out when the sum is brought to length 1.
    one = graph.constant("one", np.array([1], np.int64))
    row = graph.add("Unsqueeze", [graph.add("Cast", [INPUTS[1]], "mask.f32", to=TensorProto.FLOAT), one], "mask.row")
    total = graph.add("Squeeze", [graph.add("MatMul", [row, x], "sum"), one], "sum.flat")
    graph.add("LpNormalization", [total], "vector", axis=1, p=2)

    inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "length"]) for name in INPUTS]
    outputs = [helper.make_tensor_value_info("vector", TensorProto.FLOAT, ["batch", 384])]
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    whole = helper.make_graph(graph.nodes, "minilm", inputs, outputs, graph.constants)
    onnx.save(helper.make_model(whole, opset_imports=opsets, ir_version=8), path)


def half_block(graph, weight, turned, x, residual, at):
    """The dense layer that closes a half-block, with its bias, residual and norm."""
    dense = graph.add("MatMul", [x, turned(at + "dense.weight")], at + "dense")
    norm = [weight(f"{at}LayerNorm.{part}") for part in ("weight", "bias")]
    inputs = [dense, residual, *norm, weight(at + "dense.bias")]
    return graph.add("SkipLayerNormalization", inputs, at + "x", domain="com.microsoft", epsilon=EPSILON)


def onnx_int8(path, to):
    """ONNX Runtime's own dynamic quantization: weights in signed bytes, a scale for each output, but
    for the mean."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(
        path, to, weight_type=QuantType.QInt8, per_channel=True, reduce_range=False, nodes_to_exclude=["sum"],
        extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},
    )


def openvino_int8(path, to, model, texts):
    """OpenVINO's quantization after training, by NNCF, calibrated with texts."""
    import nncf
    import openvino

    tokenizer = embedders.tokenizer_of(str(model))
    arrays = lambda text: dict(zip(INPUTS, embedders.padded([tokenizer.encode(text)])))  # noqa: E731
    data = nncf.Dataset(texts, arrays)
    read = openvino.Core().read_model(path)
    quantized = nncf.quantize(read, data, model_type=nncf.ModelType.TRANSFORMER, subset_size=len(texts))
    openvino.save_model(quantized, to, compress_to_fp16=False)


def export(contenders, model, work, calibration, note):
    """Makes whatever the contenders need and the work folder lacks; `calibration` is texts.

    OpenVINO reads the same graph: its own conversion from PyTorch gives the same speed in bulk and
    is slower on a single text.
    """
    onnx_path, openvino_path = work / "minilm.fused.onnx", work / "minilm.xml"
    others = {"ov", "ov-bf16", "ov-int8"} & set(contenders)
    if ({"ort", "ort-int8"} & set(contenders) or others) and not onnx_path.exists():
        note("exporting to ONNX")
        onnx_fused(str(model), str(onnx_path))
    if others and not openvino_path.exists():
        import openvino

        note("exporting to OpenVINO")
        openvino.save_model(openvino.convert_model(str(onnx_path)), str(openvino_path), compress_to_fp16=False)
    int8 = work / "minilm.fused.int8.onnx"
    if "ort-int8" in contenders and not int8.exists():
        note("quantizing for ONNX Runtime")
        onnx_int8(str(onnx_path), str(int8))
    int8 = work / "minilm.int8.xml"
    if "ov-int8" in contenders and not int8.exists():
        note("quantizing for OpenVINO")
        openvino_int8(str(openvino_path), str(int8), model, calibration)
