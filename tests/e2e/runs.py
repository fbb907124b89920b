"""What the end-to-end tests share: a small text made from a seed, a small pipeline, and runs of the real binary that are always cleaned
up."""

import contextlib
import json
import os
import pathlib
import random
import signal
import socket
import subprocess
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
MILLRACE = str(pathlib.Path(os.environ.get("MILLRACE_BUILD") or ROOT / "build").resolve() / "millrace")
WORDS = (
    "the a of water house price market river mill stone wheel"
    " grain über naïve 東京 prices dropped down and rose again 2024 1,000 it's we'll"
).split()

PIPELINE = """\
run_name: test
output_dir: out
cluster: {{ workers: 2, threads_per_worker: 1, lease_seconds: 3 }}
dataset: {{ sources: [ "text/**/*.txt" ], sequence_length: 32, validation_fraction: 0.1, shard_tokens: {shard_tokens} }}
model: {{ n_layer: 2, n_head: 2, n_embd: 32, n_positions: 32, attn_pdrop: 0.1, embd_pdrop: 0.1, resid_pdrop: 0.1 }}
training: {{ global_batch: 12, slices: 6, max_steps: {steps}, learning_rate: 1.0e-3, warmup_steps: 2,
  eval_steps: 4, eval_sequences: 8, save_steps: 4 }}
sample: {{ prompt: "" }}
"""


def write_text(folder, seed=1, documents=12, large_bytes=1_500_000):
    """Documents with words, line ends and the odd hard character; an empty one; one large enough to be cut in two."""
    rng = random.Random(seed)
    (folder / "text" / "deep").mkdir(parents=True)
    for i in range(documents):
        size = large_bytes if i == 3 else rng.randrange(200, 6000)
        parts, length = [], 0
        while length < size:
            word = rng.choice(WORDS) + rng.choice([" ", " ", " ", "\n", ".\n\n", "  "])
            parts.append(word)
            length += len(word)
        name = ("deep/" if i % 3 == 0 else "") + f"{i:03d}.txt"
        (folder / "text" / name).write_bytes("".join(parts).encode() + (b"\xff\x00" if i == 5 else b""))
    (folder / "text" / "empty.txt").write_bytes(b"")


def make_project(folder, steps=10, shard_tokens=100_000, **text):
    write_text(folder, **text)
    (folder / "pipeline.yaml").write_text(PIPELINE.format(steps=steps, shard_tokens=shard_tokens))
    return folder


def millrace(*arguments, cwd=None, input=None, timeout=300):
    return subprocess.run(
        [MILLRACE, *map(str, arguments)], cwd=cwd, input=input, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=timeout
    )


def result_of(process):
    """The object on the last line of `run --json`."""
    assert process.returncode == 0, process.stderr.decode()
    return json.loads(process.stdout.decode().splitlines()[-1])


def digests(result):
    return result["dataset_digest"], result["weights_digest"]


def free_port():
    """One that nobody has now, and that the kernel gives to nobody who does not ask for it: it lies below those that it chooses itself."""
    for port in random.sample(range(10_000, 30_000), 100):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("there is no free port")


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as f:
        return f.read().rsplit(")", 1)[1].split()[0] != "Z"


def wait_for(condition, seconds=30, what="something"):
    until = time.monotonic() + max(seconds, 120)  # a limit for what hangs; a busy machine takes its time
    while time.monotonic() < until:
        value = condition()
        if value:
            return value
        time.sleep(0.05)
    raise AssertionError(f"waited {seconds} s for {what}")


class Running:
    """A `millrace` that runs in the background; everything it started is gone when the `with` block ends."""

    def __init__(self, *arguments, cwd):
        self.cwd = pathlib.Path(cwd)
        self.out = open(self.cwd / f"stdout-{time.monotonic_ns()}", "w+b")
        self.err = open(self.cwd / f"stderr-{time.monotonic_ns()}", "w+b")
        self.process = subprocess.Popen(
            [MILLRACE, *map(str, arguments)], cwd=cwd, stdin=subprocess.DEVNULL, stdout=self.out, stderr=self.err, start_new_session=True
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pids = [w["pid"] for w in (self.status() or {}).get("workers", [])]
        self.process.kill()
        self.process.wait()
        wait_for(lambda: not any(alive(p) for p in pids), 10, "the daemons to end with their parent")
        self.out.close()
        self.err.close()

    def status(self, file="pipeline.yaml"):
        answer = millrace("status", file, "--json", cwd=self.cwd)
        return json.loads(answer.stdout) if answer.returncode == 0 else None

    def workers(self, *states):
        status = self.status() or {}
        return [w for w in status.get("workers", []) if w["state"] in (states or ("ready", "busy"))]

    def wait_stage(self, name, seconds=30):
        def there():
            assert self.process.poll() is None, f"it ended before stage {name}: {self.errors()}"
            stages = {s["name"]: s["state"] for s in (self.status() or {}).get("stages", [])}
            return stages.get(name) in ("running", "done")

        wait_for(there, seconds, f"stage {name}")

    def steps(self):
        try:
            rows = [json.loads(line) for line in (self.cwd / "out/metrics.jsonl").read_text().splitlines() if line.endswith("}")]
        except FileNotFoundError:
            return 0
        return max((r["step"] for r in rows), default=0)

    def wait_step(self, step, seconds=60):
        wait_for(lambda: self.steps() >= step or self.process.poll() is not None, seconds, f"step {step}")

    def coordinator(self):
        return (self.status() or {}).get("pid")

    def end(self, seconds=300):
        code = self.process.wait(timeout=seconds)
        self.out.seek(0)
        return subprocess.CompletedProcess([], code, self.out.read(), self.errors().encode())

    def errors(self):
        self.err.seek(0)
        return self.err.read().decode("utf-8", "replace")

    def interrupt(self):
        self.process.send_signal(signal.SIGINT)


def kill(pid, number=signal.SIGKILL):
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass
