"""Peers that do not keep to the protocol: whatever one of them does, the run ends with the digests of an undisturbed one."""
import os
import pathlib

import pytest

import cluster
from cluster import digests, wait_until

HOSTILE = pathlib.Path(os.environ.get("MILLRACE_BUILD") or cluster.ROOT / "build").resolve() / "tests" / "hostile"


def impostor(place, behaviour, address, *more):
    """Starts tests/hostile/impostor.c."""
    program = HOSTILE / "impostor"
    assert program.exists(), f"{program} is not there; run 'make unit-tests'"
    files = place.folder / f"impostor-{len(place.started)}"
    process = cluster.Process([str(program), behaviour, address, *map(str, more)], place.folder, files)
    place.started.append(process)
    return process


def endpoint(place, process):
    """The coordinator's address, once it is up."""
    path = place.output / "state" / "endpoint"
    wait_until(lambda: path.exists() or not process.running(), 10, "the coordinator is up")
    return path.read_text()


def ready(place):
    return [worker for worker in place.status()["workers"] if worker["state"] in ("ready", "busy")]


def beside_an_honest_worker(place, behaviour):
    """A run in which the impostor has jobs before an honest worker comes, and misbehaves when that one is there."""
    process = place.run("--workers", 0)
    address, file = endpoint(place, process), place.folder / "go"
    wrong = impostor(place, behaviour, address, file)
    wait_until(lambda: "lease" in wrong.stdout(), 20, "the impostor has a job")
    place.start("worker", "--connect", address)
    wait_until(lambda: len(ready(place)) == 2, 20, "the honest worker is there")
    file.touch()
    return place.finish(process)


@pytest.mark.parametrize("behaviour", ["done-without-result", "done-of-another-kind", "fails", "fails-finally"])
def test_a_worker_that_fails_at_its_jobs_does_not_end_the_run(place, reference, behaviour):
    assert digests(beside_an_honest_worker(place, behaviour)) == reference.digests
    assert "job-failed: tokenize/0 on impostor" in place.events()
    seen = [path.read_bytes() for path in place.output.glob("logs/*.log")] + [process.err.read_bytes() for process in place.started]
    seen += [place.output.joinpath("state/status.json").read_bytes()]
    seen += [cluster.millrace("status", place.file, *words, text=False).stdout for words in ([], ["--json"])]
    for text in seen:  # what it said about itself and its failures reaches no screen as anything but letters
        assert not any(byte in text for byte in (b"\x1b", b"\x07", b"\xc2\x9b", b"\xe2\x80\xae", b"\xff"))
        assert not any(line.startswith(b"2030") for line in text.splitlines())
    assert any(b"no\\x1B[2Jwhere" in text for text in seen)
