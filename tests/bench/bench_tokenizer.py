#!/usr/bin/python3
"""Tokenizer speed beside every other tokenizer that can be installed here: `make bench-tokenizer`.

Builds text from Debian packages, installs the peers (pip, cargo) into a folder of its own, and runs all of them in turns, one thread each
on one core, every program with the text in memory and cut into the same documents. Time is the processor's: neighbours do not count.
`first` is a pass with everything empty, as a corpus is tokenized once; `again` is a later pass over the same text, of which the peers that
keep all they saw know everything. Peers that cannot be installed are named and left out.
"""

import argparse
import base64
import glob
import gzip
import html
import json
import os
import random
import re
import shutil
import statistics
import subprocess
import sys
import tarfile

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
MERGES = os.path.join(ROOT, "dataset", "tokenizer", "gpt2_vocab.bpe")
MB = 1_000_000

# Peer -> where it comes from. A Python package's name, or "crate".
PYTHON = ["gigatoken", "gigatoken-bytes", "fastokens", "tokie", "quicktok-v1", "rs-bpe", "riptoken", "tiktoken", "tokenizers"]
RUST = {"tiktoken-crate": "tiktoken", "bpe-openai": "bpe-openai", "riptoken-crate": "riptoken", "tiktoken-rs": "tiktoken-rs"}
OTHER_VOCABULARY = {"quicktok-v1", "rs-bpe"}  # cl100k_base is the nearest that they have
SLOW = {"tiktoken", "tokenizers", "tiktoken-rs", "riptoken"}  # get the first SLOW_BYTES of a text
SLOW_BYTES = 8 * MB

# ---- Text ----------------------------------------------------------------------------------------------------------------------

ENGLISH = {
    "python3.11-doc": lambda path: "_sources" in path,
    "linux-doc-6.1": lambda path: "_sources" in path,
    "anarchism": lambda path: path.endswith(".html"),
    "perl-doc": lambda path: path.endswith(".pod"),
    "git-doc": lambda path: path.endswith(".txt"),
    "debian-handbook": lambda path: "/en-US/" in path and path.endswith(".html"),
    "vim-runtime": lambda path: "/doc/" in path and path.endswith(".txt"),
    "dict-gcide": lambda path: path.endswith(".dict.dz"),
}
MANUALS = {"german": "manpages-de", "japanese": "manpages-ja", "chinese": "manpages-zh"}


def package(folder, name):
    """The files of a Debian package, unpacked once."""
    target = os.path.join(folder, "packages", name)
    if not os.path.isdir(target):
        os.makedirs(target + ".new", exist_ok=True)
        subprocess.run(["apt-get", "download", "-q", name], cwd=target + ".new", check=True, capture_output=True)
        subprocess.run(["dpkg-deb", "-x", glob.glob(target + ".new/*.deb")[0], target + ".new"], check=True)
        os.rename(target + ".new", target)
    return target


def read(path):
    with gzip.open(path) if path.endswith((".gz", ".dz")) else open(path, "rb") as file:
        data = file.read()
    if path.endswith(".html"):
        text = re.sub(r"(?s)<(script|style).*?</\1>", "", data.decode("utf-8", "replace"))
        data = re.sub(r"\n\s*\n+", "\n\n", html.unescape(re.sub(r"<[^>]*>", "", text))).encode()
    return data


def package_text(folder, name, wanted):
    files = sorted(os.path.join(at, file) for at, _, names in os.walk(package(folder, name)) for file in names)
    return b"".join(read(path) for path in files if wanted(path) and os.path.isfile(path) and not os.path.islink(path))


def english(folder):
    return b"".join(package_text(folder, name, wanted) for name, wanted in ENGLISH.items())


def code(folder):
    archive = glob.glob(os.path.join(package(folder, "linux-source-6.1"), "usr/src/*.tar.xz"))[0]
    parts, size = [], 0
    with tarfile.open(archive, "r|xz") as files:
        for member in files:
            if member.isfile() and member.name.endswith((".c", ".h")):
                parts.append(files.extractfile(member).read())
                size += len(parts[-1])
                if size > 30 * MB:
                    break
    return b"".join(parts)


def without_space(size, letters, seed=1):
    return "".join(random.Random(seed).choices(letters, k=size)).encode()


def texts(folder):
    """Name -> what makes it, in bytes. Made once."""
    manual = lambda name: lambda: package_text(folder, name, lambda path: "/man/" in path and path.endswith(".gz"))
    makers = {"english": lambda: english(folder), "code": lambda: code(folder)}
    makers.update({name: manual(source) for name, source in MANUALS.items()})
    for mib in (1, 8):
        size = mib << 20
        makers[f"one letter, {mib} MiB"] = lambda size=size: b"a" * size
        makers[f"ab ab ..., {mib} MiB"] = lambda size=size: b"ab" * (size // 2)
        makers[f"no space, {mib} MiB"] = lambda size=size: without_space(size, "etaoinshrdlucmfwypvbgkjqxz")
    for name, make in makers.items():
        path = os.path.join(folder, re.sub(r"\W+", "-", name) + ".txt")
        if not os.path.exists(path):
            print(f"text: {name}", file=sys.stderr)
            with open(path + ".new", "wb") as file:
                file.write(make())
            os.rename(path + ".new", path)
        yield name, path


# ---- Peers ---------------------------------------------------------------------------------------------------------------------


def write_vocabulary(folder):
    """GPT-2's vocabulary in the forms that peers read: tokens with their ranks, and Hugging Face's tokenizer.json."""
    with open(MERGES, encoding="utf-8") as file:
        merges = file.read().split("\n")[1:-1]
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    order = printable + [b for b in range(256) if b not in printable]
    letter = {b: chr(b) if i < len(printable) else chr(256 + i - len(printable)) for i, b in enumerate(order)}
    byte = {character: b for b, character in letter.items()}
    tokens = [letter[b] for b in order] + [merge.replace(" ", "") for merge in merges]
    ranks, whole = os.path.join(folder, "gpt2.tiktoken"), os.path.join(folder, "tokenizer.json")
    with open(ranks, "wb") as file:
        for i, token in enumerate(tokens):
            file.write(base64.b64encode(bytes(byte[c] for c in token)) + b" %d\n" % i)
    special = {"id": 50256, "content": "<|endoftext|>", "single_word": False, "lstrip": False, "rstrip": False}
    special.update(normalized=True, special=True)
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    model = {"type": "BPE", "dropout": None, "unk_token": "", "continuing_subword_prefix": "", "end_of_word_suffix": "", "fuse_unk": False}
    model.update(vocab={token: i for i, token in enumerate([*tokens, "<|endoftext|>"])}, merges=merges)
    everything = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [special], "normalizer": None}
    everything.update(pre_tokenizer=level, post_processor=None, decoder=level, model=model)
    with open(whole, "w", encoding="utf-8") as file:
        json.dump(everything, file, ensure_ascii=False)
    return [ranks, whole]


def last_line(done):
    return (done.stderr.strip().splitlines() or ["no reason given"])[-1]


def python_peers(folder):
    """Yields (peer, command without file and numbers) of the packages that are there."""
    environment = os.path.join(folder, "venv")
    python = os.path.join(environment, "bin", "python")
    if not os.path.exists(python):
        subprocess.run(["/usr/bin/python3", "-m", "venv", environment], check=True)
    for peer in PYTHON:
        name = peer.removesuffix("-bytes")
        if subprocess.run([python, "-m", "pip", "show", "-q", name], capture_output=True, check=False).returncode != 0:
            done = subprocess.run([python, "-m", "pip", "install", "-q", name], capture_output=True, text=True, check=False)
            if done.returncode != 0:
                print(f"left out: {peer}: {last_line(done)}", file=sys.stderr)
                continue
        yield peer, [python, os.path.join(HERE, "tokenizer_peers.py"), peer]


CARGO = """[package]
name = "tokenizer_peers"
version = "0.1.0"
edition = "2021"
[dependencies]
base64 = "*"
bpe = { version = "*", features = ["rand"] }
bpe-openai = "*"
libc = "*"
riptoken = { version = "*", default-features = false }
tiktoken = "*"
tiktoken-rs = "*"
[profile.release]
lto = "fat"
codegen-units = 1
"""


def rust_peers(folder):
    cargo = shutil.which("cargo") or os.path.expanduser("~/.cargo/bin/cargo")
    project = os.path.join(folder, "rust")
    os.makedirs(os.path.join(project, "src"), exist_ok=True)
    shutil.copy(os.path.join(HERE, "tokenizer_peers.rs"), os.path.join(project, "src", "main.rs"))
    with open(os.path.join(project, "Cargo.toml"), "w", encoding="utf-8") as file:
        file.write(CARGO)
    try:
        done = subprocess.run([cargo, "build", "-q", "--release"], cwd=project, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        print("left out: the Rust crates: cargo is not there", file=sys.stderr)
        return
    if done.returncode != 0:
        print(f"left out: the Rust crates: {last_line(done)}", file=sys.stderr)
        return
    for peer, crate in RUST.items():
        yield peer, [os.path.join(project, "target", "release", "tokenizer_peers"), crate]


# ---- Measuring -----------------------------------------------------------------------------------------------------------------


def measure(command, core, patience):
    environment = {**os.environ, "RAYON_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    try:
        pinned = ["taskset", "-c", str(core), *command]
        done = subprocess.run(pinned, capture_output=True, text=True, check=False, env=environment, timeout=patience)
    except subprocess.TimeoutExpired:
        return f"over {patience} s"
    return json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else f"failed: {last_line(done)}"


def head(path, size):
    """The text's first bytes, for those that would take minutes for all of it."""
    if os.path.getsize(path) <= size:
        return path
    target = f"{path}.{size}"
    if not os.path.exists(target):
        with open(path, "rb") as file, open(target, "wb") as out:
            data = file.read(size)
            out.write(data[: data.rfind(b"\n") + 1] or data)
    return target


def command_of(peer, start, path, document_bytes, passes, vocabulary):
    if peer.startswith("millrace"):
        fresh = ["--fresh"] if peer.endswith("fresh") else []
        return [*start, "bench", "tokenize", path, "--json", f"--document-bytes={document_bytes}", f"--passes={passes}", *fresh]
    return [*start, path, str(document_bytes), str(passes), *vocabulary]


def run_text(name, path, peers, a, vocabulary):
    """Rounds of all peers over one text -> peer -> list of results or the reason why there are none."""
    results = {peer: [] for peer in peers}
    for round_number in range(a.rounds if name == "english" else max(1, a.rounds // 3)):
        for peer, start in peers.items():
            if isinstance(results[peer], str):
                continue
            document_bytes = 4096 if peer == "millrace, fresh" else a.document_bytes
            command = command_of(peer, start, head(path, SLOW_BYTES) if peer in SLOW else path, document_bytes, a.passes, vocabulary)
            result = measure(command, a.core, a.patience)
            if isinstance(result, str):
                results[peer] = result
                print(f"{name}: {peer}: {result}", file=sys.stderr)
                continue
            results[peer].append(result)
            speeds = [result["bytes"] / MB / s for s in result["seconds"]]
            print(f"{name}: round {round_number + 1}: {peer:16s} " + " ".join(f"{s:7.1f}" for s in speeds), file=sys.stderr)
    return results


def summary(rows):
    """Medians over the rounds of the first pass and of the best of the others."""
    if isinstance(rows, str):
        return rows
    first = statistics.median(r["bytes"] / MB / r["seconds"][0] for r in rows)
    again = statistics.median(r["bytes"] / MB / min(r["seconds"][1:]) for r in rows)
    return {"first": round(first, 1), "again": round(again, 1), "sum": rows[0]["sum"], "bytes": rows[0]["bytes"]}


def print_table(name, rows):
    ours = rows["millrace"]
    peers = {peer: row for peer, row in rows.items() if not peer.startswith("millrace") and not isinstance(row, str)}
    print(f"\n{name}: {ours['bytes'] / MB:.1f} MB                    MB/s first   again")
    for peer, row in rows.items():
        if isinstance(row, str):
            print(f"  {peer:38s} {row}")
            continue
        notes = [f"first {row['bytes'] / MB:.0f} MB"] if row["bytes"] < ours["bytes"] else []
        if peer in OTHER_VOCABULARY:
            notes.append("cl100k_base")
        elif peer in peers and row["bytes"] == ours["bytes"] and row["sum"] != ours["sum"]:
            ends_at_4_mib = "8 MiB" in name  # a piece does, in millrace: dataset/tokenizer/pretokenize.h
            notes.append("other ids" if ends_at_4_mib else "OTHER IDS")
        if peer == "millrace, fresh":
            notes.append("a new encoder for each document of 4 KiB")
        print(f"  {peer:38s} {row['first']:7.1f} {row['again']:7.1f}  {', '.join(notes)}".rstrip())
    for key in ("first", "again") if peers else ():
        best = max(peers, key=lambda peer: peers[peer][key])
        print(f"  {key}: {ours[key] / peers[best][key]:.2f} times {best}, the fastest of {len(peers)} peers")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    build = os.environ.get("MILLRACE_BUILD", "build")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each program on English; a third of it on other text (default: 3)")
    parser.add_argument("--passes", type=int, default=3, help="passes of a program over its text (default: 3)")
    parser.add_argument("--document-bytes", type=int, default=65536, help="least size of a document (default: 65536)")
    parser.add_argument("--core", type=int, default=max(os.sched_getaffinity(0)), help="the core that all run on (default: the last)")
    parser.add_argument("--patience", type=int, default=120, help="seconds until a program is given up (default: 120)")
    parser.add_argument("--text", action="append", help="only texts whose name has this in it; may be repeated")
    parser.add_argument("--peer", action="append", help="only peers whose name has this in it; may be repeated")
    parser.add_argument("--program", default=os.path.join(build, "millrace"))
    parser.add_argument("--folder", default=os.path.join(build, "bench"), help="for text and peers (default: BUILD/bench)")
    parser.add_argument("--json", action="store_true")
    a = parser.parse_args()
    folder = os.path.abspath(a.folder)
    os.makedirs(folder, exist_ok=True)
    vocabulary = write_vocabulary(folder)
    peers = {"millrace": [a.program], "millrace, fresh": [a.program]}
    for peer, start in [*python_peers(folder), *rust_peers(folder)]:
        if not a.peer or any(part in peer for part in a.peer):
            peers[peer] = start
    table = {}
    for name, path in texts(folder):
        if a.text and not any(part in name for part in a.text):
            continue
        results = run_text(name, path, peers, a, vocabulary)
        table[name] = {peer: summary(rows) for peer, rows in results.items()}
        if not a.json:
            print_table(name, table[name])
    if a.json:
        print(json.dumps(table))


if __name__ == "__main__":
    main()
