#!/usr/bin/python3
"""Writes tests/oracle/golden.bin: what PyTorch says about four small GPT-2 models.

Run once, with Debian's python3-torch; the numbers are committed and tests/unit/model/golden.c compares with them. The model is written by
hand with the semantics of Hugging Face's GPT2LMHeadModel: Conv1D weights (in, out), pre-LayerNorm, gelu_new, tied head. Dropout masks come
from Philox, written again here, so that both sides drop the same elements. Everything is computed in float64 and stored as float32.

The cases with an end-of-text token have a document mask: an explicit block-diagonal causal mask and position ids that restart. Of their
targets some are ignored, as padding is.

The file is little-endian: for each case 16 int32 (V, P, C, L, NH, F, B, T, steps, warmup, slice, step, seed, tokens, dropout in 1e-3
units, end-of-text token or -1), tokens (B, T + 1) int32, targets (B, T) int32 with -1 where one is ignored, parameters float32, logits
(B, T, V) float32, loss float64, gradients float32 (both without dropout), loss with dropout float64, gradients with dropout float32, the
losses of the AdamW steps float64 each.
"""

import math
import os
import struct

import torch
import torch.nn.functional as F

torch.set_num_threads(1)
torch.set_default_dtype(torch.float64)
MASK32, MASK64 = 0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF


def philox(key, high, low):
    c = [low & MASK32, low >> 32, high & MASK32, high >> 32]
    k = [key & MASK32, key >> 32]
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(p1 >> 32) ^ c[1] ^ k[0], p1 & MASK32, (p0 >> 32) ^ c[3] ^ k[1], p0 & MASK32]
        k = [(k[0] + 0x9E3779B9) & MASK32, (k[1] + 0xBB67AE85) & MASK32]
    return c


def dropout_key(seed, step, slice_number, layer, site):
    a = philox(seed, 0x64726F70, step)
    b = philox(a[0] | a[1] << 32, slice_number, layer << 8 | site)
    return b[0] | b[1] << 32


def keep_mask(key, shape, p):
    """Scaled mask of a tensor whose elements are numbered in row-major order."""
    count = math.prod(shape)
    below = int(struct.unpack("f", struct.pack("f", p))[0] * 4294967296.0)
    words = [w for block in range((count + 3) // 4) for w in philox(key, 0, block)][:count]
    return torch.tensor([0.0 if w < below else 1.0 / (1.0 - p) for w in words]).view(shape)


class Case:
    def __init__(self, V, P, C, L, NH, inner, B, T, steps, warmup, seed, dropout, rate, clip, eos=-1, documents=()):
        self.__dict__.update(locals())

    def header(self):
        return struct.pack(
            "<16i",
            self.V,
            self.P,
            self.C,
            self.L,
            self.NH,
            self.inner,
            self.B,
            self.T,
            self.steps,
            self.warmup,
            3,
            7,
            self.seed,
            self.B * (self.T + 1),
            round(self.dropout * 1000),
            self.eos,
        )


def parameters(case):
    """Tensors in the order of GPT2LMHeadModel's state dict; float32 values, larger than usual so that every path matters."""
    g = torch.Generator().manual_seed(case.seed)
    C, inner = case.C, case.inner
    shapes = [("wte", (case.V, C)), ("wpe", (case.P, C))]
    for l in range(case.L):
        shapes += [
            (f"h{l}." + n, s)
            for n, s in (
                ("ln_1.weight", (C,)),
                ("ln_1.bias", (C,)),
                ("c_attn.weight", (C, 3 * C)),
                ("c_attn.bias", (3 * C,)),
                ("c_proj.weight", (C, C)),
                ("c_proj.bias", (C,)),
                ("ln_2.weight", (C,)),
                ("ln_2.bias", (C,)),
                ("c_fc.weight", (C, inner)),
                ("c_fc.bias", (inner,)),
                ("mlp.weight", (inner, C)),
                ("mlp.bias", (C,)),
            )
        ]
    shapes += [("ln_f.weight", (C,)), ("ln_f.bias", (C,))]
    out = {}
    for name, shape in shapes:
        x = torch.randn(shape, generator=g) * 0.2
        if name.endswith("weight") and len(shape) == 1:
            x = x + 1.0
        out[name] = x.float().double().requires_grad_()
    return out


def documents_of(case, inputs):
    """Of each token the number of its document and its place in it. A document ends with an end-of-text token."""
    document, position = torch.zeros_like(inputs), torch.zeros_like(inputs)
    for row, number, place in zip(inputs.tolist(), document, position):
        for t in range(1, len(row)):
            ended = row[t - 1] == case.eos
            number[t] = number[t - 1] + ended
            place[t] = 0 if ended else place[t - 1] + 1
    return document, position


def tokens_and_labels(case):
    """Random tokens; where there are documents, the given lengths one after the other, the next sequence starting one further, then
    padding. A label is the next token; padding's are ignored, and a few within documents."""
    tokens = torch.randint(0, case.V, (case.B, case.T + 1), generator=torch.Generator().manual_seed(case.seed + 1))
    labels = tokens[:, 1:].clone()
    if case.eos < 0:
        return tokens, labels
    tokens[tokens == case.eos] = 0
    for b in range(case.B):
        end = 0
        for length in case.documents[b:]:
            end += length
            tokens[b, end - 1] = case.eos
        tokens[b, end:] = case.eos
        labels[b] = tokens[b, 1:]
        labels[b, end - 1 :] = -100
        labels[b, 5::23] = -100
    return tokens, labels


def forward(case, p, inputs, random=None):
    B, T = inputs.shape
    C, NH, HS = case.C, case.NH, case.C // case.NH

    def drop(x, layer, site):
        if random is None:
            return x
        return x * keep_mask(dropout_key(*random, layer, site), tuple(x.shape), case.dropout)

    def norm(x, name):
        return F.layer_norm(x, (C,), p[name + ".weight"], p[name + ".bias"], 1e-5)

    document, position = documents_of(case, inputs)
    x = drop(p["wte"][inputs] + p["wpe"][position], 0, 0)
    unseen = torch.triu(torch.ones(T, T, dtype=torch.bool), 1) | (document[:, :, None] != document[:, None, :])
    unseen = unseen[:, None]
    for l in range(case.L):
        h = f"h{l}."
        q, k, v = (norm(x, h + "ln_1") @ p[h + "c_attn.weight"] + p[h + "c_attn.bias"]).split(C, 2)
        q, k, v = (t.view(B, T, NH, HS).transpose(1, 2) for t in (q, k, v))
        a = (q @ k.transpose(-2, -1) / math.sqrt(HS)).masked_fill(unseen, float("-inf"))
        a = drop(F.softmax(a, -1), l, 1) @ v
        a = a.transpose(1, 2).reshape(B, T, C) @ p[h + "c_proj.weight"] + p[h + "c_proj.bias"]
        x = x + drop(a, l, 2)
        m = norm(x, h + "ln_2") @ p[h + "c_fc.weight"] + p[h + "c_fc.bias"]
        m = 0.5 * m * (1.0 + torch.tanh(math.sqrt(2.0 / math.pi) * (m + 0.044715 * m**3)))
        x = x + drop(m @ p[h + "mlp.weight"] + p[h + "mlp.bias"], l, 3)
    return norm(x, "ln_f") @ p["wte"].T


def gradient(case, p, tokens, labels, random=None):
    for t in p.values():
        t.grad = None
    logits = forward(case, p, tokens[:, :-1], random)
    loss = F.cross_entropy(logits.view(-1, case.V), labels.reshape(-1), reduction="sum", ignore_index=-100)
    loss.backward()
    return loss.item(), logits.detach(), torch.cat([t.grad.flatten() for t in p.values()])


def adamw(groups, rate):
    return torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.999), eps=1e-8)


def steps(case, p, tokens, labels, make=adamw, after=lambda: None):
    """An optimizer's with decay on matrices only, clipping, and the cosine schedule of transformers.get_cosine_schedule_with_warmup."""
    groups = [
        {"params": [t for t in p.values() if t.dim() == 2], "weight_decay": 0.1},
        {"params": [t for t in p.values() if t.dim() == 1], "weight_decay": 0.0},
    ]
    optimizer = make(groups, case.rate)

    def factor(step):
        if step < case.warmup:
            return step / max(1, case.warmup)
        progress = (step - case.warmup) / max(1, case.steps - case.warmup)
        return max(0.0, 0.5 * (1.0 + math.cos(math.pi * progress)))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    losses = []
    for _ in range(case.steps):
        optimizer.zero_grad()
        logits = forward(case, p, tokens[:, :-1])
        loss = F.cross_entropy(logits.view(-1, case.V), labels.reshape(-1), ignore_index=-100)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(list(p.values()), case.clip)
        optimizer.step()
        schedule.step()
        after()
        losses.append(loss.item())
    return losses


def write(out, case):
    p = parameters(case)
    tokens, labels = tokens_and_labels(case)
    out.write(case.header())
    out.write(tokens.int().numpy().tobytes())
    out.write(labels.masked_fill(labels < 0, -1).int().numpy().tobytes())
    out.write(torch.cat([t.detach().flatten() for t in p.values()]).float().numpy().tobytes())
    loss, logits, grads = gradient(case, p, tokens, labels)
    out.write(logits.float().numpy().tobytes() + struct.pack("<d", loss) + grads.float().numpy().tobytes())
    loss, _, grads = gradient(case, p, tokens, labels, (case.seed, 7, 3))
    out.write(struct.pack("<d", loss) + grads.float().numpy().tobytes())
    losses = steps(case, p, tokens, labels)
    out.write(struct.pack(f"<{case.steps}d", *losses))
    print("losses", losses)


# The second pair has documents: longer than a tile of attention, and several within one.
CASES = (
    Case(V=97, P=19, C=12, L=2, NH=3, inner=50, B=3, T=17, steps=10, warmup=3, seed=1234, dropout=0.2, rate=1e-2, clip=1.0),
    Case(V=131, P=70, C=16, L=1, NH=2, inner=64, B=2, T=67, steps=10, warmup=0, seed=99, dropout=0.1, rate=3e-3, clip=0.5),
    Case(
        V=37, P=120, C=12, L=2, NH=2, inner=40, B=2, T=117, steps=10, warmup=2, seed=7, dropout=0.2, rate=1e-2, clip=1.0,
        eos=30, documents=(3, 10, 70, 1, 1, 12),
    ),
    Case(
        V=31, P=180, C=6, L=1, NH=3, inner=24, B=3, T=180, steps=10, warmup=0, seed=8, dropout=0.1, rate=3e-3, clip=0.5,
        eos=2, documents=(40, 5, 40, 30, 1, 60),
    ),
)  # fmt: skip

if __name__ == "__main__":
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "golden.bin")
    with open(path, "wb") as out:
        for case in CASES:
            write(out, case)
    print(path, os.path.getsize(path), "bytes")
