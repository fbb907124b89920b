"""What the coordinator knows outlives it, and what becomes of a run whose records are damaged."""
import contextlib
import os
import random
import re
import shutil
import signal
import sqlite3

import pytest

from cluster import RUN_SECONDS, STEPS, digests, millrace, refused, send, wait_until
from test_hostile import endpoint, impostor

LAST = f"checkpoint-{STEPS}"
# Weights that run away: finite steps, an evaluation that is no number, then steps without a finite gradient until there are too many.
WILD = {"training__optim": "sgd", "training__sgd_momentum": 0.99, "training__learning_rate": 10, "training__max_grad_norm": 0,
        "training__eval_steps": 2, "training__save_steps": 3, "training__max_bad_steps": 1, "training__max_steps": 12}


def story(place):
    """All that the run decided and knows."""
    training = place.status()["training"]
    metrics = [{key: value for key, value in line.items() if not re.search("time|per_second", key)} for line in place.metrics()]
    known = {key: training[key] for key in ("step", "bad_steps", "loss", "learning_rate", "eval_loss", "eval_step")}
    checkpoint = place.output / "checkpoint-6"
    return metrics, known, place.status()["reason"], (checkpoint / "model.safetensors").read_bytes()


def test_a_coordinator_killed_after_every_commit_decides_as_one_that_lived(workplaces, corpus):
    undisturbed, killed = workplaces(corpus, **WILD), workplaces(corpus, **WILD)
    process = undisturbed.run()
    assert process.wait() == 1 and "max_bad_steps" in process.stderr()
    process, kills, newest = killed.run(), 0, 0

    def ended():
        nonlocal kills, newest
        steps, coordinator = killed.steps(), process.children("coordinator")
        if steps and max(steps) > newest and coordinator:
            newest, kills = max(steps), kills + 1
            send(signal.SIGKILL, *coordinator)
            wait_until(lambda: not set(coordinator) & set(process.children("coordinator")), 30, "the coordinator is gone")
        return not process.running()

    wait_until(ended, RUN_SECONDS, lambda: f"the run ended after {kills} kills, the last after step {newest}\n{killed.logs()}")
    assert process.wait() == 1 and "max_bad_steps" in process.stderr()
    assert kills >= 5
    assert story(killed) == story(undisturbed)
    assert story(killed)[1]["bad_steps"] == 2 and story(killed)[1]["eval_loss"] is None


def test_workers_that_were_told_to_go_come_back_when_their_coordinator_was_killed_over_that(workplaces, corpus):
    place = workplaces(corpus, **WILD)
    process = place.run("--workers", 1)
    wrong = impostor(place, "stays", endpoint(place, process))  # for whose answer the coordinator waits before it ends
    wait_until(lambda: "welcome" in wrong.stdout(), 30, "it is there")
    wait_until(lambda: "goodbye" in wrong.stdout(), 60, "all are told to go")
    send(signal.SIGKILL, *process.children("coordinator"))
    assert process.wait() == 1 and "max_bad_steps" in process.stderr()
    assert place.events().count("coordinator started: generation") == 2


# ---- damage --------------------------------------------------------------------------------------------------------------------


def flip(path, inside, at=3):
    """Two bits of the bytes that hold this text."""
    raw = bytearray(path.read_bytes())
    place = raw.find(inside)
    assert place >= 0, inside
    raw[place + at] ^= 0x11
    path.write_bytes(raw)


def copy_of(place, reference, without=()):
    """A finished run in place, or one that was stopped: without its last checkpoints."""
    shutil.copytree(reference.output, place.output)
    for name in without:
        shutil.rmtree(place.output / name)
    return place.output / "state" / "millrace.db"


def value(path, query):
    with contextlib.closing(sqlite3.connect(path)) as db:
        return db.execute(query).fetchone()[0]


def test_flipped_bits_in_the_records_are_named_and_what_is_lost_is_made_again(place, reference):
    """All of them in one store: what the sources were, a job, a result, a step after the newest checkpoint and one before."""
    store = copy_of(place, reference, without=[LAST, "checkpoint-16"])
    flip(store, value(store, "SELECT value FROM named WHERE name = 'sources'")[20:60])
    flip(store, value(store, "SELECT result FROM jobs WHERE stage = 'pack' AND number = 0")[-30:])
    flip(store, value(store, "SELECT spec FROM jobs WHERE stage = 'tokenize' AND number = 1")[:30])
    flip(store, value(store, "SELECT gradient FROM steps WHERE step = 3"))
    flip(store, value(store, "SELECT gradient FROM steps WHERE step = 10"))
    result = place.go()
    assert digests(result) == reference.digests and "what is left was kept, the damaged file is" in result["warnings"][0]
    events = place.events()
    assert "records-damaged" in events and "jobs (2 rows)" in events and "steps (2 rows)" in events and "named (1 row)" in events
    assert "ledger-repaired: goes on from step 9" in events and "sources-changed" not in events
    assert [step for step in place.steps() if step > 8] == [step for step in reference.steps() if step > 8]
    assert digests(place.go()) == reference.digests and place.events().count("records-damaged") == 1


def test_damaged_records_of_the_last_step_leave_the_checkpoint_what_it_is(place, reference):
    store = copy_of(place, reference)
    flip(store, value(store, "SELECT gradient FROM steps WHERE step = 24"))
    for _ in range(2):
        assert digests(place.go()) == reference.digests
    assert "ledger-repaired: goes on from step 24" in place.events()


@pytest.mark.parametrize("without", [[], [LAST], [LAST, "checkpoint-16", "checkpoint-8"]], ids=len)
def test_when_the_pipeline_is_not_on_record_any_more_the_checkpoint_tells_it(place, reference, without):
    store = copy_of(place, reference, without)
    flip(store, value(store, "SELECT value FROM named WHERE name = 'config'")[50:90])
    kept = {path.name: path.stat().st_ino for path in place.output.glob("checkpoint-*")}
    for _ in range(2):
        assert digests(place.go()) == reference.digests
        assert {name: (place.output / name).stat().st_ino for name in kept} == kept
    assert "records-damaged" in place.events() and "records-begun" in place.events()


def test_a_checkpoint_of_another_pipeline_is_refused_when_none_is_on_record(workplaces, corpus, reference):
    place = workplaces(corpus, training__learning_rate=0.002)
    store = copy_of(place, reference)
    flip(store, value(store, "SELECT value FROM named WHERE name = 'config'")[50:90])
    for _ in range(2):
        refused("run", place.file, code=2, says=[LAST, "is of another run", "move it away"])
    assert everything(place.output / LAST) == everything(reference.output / LAST)


# ---- the newest rows are lost --------------------------------------------------------------------------------------------------


def everything(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def lose_rows(store):
    """What a log that breaks off leaves: a database as it was, and whole."""
    with contextlib.closing(sqlite3.connect(store)) as db:
        for name in ("row_digest", "row_check"):
            db.create_function(name, -1, lambda *_: b"", deterministic=True)
        db.execute("DELETE FROM steps WHERE step > 3")
        db.execute("DELETE FROM evaluations WHERE step > 3")
        db.commit()


LOSSES = {
    "the newest rows": lose_rows,
    "the database": lambda store: store.unlink(),
    "all that was in it": lambda store: store.write_bytes(b""),
    "the folder": lambda store: shutil.rmtree(store.parent),
}


@pytest.mark.parametrize("what", LOSSES)
def test_a_whole_checkpoint_is_believed_over_a_store_that_lost_its_newest_rows(place, reference, what):
    LOSSES[what](copy_of(place, reference, without=[LAST]))
    result, first = place.go(), 4 if what == "the newest rows" else 1
    told = f"the records of steps {first} to 16 are lost; going on from checkpoint-16"
    assert digests(result) == reference.digests and told in place.events() and told in result["warnings"][0]
    assert everything(place.output / LAST) == everything(reference.output / LAST)
    untimed = [[{key: value for key, value in line.items() if not re.search("time|per_second", key)} for line in run.metrics()]
               for run in (place, reference)]
    assert untimed[0] == untimed[1]
    assert digests(place.go()) == reference.digests and place.events().count("records-lost") == 1


@pytest.mark.parametrize("without", [[], [LAST]], ids=["finished", "stopped"])
def test_that_records_were_lost_is_on_the_screen(place, reference, without):
    shutil.rmtree(copy_of(place, reference, without).parent)
    run = place.start("run", place.file)
    assert run.wait() == 0
    last = 16 if without else STEPS
    assert f"warning   the records of steps 1 to {last} are lost; going on from checkpoint-{last}" in run.stderr(), run.stderr()
    assert f"warning   the records of steps 1 to {last} are lost" in millrace("status", place.file).stdout


def test_the_answer_that_all_self_tests_are_compared_with_comes_back(place, reference):
    """From the last checkpoint, before any worker is asked."""
    store = copy_of(place, reference)
    store.unlink()
    assert digests(place.go()) == reference.digests and f"records of steps 1 to {STEPS} are lost" in place.events()
    for name in ("answer", "build"):
        sql = f"SELECT value FROM named WHERE name = '{name}'"
        assert value(store, sql) == value(reference.output / "state" / "millrace.db", sql)


@pytest.mark.parametrize("change", [{"training__learning_rate": 0.002}, {"training__max_steps": STEPS + 4}], ids=str)
def test_a_checkpoint_of_another_run_is_not_believed(workplaces, corpus, reference, change):
    """The length alone would be no other run, where no step had another rate for it: here it is."""
    place = workplaces(corpus, **change)
    shutil.rmtree(copy_of(place, reference).parent)
    assert "is of another run" in refused("run", place.file, code=2, says=[LAST, "--restart"])
    assert place.output.joinpath(LAST).exists()


def killed(place, there):
    """kill -9 to all of a run when there() is true. SQLite's log, and what it held when it was first seen."""
    process, log, older = place.run(), place.output / "state" / "millrace.db-wal", b""

    def now():
        nonlocal older
        with contextlib.suppress(FileNotFoundError):
            older = older or log.read_bytes()
        assert process.running(), process.stderr() + place.logs()
        return older and there()

    wait_until(now, 120, "the run is there")
    send(signal.SIGKILL, *process.children("coordinator"), *process.children("worker"), process.pid)
    process.wait()
    return log, older


STAGES = {
    "at the start": lambda place: True,
    "while text is tokenized": lambda place: any(place.output.glob("state/runs/*.tok")),
    "while shards are packed": lambda place: any(place.output.glob("dataset/*.zst")),
    "before a checkpoint": lambda place: 2 in place.steps(),
    "after a checkpoint": lambda place: 10 in place.steps(),
    "after another": lambda place: 18 in place.steps(),
}
LOGS = {
    "gone": lambda chance, raw, older: None,
    "empty": lambda chance, raw, older: b"",
    "cut off": lambda chance, raw, older: raw[: chance.randrange(len(raw))],
    "random bytes": lambda chance, raw, older: chance.randbytes(len(raw)),
    "random from a place on": lambda chance, raw, older: raw[: (at := chance.randrange(len(raw)))] + chance.randbytes(len(raw) - at),
    "an older one": lambda chance, raw, older: older,
}


@pytest.mark.seconds(600)
def test_whatever_becomes_of_the_log_of_the_database_the_digests_are_the_same(workplaces, corpus, reference):
    """The run is killed in some stage and its log damaged, again and again. Nothing is refused: what the log told is made again."""
    seed = int(os.environ.get("MILLRACE_SEED") or random.randrange(1 << 32))
    chance = random.Random(seed)
    for _ in range(int(os.environ.get("MILLRACE_TEST_LOGS") or 2)):
        place, story = workplaces(corpus), [f"MILLRACE_SEED={seed}"]
        for stage in sorted(chance.sample(range(len(STAGES)), 2)):
            name, how = list(STAGES)[stage], chance.choice(list(LOGS))
            log, older = killed(place, lambda name=name: STAGES[name](place))
            raw = log.read_bytes()
            story.append(f"{name}: {how}, of {len(raw)} bytes")
            print(story[-1])
            assert raw or stage > 3, story
            left = LOGS[how](chance, raw, older) if raw else older
            log.unlink()
            if left is not None:
                log.write_bytes(left)
        process = place.run()
        assert process.wait() == 0, (story, process.stderr(), place.logs())
        assert digests(place.finish(process)) == reference.digests, story
        assert everything(place.output / LAST) == everything(reference.output / LAST), story


def test_a_damaged_log_of_the_database_costs_no_checkpoint(place, reference):
    """kill -9, and a bit flips in the first page of SQLite's log, so that nothing of it can be used."""
    log, _ = killed(place, lambda: 18 in place.steps())
    raw = bytearray(log.read_bytes())
    assert len(raw) > 100, "there is nothing to flip"
    raw[100] ^= 1
    log.write_bytes(raw)
    assert digests(place.go()) == reference.digests
    assert everything(place.output / LAST) == everything(reference.output / LAST)


@pytest.mark.parametrize("how", ["damaged", "gone"])
def test_a_manifest_is_made_again_from_runs_and_shards(place, reference, how):
    copy_of(place, reference, without=[LAST])
    manifest = place.output / "dataset" / "dataset.pb"
    good, shards = manifest.read_bytes(), {path: path.stat().st_mtime_ns for path in place.output.glob("dataset/*.zst")}
    if how == "gone":
        manifest.unlink()
    else:
        flip(manifest, good[40:60])
    assert digests(place.go()) == reference.digests
    assert manifest.read_bytes() == good
    assert {path: path.stat().st_mtime_ns for path in place.output.glob("dataset/*.zst")} == shards, "a shard was made again"
    assert "manifest-damaged" in place.events() and "runs-kept" in place.events()
    assert not list(place.output.glob("**/*.draft-*"))


def test_a_dataset_that_was_trained_on_is_not_made_again_as_another_one(workplaces, base_folder, corpus):
    """Its manifest and its runs are gone, and a source changed in a way that no time and no size tells."""
    text = base_folder / "changing"
    shutil.copytree(corpus, text)
    place = workplaces(text, training__max_steps=1, training__save_steps=0)
    source = text / "large.txt"
    place.go()
    shutil.rmtree(place.output / "state" / "runs")
    (place.output / "dataset" / "dataset.pb").unlink()
    times = source.stat()
    source.write_bytes(source.read_bytes().replace(b"mill", b"MILL"))
    os.utime(source, ns=(times.st_atime_ns, times.st_mtime_ns))
    process = place.run()
    assert process.wait() == 1
    assert "is another one than" in process.stderr() and "--restart" in process.stderr()


def test_a_pipe_in_the_place_of_a_file_hangs_nobody(place, reference):
    copy_of(place, reference)
    for name in (f"{LAST}/config.json", "dataset/dataset.pb", "metrics.jsonl"):
        (place.output / name).unlink()
        os.mkfifo(place.output / name)
    refused("generate", place.output / LAST, "--prompt", "a", code=1, says=["config.json is a pipe, not a file"])
    assert digests(place.go()) == reference.digests
    assert "config.json is a pipe, not a file" in place.events() and "dataset.pb is a pipe, not a file" in place.events()


def test_drafts_of_a_crash_are_swept(place, reference):
    copy_of(place, reference)
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    left = [place.output / name for name in (f"metrics.jsonl.draft-{pid}-0", f"state/runs/x.tok.draft-{pid}-7", f"dataset/y.draft-{pid}-1")]
    for path in left:
        path.write_bytes(b"half")
    assert digests(place.go()) == reference.digests
    assert not any(path.exists() for path in left)
    assert "3 drafts of earlier crashes" in place.events()
