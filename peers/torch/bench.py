"""PyTorch on the training step of benches/benches/train.rs: the same shapes, batch, optimiser and clipping, f32 on the CPU.

Prints one JSON line per benchmark. Threads: OMP_NUM_THREADS.
"""

import json
import math
import statistics
import time

import torch
import torch.nn.functional as F
from torch import nn

BATCH, CONTEXT, SHIFT, EPSILON = 16, 128, 3.0, 0.81


def rotate(x, cos, sin):
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)


class Block(nn.Module):
    def __init__(self, width, heads, power):
        super().__init__()
        self.heads, self.power = heads, power
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x, cos, sin, mask, counts):
        b, t, d = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(b, t, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        if self.power:
            y = (q @ k.transpose(-1, -2) / math.sqrt(d // self.heads) + SHIFT).square().square() * mask
            mixed = (y @ v) / (y.sum(-1, keepdim=True) + EPSILON * counts)
        else:
            mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(b, t, d))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class Model(nn.Module):
    def __init__(self, vocab, layers, width, heads, power):
        super().__init__()
        self.embedding = nn.Embedding(vocab, width)
        nn.init.normal_(self.embedding.weight, std=width**-0.5)
        self.blocks = nn.ModuleList(Block(width, heads, power) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        half = width // heads // 2
        angles = torch.arange(CONTEXT)[:, None] * 10_000.0 ** (-torch.arange(half) / half)
        self.register_buffer("cos", angles.cos())
        self.register_buffer("sin", angles.sin())
        self.register_buffer("mask", torch.ones(CONTEXT, CONTEXT).tril())
        self.register_buffer("counts", torch.arange(1.0, CONTEXT + 1)[:, None])

    def forward(self, tokens, targets):
        x = self.embedding(tokens)
        for block in self.blocks:
            x = block(x, self.cos, self.sin, self.mask, self.counts)
        logits = self.norm(x) @ self.embedding.weight.T
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


def bench(name, vocab, layers, width, heads, power, samples):
    torch.manual_seed(1)
    model = Model(vocab, layers, width, heads, power)
    decayed = [p for p in model.parameters() if p.dim() > 1]
    others = [p for p in model.parameters() if p.dim() <= 1]
    groups = [{"params": decayed, "weight_decay": 0.05}, {"params": others, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=2e-3, betas=(0.9, 0.98), eps=1e-8)
    corpus = torch.randint(vocab, (100_000,))

    def step():
        starts = torch.randint(len(corpus) - CONTEXT - 1, (BATCH,))
        windows = torch.stack([corpus[s : s + CONTEXT + 1] for s in starts])
        loss = model(windows[:, :-1], windows[:, 1:])
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        return loss.item()

    for _ in range(5):
        step()
    times = []
    for _ in range(samples):
        start = time.perf_counter_ns()
        step()
        times.append(time.perf_counter_ns() - start)
    median = statistics.median(times)
    print(
        json.dumps(
            {
                "id": f"train/{name}",
                "params": f"batch {BATCH} x {CONTEXT}, f32, AdamW",
                "median_ns": median,
                "min_ns": min(times),
                "max_ns": max(times),
                "samples": samples,
                "peer": f"PyTorch {torch.__version__}",
                "metrics": {
                    "tokens_per_second": BATCH * CONTEXT / median * 1e9,
                    "parameters": sum(p.numel() for p in model.parameters()),
                },
            }
        ),
        flush=True,
    )


bench("2x128", 512, 2, 128, 4, True, 40)
bench("2x128/softmax", 512, 2, 128, 4, False, 40)
bench("4x256", 1024, 4, 256, 8, True, 15)
