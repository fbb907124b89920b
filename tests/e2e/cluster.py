"""Whole runs for the tests of this folder: a corpus from a seed, a pipeline.yaml, and millrace's processes, started, watched, killed and
always gone at the end. Everything goes through the binary, as a user does it: MILLRACE_BINARY, else millrace in MILLRACE_BUILD (default
build).
"""

import contextlib
import json
import os
import pathlib
import pty
import random
import re
import shutil
import signal
import subprocess
import time

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
MILLRACE = str(
    pathlib.Path(
        os.environ.get("MILLRACE_BINARY") or pathlib.Path(os.environ.get("MILLRACE_BUILD") or ROOT / "build") / "millrace"
    ).resolve()
)
PATIENCE = float(os.environ.get("MILLRACE_TEST_PATIENCE") or 1)
SEED = 20240229
RUN_SECONDS = 300  # after which a whole run hangs, however busy the machine is
WAIT_SECONDS = 120
STEPS = 24  # of the pipeline that most tests run
END_OF_TEXT = 50256
VOCABULARY = 512  # of the tokenizer that most tests use


# ---- text ----------------------------------------------------------------------------------------------------------------------

WORDS = (
    "the of and to in a is that for it as was with be by on not he his but at are this have from or had an they which one you were "
    "all her she there would their we him been has when who will no more if out so up said what its about than into them can only "
    "mill race water wheel stone grain river village evening never rain slowly turned; \"yes,\" they're I'll 1847 3.14 --"
).split()
STRANGE = [
    "naïve",
    "Größe",
    "e\u0301te\u0301",
    "日本語のテキスト",
    "текст",
    "עברית",
    "👩‍👩‍👧‍👦🏳️‍🌈",
    "\u00a0",
    "\u0085",
    "\ufeff",
    "\t\t",
    "  ",
    "<|endoftext|>",
    "x" * 70,
    "ﬃ",
    "𝔘𝔫𝔦",
    "\u200b",
    "don't",
    "WE'LL",
    "\r\n",
]


def prose(chooser, size):
    """About `size` bytes of words, lines and paragraphs, now and then something strange."""
    lines, length = [], 0
    while length < size:
        words = chooser.choices(WORDS, k=chooser.randint(1, 18))
        if chooser.random() < 0.1:
            words[chooser.randrange(len(words))] = chooser.choice(STRANGE)
        line = " ".join(words)
        lines.append(line if chooser.random() < 0.9 else line + ".\n")
        length += len(line.encode()) + 1
    return "\n".join(lines)


def make_corpus(folder, seed=SEED):
    """A dozen documents; among them an empty one, one without a newline at its end, one that is not UTF-8, one with NUL bytes and one of
    1.2 MB, which is tokenized in two parts."""
    chooser = random.Random(seed)
    (folder / "deep" / "er").mkdir(parents=True)
    for i in range(8):
        place = folder / "deep" / "er" if i % 3 == 0 else folder
        place.joinpath(f"document-{i}.txt").write_text(prose(chooser, chooser.randint(200, 6000)), newline="")
    (folder / "empty.txt").write_bytes(b"")
    (folder / "large.txt").write_text(prose(chooser, 1_200_000), newline="")
    (folder / "nul.txt").write_bytes(b"before\0\0after " + prose(chooser, 500).encode())
    (folder / "not-utf8.txt").write_bytes(
        b"good \xff\xfe\x80 bad \xe2\x82 cut \xed\xa0\x80 surrogate " + prose(chooser, 500).encode() + b"\xf0\x9f"
    )
    return folder


def make_large_corpus(folder, megabytes, seed=SEED):
    """Enough text for a stage to be caught in its middle. The same paragraphs in another order: what they say does not matter."""
    chooser = random.Random(seed)
    paragraphs = [prose(chooser, 2000) for _ in range(200)]
    folder.mkdir(parents=True)
    for i in range(4):
        with open(folder / f"part-{i}.txt", "w", newline="") as file:
            while file.tell() < megabytes * 250_000:
                file.write("\n\n".join(chooser.choices(paragraphs, k=50)))
    return folder


def make_tokenizer(folder, corpus):
    """A small one, of which settings() are then: GPT-2's has a hundred times as many ids, and a run takes ten times as long with it."""
    global tokenizer
    texts = [corpus / f"document-{i}.txt" for i in (1, 2, 4, 5)]
    millrace("tokenizer", "train", *texts, "--vocab-size", VOCABULARY, "--output", folder)
    tokenizer = str(folder)


# ---- pipeline.yaml -------------------------------------------------------------------------------------------------------------

tokenizer = "gpt2"
# What most of the weights of the small model are for: two segments of 1 Mi values, which are summed, sent and saved like any others and
# of which next to nothing is computed. GPT-2's vocabulary would make them, too.
POSITIONS = 40_000
GPT2 = {"dataset__tokenizer": "gpt2", "model__n_positions": 32}  # the small model with GPT-2's tokenizer


def settings(**changes):
    """The small pipeline, as nested dicts; training__max_steps=5 changes one key. 2 layers, 32 wide, with dropout."""
    values = {
        "run_name": "e2e",
        "output_dir": "out",
        "cluster": {"workers": 2, "lease_seconds": 10},
        "dataset": {
            "sources": ["corpus/**/*.txt"],
            "tokenizer": tokenizer,
            "sequence_length": 32,
            "validation_fraction": 0.3,
            "shard_tokens": 131072,
        },
        "model": {"n_layer": 2, "n_head": 2, "n_embd": 32, "n_positions": POSITIONS},
        "training": {
            "global_batch": 8,
            "slices": 4,
            "max_steps": STEPS,
            "learning_rate": 0.003,
            "warmup_steps": 2,
            "eval_steps": 10,
            "eval_sequences": 40,
            "save_steps": 8,
        },
        "sample": {"max_new_tokens": 5},
    }
    for name, value in changes.items():
        *sections, key = name.split("__")
        place = values
        for section in sections:
            place = place.setdefault(section, {})
        place[key] = value
    return values


# ---- processes -----------------------------------------------------------------------------------------------------------------


def wait_until(condition, seconds=WAIT_SECONDS, what="it"):
    """Polls until condition() is true, and returns what it returned. The limit is there to end a hang: how long a thing takes on a busy
    machine proves nothing."""
    seconds = max(seconds, WAIT_SECONDS)
    until = time.monotonic() + seconds * PATIENCE
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < until, f"waited {seconds} s in vain until {what() if callable(what) else what}"
        time.sleep(0.005)


def processes(pids=None):
    """(pid, parent, session, arguments) of every process that is not a zombie, or of those among these pids."""
    for pid in pids if pids is not None else filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            stat = pathlib.Path(f"/proc/{pid}/stat").read_text()
            fields = stat[stat.rindex(")") + 2 :].split()
            arguments = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if fields[0] not in "ZX":
                yield int(pid), int(fields[1]), int(fields[3]), [argument.decode("utf-8", "replace") for argument in arguments]


def alive(pid):
    return any(processes([pid]))


def children_of(pid):
    """The kernel's list of them: to look at every process, again and again, takes more of a machine than what is waited for."""
    pids = []
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            pids += pathlib.Path(f"/proc/{pid}/task/{thread}/children").read_text().split()
    return list(processes(pids))


def send(number, *pids):
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def has_terminals():
    try:
        for end in pty.openpty():
            os.close(end)
    except OSError:
        return False
    return True


NO_TERMINALS = "this machine gives no pseudo-terminals (/dev/pts)"
needs_terminals = pytest.mark.skipif(not has_terminals(), reason=NO_TERMINALS)


class Process:
    """One started command in a session of its own; its output goes to files, so that no pipe fills up."""

    def __init__(self, arguments, cwd, files, stdin=b"", **options):
        self.arguments = arguments
        self.out, self.err = files / "stdout", files / "stderr"
        files.mkdir(parents=True, exist_ok=True)
        (files / "stdin").write_bytes(stdin)
        with open(files / "stdin", "rb") as given, open(self.out, "wb") as out, open(self.err, "wb") as err:
            self.popen = subprocess.Popen(
                arguments, cwd=cwd, stdin=given, stdout=out, stderr=err, start_new_session=True, **options
            )
        self.pid = self.popen.pid

    def children(self, word):
        """The pids of the daemons that this `millrace run` has started: word is worker or coordinator."""
        return [pid for pid, _, _, arguments in children_of(self.pid) if arguments[1:2] == [word]]

    def running(self):
        return self.popen.poll() is None

    def wait(self, seconds=RUN_SECONDS):
        seconds = max(seconds, WAIT_SECONDS)
        try:
            return self.popen.wait(seconds * PATIENCE)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{' '.join(self.arguments)}\nis still running after {seconds} s\n{self.stderr()[-3000:]}") from None

    def stdout(self):
        return self.out.read_text("utf-8", "replace")

    def stderr(self):
        return self.err.read_text("utf-8", "replace")

    def kill(self):
        """Ends the process and everything in its session."""
        for _ in range(100):
            left = [pid for pid, _, session, _ in processes() if session == self.pid]
            if not left:
                break
            send(signal.SIGCONT, *left)
            send(signal.SIGKILL, *left)
            time.sleep(0.01)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.popen.wait(5)


class Workplace:
    """A folder with a pipeline.yaml, and the commands that are run there."""

    def __init__(self, folder, corpus=None, **changes):
        self.folder = folder
        self.file = folder / "pipeline.yaml"
        self.started = []
        folder.mkdir(parents=True, exist_ok=True)
        if corpus:
            (folder / "corpus").symlink_to(corpus)
            changes.setdefault("dataset__sources", [f"{corpus}/**/*.txt"])
        self.write(**changes)

    def write(self, **changes):
        self.values = settings(**changes)
        self.output = self.folder / self.values["output_dir"]
        self.file.write_text(json.dumps(self.values, indent=1) + "\n")  # JSON is YAML

    def program(self, options):
        """For another user it is a copy: the repository may lie in a folder that nobody else may enter."""
        if "user" not in options:
            return MILLRACE
        copy = self.folder / "millrace"
        if not copy.exists():
            shutil.copy(MILLRACE, copy)
        return str(copy)

    def start(self, *arguments, cwd=None, prefix=(), **options):
        command = [*prefix, self.program(options), *map(str, arguments)]
        process = Process(command, cwd or self.folder, self.folder / f"process-{len(self.started)}", **options)
        self.started.append(process)
        return process

    def run(self, *arguments, **options):
        return self.start("run", self.file, "--json", *arguments, **options)

    def finish(self, process, code=0):
        """Waits for a `run --json`; its last line of standard output, parsed."""
        try:
            got = process.wait()
        except AssertionError as failure:
            state = millrace("status", self.file, code=None).stdout
            raise AssertionError(f"{failure}\n{state}\n{self.logs()}") from None
        assert got == code, f"exit code {got}, not {code}\n{process.stderr()[-2000:]}\n{self.logs()}"
        return json.loads(process.stdout().splitlines()[-1]) if code == 0 else None

    def go(self, *arguments):
        return self.finish(self.run(*arguments))

    def status(self, *arguments):
        return json.loads(millrace("status", self.file, "--json", *arguments).stdout)

    def logs(self):
        texts = [
            f"--- {path.name}\n" + "".join(path.read_text("utf-8", "replace").splitlines(True)[-15:])
            for path in self.output.glob("logs/*.log")
        ]
        return "".join(texts)

    def metrics(self):
        """The lines of metrics.jsonl; a line that is being written is left out."""
        with contextlib.suppress(FileNotFoundError):
            return [json.loads(line) for line in (self.output / "metrics.jsonl").read_text().splitlines(True) if line.endswith("\n")]
        return []

    def steps(self):
        return [line["step"] for line in self.metrics() if "loss" in line]

    def wait_for_step(self, process, step):
        """Until that step is committed, while process runs."""

        def there():
            steps = self.steps()
            assert (steps and max(steps) >= step) or process.running(), f"ended before step {step}\n{process.stderr()}\n{self.logs()}"
            return steps and max(steps) >= step

        wait_until(there, 60, lambda: f"step {step} was done\n{self.logs()}")

    def wait_for_files(self, process, pattern, count):
        """Until output_dir holds that many files of that pattern, while process runs."""

        def there():
            found = len(list(self.output.glob(pattern)))
            assert found >= count or process.running(), f"ended before {count} of {pattern} were there\n{process.stderr()}\n{self.logs()}"
            return found >= count

        wait_until(there, 60, f"{count} of {pattern} were there")

    def events(self):
        return (self.output / "logs" / "coordinator.log").read_text("utf-8", "replace")

    def close(self):
        for process in self.started:
            process.kill()


# What is said of one thing: "1 token", and of "tokens/s" any number. Help and rows of tables have none of it.
NOUNS = "byte|checkpoint|document|draft|evaluation|file|id|job|layer|member|other|piece|row|sequence|shard|slice|step|thread|token|worker"
FOREIGN_TEXT = ("generate", "tokenize")  # whose output is text of others
PLURAL_OF_ONE = re.compile(rf"(?<![\w.,:/-])1 (?:source |tokenize |training |validation |different )?(?:{NOUNS})s\b(?!/)")


def millrace(*arguments, code=0, stdin=b"", cwd=None, seconds=RUN_SECONDS, text=True):
    """Runs a command to its end and checks its exit code (None: any)."""
    done = subprocess.run(
        [MILLRACE, *map(str, arguments)], input=stdin, capture_output=True, cwd=cwd, timeout=seconds * PATIENCE, start_new_session=True
    )
    if text:
        done.stdout, done.stderr = done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace")
        for said in (done.stdout, done.stderr):
            assert not PLURAL_OF_ONE.search(said) or arguments[0] in FOREIGN_TEXT, f"{arguments}: {PLURAL_OF_ONE.search(said)[0]}"
    assert (
        code is None or done.returncode == code
    ), f"{arguments}: exit code {done.returncode}, not {code}\n{done.stdout[-1000:]}\n{done.stderr[-2000:]}"
    return done


def refused(*arguments, code, says, **options):
    """The command fails with that code and tells each of the words; with --json the object on standard output says so, else nothing goes
    there."""
    done = millrace(*arguments, code=code, **options)
    for word in says:
        assert word.lower() in done.stderr.lower(), f"{arguments}: '{word}' is not in: {done.stderr}"
    assert done.stderr.startswith("millrace: ") or "\nmillrace: " in done.stderr, done.stderr
    if "--json" in arguments and done.stdout:
        assert json.loads(done.stdout)["state"] == "refused", done.stdout
    else:
        assert done.stdout == "", done.stdout
    return done.stderr


def digests(result):
    return result["dataset_digest"], result["weights_digest"]
