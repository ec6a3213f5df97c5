"""Outputs of public architectures by PyTorch and transformers, to compare with cipherlm's import.

    python3 outputs.py tiny > expected.json          what crates/model/tests/data/import.json holds
    python3 outputs.py folder DIR "some text" > out  hidden states or last logits of a real checkpoint (folder or GGUF)
    python3 outputs.py public BASE > public.json     what crates/model/tests/data/public.json holds: some outputs of
                                                     BASE/minilm and BASE/smollm2 (`cargo xtask fetch`) and of
                                                     BASE/stories260k/stories260K.bin (llama2.c)

`tiny` fills small models with a formula that the Rust test repeats (`fill`), so that no weights are stored.
"""

import json
import math
import os
import struct
import sys

import torch
from transformers import (
    AutoConfig,
    BertForSequenceClassification,
    BertModel,
    GPTNeoXForCausalLM,
    LlamaForCausalLM,
)

COMMON = {"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 2, "intermediate_size": 24, "max_position_embeddings": 12}
IDS = [3, 17, 5, 39, 0, 22, 8]


def fill(name, dims):
    """Values of a tensor from its name alone."""
    state = 2166136261
    for byte in name.encode():
        state = (state ^ byte) * 16777619 % 2**32
    out = []
    for _ in range(math.prod(dims)):
        state = (state * 1664525 + 1013904223) % 2**32
        unit = (state >> 8) / 2**23 - 1.0
        if len(dims) > 1:
            out.append(unit * math.sqrt(3.0 / dims[-1]))
        else:
            out.append(0.1 * unit if name.endswith("bias") else 1.0 + 0.2 * unit)
    return torch.tensor(out, dtype=torch.float32).reshape(dims)


def build(kind, model_type, **fields):
    config = AutoConfig.for_model(model_type, **{**COMMON, **fields})
    model = kind(config).eval()
    filled = {}
    tensors = {}
    for name, value in model.state_dict().items():
        if value.dtype.is_floating_point:
            filled[name] = fill(name, list(value.shape))
            tensors[name] = list(value.shape)
    if config.tie_word_embeddings and "lm_head.weight" in filled:
        del filled["lm_head.weight"], tensors["lm_head.weight"]
    model.load_state_dict(filled, strict=False)
    model.tie_weights()
    return model.double(), {"model_type": model_type, **COMMON, **fields}, tensors


def rounded(rows):
    return [[float(f"{x:.7g}") for x in row] for row in rows]


def tiny():
    cases = []

    def case(name, kind, model_type, outputs, **fields):
        model, config, tensors = build(kind, model_type, **fields)
        with torch.no_grad():
            rows = outputs(model)
        cases.append({"name": name, "config": config, "tensors": tensors, "ids": IDS, "outputs": rounded(rows.tolist())})

    ids = torch.tensor([IDS])
    hidden = lambda m: m(ids).last_hidden_state[0]
    logits = lambda m: m(ids).logits[0, 1::3]
    case("bert", BertModel, "bert", hidden, num_attention_heads=2)
    mask = torch.tensor([[1] * 5 + [0] * 2])
    classes = lambda m: m(ids, attention_mask=mask).logits
    case("bert_classifier", BertForSequenceClassification, "bert", classes, num_attention_heads=4, num_labels=3)
    neox = {"tie_word_embeddings": False}
    case("neox_parallel", GPTNeoXForCausalLM, "gpt_neox", logits, num_attention_heads=2, rotary_pct=0.5, **neox)
    case("neox_sequential", GPTNeoXForCausalLM, "gpt_neox", logits, num_attention_heads=4, rotary_pct=1.0,
         use_parallel_residual=False, **neox)
    case("llama_shared", LlamaForCausalLM, "llama", logits, num_attention_heads=4, num_key_value_heads=2,
         rope_theta=5000.0, rms_norm_eps=1e-5, tie_word_embeddings=True)
    case("llama_biased", LlamaForCausalLM, "llama", logits, num_attention_heads=4, num_key_value_heads=1, head_dim=6,
         attention_bias=True, rope_theta=10000.0, rms_norm_eps=1e-6, tie_word_embeddings=False)
    json.dump(cases, sys.stdout, separators=(",", ":"))


def folder(path, text):
    from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer

    if path.endswith(".gguf"):
        place = {"pretrained_model_name_or_path": os.path.dirname(path), "gguf_file": os.path.basename(path)}
    else:
        place = {"pretrained_model_name_or_path": path}
    tokenizer = AutoTokenizer.from_pretrained(**place)
    ids = tokenizer(text, return_tensors="pt")["input_ids"]
    causal = path.endswith(".gguf") or AutoConfig.from_pretrained(path).model_type != "bert"
    model = (AutoModelForCausalLM if causal else AutoModel).from_pretrained(**place, dtype=torch.float32).eval()
    with torch.no_grad():
        out = model(ids)
    rows = out.logits[0, -1:] if causal else out.last_hidden_state[0]
    json.dump({"ids": ids[0].tolist(), "outputs": rounded(rows.tolist())}, sys.stdout, separators=(",", ":"))


def llama2c(path):
    """A llama2.c checkpoint as transformers' Llama."""
    raw = open(path, "rb").read()
    d, f, layers, heads, kv, vocab, context = struct.unpack("<7i", raw[:28])
    values = torch.frombuffer(bytearray(raw[28:]), dtype=torch.float32)
    at = 0

    def take(*dims):
        nonlocal at
        count = math.prod(dims)
        at += count
        return values[at - count : at].reshape(dims)

    head = d // heads

    def halves(w, n):
        # Rows of a head alternate between the two halves that transformers turns against each other.
        return w.reshape(n, head // 2, 2, -1).transpose(1, 2).reshape(n * head, -1)

    state = {"model.embed_tokens.weight": take(vocab, d)}
    parts = {}
    for name, dims in [("input_layernorm", (d,)), ("self_attn.q_proj", (d, d)), ("self_attn.k_proj", (kv * head, d)),
                       ("self_attn.v_proj", (kv * head, d)), ("self_attn.o_proj", (d, d)), ("post_attention_layernorm", (d,)),
                       ("mlp.gate_proj", (f, d)), ("mlp.down_proj", (d, f)), ("mlp.up_proj", (f, d))]:
        parts[name] = take(layers, *dims)
    for name, stack in parts.items():
        for l in range(layers):
            w = stack[l]
            if name == "self_attn.q_proj":
                w = halves(w, heads)
            if name == "self_attn.k_proj":
                w = halves(w, kv)
            state[f"model.layers.{l}.{name}.weight"] = w.clone()
    state["model.norm.weight"] = take(d)
    config = AutoConfig.for_model("llama", vocab_size=abs(vocab), hidden_size=d, intermediate_size=f, num_hidden_layers=layers,
                                  num_attention_heads=heads, num_key_value_heads=kv, max_position_embeddings=context,
                                  rope_theta=10000.0, rms_norm_eps=1e-5, tie_word_embeddings=True)
    model = LlamaForCausalLM(config).eval()
    missing = model.load_state_dict(state, strict=False)
    assert missing.missing_keys in ([], ["lm_head.weight"]) and not missing.unexpected_keys, missing
    model.tie_weights()
    return model


def public(base):
    """Every `step`th value of each row of outputs."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    cases = []

    def case(name, place, ids, rows, step):
        cases.append({"name": name, "place": place, "ids": ids, "step": step, "outputs": rounded(rows[:, ::step].tolist())})

    text = "A girl is styling her hair, 12 naïve men play football."
    with torch.no_grad():
        path = os.path.join(base, "minilm")
        ids = AutoTokenizer.from_pretrained(path)(text, return_tensors="pt")["input_ids"]
        out = BertModel.from_pretrained(path, dtype=torch.float32).eval().double()(ids).last_hidden_state[0]
        case("all-MiniLM-L6-v2", "minilm", ids[0].tolist(), out, 16)
        file = "SmolLM2-135M-Instruct.Q4_1.gguf"
        model = AutoModelForCausalLM.from_pretrained(os.path.join(base, "smollm2"), gguf_file=file, dtype=torch.float32)
        ids = torch.tensor([[1, 9690, 198, 504, 3575, 282, 4649, 314, 253]])
        case("SmolLM2-135M", f"smollm2/{file}", ids[0].tolist(), model.eval().double()(ids).logits[0, ::4], 512)
        ids = torch.tensor([[1, 403, 407, 261, 378, 31, 300, 415, 9, 40, 77, 281]])
        out = llama2c(os.path.join(base, "stories260k/stories260K.bin")).double()(ids).logits[0, ::4]
        case("stories260K", "stories260k/stories260K.bin", ids[0].tolist(), out, 8)
    json.dump(cases, sys.stdout, separators=(",", ":"))


if __name__ == "__main__":
    modes = {"tiny": tiny, "folder": folder, "public": public}
    modes[sys.argv[1]](*sys.argv[2:])
