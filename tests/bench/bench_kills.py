"""Steps a second while workers are killed again and again, beside those of the undisturbed run.

A small model on three local workers, one of which is killed (kill -9) every 2.5 s, in turn. What it costs is the time until the others
notice, the step that is divided anew, and the worker's way back: it must never be waiting for a worker that is not started.
"""
import argparse
import json
import pathlib
import shutil
import signal
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "e2e"))
import cluster  # noqa: E402


def rate(place, process, seconds, every):
    """Committed steps a second over that time, from the second step on, with a kill every so many seconds (0: none). Also the kills."""
    place.wait_for_step(process, 2)
    began, first, kills, turn = time.monotonic(), max(place.steps()), 0, 0
    while time.monotonic() - began < seconds:
        time.sleep(0.05)
        if not every or time.monotonic() - began < (kills + 1) * every:
            continue
        workers = sorted(process.children("worker"))
        kills += 1
        if workers:
            cluster.send(signal.SIGKILL, workers[turn % len(workers)])
            turn += 1
    return (max(place.steps()) - first) / (time.monotonic() - began), kills


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=40)
    parser.add_argument("--every", type=float, default=2.5)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--share", type=float, default=1 / 3, help="fail below this share of the undisturbed rate")
    options = parser.parse_args()
    folder, rates = pathlib.Path(tempfile.mkdtemp(prefix="millrace-kills-")), {}
    changes = dict(model__n_layer=2, model__n_head=2, model__n_embd=64, training__slices=6, training__global_batch=12,
                   training__max_steps=1_000_000, training__eval_steps=0, training__save_steps=50, training__save_total_limit=2,
                   cluster__workers=options.workers)
    try:
        corpus = cluster.make_corpus(folder / "corpus")
        for name, every in (("undisturbed", 0), ("killed", options.every)):
            place = cluster.Workplace(folder / name, corpus, **cluster.GPT2, **changes)
            process = place.run()
            rates[name], kills = rate(place, process, options.seconds, every)
            place.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    share = rates["killed"] / rates["undisturbed"]
    print(json.dumps({"steps_per_second": rates, "kills": kills, "share": round(share, 3)}))
    return 0 if share >= options.share else 1


if __name__ == "__main__":
    sys.exit(main())
