#!/usr/bin/python3
"""`make bench-dataset`: text to shards, and reading them, beside what people use otherwise, on the same files and the same GPT-2 tokens.

Text: JSON lines from Debian's documentation packages (corpus.py). Ours is a whole `millrace run` from its start until the dataset is made;
the others are nanoGPT's prepare.py (Hugging Face datasets, with tiktoken and with tokenizers) and datatrove, from loading the files to
token files on disk. The programs take turns; medians over the rounds are printed. The others are installed with pip into an environment
of their own under the build folder; what cannot be had there is left out and said. `--readers` adds mosaicml-streaming and litdata, whose
PyTorch is several GB.
"""

import argparse
import datetime
import json
import os
import re
import shutil
import statistics
import subprocess
import sys

import corpus

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
BUILD = os.environ.get("MILLRACE_BUILD", os.path.join(ROOT, "build"))
VOCAB = os.path.join(ROOT, "dataset", "tokenizer", "gpt2_vocab.bpe")
LENGTH = 1024
TOKENIZERS = ("datasets+tiktoken", "datasets+tokenizers", "datatrove")
READERS = ("numpy memmap", "mosaicml-streaming", "litdata")
PACKAGES = ("numpy datasets tiktoken", "tokenizers", "datatrove orjson")
READER_PACKAGES = ("mosaicml-streaming", "litdata")


def say(text):
    print(text, file=sys.stderr, flush=True)


def environment(folder, packages):
    """A virtual environment with what of the packages can be installed; its Python."""
    python = os.path.join(folder, "venv", "bin", "python")
    if not os.path.exists(python):
        subprocess.run([sys.executable, "-m", "venv", os.path.join(folder, "venv")], check=True)
    for group in packages:
        mark = os.path.join(folder, "venv", "has-" + group.split()[-1])
        if os.path.exists(mark):
            continue
        say(f"installing {group} ...")
        command = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check", *group.split()]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            open(mark, "w", encoding="utf-8").close()
        else:
            say(f"{group} cannot be installed: {done.stderr.strip().splitlines()[-1:]}")
    return python


def others(python, *arguments):
    """The JSON object that others.py prints; None when it fails."""
    command = [python, "-B", os.path.join(HERE, "others.py"), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0 or not done.stdout.strip():
        say(f"left out: {arguments[1]}: {' '.join(done.stderr.strip().splitlines()[-1:])[:300]}")
        return None
    return json.loads(done.stdout.splitlines()[-1])


def when(line):
    return datetime.datetime.fromisoformat(line.split(" ")[0].replace("Z", "+00:00")).timestamp()


def millrace(program, folder, files, workers):
    """One run of a single step; the seconds until its dataset was there."""
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    pipeline = os.path.join(folder, "pipeline.yaml")
    values = {
        "run_name": "bench",
        "output_dir": "out",
        "dataset": {"sources": files, "sequence_length": LENGTH, "validation_fraction": 0},
        "model": {"n_layer": 1, "n_head": 1, "n_embd": 16, "n_positions": LENGTH},
        "training": {"global_batch": 1, "slices": 1, "max_steps": 1, "eval_steps": 0, "save_steps": 0},
        "sample": {"prompt": ""},
    }
    with open(pipeline, "w", encoding="utf-8") as file:
        json.dump(values, file)  # JSON is YAML
    done = subprocess.run([program, "run", pipeline, "--json", "--workers", str(workers)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"millrace run: exit code {done.returncode}\n{done.stderr[-2000:]}")
    with open(os.path.join(folder, "out", "logs", "coordinator.log"), encoding="utf-8") as file:
        lines = file.readlines()
    made = next(line for line in lines if " dataset-made: " in line)
    return {"seconds": when(made) - when(lines[0]), "tokens": int(re.search(r"(\d+) tokens", made).group(1))}


def tokenize(a, python, files, folder):
    """Seconds and tokens of each program at 1 and 2 processes, in turns."""
    results = {}
    ways = [("millrace", n) for n in a.processes] + [(name, n) for name in TOKENIZERS if others(python, "ready", name) for n in a.processes]
    for number in range(a.rounds):
        for name, n in ways:
            if name == "millrace":
                result = millrace(a.program, os.path.join(folder, "ours"), files, n)
            else:
                result = others(python, "tokenize", name, os.path.join(folder, name), VOCAB, n, *files)
            if result:
                results.setdefault((name, n), []).append(result)
                say(f"round {number + 1}: {name} with {n}: {result['seconds']:.1f} s, {result['tokens']:,} tokens")
    return results


def print_tokenize(results, size):
    ours = {n: statistics.median(row["seconds"] for row in rows) for (name, n), rows in results.items() if name == "millrace"}
    print(f"\ntext to token files, {size / 1e6:.0f} MB of text in JSON lines\n")
    print(f"{'':22s} {'processes':>9s} {'seconds':>8s} {'MB/s':>7s} {'tokens':>12s} {'millrace is':>12s}")
    for (name, n), rows in results.items():
        seconds = statistics.median(row["seconds"] for row in rows)
        times = "" if name == "millrace" else f"{seconds / ours[n]:.1f} x"
        print(f"{name:22s} {n:9d} {seconds:8.1f} {size / 1e6 / seconds:7.1f} {rows[0]['tokens']:12,d} {times:>12s}")


def read(a, python, folder):
    """Reading: ours from its shards, the others from what they make of the same tokens."""
    dataset = os.path.join(folder, "ours", "out", "dataset")
    array = os.path.join(folder, "ours.bin")
    with open(array, "wb") as file:
        for name in sorted(name for name in os.listdir(dataset) if name.startswith("train-")):
            subprocess.run(["zstd", "-dcq", os.path.join(dataset, name)], stdout=file, check=True)
    tokens = os.path.getsize(array) // 2
    results = {}
    wanted = READERS if a.readers else READERS[:1]
    ready = [name for name in wanted if others(python, "ready", name)]
    for _ in range(a.rounds):
        done = subprocess.run([os.path.join(BUILD, "tests", "bench", "read_shards"), dataset], capture_output=True, text=True, check=True)
        results.setdefault("millrace", []).append(json.loads(done.stdout))
        for name in ready:
            result = others(python, "read", name, os.path.join(folder, "readers"), LENGTH, tokens, array)
            if result:
                results.setdefault(name, []).append(result)
    print(f"\nreading {tokens:,} tokens in sequences of {LENGTH}, one thread\n")
    print(f"{'':22s} {'bytes/token':>11s} {'in order, M tokens/s':>21s} {'shuffled, M tokens/s':>21s}")
    for name, rows in results.items():
        order, shuffled = (statistics.median(row[key] for row in rows) / 1e6 for key in ("sequential", "shuffled"))
        print(f"{name:22s} {rows[0]['bytes'] / tokens:11.2f} {order:21.1f} {shuffled:21.1f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--megabytes", type=int, default=120, help="of text (default: 120)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--program", default=os.path.join(BUILD, "millrace"))
    parser.add_argument("--folder", default=os.path.join(BUILD, "bench"), help="where text, environment and outputs are kept")
    parser.add_argument("--python", help="a Python that has the others, instead of an environment of our own")
    parser.add_argument("--readers", action="store_true", help="also mosaicml-streaming and litdata: downloads several GB")
    a = parser.parse_args()
    os.makedirs(a.folder, exist_ok=True)
    files, size = corpus.make(a.folder, a.megabytes)
    python = a.python or environment(a.folder, PACKAGES + (READER_PACKAGES if a.readers else ()))
    print_tokenize(tokenize(a, python, files, a.folder), size)
    read(a, python, a.folder)


if __name__ == "__main__":
    main()
