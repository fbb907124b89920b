"""An output_dir at every stage of its life, and what changes over it: allowed, or refused by name with what to do, and never stuck."""

import contextlib
import json
import os
import pathlib
import shutil
import signal
import sqlite3
import subprocess

import pytest

import cluster
from cluster import digests, millrace, refused, send, wait_until
from runs import free_port

STEPS = 6
SMALL = {
    "training__max_steps": STEPS, "training__save_steps": 2, "training__eval_steps": 3, "training__eval_sequences": 8,
    "training__global_batch": 4, "training__slices": 2, "training__warmup_steps": 1, "cluster__workers": 1,
    "training__lr_scheduler_type": "constant_with_warmup", "training__ema_decay": 0.5,
    "model__n_layer": 1, "model__n_embd": 16, "model__n_positions": 32, "sample__prompt": "",
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
    millrace("tokenizer", "train", *texts[-1:], "--vocab-size", 280, "--output", folder / "tokenizer-other")
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

    def alone(workplace, stage, *arguments):
        """A coordinator comes to that stage, and there is nobody to do its work."""
        process = workplace.run("--workers", 0, *arguments)

        def there():
            assert process.running(), process.stderr()
            known = millrace("status", workplace.file, "--json", code=None).stdout
            now = json.loads(known) if known else {"stages": []}
            return any(one["name"] == stage and one["state"] == "running" for one in now["stages"])

        wait_until(there, 60, f"{stage} is waited for")
        send(signal.SIGTERM, process.pid)
        workplace.finish(process, 130)

    tokenizing = place("tokenizing")
    alone(tokenizing, "tokenize")
    packed = place("packed")
    millrace("dataset", "build", packed.file)
    waiting = place("waiting")
    millrace("dataset", "build", waiting.file)
    alone(waiting, "train")
    middle = place("middle", training__max_steps=2)
    middle.go()
    alone(middle, "train", "--set", f"training.max_steps={STEPS}")
    finished = place("finished")
    made["digests"] = digests(finished.go())
    assert (waiting.steps(), middle.steps(), finished.steps()) == ([], [1, 2], list(range(1, STEPS + 1)))
    yield made
    for new in (tokenizing, packed, waiting, middle, finished):
        new.close()


BEFORE = ["tokenizing", "packed", "waiting"]  # nothing was trained yet
STAGES = ["fresh", *BEFORE, "middle", "finished"]

# Every key, with another value. Where the value asks for other keys, with those. tests/unit/coordinator/changes.c has the decisions alone.
ALTERING = {
    "dataset.sources": '["../corpus/document-1.txt", "../corpus/document-2.txt"]', "dataset.prepared": "../made",
    "dataset.tokenizer": "../tokenizer-300", "dataset.sequence_length": 16, "dataset.validation_fraction": 0.5,
    "dataset.shard_tokens": 4096, "dataset.packing": "pad", "dataset.pad_in_loss": "true", "dataset.document_mask": "true",
    "dataset.deduplicate": "near", "dataset.minhash_bands": 20, "dataset.minhash_rows": 9, "dataset.minhash_words": 3,
    "dataset.filters": "[gopher_quality]", "dataset.invalid_utf8": "drop", "dataset.normalization": "NFC", "dataset.min_characters": 10,
    "dataset.max_characters": 100000, "dataset.stopping_strategy": "all_exhausted", "dataset.shuffle_window": 0,
    "model.vocab_size": 512, "model.n_positions": 64, "model.n_embd": 32, "model.n_layer": 2, "model.n_head": 4, "model.n_inner": 100,
    "model.resid_pdrop": 0, "model.embd_pdrop": 0, "model.attn_pdrop": 0.0, "model.layer_norm_epsilon": 1e-6,
    "model.initializer_range": 0.01, "model.scale_attn_weights": "false", "model.bos_token_id": 5, "model.eos_token_id": 5,
    "training.global_batch": 8, "training.slices": 4, "training.micro_batch": 1, "training.learning_rate": 0.01,
    "training.lr_scheduler_type": "linear", "training.warmup_steps": 3, "training.min_lr_rate": 0.1, "training.num_decay_steps": 2,
    "training.decay_type": "linear", "training.power": 2, "training.optim": "sgd", "training.optim_state": "bf16",
    "training.weight_decay": 0, "training.adam_beta1": 0.8, "training.adam_beta2": 0.99, "training.adam_epsilon": 1e-7,
    "training.sgd_momentum": 0.5, "training.sgd_nesterov": "true", "training.max_grad_norm": 0, "training.ema_decay": 0.9,
    "training.label_smoothing_factor": 0.1, "training.z_loss": 1e-4, "training.seed": 7, "training.bf16": "true",
}
ASKS_FOR = {
    "dataset.prepared": {"dataset.sources": "[]"}, "training.min_lr_rate": {"training.lr_scheduler_type": "polynomial"},
    "training.num_decay_steps": {"training.lr_scheduler_type": "warmup_stable_decay"}, "training.sgd_nesterov": {"training.optim": "sgd"},
}
LENGTH = {"training.max_steps": STEPS + 2, "training.num_train_epochs": 2}
HARMLESS = {
    "run_name": "renamed", "cluster.workers": 2, "cluster.threads_per_worker": 2, "cluster.compression": "none", "cluster.cache_mib": 8,
    "cluster.lease_seconds": 20, "cluster.attempts_max": 5, "cluster.insecure": "true", "dataset.max_left_out": 0.5,
    "dataset.keep_runs": "false", "training.save_steps": 5, "training.save_total_limit": 2, "training.eval_steps": 2,
    "training.eval_sequences": 4, "training.eval_ema": "true", "training.logging_steps": 2, "training.max_bad_steps": 3,
    "training.gradient_checkpointing": "true", "sample.prompt": "the", "sample.max_new_tokens": 3, "sample.temperature": 0.5,
    "sample.top_k": 3,
}
ELSEWHERE = {"output_dir": "elsewhere"}
NO_OTHER_VALUE = {"model.activation_function"}


def test_every_key_has_a_row():
    found, section = set(), None
    for line in millrace("config", "--reference").stdout.splitlines():
        if line.startswith("#"):
            section = line.lstrip("# ")
        elif line.startswith("| `") and section != "dataset.sources":  # whose keys are one value, see the unit test
            found.add(("" if section == "Top level" else section + ".") + line.split("`")[1])
    rows = [*ALTERING, *LENGTH, *HARMLESS, *ELSEWHERE, *NO_OTHER_VALUE]
    assert len(rows) == len(set(rows)) and found == set(rows), f"{found ^ set(rows)}: say in {__file__} what becomes of a change"


def sets(changes):
    return [word for key, value in changes.items() for word in ("--set", f"{key}={value}")]


@pytest.mark.parametrize("stage", ["middle", "finished"])
def test_after_the_first_step_what_alters_results_is_refused_by_name(make, stages, stage):
    place = make(stages[stage])
    shutil.copytree(stages["finished"] / "dataset", place.folder.parent / "made", dirs_exist_ok=True)
    before = place.status()["state"]
    for key, value in ALTERING.items():
        change = sets({key: value, **ASKS_FOR.get(key, {})})
        text = refused("coordinator", place.file, *change, code=2, says=[f"\n{key}: ", "--restart", "another output_dir"])
        alone = key not in ASKS_FOR and key != "dataset.tokenizer"  # which brings another model.vocab_size
        assert text.count("->") == 1 or not alone, text
    assert place.status()["state"] == before
    assert digests(place.go()) == stages["digests"], "nothing of it is lost"


# Each stage before the first step gets keys of the dataset, the model and the training.
GROUPS = [
    ["dataset.sources", "dataset.validation_fraction", "training.seed", "model.n_inner"],
    ["dataset.tokenizer", "model.n_layer", "dataset.document_mask", "training.micro_batch"],
    ["dataset.sequence_length", "dataset.shard_tokens", "training.global_batch", "training.slices"],
    ["dataset.packing", "dataset.pad_in_loss", "dataset.deduplicate", "training.optim", "training.optim_state"],
    ["model.n_embd", "model.n_head", "training.learning_rate", "training.ema_decay", "dataset.normalization"],
    ["dataset.filters", "model.n_positions", "model.attn_pdrop", "training.bf16", "training.lr_scheduler_type"],
    ["dataset.prepared", "training.max_steps", "training.label_smoothing_factor", "model.vocab_size"],
]


@pytest.mark.parametrize("group", range(len(GROUPS)))
def test_before_the_first_step_everything_may_change(make, stages, group):
    keys = {key: {**ALTERING, **LENGTH}[key] for key in GROUPS[group]}
    shutil.copytree(stages["finished"] / "dataset", stages["finished"].parent.parent / "made", dirs_exist_ok=True)
    if "dataset.prepared" in keys:
        keys.update(ASKS_FOR["dataset.prepared"])
    wanted = digests(make().go(*sets(keys)))
    assert wanted != stages["digests"]
    assert digests(make(stages[BEFORE[group % len(BEFORE)]]).go(*sets(keys))) == wanted


@pytest.mark.parametrize("stage", STAGES)
def test_harmless_keys_may_change_at_any_stage(make, stages, stage):
    assert digests(make(stages[stage]).go(*sets(HARMLESS))) == stages["digests"]


def test_a_length_may_change_at_any_stage(make, stages):
    longer = sets({"training.max_steps": LENGTH["training.max_steps"]})
    results = {stage: make(stages[stage]).go(*longer) for stage in STAGES}
    assert {result["steps"] for result in results.values()} == {LENGTH["training.max_steps"]}
    assert {digests(result) for result in results.values()} == {digests(results["fresh"])}


@pytest.mark.parametrize("stage", ["tokenizing", "finished"])
def test_another_output_dir_is_another_run(make, stages, stage):
    place = make(stages[stage])
    before = place.status()["state"]
    assert digests(place.go(*sets(ELSEWHERE))) == stages["digests"]
    assert (place.folder / "elsewhere" / "metrics.jsonl").exists() and place.status()["state"] == before


def test_a_key_changed_before_step_1_brings_a_new_self_test(make, base):
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


BECAME = {
    "changed": "text/document-2.txt changed since",
    "more": "text/document-0.txt came since",
    "less": "text/document-1.txt went since",
    "gone": "matches no file",
}


@pytest.mark.parametrize("how", CHANGE)
def test_changed_sources_do_not_block_what_needs_none(own_sources, how):
    place = own_sources()
    result = place.go()
    CHANGE[how](place.folder / "text")
    again = place.go()
    warning = again["warnings"].pop()
    assert BECAME[how] in warning and again == result, "a finished run shows its result, and says what changed"
    assert place.status()["state"] == "done" and place.status()["dataset"]["sources_changed"]
    millrace("dataset", "build", place.file, "--verify")
    millrace("dataset", "verify", place.output / "dataset")
    more = ("--set", f"training.max_steps={STEPS + 4}")
    before = place.status()
    refused("run", place.file, *more, code=2, says=[BECAME[how], "--keep-dataset", "--restart"])
    assert place.status() == before  # of the run that is there
    grown = place.go(*more, "--keep-dataset")
    assert "dataset-kept" in place.events() and grown["dataset_digest"] == result["dataset_digest"]
    assert place.go("--set", f"training.max_steps={STEPS + 6}")["steps"] == STEPS + 6, "it was recorded, and is not asked for again"


@pytest.mark.parametrize("how", ["more", "gone"])
def test_a_kept_dataset_trains_as_if_nothing_had_changed_and_repairs_what_it_can(own_sources, how):
    place = own_sources()
    result = place.go()
    undisturbed = own_sources(training__max_steps=STEPS + 4)
    wanted = digests(undisturbed.go())
    CHANGE[how](place.folder / "text")
    shard = next(place.output.glob("dataset/train-*.tok.zst"))
    whole = shard.read_bytes()
    shard.unlink()  # its runs are there
    assert digests(place.go("--keep-dataset", "--set", f"training.max_steps={STEPS + 4}")) == wanted
    assert shard.read_bytes() == whole and "shard-repaired" in place.events()
    assert result["dataset_digest"] == wanted[0]


def test_sources_with_any_name_are_found_again_in_the_record(own_sources):
    """The record has a line for each, with tabs in it: neither a tab nor a line feed of a name may make another list of it."""
    place = own_sources()
    text = place.folder / "text"
    for name in ("a\tb.txt", "c\nd.txt", "e\\n\tf.txt", "g\\h.txt"):
        (text / name).write_text(f"what {name} says. " * 40)
    result = place.go()
    CHANGE["more"](text)
    for file in place.output.glob("dataset/*.tok.zst"):
        file.unlink()
    for run in (place.output / "state" / "runs").iterdir():
        run.unlink()  # made again from the sources on record, by their numbers
    grown = place.go("--keep-dataset", "--set", f"training.max_steps={STEPS + 4}")
    assert grown["dataset_digest"] == result["dataset_digest"] and "shard-repaired" in place.events()


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


@pytest.mark.parametrize("what, event", [("dataset/train-*.zst", "shards-again"), ("state/runs/*.tok", "runs-gone")], ids=["shard", "run"])
def test_what_went_between_packing_and_the_manifest_is_made_again(make, stages, what, event):
    """All jobs are on record as done; a shard is not there any more, or a run has lost its end."""
    place = make(stages["packed"])
    with contextlib.closing(sqlite3.connect(place.output / "state" / "millrace.db")) as db:
        for name in ("row_digest", "row_check"):
            db.create_function(name, -1, lambda *_: b"", deterministic=True)
        db.execute("DELETE FROM named WHERE name LIKE 'dataset_%'")
        db.commit()
    (place.output / "dataset" / "dataset.pb").unlink()
    path = sorted(place.output.glob(what))[0]
    if event == "shards-again":
        path.unlink()
    else:
        os.truncate(path, path.stat().st_size - 1)
    assert digests(place.go()) == stages["digests"]
    assert event in place.events() and "records-damaged" not in place.events()


@pytest.mark.parametrize("where", [-3, 0.5, 8], ids=["end", "middle", "beginning"])
def test_a_run_that_is_damaged_before_it_is_packed_again_is_made_anew(make, stages, where):
    """At the second command at the latest, and it is never taken as it is."""
    other = ["--set", "dataset.validation_fraction=0.2"]  # packs the same runs another way
    place = make(stages["packed"])
    wanted = digests(make(stages["packed"]).go(*other))
    path = max(place.output.glob("state/runs/*.tok"), key=lambda path: path.stat().st_size)
    run = bytearray(path.read_bytes())
    run[int(where * len(run)) if isinstance(where, float) else where] ^= 0x10
    path.write_bytes(run)
    process = place.run(*other)
    if process.wait() != 0:
        assert "run the same command again" in process.stderr(), process.stderr()
        process = place.run(*other)
        assert process.wait() == 0, process.stderr()
    assert digests(place.status()["result"]) == wanted


def test_an_output_dir_of_the_first_release_goes_on(tmp_path):
    """Stopped at some step by the first release; made by tests/e2e/first-release.sh."""
    subprocess.run(["tar", "-xJf", pathlib.Path(__file__).parent / "first-release.tar.xz", "-C", tmp_path], check=True)
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


# ---- files that change under the names that keys give them ----

LONGER = ("--set", f"training.max_steps={STEPS + 4}")


def replace(folder, other):
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(other, folder)


def digest_of(dataset):
    return json.loads(millrace("dataset", "info", dataset, "--json").stdout)["digest"]


def tokenizer_digest_of(dataset):
    return json.loads(millrace("dataset", "info", dataset, "--json").stdout)["tokenizer_digest"]


@pytest.fixture(scope="module")
def datasets(base):
    """{name: a dataset}: one, and of other text; one that came whole, and the same tokens divided in another way."""
    made = {}
    for name, sources in {"one": "../corpus/*.txt", "text": "../corpus/document-[12].txt"}.items():
        place = cluster.Workplace(base / f"dataset-{name}")
        place.write(**{**SMALL, "dataset__sources": [sources], "dataset__tokenizer": "../tokenizer-280"})
        millrace("dataset", "build", place.file)
        made[name] = place.output / "dataset"
    eos = json.loads(millrace("dataset", "info", made["one"], "--json").stdout)["eos"]
    ids = [(eos if i % 3000 == 2999 else i * 7 % 256).to_bytes(2, "little") for i in range(9000)]
    for name, parts in {"whole": [ids], "divided": [ids[:6000], ids[6000:]]}.items():
        made[name] = base / f"dataset-{name}"
        files = [base / f"{name}-{i}.bin" for i in range(len(parts))]
        for file, part in zip(files, parts):
            file.write_bytes(b"".join(part))
        held_out = ["--validation", files[1]] if files[1:] else ["--validation-fraction", 0]
        words = ["--output", made[name], "--sequence-length", 32, "--eos", eos, "--token-bytes", 2]
        millrace("dataset", "import", files[0], *held_out, *words)
    assert digest_of(made["whole"]) == digest_of(made["divided"]) and digest_of(made["one"]) != digest_of(made["text"])
    return made


@pytest.fixture
def prepared(make, datasets):
    """A place that trains on a prepared dataset of its own."""

    def new(name="one", **changes):
        place = make(**{**CONSTANT, **changes})
        place.values["dataset"] = {"prepared": "made", "sequence_length": 32, "tokenizer": "../tokenizer-280"}
        place.file.write_text(json.dumps(place.values))
        replace(place.folder / "made", datasets[name])
        return place

    return new


@pytest.mark.parametrize("one, how", [("one", "text"), ("whole", "divided")])
def test_another_prepared_dataset_under_the_same_name_is_refused_after_the_first_step(prepared, datasets, one, how):
    place = prepared(one)
    result = place.go()
    replace(place.folder / "made", datasets[how])
    digests_of_both = [digest_of(datasets[one]), digest_of(datasets[how])]
    refused("run", place.file, *LONGER, code=2, says=["another dataset", *digests_of_both, "--restart", "another output_dir"])
    again = place.go()
    assert again["weights_digest"] == result["weights_digest"], "a finished run shows its result"
    assert place.status()["result"]["dataset_digest"] == place.status()["dataset"]["trained_on"] == result["dataset_digest"]
    assert any("this run was trained on the one of digest " + result["dataset_digest"] in line for line in again["warnings"]), again
    undisturbed = prepared(one)
    undisturbed.go()
    replace(place.folder / "made", datasets[one])
    assert digests(place.go(*LONGER)) == digests(undisturbed.go(*LONGER))
    replace(place.folder / "made", datasets[how])
    assert digests(place.go("--restart")) == digests(prepared(how).go())


def test_the_prepared_dataset_of_a_run_is_found_by_its_output_dir(prepared, datasets):
    place = prepared()
    result = place.go()
    info = json.loads(millrace("dataset", "info", place.output, "--json").stdout)
    assert info["digest"] == result["dataset_digest"] == digest_of(place.folder / "made")
    assert str(place.folder / "made") in millrace("dataset", "info", place.output).stdout
    shutil.rmtree(place.folder / "made")
    refused("dataset", "info", place.output, code=1, says=[f"{place.folder}/made holds no finished dataset"])


def test_before_the_first_step_another_prepared_dataset_is_taken(prepared, datasets):
    place, fresh = prepared(), prepared()
    process = place.run("--workers", 0)
    wait_until(lambda: (place.output / "metrics.jsonl").exists(), 60, "training waits for a worker")
    process.kill()
    for one in (place, fresh):
        replace(one.folder / "made", datasets["text"])
    assert digests(place.go()) == digests(fresh.go())


def test_steps_that_are_not_saved_are_not_done_again_on_another_dataset(prepared, datasets):
    place = prepared(training__max_steps=100_000, training__save_steps=0)
    process = place.run()
    place.wait_for_step(process, 2)
    process.kill()
    assert not list(place.output.glob("checkpoint-*"))
    replace(place.folder / "made", datasets["text"])
    text = refused("run", place.file, code=2, says=["another dataset", digest_of(datasets["one"]), digest_of(datasets["text"])])
    assert "memory" not in text


@pytest.mark.parametrize("stage", ["packed", "waiting"])
@pytest.mark.parametrize("how", ["text", "whole"])
def test_before_the_first_step_a_dataset_that_is_not_the_one_made_there_is_made_again(make, stages, datasets, stage, how):
    place = make(stages[stage])
    replace(place.output / "dataset", datasets[how])
    assert digests(place.go()) == stages["digests"]
    assert "dataset-outdated" in place.events()


@pytest.mark.parametrize("how", ["text", "whole"])
def test_after_the_first_step_a_dataset_that_is_not_the_one_made_there_is_refused(make, stages, datasets, how):
    place = make(stages["middle"])
    digests_of_both = [digest_of(place.output / "dataset"), digest_of(datasets[how])]
    replace(place.output / "dataset", datasets[how])
    for more in ([], ["--keep-dataset"], ["--verify"]):
        refused("run", place.file, *more, code=2, says=["another dataset", *digests_of_both, "remove this folder", "--restart"])
    shutil.rmtree(place.output / "dataset")
    assert digests(place.go()) == stages["digests"]


@pytest.fixture
def own_tokenizer(make, base):
    """A place with a tokenizer of its own, that may be changed."""

    def new(name="tokenizer-280", **changes):
        place = make(**{**CONSTANT, "dataset__tokenizer": "./tokenizer", **changes})
        replace(place.folder / "tokenizer", base / name)
        return place

    return new


def test_a_tokenizer_that_changes_before_the_first_step_makes_the_dataset_anew(own_tokenizer, base):
    wanted = digests(own_tokenizer("tokenizer-other").go())
    place = own_tokenizer()
    assert place.go("--stop-after", "dataset")["dataset_digest"] != wanted[0]
    replace(place.folder / "tokenizer", base / "tokenizer-other")
    refused("run", place.file, "--keep-dataset", code=2, says=["dataset.tokenizer", "changed", "--keep-dataset"])
    assert digests(place.go()) == wanted
    assert "dataset-outdated" in place.events()


def test_a_tokenizer_that_changes_after_the_first_step_is_refused(own_tokenizer, base):
    wanted = digests(own_tokenizer(training__max_steps=STEPS + 4).go())
    place = own_tokenizer()
    place.go()
    replace(place.folder / "tokenizer", base / "tokenizer-other")
    other = own_tokenizer("tokenizer-other")
    other.go("--stop-after", "dataset")
    both = [tokenizer_digest_of(one.output / "dataset") for one in (place, other)]
    assert both[0] != both[1]
    for more in ([], LONGER, ["--keep-dataset"]):
        refused("run", place.file, *more, code=2, says=["dataset.tokenizer", "changed", *both, "--restart", "another output_dir"])
    replace(place.folder / "tokenizer", base / "tokenizer-280")
    assert digests(place.go(*LONGER)) == wanted
    saved = place.output / f"checkpoint-{STEPS + 4}"
    assert (saved / "tokenizer.json").read_bytes() == (place.output / f"checkpoint-{STEPS}" / "tokenizer.json").read_bytes()


@pytest.mark.parametrize("name", ["one", "whole"])
def test_a_prepared_dataset_goes_with_the_tokenizer_that_it_was_made_with(prepared, base, name):
    """One that was imported does not tell which: then it is the one that the first step was made with."""
    place = prepared(name)
    place.values["dataset"]["tokenizer"] = "./tokenizer"
    place.file.write_text(json.dumps(place.values))
    replace(place.folder / "tokenizer", base / "tokenizer-280")
    place.go()
    replace(place.folder / "tokenizer", base / "tokenizer-other")
    refused("run", place.file, *LONGER, code=2, says=["dataset.tokenizer", "digest"])
    if name == "one":
        shutil.rmtree(place.output)
        refused("run", place.file, code=2, says=["made with the tokenizer", "digest"])


# ---- what `plan` says of all that, before ----


def everything_in(folder):
    """Names, kinds, sizes, times and bytes. Who makes, removes or renames something there changes its folder's times, too."""
    return {
        path: (os.lstat(path).st_mode, os.lstat(path).st_mtime_ns, os.lstat(path).st_ctime_ns, path.is_file() and path.read_bytes())
        for path in ([folder, *folder.rglob("*")] if folder.exists() else [])
    }


def planned(place, *arguments, code=0):
    """What `plan` says, with --json and without; where it says no, `run` says the same, unless that may be tried."""
    before = everything_in(place.output)
    told = millrace("plan", place.file, "--no-calibration", "--json", *arguments, code=code)
    shown = millrace("plan", place.file, "--no-calibration", *arguments, code=code)
    assert everything_in(place.output) == before, "it only looks"
    expected = json.loads(told.stdout)
    assert (code == 2) == (expected["refusal"] is not None) and shown.stdout.startswith("parameters")
    if code == 2:
        said = "millrace: run would refuse: " + expected["refusal"]
        assert told.stderr.strip() == shown.stderr.strip() == said.strip()
        assert "millrace: " + expected["refusal"] in refused("run", place.file, *arguments, code=2, says=[])
    else:
        assert told.stderr == shown.stderr == ""
    return expected


@pytest.mark.parametrize("key", ["dataset.validation_fraction", "dataset.tokenizer", "model.n_layer", "training.seed"])
def test_plan_says_that_run_would_refuse_a_key_that_changed(make, stages, key):
    place = make(stages["middle"])
    expected = planned(place, *sets({key: ALTERING[key]}), code=2)
    assert f"\n{key}: " in expected["refusal"] and "--restart" in expected["refusal"]
    for harmless in ([], sets({"training.max_steps": STEPS}), sets(HARMLESS), sets({**ELSEWHERE, key: ALTERING[key]})):
        planned(place, *harmless)


@pytest.mark.parametrize("how", CHANGE)
def test_plan_says_that_run_would_refuse_sources_that_changed(own_sources, how):
    place = own_sources()
    place.go()
    CHANGE[how](place.folder / "text")
    assert planned(place)["dataset"]["source"] == "manifest", "a finished run shows its result"
    assert "--keep-dataset" in planned(place, *LONGER, code=2)["refusal"]
    place.go(*LONGER, "--keep-dataset")
    planned(place, *sets({"training.max_steps": STEPS + 6}))


def test_plan_says_that_run_would_refuse_another_dataset_or_tokenizer(make, stages, datasets, own_tokenizer, prepared, base):
    place = make(stages["middle"])
    replace(place.output / "dataset", datasets["text"])
    assert "another dataset" in planned(place, code=2)["refusal"]
    place = own_tokenizer()
    place.go()
    replace(place.folder / "tokenizer", base / "tokenizer-other")
    assert "dataset.tokenizer" in planned(place, *LONGER, code=2)["refusal"]
    place = prepared()
    assert planned(prepared())["dataset"]["source"] == "manifest"
    place.go()
    replace(place.folder / "made", datasets["text"])
    assert "another dataset" in planned(place, *LONGER, code=2)["refusal"]


@pytest.mark.parametrize("change", ["key", "source", "damage"])
@pytest.mark.parametrize("stage", ["packed", "waiting"])
def test_plan_counts_the_dataset_that_run_would_make_anew(own_sources, stages, stage, change):
    place = own_sources()
    place.go("--stop-after", "dataset")
    if stage == "waiting":
        process = place.run("--workers", 0)
        wait_until(lambda: (place.output / "metrics.jsonl").exists(), 60, "training waits for a worker")
        process.kill()  # SQLite's log is left
    there = planned(place)["dataset"]
    assert there["source"] == "manifest"
    more = []
    if change == "key":
        more = sets({"dataset.packing": "pad"})
    elif change == "source":
        CHANGE["more"](place.folder / "text")
    else:
        (place.output / "dataset" / "dataset.pb").write_bytes(b"damaged")
    expected = planned(place, *more)["dataset"]
    assert expected["source"] == "estimate"
    place.go("--stop-after", "dataset", *more)
    made = planned(place, *more)["dataset"]
    counts = ("tokens", "train_sequences", "validation_sequences")
    assert made["source"] == "manifest" and [expected[name] for name in counts] == [made[name] for name in counts]
    assert change == "damage" or [there[name] for name in counts] != [made[name] for name in counts]


def test_plan_looks_at_a_run_that_goes_on_and_disturbs_nobody(make):
    place = make(training__max_steps=100_000, training__save_steps=10, training__save_total_limit=2)
    process = place.run()
    place.wait_for_step(process, 2)
    for _ in range(5):
        for change, code in (([], 0), (sets({"training.seed": 9}), 2)):
            told = json.loads(millrace("plan", place.file, "--no-calibration", "--json", *change, code=code).stdout)
            assert told["dataset"]["source"] == "manifest" and (told["refusal"] is not None) == (code == 2)
            assert code == 0 or "training.seed" in told["refusal"]
    assert process.running() and place.steps()
    process.kill()
    planned(place)
    planned(place, *sets({"training.seed": 9}), code=2)


def test_plan_looks_at_what_it_may_only_read(make, stages):
    """A file system that is mounted for reading alone. The store's own files say that it was killed."""
    place = make(stages["middle"])
    process = place.run("--set", "training.max_steps=100000")
    place.wait_for_step(process, 3)
    process.kill()
    assert (place.output / "state" / "millrace.db-wal").stat().st_size
    mount = f"mount --bind {place.output} {place.output} && mount -o remount,ro,bind {place.output} && ! touch {place.output}/x"
    command = f"{mount} 2>/dev/null && exec {cluster.MILLRACE} plan {place.file} --no-calibration --json --set training.seed=9"
    told = subprocess.run(["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", command], capture_output=True, text=True)
    if told.returncode == 1 or not told.stdout:
        pytest.skip(f"nothing can be mounted here: {told.stderr}")
    assert told.returncode == 2 and "training.seed" in json.loads(told.stdout)["refusal"], told.stderr
