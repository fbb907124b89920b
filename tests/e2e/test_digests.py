"""The one promise, without trouble on the way: the same bytes for any number of workers and threads; other bytes for another input."""

import pytest

from cluster import digests


@pytest.mark.parametrize("workers, threads", [(1, 1), (1, 2), (3, 1), (5, 1), (2, 2)])
def test_any_number_of_workers_and_threads_gives_the_same_bytes(place, reference, workers, threads):
    result = place.go("--workers", workers, "--set", f"cluster.threads_per_worker={threads}")
    assert digests(result) == reference.digests
    assert result["train_loss"] == reference.result["train_loss"]
    assert result["eval_loss"] == reference.result["eval_loss"]


def test_names_and_paths_enter_no_digest(workplaces, corpus, reference):
    place = workplaces(corpus, run_name="another name", output_dir="somewhere/else")
    assert (
        digests(place.go("--set", "cluster.compression=none", "--set", "training.eval_steps=3", "--set", "training.save_steps=0"))
        == reference.digests
    )


def test_another_seed_gives_other_weights_from_the_same_dataset(place, reference):
    dataset, weights = digests(place.go("--set", "training.seed=43"))
    assert dataset == reference.digests[0]
    assert weights != reference.digests[1]


def test_one_changed_letter_gives_another_dataset(workplaces, tmp_path, corpus, reference):
    for file in corpus.rglob("*.txt"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    changed = tmp_path / "document-1.txt"
    text = changed.read_text()
    changed.write_text(text.replace("water", "Water", 1) if "water" in text else "W" + text)
    dataset, weights = digests(workplaces(tmp_path, training__max_steps=1).go())
    assert dataset != reference.digests[0] and weights != reference.digests[1]


@pytest.mark.parametrize(
    "changes",
    [
        {"training__global_batch": 6, "training__slices": 3},
        {"training__slices": 1, "training__max_steps": 6},
        {"model__attn_pdrop": 0, "model__embd_pdrop": 0, "model__resid_pdrop": 0, "training__global_batch": 7, "training__slices": 7},
    ],
    ids=["three slices", "one slice", "seven slices without dropout"],
)
def test_slices_decide_and_workers_do_not(workplaces, corpus, changes):
    few, many = workplaces(corpus, **changes), workplaces(corpus, **changes)
    assert digests(few.go("--workers", 1)) == digests(many.go("--workers", 4))


def test_a_document_mask_gives_other_weights_from_the_same_dataset(workplaces, tmp_path):
    for i in range(60):
        (tmp_path / f"{i}.txt").write_text(f"document {i} of many " * (i % 7 + 1))
    plain, masked, many = (workplaces(tmp_path, dataset__document_mask=mask) for mask in (False, True, True))
    without, one = digests(plain.go("--workers", 1)), digests(masked.go("--workers", 1))
    assert without[0] == one[0] and without[1] != one[1]
    assert digests(many.go("--workers", 3)) == one


def test_more_workers_than_slices_are_told_and_idle(workplaces, corpus):
    place = workplaces(corpus, training__slices=2, training__max_steps=4)
    process = place.start("run", place.file, "--workers", 4)
    assert process.wait() == 0, process.stderr()
    assert "2 of 4 workers will have no slice to compute: they are more than training.slices" in process.stderr()
    one = workplaces(corpus, training__slices=2, training__max_steps=4)
    assert one.go("--workers", 1)["weights_digest"] in process.stdout()


def test_epochs_decide_the_length_when_steps_do_not(workplaces, tmp_path):
    for i in range(6):
        (tmp_path / f"{i}.txt").write_text(f"document {i} " * 100)
    changes = {"training__max_steps": 0, "training__num_train_epochs": 1.5, "training__global_batch": 4, "training__slices": 2}
    two, three = workplaces(tmp_path, **changes), workplaces(tmp_path, **changes)
    result = two.go("--workers", 2)
    sequences = two.status()["dataset"]["train_tokens"] // 32
    assert sequences * 1.5 / 4 - 1 <= result["steps"] <= sequences * 1.5 / 4 + 1
    assert digests(three.go("--workers", 3)) == digests(result)
    assert two.metrics()[-1]["step"] == result["steps"]
