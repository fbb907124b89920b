"""What can be refused at once is refused before anything is started or made; and what has nothing to do ends without a worker."""

import json
import os

import pytest

import cluster
from cluster import refused


def made(place):
    return sorted(path.name for path in place.folder.iterdir() if not path.name.startswith("process-"))


BROKEN = [
    ({"dataset__sources": ["nothing/*.txt"]}, 2, ["nothing/*.txt", "matches no file"]),
    ({"dataset__sources": ["nix.txt"]}, 2, ["nix.txt: no such file or folder"]),
    ({"dataset__sources": ["nothing/*.txt", "nix.txt"]}, 2, ["matches no file", "nix.txt: no such file or folder"]),
    ({"dataset__sources": ["hollow"]}, 2, ["no file is in", "hollow"]),
    ({"dataset__prepared": "elsewhere", "dataset__sources": []}, 1, ["elsewhere"]),
    ({"dataset__tokenizer": "./nix"}, 2, ["nix"]),
]


@pytest.mark.parametrize("command", ["run", "coordinator"])
@pytest.mark.parametrize("changes, code, says", BROKEN)
def test_a_typo_is_refused_before_anything_is_made(workplaces, corpus, command, changes, code, says):
    place = workplaces(None if "dataset__sources" in changes else corpus, **changes)
    (place.folder / "hollow").mkdir()
    before = made(place)
    refused(command, place.file, code=code, says=says)
    assert made(place) == before


def test_more_paths_than_a_dataset_can_name_are_refused_before_anything_is_made(workplaces):
    place = workplaces(dataset__sources=["many"])
    folder = place.folder / "many"
    while len(str(folder)) < 3500:
        folder = folder / ("folder" * 40)
    folder.mkdir(parents=True)
    into = os.open(folder, os.O_RDONLY)
    for i in range((64 << 20) // len(str(folder))):
        with open(f"{i:0200}.txt", "w", opener=lambda name, flags: os.open(name, flags, 0o644, dir_fd=into)) as file:
            file.write(f"the mill and the river {i}\n")
    os.close(into)
    before = made(place)
    for command in ("run", "coordinator"):
        said = refused(command, place.file, code=2, says=["has room for 4,194,304 files and 67,108,864 bytes; pack them into archives"])
    assert made(place) == before
    assert said.splitlines()[-1].removeprefix("millrace: ") in cluster.millrace("plan", place.file, code=2).stderr


def test_a_restart_with_a_typo_leaves_the_results_where_they_are(workplaces, corpus):
    place = workplaces(corpus, training__max_steps=2)
    result = place.go()
    refused("run", place.file, "--restart", "--set", "dataset.sources=[nix]", code=2, says=["nix: no such file or folder"])
    assert place.go() == result


def test_a_file_in_the_place_of_a_folder_is_answered_with_what_to_do(workplaces, corpus):
    place = workplaces(corpus)
    (place.folder / "train.bin").write_bytes(b"12")
    advice = [f"output_dir {place.folder}/train.bin", "choose another output_dir"]
    for command in ("run", "coordinator"):
        refused(command, place.file, "--set", "output_dir=train.bin", code=1, says=advice)
    says = ["train.bin is a file", "dataset import"]
    refused("run", place.file, "--set", "dataset.prepared=train.bin", "--set", "dataset.sources=[]", code=1, says=says)
    refused("dataset", "info", place.file, code=1, says=[f"{place.file} is a file", "output_dir"])


def test_what_is_done_already_is_said(workplaces, corpus):
    place = workplaces(corpus, training__max_steps=1)
    for command, words in (("dataset build", "this dataset was made before"), ("run", "this run was finished before")):
        first, again = (cluster.millrace(*command.split(), place.file).stderr for _ in range(2))
        assert words not in first and f"note      {words}: there was nothing left to do" in again, again


def test_a_run_that_has_nothing_to_do_starts_no_worker(workplaces, corpus):
    place = workplaces(corpus, training__max_steps=2)
    result = place.go()
    logs = {path: path.read_bytes() for path in place.output.glob("logs/worker-*.log")}
    assert len(logs) == 2
    assert place.go() == result
    assert {path: path.read_bytes() for path in place.output.glob("logs/worker-*.log")} == logs
    (place.output / "logs" / "worker-1.log").unlink()
    refused("run", place.file, "--set", "training.learning_rate=0.5", code=2, says=["training.learning_rate"])
    assert not (place.output / "logs" / "worker-1.log").exists()
    more = place.go("--set", "training.lr_scheduler_type=constant", "--set", "training.max_steps=3", "--restart")
    assert more["steps"] == 3 and (place.output / "logs" / "worker-1.log").exists()
    assert json.loads(cluster.millrace("status", place.file, "--json").stdout)["needs_workers"] is False


@pytest.mark.parametrize("command", ["run", "coordinator", "dataset build"])
def test_a_dataset_cannot_be_kept_and_removed(workplaces, corpus, command):
    place = workplaces(corpus, training__max_steps=2)
    (place.output / "dataset").mkdir(parents=True)
    theirs = place.output / "dataset" / "train-00000.tok.zst"
    theirs.write_bytes(b"made before")
    says = ["--restart", "--keep-dataset", "leave one of the two out"]
    refused(*command.split(), place.file, "--restart", "--keep-dataset", code=2, says=says)
    assert theirs.read_bytes() == b"made before"
