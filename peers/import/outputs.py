"""Outputs of public architectures by PyTorch and transformers, to compare with cipherlm's import.

    python3 outputs.py tiny > expected.json          what crates/model/tests/data/import.json holds
    python3 outputs.py folder DIR "some text" > out  hidden states or last logits of a real checkpoint (folder or GGUF)

`tiny` fills small models with a formula that the Rust test repeats (`fill`), so that no weights are stored.
"""

import json
import math
import os
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


if __name__ == "__main__":
    tiny() if sys.argv[1] == "tiny" else folder(*sys.argv[2:4])
