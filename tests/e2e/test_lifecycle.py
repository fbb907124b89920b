"""An output_dir at every stage of its life, and what changes over it: allowed, or refused by name with what to do, and never stuck."""

import json
import os
import pathlib
import shutil
import signal
import subprocess

import pytest

import cluster
from cluster import digests, millrace, refused, send, wait_until
from runs import free_port

STEPS = 6
SMALL = {
    "training__max_steps": STEPS, "training__save_steps": 2, "training__eval_steps": 3, "training__eval_sequences": 8,
    "training__global_batch": 4, "training__slices": 2, "training__warmup_steps": 1, "cluster__workers": 1,
    "model__n_layer": 1, "model__n_embd": 16, "sample__prompt": "",
}


@pytest.fixture(scope="module")
def base(base_folder, corpus):
    """Small sources of this file's own, and a tokenizer with a small vocabulary: a run takes a second."""
    folder = base_folder / "lifecycle"
    (folder / "corpus").mkdir(parents=True)
    for i in (1, 2, 4, 5):
        shutil.copy(corpus / f"document-{i}.txt", folder / "corpus")
    texts = sorted((folder / "corpus").iterdir())
    for vocabulary in (280, 300):
        millrace("tokenizer", "train", *texts, "--vocab-size", vocabulary, "--output", folder / f"tokenizer-{vocabulary}")
    return folder


@pytest.fixture
def make(base, request):
    made = []

    def new(output=None, **changes):
        place = cluster.Workplace(base / f"place-{request.node.name[:40].replace('/', '_')}-{len(made)}")
        made.append(place)
        given = {**SMALL, "dataset__sources": ["../corpus/*.txt"], "dataset__tokenizer": "../tokenizer-280", **changes}
        place.write(**given)
        if output:
            shutil.copytree(output, place.output)
        return place

    yield new
    for place in made:
        place.close()
        shutil.rmtree(place.folder, ignore_errors=True)


@pytest.fixture(scope="module")
def stages(base):
    """{stage: an output_dir that was left there}. They are copied, and going on with a copy is part of the test."""
    made = {"fresh": None}

    def place(name, **changes):
        new = cluster.Workplace(base / f"stage-{name}")
        new.write(**{**SMALL, "dataset__sources": ["../corpus/*.txt"], "dataset__tokenizer": "../tokenizer-280", **changes})
        made[name] = new.output
        return new

    tokenizing = place("tokenizing")
    process = tokenizing.run("--workers", 0)  # nobody to do it
    wait_until(lambda: (tokenizing.output / "state" / "endpoint").exists(), 30, "it is up")
    send(signal.SIGTERM, process.pid)
    tokenizing.finish(process, 130)
    packed = place("packed")
    millrace("dataset", "build", packed.file)
    answered = place("answered")
    process = answered.run("--workers", 1)
    answered.wait_for_files(process, "metrics.jsonl", 1)
    coordinator = process.children("coordinator")
    assert coordinator
    process.kill()
    finished = place("finished")
    finished.digests = digests(finished.go())
    made["digests"] = finished.digests
    yield made
    for new in (tokenizing, packed, answered, finished):
        new.close()


# one of each kind of key, and values that alter results
ALTERING = {
    "dataset.sources": '["../corpus/document-1.txt", "../corpus/document-2.txt"]', "dataset.tokenizer": "../tokenizer-300",
    "dataset.sequence_length": 16, "dataset.validation_fraction": 0.5, "dataset.shard_tokens": 4096, "dataset.packing": "pad",
    "dataset.deduplicate": "near", "dataset.filters": "[gopher_quality]", "model.n_layer": 2, "model.n_embd": 32, "model.n_positions": 64,
    "model.attn_pdrop": 0.0, "training.learning_rate": 0.01, "training.seed": 7, "training.optim": "sgd", "training.bf16": "true",
    "training.global_batch": 8, "training.slices": 4, "training.lr_scheduler_type": "linear", "training.ema_decay": 0.9,
}
HARMLESS = {
    "run_name": "renamed", "cluster.workers": 2, "cluster.threads_per_worker": 2, "cluster.compression": "none", "cluster.cache_mib": 8,
    "cluster.lease_seconds": 20, "training.save_steps": 5, "training.save_total_limit": 2, "training.eval_steps": 2,
    "training.logging_steps": 2, "training.max_bad_steps": 3, "sample.temperature": 0.5,
}


def sets(changes):
    return [word for key, value in changes.items() for word in ("--set", f"{key}={value}")]


@pytest.mark.parametrize("key", ALTERING)
def test_after_the_first_step_what_alters_results_is_refused_by_name(make, stages, key):
    place = make(stages["finished"])
    before = place.status()
    text = refused("coordinator", place.file, *sets({key: ALTERING[key]}), code=2, says=[key, "--restart", "output_dir"])
    assert text.count("->") == (2 if key == "dataset.tokenizer" else 1)  # which brings another model.vocab_size
    assert place.status() == before or place.status()["state"] == before["state"], "nothing of it is lost"


GROUPS = [
    ["dataset.sources", "dataset.validation_fraction", "training.seed"],
    ["dataset.tokenizer", "model.n_layer"],
    ["dataset.sequence_length", "dataset.shard_tokens", "training.global_batch", "training.slices"],
    ["dataset.packing", "dataset.deduplicate", "training.optim"],
    ["model.n_embd", "training.learning_rate", "training.ema_decay"],
    ["dataset.filters", "model.n_positions", "model.attn_pdrop", "training.bf16", "training.lr_scheduler_type"],
]


def test_the_groups_hold_every_key():
    assert sorted(key for group in GROUPS for key in group) == sorted(ALTERING)


@pytest.mark.parametrize("group", range(len(GROUPS)))
def test_before_the_first_step_everything_may_change(make, stages, group):
    changes = sets({key: ALTERING[key] for key in GROUPS[group]})
    wanted = digests(make().go(*changes))
    assert wanted != stages["digests"]
    for stage in ("tokenizing", "packed"):
        assert digests(make(stages[stage]).go(*changes)) == wanted, stage


@pytest.mark.parametrize("stage", ["fresh", "tokenizing", "packed", "answered", "finished"])
def test_harmless_keys_may_change_at_any_stage(make, stages, stage):
    assert digests(make(stages[stage]).go(*sets(HARMLESS))) == stages["digests"]


def test_a_key_changed_before_step_1_brings_a_new_known_answer(make, base):
    """Workers that were started by hand outlive their coordinator; an answer of the old pipeline is not the new one's, nor is a state."""
    wanted = digests(make(model__n_layer=2).go())
    place = make(training__global_batch=8, model__n_layer=3)
    address = f"tcp://127.0.0.1:{free_port()}"
    coordinator = place.start("coordinator", place.file, "--bind", address, "--set", "training.max_steps=100000")
    worker = place.start("worker", "--connect", address)
    # whatever it had of the first pipeline - configuration, answer, perhaps a state - the second one must not see
    wait_until(lambda: "worker-joined" in coordinator.stderr(), 30, "the worker is there")
    send(signal.SIGKILL, coordinator.pid)
    coordinator.wait(10)
    shutil.rmtree(place.output / "state")
    for path in place.output.glob("checkpoint-*"):
        shutil.rmtree(path)
    place.write(**{**SMALL, "dataset__sources": ["../corpus/*.txt"], "dataset__tokenizer": "../tokenizer-280", "model__n_layer": 2})
    coordinator = place.start("coordinator", place.file, "--bind", address)
    assert coordinator.wait() == 0, coordinator.stderr() + worker.stderr()
    assert worker.wait(10) == 0 and "begins anew" in worker.stderr(), worker.stderr()
    assert digests(place.go()) == wanted


# ---- longer runs ----

CONSTANT = {"training__lr_scheduler_type": "constant", "training__warmup_steps": 0}
INVERSE = {"training__lr_scheduler_type": "inverse_sqrt", "training__warmup_steps": 2}
STABLE = {"training__lr_scheduler_type": "warmup_stable_decay", "training__num_decay_steps": 3}


@pytest.mark.parametrize("schedule", [CONSTANT, INVERSE], ids=["constant", "inverse_sqrt"])
def test_a_finished_run_grows_where_every_past_rate_stays_what_it_was(make, schedule):
    wanted = digests(make(**{**schedule, "training__max_steps": 10}).go())
    place = make(**schedule)
    place.go()
    assert digests(place.go("--set", "training.max_steps=10")) == wanted
    place.values["training"]["max_steps"] = 10
    place.file.write_text(json.dumps(place.values))
    assert "length-changed: from 6 to 10 steps" in place.events()
    assert place.steps() == list(range(1, 11))
    refused("run", place.file, "--set", "training.max_steps=6", code=2, says=["training.max_steps: 10 -> 6", "10 steps are done"])


def test_a_stopped_run_grows_before_its_decay_began(make):
    wanted = digests(make(**{**STABLE, "training__max_steps": 50}).go())
    place = make(**{**STABLE, "training__max_steps": 40, "training__save_steps": 2})
    process = place.run()
    place.wait_for_step(process, 3)
    process.kill()
    assert max(place.steps()) < 37
    assert digests(place.go("--set", "training.max_steps=50")) == wanted
    assert "length-changed: from 40 to 50 steps" in place.events()


@pytest.mark.parametrize("schedule", [{"training__lr_scheduler_type": "cosine"}, STABLE], ids=["cosine", "decayed"])
def test_a_run_does_not_grow_where_a_past_rate_would_have_been_another(make, schedule):
    place = make(**{**schedule, "training__max_steps": 6})
    result = place.go()
    text = refused("run", place.file, "--set", "training.max_steps=10", code=2, says=["training.max_steps: 6 -> 10", "--restart", "step "])
    assert "would have" in text
    assert place.go() == result


def test_more_epochs(make):
    few = {**CONSTANT, "training__max_steps": 0, "training__global_batch": 64, "training__slices": 2, "training__eval_steps": 0}
    wanted = digests(make(**few, training__num_train_epochs=0.2).go())
    place = make(**few, training__num_train_epochs=0.1)
    place.go()
    assert digests(place.go("--set", "training.num_train_epochs=0.2")) == wanted


# ---- sources that changed after training began ----


@pytest.fixture
def own_sources(make, base):
    """A place whose sources may be changed."""

    def new(**changes):
        place = make(**{**CONSTANT, "dataset__sources": ["text/*.txt"], **changes})
        shutil.copytree(base / "corpus", place.folder / "text")
        return place

    return new


CHANGE = {
    "changed": lambda text: (text / "document-2.txt").write_text("another text"),
    "more": lambda text: (text / "document-0.txt").write_text("one that comes before all others"),
    "less": lambda text: (text / "document-1.txt").unlink(),
    "gone": shutil.rmtree,
}


@pytest.mark.parametrize("how", CHANGE)
def test_changed_sources_do_not_block_what_needs_none(own_sources, how):
    place = own_sources()
    result = place.go()
    CHANGE[how](place.folder / "text")
    assert place.go() == result, "a finished run shows its result"
    assert place.status()["state"] == "done" and place.status()["dataset"]["sources_changed"]
    millrace("dataset", "build", place.file, "--verify")
    millrace("dataset", "verify", place.output / "dataset")
    more = ("--set", f"training.max_steps={STEPS + 4}")
    refused("run", place.file, *more, code=2, says=["--keep-dataset", "--restart"])
    grown = place.go(*more, "--keep-dataset")
    assert "dataset-kept" in place.events() and grown["dataset_digest"] == result["dataset_digest"]
    assert place.go("--set", f"training.max_steps={STEPS + 6}")["steps"] == STEPS + 6, "it was recorded, and is not asked for again"


@pytest.mark.parametrize("how", ["more", "gone"])
def test_a_kept_dataset_trains_as_if_nothing_had_changed_and_mends_what_it_can(own_sources, how):
    place = own_sources()
    result = place.go()
    undisturbed = own_sources(training__max_steps=STEPS + 4)
    wanted = digests(undisturbed.go())
    CHANGE[how](place.folder / "text")
    shard = next(place.output.glob("dataset/train-*.tok.zst"))
    whole = shard.read_bytes()
    shard.unlink()  # its runs are there
    assert digests(place.go("--keep-dataset", "--set", f"training.max_steps={STEPS + 4}")) == wanted
    assert shard.read_bytes() == whole and "shard-mended" in place.events()
    assert result["dataset_digest"] == wanted[0]


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_state_is_private_whatever_the_umask(make, umask):
    place = make(dataset__sources=["-"], dataset__validation_fraction=0)
    build = ("dataset", "build", place.file, "--workers", 1)
    for _ in range(2):
        process = place.start(*build, umask=umask, stdin=b"some text of several words " * 200)
        assert process.wait() == 0, process.stderr()
        assert (place.output / "state").stat().st_mode & 0o777 == 0o700
        assert (place.output / "dataset").stat().st_mode & 0o777 == 0o777 & ~umask
        (place.output / "state").chmod(0o755)  # as an earlier version left it


def test_runs_that_went_while_text_was_tokenized_are_made_again(make, stages, base):
    """Another version's runs have other keys: to this one they are not there."""
    place = make()
    process = place.run("--workers", 1)
    place.wait_for_files(process, "state/runs/*.tok", 1)
    process.kill()
    for path in place.output.glob("state/runs/*.tok"):
        path.unlink()
    assert digests(place.go()) == stages["digests"]


def test_an_output_dir_of_version_0_1_goes_on(tmp_path):
    """Stopped at some step by the first release; made by tests/e2e/version-0.1.sh."""
    subprocess.run(["tar", "-xJf", pathlib.Path(__file__).parent / "version-0.1.tar.xz", "-C", tmp_path], check=True)
    steps = len([line for line in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines() if '"loss"' in line])
    assert 0 < steps < 40 and millrace("status", tmp_path / "out").stdout.startswith("old: stopped")
    old = json.loads(millrace("run", "pipeline.yaml", "--json", cwd=tmp_path).stdout.splitlines()[-1])
    assert old["steps"] == 40 and "roll-back" not in (tmp_path / "out" / "logs" / "coordinator.log").read_text()
    fresh = json.loads(millrace("run", "pipeline.yaml", "--json", "--restart", cwd=tmp_path).stdout.splitlines()[-1])
    assert digests(old) == digests(fresh)


def test_a_run_whose_workers_are_all_refused_for_good_ends_and_says_why(make):
    place = make(training__max_steps=400, training__save_steps=0)
    process = place.run("--workers", 2)
    place.wait_for_step(process, 2)
    send(signal.SIGTERM, process.pid)
    place.finish(process, 130)
    best = json.loads(millrace("version", "--json").stdout)["kernels"]
    process = place.run("--workers", 2, env={**os.environ, "MILLRACE_KERNELS": "portable" if "avx" in best else "avx2"})
    place.finish(process, 1)
    assert "refused by the coordinator: its arithmetic" in process.stderr().strip().splitlines()[-1]
    assert place.go()["steps"] == 400
