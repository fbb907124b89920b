#!/usr/bin/python3
"""`make bench-quality`: millrace and PyTorch train the same model on the same tokens in the same order, from the same weights, with the
same schedule, decay groups and clipping, without dropout; prints the mean training loss of each over the last 10 steps. Exit code 1 when
ours is more than 0.05 nats above.

The tokens come from millrace's shards (`zstd -dc`), the order from a port of dataset/shard/order.c, the model from torch_train.py. The
first weights are those of a millrace run of one step, whose learning rate is 0. `--own-init` lets PyTorch draw its own instead: at 100
steps the draw alone moves the loss by several hundredths of a nat.
"""

import argparse
import glob
import json
import math
import os
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
MASK32 = 0xFFFFFFFF

parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
parser.add_argument("--binary", default=os.path.join(os.environ.get("MILLRACE_BUILD", os.path.join(ROOT, "build")), "millrace"))
parser.add_argument("--corpus", default=os.path.join(ROOT, "corpus"))
for name, value in (
    ("layers", 4),
    ("heads", 4),
    ("embd", 256),
    ("length", 256),
    ("batch", 8),
    ("steps", 100),
    ("warmup", 10),
    ("seed", 42),
    ("threads", 2),
):
    parser.add_argument("--" + name, type=int, default=value)
parser.add_argument("--rate", type=float, default=1e-3)
parser.add_argument("--decay", type=float, default=0.1)
parser.add_argument("--own-init", action="store_true")
a = parser.parse_args()


def philox(key, high, low):
    c = [low & MASK32, low >> 32, high & MASK32, high >> 32]
    k = [key & MASK32, key >> 32]
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(p1 >> 32) ^ c[1] ^ k[0], p1 & MASK32, (p0 >> 32) ^ c[3] ^ k[1], p0 & MASK32]
        k = [(k[0] + 0x9E3779B9) & MASK32, (k[1] + 0xBB67AE85) & MASK32]
    return c[0]


def order(seed, position, sequences):
    half = 1
    while (sequences - 1) >> (2 * half):
        half += 1
    epoch, value, mask = position // sequences, position % sequences, (1 << half) - 1
    while True:
        left, right = value >> half, value & mask
        for step in range(8):
            left, right = right, left ^ (philox(seed, epoch, (0x4F524400 + step) << 32 | right) & mask)
        value = left << half | right
        if value < sequences:
            return value


def rate(step):
    """transformers' cosine schedule with warm-up, of the optimizer's step number `step`, from 1."""
    done = step - 1
    if done < a.warmup:
        return a.rate * done / max(1, a.warmup)
    return a.rate * max(0.0, 0.5 * (1 + math.cos(math.pi * (done - a.warmup) / max(1, a.steps - a.warmup))))


def first_weights(folder):
    """The tensors before the first step, by name: the first step of a warm-up has the rate 0."""
    import numpy as np

    sets = ["output_dir=init", "training.max_steps=1", "training.warmup_steps=1"]
    command = [a.binary, "run", os.path.join(folder, "pipeline.yaml"), "--json", "--workers", "1"]
    subprocess.run(command + [part for item in sets for part in ("--set", item)], check=True, stdout=subprocess.DEVNULL)
    with open(os.path.join(folder, "init", "checkpoint-1", "model.safetensors"), "rb") as f:
        raw = f.read()
    size = int.from_bytes(raw[:8], "little")
    tensors = json.loads(raw[8 : 8 + size])
    tensors.pop("__metadata__")
    return {
        name.removeprefix("transformer."): np.frombuffer(raw, np.float32, (t["data_offsets"][1] - t["data_offsets"][0]) // 4,
                                                         8 + size + t["data_offsets"][0]).reshape(t["shape"])
        for name, t in tensors.items()
    }


def load_weights(model, tensors):
    import torch

    names = {"ln1": "ln_1", "ln2": "ln_2", "attn": "attn.c_attn", "attn_proj": "attn.c_proj", "fc": "mlp.c_fc", "proj": "mlp.c_proj"}
    for name, p in model.named_parameters():
        parts = name.split(".")
        if parts[0] == "blocks":
            theirs = f"h.{parts[1]}.{names[parts[2]]}.{parts[3]}"
        else:
            theirs = name.replace("lnf", "ln_f")
        values = torch.from_numpy(tensors[theirs].copy())
        p.data.copy_(values.T if parts[0] == "blocks" and p.dim() == 2 else values)  # Conv1D keeps (in, out)


def train_millrace(folder):
    pipeline = os.path.join(folder, "pipeline.yaml")
    with open(pipeline, "w", encoding="utf-8") as f:
        f.write(f"""run_name: quality
output_dir: out
cluster: {{ workers: 2, threads_per_worker: 1 }}
dataset: {{ sources: [ "{a.corpus}/**/*.txt" ], sequence_length: {a.length}, validation_fraction: 0.01 }}
model: {{ n_layer: {a.layers}, n_head: {a.heads}, n_embd: {a.embd}, n_positions: {a.length}, attn_pdrop: 0, embd_pdrop: 0, resid_pdrop: 0 }}
training: {{ global_batch: {a.batch}, slices: 4, max_steps: {a.steps}, learning_rate: {a.rate!r}, warmup_steps: {a.warmup},
  weight_decay: {a.decay!r},
  max_grad_norm: 1, eval_steps: 0, eval_sequences: 1, save_steps: 0, seed: {a.seed} }}
""")
    subprocess.run([a.binary, "run", pipeline, "--json"], check=True, stdout=subprocess.DEVNULL)
    with open(os.path.join(folder, "out", "metrics.jsonl"), encoding="utf-8") as f:
        return [row["loss"] for row in map(json.loads, f) if "loss" in row]


def train_torch(folder):
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    sys.path.insert(0, HERE)
    sys.argv = ["torch_train.py"] + [f"--{n}={getattr(a, n)}" for n in ("layers", "heads", "embd", "length", "batch", "threads")]
    import numpy as np
    import torch
    import torch_train

    raw = b"".join(
        subprocess.run(["zstd", "-dcq", path], check=True, stdout=subprocess.PIPE).stdout
        for path in sorted(glob.glob(os.path.join(folder, "out/dataset/train-*.tok.zst")))
    )
    tokens = torch.from_numpy(np.frombuffer(raw, np.uint16).astype(np.int64))
    sequences = (len(tokens) - 1) // a.length
    torch.manual_seed(a.seed)
    model = torch_train.GPT()
    for name, p in model.named_parameters():
        if name.endswith(("attn_proj.weight", ".proj.weight")):
            torch.nn.init.normal_(p, 0, 0.02 / math.sqrt(2 * a.layers))
    if not a.own_init:
        load_weights(model, first_weights(folder))
    groups = [
        {"params": [p for p in model.parameters() if p.dim() > 1], "weight_decay": a.decay},
        {"params": [p for p in model.parameters() if p.dim() == 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, a.rate, betas=(0.9, 0.999), eps=1e-8)
    future = torch.triu(torch.ones(a.length, a.length, dtype=torch.bool), 1)
    losses = []
    for step in range(1, a.steps + 1):
        starts = [order(a.seed, (step - 1) * a.batch + i, sequences) * a.length for i in range(a.batch)]
        x = torch.stack([tokens[s : s + a.length] for s in starts])
        y = torch.stack([tokens[s + 1 : s + a.length + 1] for s in starts])
        for group in optimizer.param_groups:
            group["lr"] = rate(step)
        loss = model(x, y, future)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.item())
        if step % 10 == 0:
            print(f"pytorch step {step} of {a.steps}  loss {losses[-1]:.4f}", file=sys.stderr, flush=True)
    return losses


def main():
    with tempfile.TemporaryDirectory(prefix="millrace-quality-") as folder:
        ours = train_millrace(folder)
        theirs = train_torch(folder)
    last = min(10, a.steps)
    mean_ours, mean_theirs = sum(ours[-last:]) / last, sum(theirs[-last:]) / last
    print(f"step      millrace  pytorch")
    for step in range(10, a.steps + 1, max(10, a.steps // 10)):
        print(f"{step:6d}    {ours[step - 1]:8.4f} {theirs[step - 1]:8.4f}")
    print(
        f"mean of the last {last} steps: millrace {mean_ours:.4f}, pytorch {mean_theirs:.4f}, "
        f"difference {mean_ours - mean_theirs:+.4f} nats (limit +0.05)"
    )
    return 0 if mean_ours <= mean_theirs + 0.05 else 1


if __name__ == "__main__":
    sys.exit(main())
