"""Sources that come, go and change: only what a change touches is tokenized again, and the dataset is the one that a run from nothing
makes. Broken shards are made again by themselves.
"""

import json
import os
import re
import shutil

import pytest

import cluster
import forms

FILES = 6
CHANGES = {**forms.SHORT, "dataset__validation_fraction": 0.1, "dataset__shard_tokens": 300_000}


@pytest.fixture
def folder(tmp_path):
    """Files of more than a megabyte each, so that none shares a job with all of the others."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    for i in range(FILES):
        write(folder / f"{i}.txt", seed=i)
    return folder


def write(path, seed):
    text = "\n\n".join(forms.documents(20, seed=seed, size=6000))
    path.write_text(text * (1_300_000 // len(text.encode()) + 1), newline="")


def tokenized(place):
    """Of the last start: (tokenize jobs that were there, of them done before)."""
    last = place.events().rsplit("started: ", 1)[1]
    kept = re.search(r"runs-kept: (\d+) of (\d+) tokenize jobs", last)
    return (int(kept.group(2)), int(kept.group(1))) if kept else (0, 0)


def from_nothing(workplaces, folder):
    return forms.dataset_digest(workplaces(dataset__sources=[f"{folder}/*.txt"], **CHANGES))


@pytest.mark.parametrize("what", ["added", "changed", "removed"])
def test_only_what_a_change_touches_is_done_again(workplaces, folder, what):
    place = workplaces(dataset__sources=[f"{folder}/*.txt"], **CHANGES)
    first = forms.dataset_digest(place)
    if what == "added":
        write(folder / "25.txt", seed=99)
    elif what == "changed":
        write(folder / "3.txt", seed=98)
    else:
        (folder / "3.txt").unlink()
    second = forms.dataset_digest(place)
    jobs, kept = tokenized(place)
    assert second != first and second == from_nothing(workplaces, folder)
    assert jobs >= FILES - 1
    assert jobs - kept <= jobs / 2, f"{jobs - kept} of {jobs} tokenize jobs were done again"
    assert kept >= FILES - 3


def test_what_came_back_is_still_known(workplaces, folder):
    place = workplaces(dataset__sources=[f"{folder}/*.txt"], **CHANGES)
    first = forms.dataset_digest(place)
    shutil.copy2(folder / "5.txt", folder.parent / "aside.txt")
    write(folder / "5.txt", seed=97)
    assert forms.dataset_digest(place) != first
    shutil.copy2(folder.parent / "aside.txt", folder / "5.txt")
    assert forms.dataset_digest(place) == first


def test_the_same_sources_are_not_looked_at_again(workplaces, folder):
    place = workplaces(dataset__sources=[f"{folder}/*.txt"], **CHANGES)
    first = forms.dataset_digest(place)
    assert forms.dataset_digest(place) == first
    assert place.events().count("dataset-made") == 1


@pytest.mark.parametrize("damage", ["a changed byte", "cut short", "gone"])
def test_a_broken_shard_is_repaired(workplaces, tmp_path, damage):
    """Made again when it is read: training goes through all of the shard."""
    source = forms.written(tmp_path, "all.jsonl", forms.json_lines(forms.documents(3, size=1500)))
    changes = {"dataset__sources": [source], "training__max_steps": 40, "training__save_steps": 4, "training__eval_steps": 0}
    changes["cluster__lease_seconds"] = 3
    place, whole = (workplaces(**changes, dataset__validation_fraction=0) for _ in range(2))
    wanted = cluster.digests(whole.go())
    process = place.run()
    place.wait_for_step(process, 5)
    process.kill()
    (shard,) = place.output.glob("dataset/train-*.tok.zst")
    data = bytearray(shard.read_bytes())
    if damage == "gone":
        shard.unlink()
    elif damage == "cut short":
        shard.write_bytes(data[: len(data) // 2])
    else:
        data[len(data) // 3] ^= 0x55
        shard.write_bytes(data)
    assert cluster.digests(place.go()) == wanted
    assert "shard-repaired" in place.events()
    cluster.millrace("dataset", "verify", place.output)


def test_every_broken_shard_is_repaired_when_asked_for(workplaces, folder):
    """Bytes that nobody would look at until training reads them; half of them from runs, half from the sources themselves, one
    of whose runs is there and broken."""
    place = workplaces(dataset__sources=[f"{folder}/*.txt"], **CHANGES)
    first = forms.dataset_digest(place)
    shards = sorted(place.output.glob("dataset/*.tok.zst"))
    whole = [shard.read_bytes() for shard in shards]
    assert len(shards) >= 4
    for shard in shards[:2]:
        data = bytearray(shard.read_bytes())
        data[len(data) // 3] ^= 0x55
        shard.write_bytes(data)
    shards[2].unlink()
    runs = sorted((place.output / "state" / "runs").glob("*.tok"))
    assert len(runs) >= 4
    for run in runs[::2]:
        run.unlink()
    data = bytearray(runs[1].read_bytes())
    data[len(data) // 3] ^= 0x55 # of the same size: that it is broken shows in what is made of it
    runs[1].write_bytes(data)
    told = cluster.millrace("dataset", "verify", place.output, code=1)
    assert "dataset build FILE --verify" in told.stderr
    result = cluster.millrace("dataset", "build", place.file, "--workers", 1, "--verify", "--json")
    assert json.loads(result.stdout.splitlines()[-1])["dataset_digest"] == first
    assert [shard.read_bytes() for shard in shards] == whole
    assert place.events().count("shard-repaired") == 3
    cluster.millrace("dataset", "verify", place.output)
    cluster.millrace("dataset", "build", place.file, "--workers", 1, "--verify")
    assert place.events().count("shard-repaired") == 3


def test_what_would_be_made_again_as_another_one_is_refused(workplaces, folder):
    """A source got another text of the same length and its old time, which nobody sees until a run of it is made again."""
    place = workplaces(dataset__sources=[f"{folder}/*.txt"], **CHANGES)
    forms.dataset_digest(place)
    for source in folder.glob("*.txt"):
        before = source.stat()
        source.write_bytes(source.read_bytes().swapcase())
        os.utime(source, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert source.stat().st_size == before.st_size
    for run in (place.output / "state" / "runs").glob("*.tok"):
        run.unlink()
    shard, *others = sorted(place.output.glob("dataset/*.tok.zst"))
    whole = {path: path.read_bytes() for path in others}
    shard.unlink()
    cluster.refused("dataset", "build", place.file, "--workers", 1, "--verify", code=1, says=["made again it is another one", "--restart"])
    assert not shard.exists() and {path: path.read_bytes() for path in others} == whole
    assert not list((place.output / "state" / "runs").glob("*.tok"))


def test_there_may_be_more_shards_than_files_may_be_open(workplaces, tmp_path):
    """A hundred thousand shards in small: training reads all over them, and resuming does not look into them."""
    source = forms.written(tmp_path, "all.jsonl", forms.json_lines(forms.documents(200)) * 100)
    changes = {"dataset__sources": [source], "dataset__shard_tokens": 1, "dataset__validation_fraction": 0}  # a frame in each
    changes["dataset__shuffle_window"] = 0
    place = workplaces(**changes, training__global_batch=32, training__max_steps=8, training__save_steps=4, training__eval_steps=0)
    few_files = ("prlimit", "--nofile=90")
    place.finish(place.run("--stop-after", "dataset"))
    assert len(list(place.output.glob("dataset/*.tok.zst"))) > 100
    result = place.finish(place.run(prefix=few_files))
    assert result["steps"] == 8 and "shard-repaired" not in place.events(), place.logs()


def test_a_project_that_moved_goes_on(workplaces, folder):
    place = workplaces(dataset__sources=["corpus/*.txt"], **{**CHANGES, "training__max_steps": 12, "training__save_steps": 4})
    shutil.copytree(folder, place.folder / "corpus")
    process = place.run()
    place.wait_for_step(process, 5)
    process.kill()
    moved = place.folder.parent / (place.folder.name + "-moved")
    shutil.move(place.folder, moved)
    place.folder, place.file, place.output = moved, moved / "pipeline.yaml", moved / "out"
    result = place.go()
    assert result["steps"] == 12
    assert place.events().count("dataset-made") == 1, place.events()


def test_a_run_whose_output_lies_among_its_sources_does_not_read_itself(workplaces):
    """The whole project is the source: texts, pipeline.yaml, another run, and the run itself, which is made again and again."""
    place = workplaces(dataset__sources=["."], output_dir="runs/mine", **forms.SHORT)
    forms.plain(place.folder / "texts", texts := forms.documents(8))

    def build(*arguments):
        """Its digest, and what it says of sources."""
        done = cluster.millrace("dataset", "build", place.file, *arguments)
        return forms.info(place)["digest"], [line for line in done.stderr.splitlines() if line.startswith("sources ")]

    place.output = place.folder / "runs" / "other"
    digest, _ = build("--set", "output_dir=runs/other")
    assert forms.info(place)["source_files"] == len(texts)
    place.output = place.folder / "runs" / "mine"
    for arguments in ((), (), ("--restart",), ("--restart", "--workers", 3)):
        again, said = build(*arguments)
        assert again == digest
        assert len(said) == len(set(said)) <= 3 and all("runs/" in line or "pipeline.yaml" in line for line in said), said
    cluster.refused("dataset", "build", place.file, "--set", f"dataset.sources={place.folder}/runs/mine/logs", code=2,
                    says=["runs/mine/logs", "written by this run itself"])


def test_texts_in_a_folder_that_is_an_output_dir_too_are_sources_however_they_are_reached(workplaces):
    place = workplaces(dataset__sources=["texts"], output_dir="elsewhere", **forms.SHORT)
    forms.plain(place.folder / "texts", texts := forms.documents(8))
    cluster.millrace("dataset", "build", place.file)
    digest = forms.info(place)["digest"]
    place.output = place.folder / "texts"
    for source in (".", "**/*.txt", "*/*.txt", "texts"):
        changes = ("--set", "output_dir=texts", "--set", f"dataset.sources=['{source}']")
        done = cluster.millrace("dataset", "build", place.file, "--restart", *changes)
        assert forms.info(place)["source_files"] == len(texts) and forms.info(place)["digest"] == digest, source
        told = [line for line in done.stderr.splitlines() if line.startswith("sources ") and "/texts" in line]
        assert told == [] or told == [f"sources   skipped: {place.output}, what a run writes there"], told
