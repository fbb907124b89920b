"""Source files that are replaced, grow, shrink or change while they are read: the dataset is of the old file or of the new one, or the run
ends and names the file. Never a mixture of both. Whatever it was, the same command afterwards gives the dataset of what is there.
"""

import os
import random
import shutil
import signal

import pytest

import cluster
import forms
import runs

CHANGES = {**forms.SHORT, "dataset__shard_tokens": 4_000_000, "dataset__validation_fraction": 0}


def text_of(letter, megabytes=24):
    dice = random.Random(letter)
    paragraph = [" ".join(dice.choices([letter * n for n in range(1, 9)], k=200)) for _ in range(200)]
    return ("\n".join(dice.choice(paragraph) for _ in range(megabytes * 1000))).encode()[: megabytes << 20]


def append(path, new):
    with open(path, "ab") as file:
        file.write(new)


def truncate(path, new):
    os.truncate(path, os.path.getsize(path) // 3)


def overwrite(path, new):
    """In place, with the size and times that it had: only the time of the change itself tells."""
    times = os.stat(path)
    with open(path, "r+b") as file:
        file.write(new[: times.st_size])
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def replace(path, new):
    other = path.with_suffix(".new")
    other.write_bytes(new)
    os.rename(other, path)


@pytest.fixture(scope="module")
def old():
    return text_of("a")


@pytest.fixture(scope="module")
def new():
    return text_of("b")


@pytest.fixture
def reading(workplaces, old, tmp_path):
    """reading(start): a workplace whose file is half read by workers that stand still; start(place) gives the process that ends with the
    run, and a function that gives the workers' pids."""

    def begin(start):
        place = workplaces(dataset__sources=[str(tmp_path / "text.txt")], **CHANGES)
        (tmp_path / "text.txt").write_bytes(old)
        (tmp_path / "text.txt").chmod(0o600)
        process, workers = start(place)
        place.wait_for_files(process, "state/runs/*.tok", 1)
        cluster.send(signal.SIGSTOP, *workers())
        return place, process, workers()

    return begin


@pytest.fixture(scope="module")
def digest_of(base_folder):
    """digest_of(bytes): of the dataset that a file of these bytes gives."""
    known = {}

    def make(data):
        if data not in known:
            folder = base_folder / f"moving-{len(known)}"
            source = forms.written(folder, "text.txt", data)
            known[data] = forms.dataset_digest(cluster.Workplace(folder / "place", dataset__sources=[source], **CHANGES))
        return known[data]

    return make


def check(place, process, workers, path, change, old, new, digest_of):
    change(path, new)
    cluster.send(signal.SIGCONT, *workers)
    code = process.wait()
    possible = {digest_of(old), digest_of(path.read_bytes())}
    if code == 0:
        assert place.status()["dataset"]["digest"] in possible
    else:
        assert str(path) in process.stderr() and "while it was read" in process.stderr(), process.stderr()
    if change is not overwrite or code != 0:  # nothing tells that it happened once it was over unseen
        possible = {digest_of(path.read_bytes())}
    assert forms.dataset_digest(place) in possible


@pytest.mark.parametrize("change", [append, truncate, overwrite, replace])
def test_a_file_that_changes_while_workers_read_it_gives_no_mixture(reading, tmp_path, old, new, digest_of, change):
    def start(place):
        process = place.run(*forms.ONLY, "--workers", 2)
        return process, lambda: process.children("worker")

    place, process, workers = reading(start)
    check(place, process, workers, tmp_path / "text.txt", change, old, new, digest_of)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start a worker that may not read the file")
@pytest.mark.parametrize("change", [append, overwrite, replace])
def test_a_file_that_changes_while_the_coordinator_serves_it_gives_no_mixture(reading, tmp_path, old, new, digest_of, change):
    def start(place):
        binary = shutil.copy(cluster.MILLRACE, place.folder / "millrace")
        process = place.start("coordinator", place.file, "--bind", f"tcp://127.0.0.1:{runs.free_port()}", *forms.ONLY)
        endpoint = place.output / "state" / "endpoint"
        cluster.wait_until(lambda: endpoint.exists() and endpoint.read_text(), 30, "the coordinator has an address")
        worker = cluster.Process([binary, "worker", "--connect", endpoint.read_text().strip()], "/tmp", place.folder / "worker",
                                 user=65534, group=65534, extra_groups=[])
        place.started.append(worker)
        return process, lambda: [worker.pid]

    place, process, workers = reading(start)
    check(place, process, workers, tmp_path / "text.txt", change, old, new, digest_of)
