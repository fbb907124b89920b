#!/usr/bin/python3
"""Writes tests/oracle/schedules.txt: the learning rates of transformers' schedulers.

Run once, with transformers 5.24 beside Debian's python3-torch; tests/unit/model/optimizer.c compares. One schedule after the other: the
name, warm-up steps, steps, min_lr_rate, num_decay_steps, decay_type (- where there is none), power, then the factor of each step.
Polynomial decay's lr_end is min_lr_rate times the rate, which is 1 here.
"""

import builtins
import os
import textwrap

import torch

builtins.LRScheduler = torch.optim.lr_scheduler._LRScheduler  # transformers asks for a newer PyTorch, and schedules do not need it

from transformers import optimization  # noqa: E402

STEPS = 40


def schedules():
    for warmup in (0, 7, 40):
        for name in ("constant", "constant_with_warmup", "linear", "cosine", "inverse_sqrt"):
            yield name, warmup, {}
        for rate in (0.0, 0.1):
            yield "cosine_with_min_lr", warmup, {"min_lr_rate": rate}
            for decay in ("linear", "cosine", "1-sqrt"):
                yield "warmup_stable_decay", warmup, {"min_lr_ratio": rate, "num_decay_steps": 12, "decay_type": decay}
            for power in (1.0, 2.0, 0.5):
                yield "polynomial", warmup, {"lr_end": rate, "power": power}
    yield "warmup_stable_decay", 10, {"num_decay_steps": 30}
    yield "warmup_stable_decay", 10, {"num_decay_steps": 35, "min_lr_ratio": 0.2}


def text_of(name, warmup, options):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = optimization.get_scheduler(name, optimizer, warmup, STEPS, scheduler_specific_kwargs=options)
    minimum = options.get("min_lr_rate", options.get("min_lr_ratio", options.get("lr_end", 0.0)))
    decay = options.get("decay_type", "cosine" if name == "warmup_stable_decay" else "-")
    fields = [name, warmup, STEPS, minimum, options.get("num_decay_steps", 0), decay, options.get("power", 1.0)]
    factors = [float(schedule.lr_lambdas[0](step)) for step in range(STEPS)]
    return textwrap.fill(" ".join(map(str, fields + factors)), 130, break_on_hyphens=False)


if __name__ == "__main__":
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "schedules.txt")
    with open(path, "w") as out:
        out.writelines(text_of(*schedule) + "\n" for schedule in schedules())
    print(path, os.path.getsize(path), "bytes")
