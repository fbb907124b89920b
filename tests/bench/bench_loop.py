"""How long the coordinator's loop answers nobody, over a dataset of many small shards: the longest pause that it saw itself, and the
longest time that `status` waited for an answer.

Cases: a finished dataset that is opened again, one whose every byte is read (--verify), one of whose shards are broken and made again, and
one that is made; then few large shards that are made, and found again after their manifest is gone. Fails when a pause was longer than a
heartbeat is allowed to be late.
"""
import argparse
import array
import json
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "e2e"))
import cluster  # noqa: E402


SHARD_TOKENS = 65_536  # a shard has at least one whole frame
LARGE_TOKENS = 4 << 20


def ask_all_the_time(place, answers, stop):
    """Seconds of each `status` that a running coordinator answered."""
    while not stop.is_set():
        began = time.monotonic()
        done = subprocess.run([cluster.MILLRACE, "status", str(place.file), "--json"], capture_output=True, timeout=120)
        if done.returncode == 0 and json.loads(done.stdout)["state"] == "running":
            answers.append(time.monotonic() - began)
        time.sleep(0.02)


def case(name, place, *arguments):
    answers, stop = [], threading.Event()
    asking = threading.Thread(target=ask_all_the_time, args=(place, answers, stop))
    asking.start()
    began = time.monotonic()
    try:
        done = subprocess.run([cluster.MILLRACE, *map(str, arguments)], cwd=place.folder, capture_output=True)
        assert done.returncode == 0, done.stderr.decode()[-2000:]
    finally:
        stop.set()
        asking.join()
    status = json.loads((place.output / "state" / "status.json").read_text())
    result = {"case": name, "seconds": round(time.monotonic() - began, 1), "shards": status["dataset"]["shards"],
              "longest_pause_ms": status["longest_pause_ms"],
              "answers": len(answers), "slowest_answer_ms": round(1000 * max(answers, default=0))}
    print(json.dumps(result), flush=True)
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=int, default=10_000, help="of the dataset that is there")
    parser.add_argument("--make", type=int, default=500, help="shards of the dataset that is made: each is a job and some fsyncs")
    parser.add_argument("--large", type=int, default=96, help="MB of text for the dataset of large shards")
    parser.add_argument("--allowed-ms", type=int, default=1000, help="longest pause")
    options = parser.parse_args()
    folder, results = pathlib.Path(tempfile.mkdtemp(prefix="millrace-loop-")), []
    chooser, length = random.Random(7), 32
    try:
        ids = array.array("H", (chooser.randrange(99) if at % 97 else 50_256 for at in range(SHARD_TOKENS))).tobytes()
        with open(folder / "ids.bin", "wb") as file:
            for _ in range(options.shards):
                file.write(ids)
        cluster.millrace("dataset", "import", folder / "ids.bin", "--output", folder / "data", "--sequence-length", length,
                         "--shard-tokens", SHARD_TOKENS, "--token-bytes", 2, seconds=900)
        (folder / "ids.bin").unlink()
        there = cluster.Workplace(folder / "there", **cluster.GPT2, dataset__sources=None, dataset__prepared=str(folder / "data"))
        there.values["dataset"] = {"prepared": str(folder / "data"), "sequence_length": length}
        there.file.write_text(json.dumps(there.values))
        results.append(case("opened again", there, "run", there.file, "--json", "--stop-after", "dataset", "--workers", 0))
        results.append(case("every byte read", there, "run", there.file, "--json", "--stop-after", "dataset", "--workers", 0, "--verify"))
        corpus = cluster.make_large_corpus(folder / "corpus", options.make // 4 + 1)
        made = cluster.Workplace(folder / "made", corpus, **cluster.GPT2, dataset__shard_tokens=SHARD_TOKENS)
        results.append(case("made", made, "dataset", "build", made.file, "--json"))
        for path in sorted((made.output / "dataset").glob("train-*"))[::20]:
            path.write_bytes(b"broken")
        results.append(case("one shard in twenty made again", made, "dataset", "build", made.file, "--json", "--verify"))
        corpus = cluster.make_large_corpus(folder / "large-corpus", options.large)
        large = cluster.Workplace(folder / "large", corpus, **cluster.GPT2, dataset__shard_tokens=LARGE_TOKENS)
        results.append(case("large shards made", large, "dataset", "build", large.file, "--json"))
        (large.output / "dataset" / "dataset.pb").unlink()
        results.append(case("large shards found again", large, "dataset", "build", large.file, "--json"))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    worst = max(result["longest_pause_ms"] for result in results)
    print(f"longest pause: {worst} ms")
    return 0 if worst <= options.allowed_ms else 1


if __name__ == "__main__":
    sys.exit(main())
