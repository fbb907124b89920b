"""The promise over pipelines that nobody wrote down: shapes, slices, packing, optimizers, names, worker counts and kills from a seed.
MILLRACE_TEST_SEED=n begins with another one; MILLRACE_TEST_PIPELINES=n takes more of them. hypothesis would begin with the smallest one,
and come back to it: of so few that are worth so many processes each, half.
"""

import os
import random
import signal

import pytest

from cluster import VOCABULARY, digests, prose, send, wait_until

SEED = int(os.environ.get("MILLRACE_TEST_SEED") or 20240229)
PIPELINES = int(os.environ.get("MILLRACE_TEST_PIPELINES") or 6)
SEGMENT = 1 << 20  # values: what is summed and sent at once


def make_text(chooser, folder):
    """One to thirty files with names that shells and globs take for patterns; some are empty, one may be long."""
    folder.mkdir(parents=True)
    for i in range(chooser.choice([1, 2, 7, 30])):
        name = chooser.choice(["a b", "c[1]", "d{x}", "e*", "-f", "gé", "h'i", "j"]) + f"-{i}.txt"
        size = chooser.choice([0, 50, 3000, 3000, 40_000])
        (folder / name).write_text(prose(chooser, size) if size else "", newline="")
    (folder / "last.txt").write_text(prose(chooser, 60_000), newline="")


def changes_for(chooser):
    """A pipeline that trains in a second or two. The positions make up to four segments of nearly every shape."""
    heads, width = chooser.choice([1, 2, 3]), chooser.choice([8, 16, 24])
    length = chooser.choice([8, 17, 32, 50])
    slices = chooser.randint(1, 9)  # which workers mostly cannot share out evenly
    steps = chooser.randint(2, 16)
    values = chooser.randint(0, 4 * SEGMENT)
    return {
        "output_dir": chooser.choice(["out", "exp[1]", "two words/out", "ünder", "a'b"]),
        "cluster__lease_seconds": 4,
        "dataset__sequence_length": length,
        "dataset__packing": chooser.choice(["concat", "concat", "pad", "best_fit"]),
        "dataset__document_mask": chooser.random() < 0.3,
        "dataset__shard_tokens": chooser.choice([4096, 16384, 131072]),
        "dataset__validation_fraction": chooser.choice([0.05, 0.3]),
        "model__n_layer": chooser.randint(1, 3),
        "model__n_head": heads,
        "model__n_embd": heads * width,
        "model__n_positions": max(length, values // (heads * width)),
        "model__vocab_size": VOCABULARY + chooser.choice([0, 0, 1, 64]),
        "training__global_batch": slices * chooser.randint(1, 3),
        "training__slices": slices,
        "training__max_steps": steps,
        "training__warmup_steps": chooser.randint(0, 1),
        "training__eval_steps": chooser.choice([0, 1, 3]),
        "training__save_steps": chooser.choice([0, 1, 3]),
        "training__optim": chooser.choice(["adamw", "adamw", "adam", "sgd"]),
        "training__optim_state": chooser.choice(["fp32", "bf16"]),
        "training__bf16": chooser.random() < 0.3,
        "training__gradient_checkpointing": chooser.random() < 0.3,
        "training__micro_batch": chooser.choice([0, 1, 2]),
        "cluster__compression": chooser.choice(["zstd", "none"]),
    }


def disturb(chooser, place, process):
    """Kills a worker, all of them or the coordinator at once, when text is tokenized, or when so many steps are done."""
    steps = place.values["training"]["max_steps"]
    for moment in sorted(chooser.randint(-2, steps - 1) for _ in range(chooser.randint(0, 3))):
        if moment >= 0:
            wait_until(lambda moment=moment: max(place.steps(), default=0) >= moment or not process.running())
        elif moment == -1:
            wait_until(lambda: any(place.output.glob("state/runs/*.tok")) or not process.running())
        who = chooser.choice(["worker", "worker", "workers", "coordinator"])
        pids = process.children(who.rstrip("s"))
        send(signal.SIGKILL, *(pids if who == "workers" else pids[:1]))


@pytest.mark.seconds(240)
@pytest.mark.parametrize("number", range(PIPELINES))
def test_any_pipeline_gives_one_result(workplaces, base_folder, number):
    chooser = random.Random(SEED + number)
    text = base_folder / f"random {number}"
    make_text(chooser, text)
    changes = {"dataset__sources": [{"name": "text", "path": str(text)}], **changes_for(chooser)}
    workers, threads = chooser.randint(2, 8), chooser.choice([1, 1, 2])
    print(f"MILLRACE_TEST_SEED={SEED + number} MILLRACE_TEST_PIPELINES=1: {workers} workers of {threads} threads, {changes}")
    alone, many = workplaces(**changes), workplaces(**changes)
    single = alone.run("--workers", 1)
    single.wait()
    process = many.run("--workers", workers, "--set", f"cluster.threads_per_worker={threads}")
    disturb(chooser, many, process)
    if single.popen.returncode == 2:  # say, all of so few documents are held out for validation
        many.finish(process, code=2)
        assert process.stderr().splitlines()[-1] == single.stderr().splitlines()[-1]
        return
    expected, result = alone.finish(single), many.finish(process)
    assert digests(result) == digests(expected)
    assert result["eval_loss"] == expected["eval_loss"]
