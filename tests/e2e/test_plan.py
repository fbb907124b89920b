"""`millrace plan` against what pipelines then do: memory that workers took, steps, files; and refusals before anything is begun."""

import gzip
import json
import random
import socket
import subprocess

import pytest

import forms
from cluster import GPT2, MILLRACE, ROOT, WORDS, millrace, refused

TEXT = ["--set", f"dataset.sources=[{json.dumps(str(ROOT / 'README.md'))}]"]  # the example's own text may not be there
HUGE = ["--set", "model.n_embd=65536", "--set", "model.n_head=64", "--set", "model.n_layer=1024"]
MIB = 1 << 20


def plan(file, *arguments, code=0):
    return json.loads(millrace("plan", file, "--json", *arguments, code=code).stdout)


def test_the_example_fits_and_is_timed():
    example = plan(ROOT / "pipeline.yaml", *TEXT)
    assert example["fits"] is True
    assert example["parameters"]["total"] == 16_090_880
    training, workers, time = example["training"], example["workers"], example["time"]
    assert (training["steps"], training["tokens_per_step"], training["slices"]) == (100, 2048, 4)
    assert (workers["count"], workers["busy"], workers["threads"]) == (2, 2, 1)
    matrices = 50257 * 256 + 4 * 12 * 256**2
    assert training["flop_per_step"] == 6 * matrices * 2048 + 12 * 4 * 256 * 256 * 2048
    step = time["step_seconds"]
    assert step["total"] == pytest.approx(step["compute"] + step["sum"] + step["exchange"] + step["apply"])
    assert time["train_seconds"] == pytest.approx(100 * step["total"])
    assert time["tokens_per_second"] > 0 and time["layers_measured"] >= 2


def test_for_people_everything_has_a_unit():
    text = millrace("plan", ROOT / "pipeline.yaml", *TEXT, "--no-calibration", "--workers", "6").stdout
    assert "16,090,880" in text and "4 of them with work" in text and "2 of 6 workers will have no slice to compute" in text
    for unit in ("MiB", "GiB", "GFLOP", "tokens", "sequences"):
        assert unit in text, text
    assert "time on this machine" not in text
    assert json.loads(millrace("plan", ROOT / "pipeline.yaml", *TEXT, "--no-calibration", "--json").stdout)["time"] is None


def test_of_text_that_is_not_there_all_else_is_told(workplaces):
    """And that run would refuse it."""
    place = workplaces(dataset__sources=["nothing/*.txt"], training__max_steps=0)
    unknown = plan(place.file, "--no-calibration", code=2)
    assert "nothing" in unknown["refusal"] and unknown["workers"]["memory_bytes"]["weights"] > 0
    assert unknown["dataset"]["source"] == "unknown" and unknown["dataset"]["note"]
    assert unknown["dataset"]["tokens"] is None and unknown["training"]["steps"] is None and unknown["checkpoints"]["disk_bytes"] is None
    assert "\ntime is not measured for what run would refuse\n" in millrace("plan", place.file, code=2).stdout
    assert not place.output.exists()


def test_a_prepared_dataset_that_is_not_there_is_refused_in_the_words_of_run(workplaces):
    place = workplaces(dataset__sources=[], dataset__prepared="elsewhere")
    told = plan(place.file, "--no-calibration", code=2)["refusal"]
    assert "elsewhere" in told
    refused("run", place.file, code=1, says=[told])


def test_workers_that_get_no_slice_are_counted_as_a_step_deals_them_out(workplaces, corpus):
    """4 slices go out in blocks of 2 where there are 3 workers."""
    place = workplaces(corpus, training__slices=4)
    assert [plan(place.file, "--no-calibration", "--workers", n)["workers"]["busy"] for n in (1, 2, 3, 4, 5)] == [1, 2, 2, 4, 4]
    words = "1 of 3 workers will have no slice to compute: their number does not divide training.slices"
    assert words in millrace("plan", place.file, "--no-calibration", "--workers", 3).stdout
    assert "no slice" not in millrace("plan", place.file, "--no-calibration", "--workers", 4).stdout
    process = place.start("run", place.file, "--workers", 3)
    assert process.wait() == 0 and words in process.stderr()


def test_keys_without_effect_are_told_as_run_tells_them(workplaces, corpus):
    changes = {"training__max_steps": 2, "training__warmup_steps": 2, "training__power": 2}
    place = workplaces(corpus, **changes)
    told = plan(place.file, "--no-calibration")["warnings"]
    assert any("training.power 2 has no part with" in line for line in told) and any("are not over" in line for line in told)
    place.go("--workers", 1)
    assert set(place.status()["training"]["warnings"]) <= set(told)


PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 8
UNUSABLE = {
    "one-empty": ({"a.txt": b""}, "a.txt"),
    "several-empty": ({"folder/a.txt": b"", "folder/b.txt.gz": gzip.compress(b""), "folder/c.jsonl": b""}, "folder"),
    "named-and-no-text": ({"a.png": PNG}, "a.png"),
    "found-and-no-text": ({"folder/a b.png": PNG, "folder/c[1].png": PNG}, "folder"),
    "too-short": ({"a.txt": b"hardly anything"}, "a.txt"),
    "no-such-field": ({"a.jsonl": b'{"body": "something"}\n' * 20}, "a.jsonl"),
}


@pytest.mark.parametrize("case", UNUSABLE)
def test_text_that_a_build_would_refuse_is_refused_with_the_same_words(workplaces, case):
    files, source = UNUSABLE[case]
    place = workplaces(dataset__sources=[source])
    for name, content in files.items():
        (place.folder / name).parent.mkdir(exist_ok=True)
        (place.folder / name).write_bytes(content)
    told = refused("plan", place.file, code=2, says=[])
    assert refused("plan", place.file, "--no-calibration", "--json", code=2, says=[]) == told
    assert told.count(str(place.folder / source)) <= 1, told
    built = millrace("dataset", "build", place.file, code=2).stderr
    assert told in built, (told, built)


def test_a_padded_vocabulary_makes_tokens_no_wider(workplaces, corpus):
    """Shards hold ids as wide as the tokenizer's, and the model may have more rows than that."""
    place = workplaces(corpus)
    exact, padded = (
        plan(place.file, "--no-calibration", "--set", f"model.vocab_size={size}")["workers"]["memory_bytes"]["data"]
        for size in (50257, 70_000)
    )
    assert exact == padded


def test_a_dataset_that_is_there_is_what_is_trained_on(reference):
    epochs = ("--set", "training.max_steps=0", "--set", "training.num_train_epochs=2")
    known = plan(reference.file, "--no-calibration", *epochs, code=2)
    assert "training.num_train_epochs: 1 -> 2" in known["refusal"] and known["time"] is None, "its steps had other learning rates"
    info = json.loads(millrace("dataset", "info", reference.output / "dataset", "--json").stdout)
    assert known["dataset"]["source"] == "manifest" and known["dataset"]["tokens"] == info["tokens"]
    assert known["training"]["steps"] == -(-2 * known["dataset"]["train_sequences"] // 8)
    assert known["parameters"]["total"] == reference.status()["parameters"]
    newest = plan(reference.file, "--no-calibration")
    assert newest["refusal"] is None
    folders = list(reference.output.glob("checkpoint-*"))
    assert newest["checkpoints"]["written"] == len(folders)
    for folder in folders:
        size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
        assert newest["checkpoints"]["bytes"] == pytest.approx(size, rel=0.01)
    shards = sum(file.stat().st_size for file in (reference.output / "dataset").glob("*.tok.zst"))
    assert newest["dataset"]["disk_bytes"] == shards


def made_and_planned(place, packing, *arguments):
    """What `plan` expects, and what `dataset build` then makes."""
    arguments = ("--set", f"dataset.packing={packing}", "--set", f"output_dir=out-{packing}", "--set", "training.max_steps=0", *arguments)
    expected = plan(place.file, "--no-calibration", *arguments)
    made = json.loads(millrace("dataset", "build", place.file, "--json", *arguments).stdout)
    return expected, json.loads(millrace("dataset", "info", made["dataset"], "--json").stdout)


@pytest.mark.parametrize("packing", ["concat", "pad", "best_fit"])
def test_small_sources_are_planned_as_they_are_made(workplaces, corpus, packing):
    """The corpus has all kinds of documents, and lies here once as files and once in an archive, of which some members are asked for."""
    texts = forms.documents(30)
    packed = forms.lzma.compress(forms.tar(forms.members_of(texts)))
    archive = forms.written(corpus.parent / "planned", "all.tar.xz", packed, members=["00*"])
    place = workplaces(dataset__sources=[f"{corpus}/**/*.txt", archive], dataset__deduplicate="exact", dataset__validation_fraction=0.1)
    expected, info = made_and_planned(place, packing)
    data = expected["dataset"]
    assert data["source"] == "estimate" and data["tokens"] == info["tokens"]
    assert "dataset, about" not in millrace("plan", place.file, "--no-calibration").stdout
    assert data["train_sequences"] == info["train"]["sequences"] and data["validation_sequences"] == info["validation"]["sequences"]
    assert expected["training"]["steps"] == -(-info["train"]["sequences"] // 8)


def short_texts(count):
    chooser = random.Random(7)
    return [f"{i} " + " ".join(chooser.choices(WORDS, k=int(chooser.paretovariate(1.2) * 10) % 2000 + 1)) for i in range(count)]


LARGE_FORMS = {
    "jsonl": lambda folder: forms.written(folder, "all.jsonl", forms.json_lines(short_texts(60_000))),
    "jsonl.zst": lambda folder: forms.written(folder, "all.jsonl.zst", forms.PACKERS["zst"](forms.json_lines(short_texts(60_000)))),
    "long texts": lambda folder: [
        forms.written(folder, f"{i}.txt", " ".join(short_texts(20_000)).encode())["path"] for i in range(3)
    ],
    "jsonl.bz2": lambda folder: packed_apart(folder, short_texts(60_000)),
    "plain beside xz of the same size": lambda folder: plain_and_packed(folder, forms.json_lines(short_texts(40_000))),
}


def packed_apart(folder, texts):
    for i in range(12):
        forms.written(folder, f"{i}.jsonl.bz2", forms.bz2.compress(forms.json_lines(texts[i::12])))
    return [str(folder / "*.bz2")]


def plain_and_packed(folder, text):
    packed = forms.lzma.compress(text, preset=0)
    plain = text[: text.rindex(b"\n", 0, len(packed)) + 1]
    return [forms.written(folder, "a.jsonl", plain)["path"], forms.written(folder, "b.jsonl.xz", packed)["path"]]


@pytest.fixture(scope="module", params=LARGE_FORMS)
def large_source(request, base_folder):
    made = LARGE_FORMS[request.param](base_folder / f"planned-{request.param}")
    return made if isinstance(made, list) else [made]


@pytest.mark.parametrize("packing", ["concat", "pad", "best_fit"])
def test_large_sources_are_planned_by_a_sample(workplaces, large_source, packing):
    place = workplaces(dataset__sources=large_source, dataset__validation_fraction=0.1)
    expected, info = made_and_planned(place, packing)
    data = expected["dataset"]
    assert "sample" in data["note"]
    near = pytest.approx(info["sequences"], rel=0.15, abs=2)
    assert data["train_sequences"] + data["validation_sequences"] == near
    assert data["tokens"] == pytest.approx(info["tokens"], rel=0.15, abs=100)


@pytest.mark.parametrize("stopping", ["first_exhausted", "all_exhausted"])
def test_of_a_sample_each_entry_has_its_share_however_small_it_is(workplaces, base_folder, stopping):
    large = forms.written(base_folder / "planned-weights", "large.jsonl", forms.json_lines(short_texts(60_000)), weight=0.8)
    small = forms.written(base_folder / "planned-weights", "small.jsonl", forms.json_lines(short_texts(1_500)), weight=0.2)
    place = workplaces(dataset__sources=[large, small], dataset__validation_fraction=0.1, dataset__stopping_strategy=stopping)
    expected, info = made_and_planned(place, "concat")
    data = expected["dataset"]
    assert "sample" in data["note"]
    assert data["train_sequences"] == pytest.approx(info["train"]["sequences"], rel=0.15)
    assert data["validation_sequences"] == pytest.approx(info["validation"]["sequences"], rel=0.15)


def test_little_that_unpacks_to_very_much_is_planned_by_a_sample(workplaces, base_folder):
    """300 MB of one line, of which a tokenizer's ids alone would not fit."""
    part = b"the mill by the river has a wheel and a stone\n" * 65_536
    folder = base_folder / "planned-large"
    once = forms.written(folder, "once.txt.bz2", forms.bz2.compress(part))["path"]
    often = forms.written(folder, "often.txt.bz2", forms.bz2.compress(part) * 100)["path"]
    place = workplaces(dataset__sources=[often], dataset__validation_fraction=0)
    known = plan(place.file, "--no-calibration", "--set", f"dataset.sources=[{once}]")["dataset"]
    limited = ["prlimit", "--data=180000000", MILLRACE, "plan", place.file, "--no-calibration", "--json"]
    data = json.loads(subprocess.run(limited, capture_output=True, timeout=300, check=True).stdout)["dataset"]
    assert "read whole" in known["note"] and "sample" in data["note"], data["note"]
    assert data["tokens"] == pytest.approx(100 * known["tokens"], rel=0.15)


def test_what_a_sample_has_whole_counts_where_it_tore_another_document(workplaces, base_folder):
    """Less than a sequence of it, which alone no dataset could be made of."""
    folder = base_folder / "planned-torn"
    torn = forms.written(folder, "long.txt", " ".join(short_texts(60_000)).encode())
    whole = forms.written(folder, "short.txt", b"hardly anything")
    place = workplaces(dataset__sources=[torn, whole], dataset__validation_fraction=0)
    expected, info = made_and_planned(place, "pad")
    assert "sample" in expected["dataset"]["note"] and expected["dataset"]["train_sequences"] == info["train"]["sequences"] == 2
    data = plan(place.file, "--no-calibration", "--set", "dataset.packing=concat")["dataset"]
    assert data["source"] == "estimate" and data["train_sequences"] > 1000, data["note"]


# ---- memory ----------------------------------------------------------------------------------------------------------------------

LARGER = {
    **GPT2,
    "dataset__sequence_length": 64,
    "dataset__validation_fraction": 0,
    "model__n_layer": 4,
    "model__n_head": 4,
    "model__n_embd": 256,
    "model__n_positions": 64,
    "training__max_steps": 1,
    "training__global_batch": 4,
    "training__slices": 2,
    "training__save_steps": 0,
    "training__eval_steps": 0,
}


SAVING = {"training__optim_state": "bf16", "training__ema_decay": 0.9, "training__gradient_checkpointing": True}


@pytest.mark.parametrize("more", [{}, SAVING])
def test_a_worker_takes_what_was_planned(workplaces, corpus, more):
    place = workplaces(corpus, **LARGER, **more, cluster__workers=1)
    place.go()
    memory = plan(place.file, "--no-calibration")["workers"]["memory_bytes"]
    (worker,) = place.status()["workers"]
    print(f"planned {memory['total'] / MIB:.0f} MiB, taken {worker['rss_bytes'] / MIB:.0f} MiB: {memory}")
    assert worker["rss_bytes"] == pytest.approx(memory["total"], rel=0.1)


def test_two_workers_take_what_was_planned(workplaces, corpus):
    place = workplaces(corpus, **LARGER)
    place.go()
    memory = plan(place.file, "--no-calibration")["workers"]["memory_bytes"]
    taken = [worker["rss_bytes"] for worker in place.status()["workers"]]
    print(f"planned {memory['total'] / MIB:.0f} MiB, at least {memory['least'] / MIB:.0f}; taken {[t / MIB for t in taken]}")
    assert len(taken) == 2
    for bytes_taken in taken:
        assert memory["least"] * 0.9 <= bytes_taken <= memory["total"] * 1.1


def test_a_benchmark_takes_what_was_planned(workplaces):
    shape = {"n-layer": 2, "n-head": 8, "n-embd": 512, "sequence": 128, "vocab-size": 50257}
    place = workplaces(**{**LARGER, "model__n_layer": 2, "model__n_head": 8, "model__n_embd": 512, "model__n_positions": 128,
                          "dataset__sequence_length": 128, "training__global_batch": 2, "training__slices": 1,
                          "dataset__sources": ["nothing"]})
    memory = plan(place.file, "--no-calibration", code=2)["workers"]["memory_bytes"]
    options = [word for name, value in shape.items() for word in (f"--{name}", str(value))]
    taken = json.loads(millrace("bench", "train", *options, "--batch", 2, "--steps", 1, "--threads", 1, "--json").stdout)["peak_rss_bytes"]
    planned = memory["weights"] + memory["optimizer"] + memory["gradient"] + sum(memory["activations"].values())
    print(f"planned {planned / MIB:.0f} MiB, taken {taken / MIB:.0f} MiB")
    assert taken == pytest.approx(planned, rel=0.1)


def test_fault_39_what_cannot_fit_is_refused_before_anything_begins(place):
    told = millrace("plan", place.file, "--json", "--no-calibration", *HUGE, code=1)
    huge = json.loads(told.stdout)
    assert huge["fits"] is False
    least = huge["workers"]["memory_bytes"]["least"] * 2
    assert huge["workers"]["memory_bytes"]["optimizer"] == 8 * huge["parameters"]["total"]
    for word in (f"({least} bytes)", f"({huge['machine']['limit_bytes']} bytes)", "2 workers", "what would fit: a smaller model"):
        assert word in told.stderr, told.stderr
    assert not place.output.exists()
    refused("run", place.file, *HUGE, code=1, says=[f"({least} bytes)", "what would fit"])
    assert not place.output.exists()


def test_fault_39_advice_is_to_be_followed(place):
    """A model of which two do not fit on this machine, and one does."""
    limit = plan(place.file, "--no-calibration")["machine"]["limit_bytes"]
    width = 1024
    while plan_least(place, width) * 2 <= limit:
        width += 1024
    told = millrace("plan", place.file, "--no-calibration", *wide(width), code=1).stderr
    if plan_least(place, width, "--workers", 1) <= limit:
        assert "1 worker on this machine" in told
        assert millrace("plan", place.file, "--no-calibration", *wide(width), "--workers", 1).stderr == ""
    assert "what would fit: " in told


def wide(width):
    return ["--set", f"model.n_embd={width}", "--set", "model.n_head=16", "--set", "model.n_layer=8"]


def plan_least(place, width, *arguments):
    text = millrace("plan", place.file, "--json", "--no-calibration", *wide(width), *arguments, code=None).stdout
    return json.loads(text)["workers"]["memory_bytes"]["least"]


def test_fault_39_a_worker_refuses_what_it_has_not_the_memory_for(place):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{probe.getsockname()[1]}"
    place.start("coordinator", place.file, "--bind", address, *HUGE)
    worker = place.start("worker", "--connect", address)
    assert worker.wait() == 1, worker.stderr()
    assert "training needs" in worker.stderr() and "1 worker of 52780" in worker.stderr() and "bytes)" in worker.stderr(), worker.stderr()
