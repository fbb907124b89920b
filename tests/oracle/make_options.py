#!/usr/bin/python3
"""Writes tests/oracle/options.bin: what PyTorch says about the cases of golden.bin when training has other options than the plain ones.

Run once, as make_golden.py, whose model and cases it takes; tests/unit/model/golden.c compares. For each case, little-endian: the loss
(float64) and the gradients (float32) with label smoothing 0.1 and a z-loss of 0.01, then for each of OPTIMIZERS the losses (float64) of as
many steps as AdamW's in golden.bin. SGD takes ten times the rate. Last, the average of the
weights (float32), which decays by 0.9, after the steps of SGD with momentum.
"""

import os
import struct

import torch
import torch.nn.functional as F

from make_golden import CASES, forward, parameters, steps, tokens_and_labels

SMOOTHING, Z_LOSS, DECAY = 0.1, 0.01, 0.9
OPTIMIZERS = (
    lambda groups, rate: torch.optim.Adam(groups, lr=rate, betas=(0.9, 0.999), eps=1e-8),
    lambda groups, rate: torch.optim.SGD(groups, lr=10 * rate),
    lambda groups, rate: torch.optim.SGD(groups, lr=10 * rate, momentum=0.9),
    lambda groups, rate: torch.optim.SGD(groups, lr=10 * rate, momentum=0.9, nesterov=True),
)


def smoothed(case, p, tokens, labels):
    logits = forward(case, p, tokens[:, :-1]).view(-1, case.V)
    labels = labels.reshape(-1)
    loss = F.cross_entropy(logits, labels, reduction="sum", ignore_index=-100, label_smoothing=SMOOTHING)
    return loss + Z_LOSS * (torch.logsumexp(logits, -1)[labels >= 0] ** 2).sum()


def average(case, tokens, labels):
    p = parameters(case)
    weights = torch.nn.ParameterList([torch.nn.Parameter(t.detach()) for t in p.values()])  # the same memory
    averaged = torch.optim.swa_utils.AveragedModel(weights, avg_fn=lambda mean, now, _: DECAY * mean + (1 - DECAY) * now)
    averaged.update_parameters(weights)  # begins as the first weights
    steps(case, p, tokens, labels, OPTIMIZERS[2], after=lambda: averaged.update_parameters(weights))
    return torch.cat([t.detach().flatten() for t in averaged.module])


def write(out, case):
    p = parameters(case)
    tokens, labels = tokens_and_labels(case)
    loss = smoothed(case, p, tokens, labels)
    loss.backward()
    grads = torch.cat([t.grad.flatten() for t in p.values()])
    out.write(struct.pack("<d", loss.item()) + grads.float().numpy().tobytes())
    for make in OPTIMIZERS:
        out.write(struct.pack(f"<{case.steps}d", *steps(case, parameters(case), tokens, labels, make)))
    out.write(average(case, tokens, labels).float().numpy().tobytes())


if __name__ == "__main__":
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "options.bin")
    with open(path, "wb") as out:
        for case in CASES:
            write(out, case)
    print(path, os.path.getsize(path), "bytes")
