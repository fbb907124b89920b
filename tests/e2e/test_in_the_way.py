"""What stands in the way of a run and does not pass by itself ends it at once, with what, where and what to do, and stays as it is. When it
is gone the same command goes on to the same digests."""

import json
import os
import shutil
import signal
import stat

import pytest

from cluster import STEPS, digests, millrace, refused, send

OTHER = {"user": 61234, "group": 61234, "extra_groups": []}
only_root = pytest.mark.skipif(os.getuid() != 0, reason="only root may become somebody else")


def users_folder(path):
    path.mkdir()
    (path / "notes.txt").write_text("mine")


def somebodys_model(path):
    """As transformers saves one: each name is one that a checkpoint of ours has, too."""
    path.mkdir()
    for name in ("config.json", "generation_config.json", "model.safetensors"):
        (path / name).write_text("{}")
    (path / "trainer_state.json").write_text(json.dumps({"global_step": 4, "log_history": []}))


IN_THE_WAY = {
    "a link that leads nowhere": lambda path: path.symlink_to("nowhere"),
    "a link to itself": lambda path: path.symlink_to(path.name),
    "a file": lambda path: path.write_text("mine"),
    "an empty folder": lambda path: path.mkdir(),
    "a user's folder": users_folder,
    "somebody's model": somebodys_model,
}


def all_of(path):
    """Links, names and bytes, whatever it is."""
    if path.is_symlink():
        return os.readlink(path)
    if path.is_dir():
        return {entry.name: all_of(entry) for entry in path.iterdir()}
    return path.read_bytes()


def remove(path):
    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


@pytest.mark.parametrize("what", IN_THE_WAY)
def test_what_stands_in_the_way_and_does_not_pass_ends_the_run_and_stays(place, reference, what):
    """It came while the run was under way: between the last two checkpoints before it would be replaced."""
    way = place.output / "checkpoint-16"
    process = place.run()
    place.wait_for_step(process, 2)
    send(signal.SIGSTOP, *process.children("coordinator"))
    assert not way.exists(), "the run was too far before it came"
    IN_THE_WAY[what](way)
    before = all_of(way)
    send(signal.SIGCONT, *process.children("coordinator"))
    assert process.wait() == 1
    for words in ("step 16 cannot be saved", str(way), "move it away", "goes on from checkpoint-8"):
        assert words in process.stderr(), process.stderr()
    assert place.status()["state"] == "failed" and "checkpoint-failed" not in place.events()
    assert all_of(way) == before and not list(place.output.glob("*.draft-*"))
    remove(way)
    assert digests(place.go()) == reference.digests


@pytest.mark.parametrize("name", ["checkpoint-16", f"checkpoint-{STEPS}"], ids=["one of many", "the last"])
def test_what_has_the_name_of_a_checkpoint_to_come_is_told_before_anything_is_done(place, reference, name):
    way = place.output / name
    place.output.mkdir()
    users_folder(way)
    before = all_of(way)
    for arguments in [], ["--restart"]:
        process = place.run(*arguments)
        assert process.wait() == 1
        for words in (str(way), "is in the way", "move it away"):
            assert words in process.stderr(), process.stderr()
        assert all_of(way) == before and not (place.output / "state" / "runs").exists()
    remove(way)
    assert digests(place.go()) == reference.digests
    users_folder(place.output / "checkpoint-4")  # older than the newest one: nobody's way, unless all begins anew
    place.go()


def test_a_folder_that_is_no_checkpoint_outlives_save_total_limit_and_restart(workplaces, corpus, reference):
    place = workplaces(corpus, training__save_total_limit=1)
    place.output.mkdir()
    for number, what in enumerate(("a user's folder", "somebody's model", "an empty folder", "a file")):
        IN_THE_WAY[what](place.output / f"checkpoint-{number + 1 if number < 3 else 5}")
    theirs = [place.output / f"checkpoint-{number}" for number in (1, 2, 3, 5)]
    before = [all_of(path) for path in theirs]
    for arguments in [], ["--restart"]:
        assert digests(place.go(*arguments)) == reference.digests
        assert [all_of(path) for path in theirs] == before
        assert {path.name for path in place.output.glob("checkpoint-*")} == {path.name for path in theirs} | {f"checkpoint-{STEPS}"}


@pytest.mark.parametrize("name", ["metrics.jsonl", "dataset"])
def test_what_stands_in_the_place_of_a_file_or_folder_is_told_before_anything_is_done(place, reference, name):
    way = place.output / name
    place.output.mkdir()
    users_folder(way) if name == "metrics.jsonl" else way.write_text("mine")
    before = all_of(way)
    for arguments in [], ["--restart"]:
        process = place.run(*arguments)
        assert process.wait() == 1
        assert str(way) in process.stderr() and "move it away" in process.stderr(), process.stderr()
        assert all_of(way) == before and not (place.output / "state" / "runs").exists()
    remove(way)
    assert digests(place.go()) == reference.digests


def a_pipe(path):
    os.mkfifo(path)


def a_link(path):
    path.symlink_to("elsewhere")


NO_FILES = [
    ("dataset/dataset.pb", "folder", users_folder),
    ("dataset/train-00002.tok.zst", "folder", users_folder),
    ("state/millrace.db", "folder", users_folder),
    ("state/millrace.db", "pipe", a_pipe),
    ("state/millrace.db-wal", "folder", users_folder),
    ("state/millrace.db-wal", "pipe", a_pipe),
    ("state/millrace.db-shm", "folder", users_folder),
    ("state/millrace.db-shm", "link", a_link),
    ("state/lock", "folder", users_folder),
    ("state/lock", "pipe", a_pipe),
    ("state/endpoint", "folder", users_folder),
    ("state/status.json", "folder", users_folder),
    ("logs/coordinator.log", "folder", users_folder),
    ("logs/coordinator.log", "pipe", a_pipe),
    ("logs/worker-1.log", "folder", users_folder),
]


@pytest.mark.parametrize("name, kind, make", NO_FILES, ids=[f"{name}, a {kind}" for name, kind, make in NO_FILES])
def test_what_no_file_can_take_the_place_of_is_named_with_what_to_do(place, name, kind, make):
    """Also before --restart removes anything."""
    way = place.output / name
    way.parent.mkdir(parents=True)
    shard = place.output / "dataset" / "train-00000.tok.zst"
    shard.parent.mkdir(exist_ok=True)
    shard.write_text("made before")
    make(way)
    for arguments in [], ["--restart"]:
        process = place.run(*arguments)
        assert process.wait() == 1
        says = f"{way} is in the way: it is a {kind}, and a run writes a file of that name; move it away\n"
        assert says in process.stderr(), process.stderr()
        assert os.path.lexists(way)
        if not name.startswith("logs/"):
            assert shard.read_text() == "made before"


@pytest.mark.parametrize("name", ["state/runs/*.tok", "dataset/train-00000.tok.zst"])
def test_a_folder_that_comes_to_the_place_of_a_jobs_output_is_named_with_what_to_do(place, reference, name):
    """Of a token run nobody knows the name before it is made: the folder has that of another run of the same pipeline."""
    (output,) = sorted(reference.output.glob(name))[:1] or [None]
    way = place.output / output.relative_to(reference.output)
    way.parent.mkdir(parents=True)
    users_folder(way)
    process = place.run()
    assert process.wait() == 1
    says = f"{way} is in the way: it is a folder, and a run writes a file of that name; move it away\n"
    assert says in process.stderr(), process.stderr()
    assert (way / "notes.txt").read_text() == "mine"
    remove(way)
    assert digests(place.go()) == reference.digests


def somebody_elses(place, folder):
    """All of it belongs to the other user."""
    place.folder.chmod(0o777)
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink():
            os.chown(path, OTHER["user"], OTHER["group"])


@only_root
def test_an_output_dir_that_may_not_be_written_is_told_at_once(place, reference):
    place.output.mkdir()
    (place.output / "logs").mkdir()
    (place.output / "state").mkdir()
    somebody_elses(place, place.output)
    place.output.chmod(0o555)
    process = place.run(**OTHER)
    assert process.wait() == 1
    assert f"output_dir {place.output} cannot be written" in process.stderr() and "Permission denied" in process.stderr()
    place.output.chmod(0o755)
    assert digests(place.finish(place.run(**OTHER))) == reference.digests


@only_root
def test_an_output_dir_that_is_closed_during_the_run_ends_it(workplaces, corpus):
    place = workplaces(corpus, training__max_steps=40, training__eval_steps=0)
    place.folder.chmod(0o777)
    process = place.run(**OTHER)
    place.wait_for_files(process, "checkpoint-8/millrace_state.json", 1)
    place.output.chmod(0o555)
    assert process.wait() == 1
    for words in ("cannot be saved", "Permission denied", str(place.output), "goes on from checkpoint-"):
        assert words in process.stderr(), process.stderr()
    place.output.chmod(0o755)
    assert place.finish(place.run(**OTHER))["steps"] == 40


@only_root
def test_a_restart_that_did_not_end_is_told_by_status_plan_and_the_next_start(place, reference):
    """What its user may not remove stops it in its middle."""
    shutil.copytree(reference.output, place.output)
    last = place.output / f"checkpoint-{STEPS}"
    somebody_elses(place, place.output)
    last.chmod(0o555)
    process = place.run("--restart", **OTHER)
    assert process.wait() == 1
    assert "Permission denied" in process.stderr() and not (place.output / "dataset").exists(), process.stderr()
    status = place.status()
    assert status["state"] == "stopped" and status["output_dir"] == str(place.output)
    assert status["reason"] == "a restart was begun and did not end; 'millrace run' without --restart goes on with it"
    assert status["reason"] in millrace("status", place.output).stdout
    assert f"a restart was begun in {place.output} and did not end" in millrace("plan", place.file, "--no-calibration").stdout
    process = place.run(**OTHER)
    assert process.wait() == 1
    assert "a restart that was begun before cannot go on" in process.stderr() and "Permission denied" in process.stderr()
    assert place.status() == status
    for path in place.output.glob("checkpoint-*"):
        path.chmod(0o755)
    told = "a restart that was begun before went on: what the earlier run made is removed, and this one begins from nothing"
    process = place.start("run", place.file, **OTHER)
    assert process.wait() == 0
    assert f"restart   {told}\n" in process.stderr() and f"restart-finished: {told}" in place.events(), process.stderr()
    status = place.status()
    assert status["restarted"] == told and told in status["result"]["warnings"]
    assert digests(status["result"]) == reference.digests
    again = place.start("run", place.file, **OTHER)
    assert again.wait() == 0 and told not in again.stderr()


@only_root
def test_a_checkpoint_that_may_not_be_looked_into_is_not_called_somebody_elses(place, reference):
    shutil.copytree(reference.output, place.output)
    last = place.output / f"checkpoint-{STEPS}"
    somebody_elses(place, place.output)
    last.chmod(0)
    process = place.run(**OTHER)
    assert process.wait() == 1
    assert str(last) in process.stderr() and "Permission denied" in process.stderr(), process.stderr()
    assert "no checkpoint that millrace made" not in process.stderr()
    last.chmod(0o755)
    assert digests(place.finish(place.run(**OTHER))) == reference.digests


@only_root
def test_a_shard_that_may_not_be_read_is_not_called_broken(place, reference):
    shutil.copytree(reference.output, place.output)
    shard = place.output / "dataset" / "train-00000.tok.zst"
    bytes_before = shard.read_bytes()
    shutil.rmtree(place.output / f"checkpoint-{STEPS}")
    somebody_elses(place, place.output)
    shard.chmod(0)
    process = place.start("dataset", "verify", place.output, **OTHER)
    assert process.wait() == 1
    assert f"{shard.name}: may not be read: open {shard}: Permission denied" in process.stdout()
    assert "1 of" in process.stderr() and "shards broken" not in process.stderr()
    process = place.run(**OTHER)
    assert process.wait() == 1
    assert str(shard) in process.stderr() and "Permission denied" in process.stderr()
    assert "broke" not in place.events().replace(str(place.folder), "")
    assert stat.S_IMODE(shard.stat().st_mode) == 0
    shard.chmod(0o644)
    assert shard.read_bytes() == bytes_before
    assert digests(place.finish(place.run(**OTHER))) == reference.digests


def test_a_file_that_the_kernel_makes_while_it_is_read_is_named(workplaces):
    place = workplaces(dataset__sources=["/proc/cpuinfo"])
    assert "every file is empty" not in refused("run", place.file, code=2, says=["/proc/cpuinfo", "name the copy"])
    assert "name the copy" in millrace("plan", place.file, code=2).stderr
