"""Strangers that know nothing but an address, Ctrl-C, and a damaged checkpoint: the digests are those of an undisturbed run."""
import gzip
import json
import os
import pathlib
import random
import shutil
import subprocess
import tempfile

import pytest
from runs import MILLRACE, Running, digests, free_port, make_project, millrace, result_of


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return make_project(tmp_path_factory.mktemp("project"))


@pytest.fixture(scope="module")
def reference(project):
    """The digests of an undisturbed run with one worker."""
    return digests(result_of(millrace("run", "pipeline.yaml", "--json", "--workers", 1, cwd=project)))


@pytest.fixture
def copy(project, tmp_path):
    shutil.copytree(project / "text", tmp_path / "text")
    shutil.copy(project / "pipeline.yaml", tmp_path)
    return tmp_path


@pytest.fixture
def strangers_folder():
    """Makes folders that others can get at: pytest closes its own to them, whenever another session begins."""
    with tempfile.TemporaryDirectory(prefix="millrace-strangers-") as folder:
        os.chmod(folder, 0o711)
        yield lambda: pathlib.Path(tempfile.mkdtemp(dir=folder))


def start_stranger(address, folder):
    """A worker in an empty folder; as nobody when we are root, so that it cannot read what is ours."""
    user = dict(user=65534, group=65534, extra_groups=[]) if os.geteuid() == 0 else {}
    os.chmod(folder, 0o777)
    log = open(folder / "log", "wb")
    return subprocess.Popen(
        [str(folder / "millrace"), "worker", "--connect", address],
        cwd=folder,
        stdout=log,
        stderr=log,
        start_new_session=True,
        env={"PATH": os.environ["PATH"], "HOME": str(folder), "TMPDIR": str(folder)},
        **user,
    )


def test_fault_08_workers_from_empty_folders_join_one_by_one(copy, reference, strangers_folder):
    (copy / "text").chmod(0o700)
    (copy / "out").mkdir(mode=0o700)
    address, strangers = f"tcp://127.0.0.1:{free_port()}", []
    with Running("coordinator", "pipeline.yaml", "--bind", address, cwd=copy) as coordinator:
        try:
            for i in range(3):
                folder = strangers_folder()
                shutil.copy(MILLRACE, folder)
                strangers.append(start_stranger(address, folder))
                if i < 2:
                    coordinator.wait_step(2 * i + 1)
            ended = coordinator.end()
            assert ended.returncode == 0, ended.stderr
            assert [s.wait(timeout=120) for s in strangers] == [0, 0, 0]
        finally:
            for stranger in strangers:
                stranger.kill()
                stranger.wait()
    assert digests(result_of(millrace("run", "pipeline.yaml", "--json", cwd=copy))) == reference


def test_a_stream_that_a_worker_cannot_open_comes_in_pieces(tmp_path, strangers_folder):
    """Some MiB of an archive, several of which are asked for before they are needed."""
    make_project(tmp_path)
    pipeline = tmp_path / "pipeline.yaml"
    changed = pipeline.read_text().replace('"text/**/*.txt"', '"text/all.txt.gz"').replace("eval_steps: 4", "eval_steps: 0")
    pipeline.write_text(changed.replace("validation_fraction: 0.1", "validation_fraction: 0"))
    chooser = random.Random(5)
    words = [chooser.randbytes(chooser.randint(2, 6)).hex() for _ in range(200_000)]
    text = " ".join(chooser.choices(words, k=900_000)).encode()
    (tmp_path / "text" / "all.txt.gz").write_bytes(gzip.compress(text, 1))
    assert (tmp_path / "text" / "all.txt.gz").stat().st_size > 4 << 20
    build = ("dataset", "build", "pipeline.yaml", "--json")
    wanted = result_of(millrace(*build, "--workers", 1, cwd=tmp_path))["dataset_digest"]
    shutil.rmtree(tmp_path / "out")
    (tmp_path / "text").chmod(0o700)
    (tmp_path / "out").mkdir(mode=0o700)
    address, folder = f"tcp://127.0.0.1:{free_port()}", strangers_folder()
    shutil.copy(MILLRACE, folder)
    with Running("coordinator", "pipeline.yaml", "--bind", address, "--stop-after", "dataset", cwd=tmp_path) as coordinator:
        stranger = start_stranger(address, folder)
        try:
            ended = coordinator.end()
            assert ended.returncode == 0, ended.stderr
            assert stranger.wait(timeout=120) == 0
        finally:
            stranger.kill()
            stranger.wait()
    assert result_of(millrace(*build, cwd=tmp_path))["dataset_digest"] == wanted


def test_interrupted_and_resumed_is_as_undisturbed(copy, reference):

    with Running("run", "pipeline.yaml", "--json", "--grace", "3600", cwd=copy) as run:  # which it does not wait for
        run.wait_step(3)
        run.interrupt()
        assert run.end().returncode == 130
    assert digests(result_of(millrace("run", "pipeline.yaml", "--json", cwd=copy))) == reference
    rows = [json.loads(line) for line in (copy / "out/metrics.jsonl").read_text().splitlines()]
    assert [r["step"] for r in rows if "loss" in r] == list(range(1, 11))
    assert [r["step"] for r in rows if "eval_loss" in r] == [4, 8, 10]
    again = millrace("run", "pipeline.yaml", "--json", cwd=copy)
    assert digests(result_of(again)) == reference


def test_fault_18_a_flipped_bit_in_a_checkpoint_is_found(copy, reference):
    with Running("run", "pipeline.yaml", "--json", cwd=copy) as run:
        run.wait_step(9)
    complete = [p for p in (copy / "out").glob("checkpoint-*") if p.name.split("-")[1].isdigit()]
    newest = max(complete, key=lambda p: int(p.name.split("-")[1]))
    with open(newest / "model.safetensors", "r+b") as f:
        f.seek(-100, os.SEEK_END)
        byte = f.read(1)
        f.seek(-1, os.SEEK_CUR)
        f.write(bytes([byte[0] ^ 4]))
    assert digests(result_of(millrace("run", "pipeline.yaml", "--json", cwd=copy))) == reference
    assert str(newest.name) in (copy / "out/logs/coordinator.log").read_text()
