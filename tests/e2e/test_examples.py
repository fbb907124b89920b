"""Each example that a help prints runs as it is printed, where the files that it names are there."""
import json
import os
import pathlib
import re
import shlex
import shutil
import subprocess

import pytest

import cluster
from cluster import MILLRACE, millrace, wait_until
from test_commands import every_help

WASTE = "be to of and that have with " * 60  # what gopher_repetition leaves out; "few words" is what gopher_quality leaves out
PORT = "tcp://127.0.0.1:5555"  # others may have it: another one is taken
# What would take minutes takes less of the same.
SMALLER = {"bench train": "--n-layer 1 --n-head 1 --n-embd 12 --vocab-size 64 --steps 1", "bench machine": "--seconds 0.1"}
BEFORE = ("plan", "run", "config", "dataset build")  # the run is as long as the others want it


def examples():
    parts = {command: text.partition("\nExample:\n")[2] for command, text in every_help()}
    return {command: re.findall(r"^  (.+)", part, re.M) for command, part in parts.items() if part}


@pytest.fixture(scope="module")
def made(base_folder, corpus):
    """What the examples name."""
    place = cluster.Workplace(
        base_folder / "examples", output_dir="runs/example", dataset__sources=["corpus/**/*.txt"], dataset__sequence_length=256,
        dataset__filters=["gopher_quality", "gopher_repetition"], training__max_steps=100, training__save_steps=100,
        training__eval_steps=100, training__global_batch=2, training__slices=2, training__lr_scheduler_type="constant_with_warmup",
    )
    folder = place.folder
    (folder / "corpus").mkdir()
    for i, words in enumerate([WASTE, "few words", *(cluster.prose(cluster.random.Random(i), 20_000) for i in range(30))]):
        (folder / "corpus" / f"{i}.txt").write_text(words)
    shutil.copytree(folder / "corpus", folder / "texts")
    shutil.copytree(cluster.tokenizer, folder / "models" / "Qwen2.5")
    for name in ("held-out.txt", "text.txt", "corpus.txt"):
        (folder / name).write_text("the mill and the wheel " * 200)
    yield place
    place.close()
    shutil.rmtree(folder, ignore_errors=True)


def in_shell(line, folder):
    done = subprocess.run(["sh", "-c", line], cwd=folder, capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL,
                          env={**os.environ, "PATH": f"{pathlib.Path(MILLRACE).parent}:{os.environ['PATH']}"})
    assert done.returncode == 0, f"{line}: exit code {done.returncode}\n{done.stdout[-500:]}\n{done.stderr[-2000:]}"


def test_examples_run_as_they_are_printed(made):
    there = examples()
    assert len(there) > 20
    coordinator = made.start(*shlex.split(there.pop("coordinator")[0].replace(PORT, "tcp://127.0.0.1:*"))[1:], "--set",
                             "output_dir=runs/other", "--set", "training.max_steps=2")
    address = made.folder / "runs" / "other" / "state" / "endpoint"
    wait_until(lambda: address.exists() or not coordinator.running(), 20, "the coordinator is up")
    in_shell(there.pop("worker")[0].replace(PORT, address.read_text()), made.folder)
    assert coordinator.wait() == 0, coordinator.stderr()
    for command in BEFORE:
        for line in there.pop(command):
            in_shell(line, made.folder)
    millrace("run", made.file, cwd=made.folder)
    millrace("dataset", "export", made.output, "--format", "bin", "--split", "validation", "--output", made.folder / "val.bin")
    reasons = json.loads(millrace("dataset", "inspect", made.output, "--reason", "gopher", "--json").stdout)["reasons"]
    assert {reason["reason"].split(":")[0] for reason in reasons} == {"gopher_quality", "gopher_repetition"}
    for command, lines in there.items():
        for line in lines:
            in_shell(f"{line} {SMALLER.get(command, '')}", made.folder)
