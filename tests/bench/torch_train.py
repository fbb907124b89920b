#!/usr/bin/python3
"""One process of PyTorch training GPT-2 steps on random tokens: forward, backward, clipping, AdamW; the yardstick of `make bench-train`.

Prints one JSON object with the fields of `millrace bench train --json` where PyTorch has them.
"""

import argparse
import json
import math
import os
import resource
import time

parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
for name, value in (
    ("layers", 4),
    ("heads", 4),
    ("embd", 256),
    ("length", 256),
    ("batch", 8),
    ("vocab", 50257),
    ("threads", 2),
    ("steps", 5),
):
    parser.add_argument("--" + name, type=int, default=value)
parser.add_argument("--bf16", action="store_true", help="matrix products in bfloat16, as torch.autocast does it")
a = parser.parse_args()
os.environ.setdefault(
    "OMP_WAIT_POLICY", "passive"
)  # spinning threads would take the other's cores; it is also PyTorch's faster setting here
os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = str(a.threads)
import torch  # noqa: E402: after the environment is set
import torch.nn as nn  # noqa: E402
import torch.nn.functional as F  # noqa: E402

torch.set_num_threads(a.threads)
torch.manual_seed(0)


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        C = a.embd
        self.ln1, self.ln2 = nn.LayerNorm(C), nn.LayerNorm(C)
        self.attn, self.attn_proj = nn.Linear(C, 3 * C), nn.Linear(C, C)
        self.fc, self.proj = nn.Linear(C, 4 * C), nn.Linear(4 * C, C)

    def forward(self, x, future):
        B, T, C = x.shape
        q, k, v = (t.view(B, T, a.heads, C // a.heads).transpose(1, 2) for t in self.attn(self.ln1(x)).split(C, 2))
        scores = (q @ k.transpose(-2, -1) * (1 / math.sqrt(C // a.heads))).masked_fill(future, float("-inf"))
        x = x + self.attn_proj((F.softmax(scores, -1) @ v).transpose(1, 2).reshape(B, T, C))
        return x + self.proj(F.gelu(self.fc(self.ln2(x)), approximate="tanh"))


class GPT(nn.Module):
    def __init__(self):
        super().__init__()
        self.wte, self.wpe = nn.Embedding(a.vocab, a.embd), nn.Embedding(a.length, a.embd)
        self.blocks, self.lnf = nn.ModuleList(Block() for _ in range(a.layers)), nn.LayerNorm(a.embd)
        for name, p in self.named_parameters():
            if p.dim() > 1:
                nn.init.normal_(p, 0, 0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(p)

    def forward(self, x, y, future):
        h = self.wte(x) + self.wpe(torch.arange(x.shape[1]))
        for block in self.blocks:
            h = block(h, future)
        return F.cross_entropy((self.lnf(h) @ self.wte.weight.T).float().view(-1, a.vocab), y.view(-1))


def main():
    model = GPT()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4, weight_decay=0.1)
    future = torch.triu(torch.ones(a.length, a.length, dtype=torch.bool), 1)
    tokens = torch.randint(0, a.vocab, (a.batch, a.length + 1))
    seconds, losses = [], []
    for step in range(-1, a.steps):
        start = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=a.bf16):
            loss = model(tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous(), future)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if step >= 0:
            seconds.append(time.perf_counter() - start)
        losses.append(loss.item())
    seconds.sort()
    count, matrices = a.batch * a.length, sum(p.numel() for n, p in model.named_parameters() if p.dim() > 1 and "wpe" not in n)
    gflop = (6 * matrices * count + 12 * a.layers * a.embd * a.length * count) / 1e9
    median = seconds[len(seconds) // 2]
    print(
        json.dumps(
            {
                "library": "pytorch " + torch.__version__,
                "parameters": sum(p.numel() for p in model.parameters()),
                "tokens_per_second_best": count / seconds[0],
                "tokens_per_second_median": count / median,
                "gflop_per_step": gflop,
                "gflops": gflop / median,
                "loss_first": losses[0],
                "loss_last": losses[-1],
                "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            }
        )
    )


if __name__ == "__main__":
    main()
