"""One big compressed file is a chain of jobs: killed in its middle, by a worker or as a whole, the work goes on from its last finished
piece, and the dataset is the same.
"""

import signal

import pytest

import cluster
import forms

PIECES = 5  # of 16 MiB of text
CHANGES = {**forms.SHORT, "dataset__validation_fraction": 0.01, "dataset__shard_tokens": 4_000_000, "cluster__lease_seconds": 3}


@pytest.fixture(scope="module")
def stream(base_folder):
    """JSON lines of more than four pieces, compressed: it cannot be read from its middle."""
    texts = forms.documents(60, seed=5, size=60_000)
    lines = forms.json_lines(texts)
    data = b"".join(b'{"text": "part %d"}\n' % i + lines for i in range(int(PIECES * 16.2 * 2**20 / len(lines))))
    return forms.written(base_folder / "stream", "all.jsonl.zst", forms.PACKERS["zst"](data))


@pytest.fixture(scope="module")
def undisturbed(base_folder, stream):
    place = cluster.Workplace(base_folder / "stream-reference", dataset__sources=[stream], **CHANGES)
    try:
        return forms.dataset_digest(place, "--workers", 1)
    finally:
        place.close()


def runs(place):
    """The finished pieces, by name, each with what tells a file from one made again."""
    files = {path.name: path.stat() for path in place.output.glob("state/runs/*.tok")}
    return {name: (stat.st_ino, stat.st_mtime_ns, stat.st_size) for name, stat in files.items()}


def test_a_killed_worker_s_stream_goes_on_elsewhere(workplaces, stream, undisturbed):
    place = workplaces(dataset__sources=[stream], **CHANGES)
    process = place.run(*forms.ONLY, "--workers", 2)
    place.wait_for_files(process, "state/runs/*.tok", 2)
    before = runs(place)
    cluster.send(signal.SIGKILL, *process.children("worker"))
    assert place.finish(process)["dataset_digest"] == undisturbed
    assert place.events().count("worker-lost") + place.events().count("worker-left") >= 1
    after = runs(place)
    assert len(after) == PIECES + 1
    assert {name: after[name] for name in before} == before


def test_a_killed_cluster_goes_on_from_its_last_piece(workplaces, stream, undisturbed):
    place = workplaces(dataset__sources=[stream], **CHANGES)
    process = place.run(*forms.ONLY, "--workers", 1)
    place.wait_for_files(process, "state/runs/*.tok", 3)
    process.kill()
    # Its newest run may have its name already and not be on record yet; no piece begins before the one in front of it is on record.
    before = dict(sorted(runs(place).items(), key=lambda run: run[1][1])[:-1])
    assert forms.dataset_digest(place, "--workers", 3) == undisturbed
    after = runs(place)
    assert {name: after[name] for name in before} == before


def test_three_workers_give_the_same_as_one(workplaces, stream, undisturbed):
    assert forms.dataset_digest(workplaces(dataset__sources=[stream], **CHANGES), "--workers", 3) == undisturbed
