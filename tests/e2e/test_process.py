"""What a process inherits: signals ignored or blocked, closed descriptors, limits. Each is borne, or refused at once with one error that
names it."""

import contextlib
import json
import os
import pathlib
import pty
import re
import resource
import shutil
import signal
import subprocess
import time

import pytest

from cluster import MILLRACE, alive, digests, needs_terminals, send, wait_until


def inherits(ignored=(), blocked=(), closed=(), limits=()):
    def set_up():
        for number in ignored:
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, blocked)
        for fd in closed:
            os.close(fd)
        for limit, value in limits:
            resource.setrlimit(limit, (value, value))

    return set_up


def test_signals_that_were_ignored_or_blocked_are_heard(workplaces, corpus, reference):
    place = workplaces(corpus, training__max_steps=400)
    process = place.run(preexec_fn=inherits(ignored=[signal.SIGCHLD, signal.SIGTERM, signal.SIGUSR1], blocked=signal.valid_signals()))
    place.wait_for_step(process, 2)
    dead = process.children("worker")[0]
    send(signal.SIGKILL, dead)
    wait_until(lambda: len(set(process.children("worker")) - {dead}) == 2, 60, "the worker is there again")
    send(signal.SIGTERM, process.pid)
    place.finish(process, 130)
    assert "saved step" in process.stderr()


def test_ignored_sighup_and_sigint_stay_ignored(place, reference):
    process = place.run(preexec_fn=inherits(ignored=[signal.SIGHUP, signal.SIGINT]))
    place.wait_for_step(process, 1)
    send(signal.SIGHUP, process.pid)
    send(signal.SIGINT, process.pid)
    assert digests(place.finish(process)) == reference.digests


@needs_terminals
def test_who_is_to_type_the_text_is_told_so(workplaces, reference):
    place = workplaces(dataset__sources=["-"])
    ours, theirs = pty.openpty()
    evaluate = [str(part) for part in ("evaluate", reference.result["checkpoint"], "--text", "-")]
    for words in ["run", str(place.file), "--stop-after", "dataset"], evaluate:
        process = subprocess.Popen([MILLRACE, *words], stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            assert process.stderr.readline() == "reading standard input; Ctrl-D ends it\n"
        finally:
            process.kill()
            process.communicate()
    os.close(ours)
    os.close(theirs)
    done = subprocess.run([MILLRACE, *evaluate], input="piped text " * 40, capture_output=True, text=True, check=True)
    assert "reading standard input" not in done.stderr


def test_closed_descriptors_are_nobodys(place, reference):
    """Else the first files that are opened get the numbers 0 to 2, and a log is written into one of them, or lost."""
    process = place.run("--stop-after", "dataset", preexec_fn=inherits(closed=[0, 2]))
    assert place.finish(process)["dataset_digest"] == reference.digests[0]
    for name in "coordinator", "worker-1":
        assert (place.output / "logs" / f"{name}.log").stat().st_size > 0


LIMITS = [
    ("ulimit -n", resource.RLIMIT_NOFILE, 64),  # a coordinator with many shards open has more
    ("ulimit -v", resource.RLIMIT_AS, 100 << 20),
    ("ulimit -s", resource.RLIMIT_STACK, 256 << 10),
]


@pytest.mark.parametrize("name, limit, value", LIMITS, ids=[name for name, *_ in LIMITS])
@pytest.mark.parametrize("command", ["run", "coordinator"])
def test_a_limit_that_is_too_small_is_one_error_that_names_it(place, command, name, limit, value):
    process = place.start(command, place.file, preexec_fn=inherits(limits=[(limit, value)]))
    place.finish(process, 2)
    assert name in process.stderr() and process.stderr().count("\n") == 1
    assert not place.output.exists()


def test_a_process_that_may_not_have_the_addresses_that_training_needs_is_refused_before_anything_is_made(workplaces, corpus):
    place = workplaces(corpus, model__n_embd=1024, model__n_layer=6)
    limits = inherits(limits=[(resource.RLIMIT_AS, 700 << 20)])
    for command, *options in ["plan", "--no-calibration", "--json"], ["run"]:
        process = place.start(command, place.file, *options, preexec_fn=limits)
        assert process.wait() == 1, process.stderr()
        for words in "no process may have more than 0.68 GiB", "ulimit -v, RLIMIT_AS", "what would fit":
            assert words in process.stderr(), process.stderr()
        if command == "plan":
            told = json.loads(process.stdout())
            assert told["fits"] is False and told["machine"]["process_bytes"] == 700 << 20
    assert not (place.output / "state" / "runs").exists()


@pytest.mark.skipif(os.getuid() != 0, reason="only root may become somebody else, whose processes are counted")
def test_a_user_who_may_have_few_threads_is_told(workplaces, corpus):
    place = workplaces(corpus)
    place.folder.chmod(0o777)
    process = place.run(user=61234, group=61234, extra_groups=[], preexec_fn=inherits(limits=[(resource.RLIMIT_NPROC, 8)]))
    place.finish(process, 2)
    assert "ulimit -u" in process.stderr() and process.stderr().count("\n") == 1


MOVES = {
    "moved": lambda output: output.rename(output.with_name("elsewhere")),
    "state removed": lambda output: shutil.rmtree(output / "state"),
}


@pytest.mark.parametrize("how", MOVES)
def test_an_output_dir_that_goes_away_ends_the_run_which_says_so(workplaces, corpus, how):
    place = workplaces(corpus, training__max_steps=100_000, training__eval_steps=0)
    process = place.run()
    place.wait_for_step(process, 2)
    MOVES[how](place.output)
    place.finish(process, 1)
    assert "millrace.db was moved, removed or replaced while this run used it" in process.stderr()


@pytest.mark.skipif(os.getuid() != 0, reason="only root may become somebody else")
def test_a_log_of_somebody_else_is_told(workplaces, corpus):
    place = workplaces(corpus)
    place.folder.chmod(0o777)
    (place.output / "logs").mkdir(parents=True)
    (place.output / "logs" / "coordinator.log").touch()
    process = place.run(user=61234, group=61234, extra_groups=[])
    place.finish(process, 1)
    assert f"cannot write {place.output}/logs/coordinator.log: Permission denied" in process.stderr()


def test_the_root_folder_is_no_output_dir(place):
    for name in "/", "//", "/tmp/..":
        process = place.run("--set", f"output_dir={name}")
        place.finish(process, 2)
        assert "into the root folder" in process.stderr()


@pytest.fixture
def small_disk(workplaces, corpus, request):
    """A workplace whose output_dir is on a disk of its own, of 1 MiB or as the test says."""
    place = workplaces(corpus, training__max_steps=4)
    place.output.mkdir()
    size = f"size={getattr(request, 'param', '1m')}"
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", place.output], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip(f"a disk cannot be mounted here: {mounted.stderr.decode()}")
    yield place
    place.close()
    subprocess.run(["umount", "-l", place.output], check=True)


@pytest.mark.parametrize("small_disk", ["16k", "48k", "60k"], indirect=True)
def test_a_disk_that_is_too_small_to_begin_on_is_told_with_what_to_do(small_disk):
    process = small_disk.run()
    wait_until(lambda: "make room" in process.stderr() or not process.running(), 60, "it ends, or says that it waits")
    assert "make room" in process.stderr(), process.stderr()


def test_a_full_disk_is_told_also_with_json_and_its_end_has_a_reason(small_disk):
    """The log is on that disk, too: what is said comes another way."""
    process = small_disk.run()
    wait_until(lambda: "waiting   " in process.stderr() or not process.running(), 60, "it says that it waits")
    assert process.running() and "MiB are free there" in process.stderr(), process.stderr()
    stages = [stage for stage in small_disk.status()["stages"] if stage["state"] == "running"]
    assert stages and not any(stage["rate"] or stage["eta_seconds"] for stage in stages)
    (small_disk.output / "fill").write_bytes(b"")
    with open(small_disk.output / "fill", "wb", buffering=0) as fill:
        while True:
            try:
                fill.write(b"x" * 512)
            except OSError:
                break
    send(signal.SIGTERM, process.pid)
    process.wait()
    assert "without a reason" not in process.stderr() and "millrace: " in process.stderr()
    after = small_disk.status()
    assert after["state"] == "stopped" and "No space left on device" in after["reason"], after
    assert [path.name for path in (small_disk.output / "state").glob("status.json*")] == ["status.json"]


def test_a_checkpoint_for_which_the_disk_has_no_room_tells_how_much_is_free_and_the_stop_says_why_it_is_not_saved(workplaces, corpus):
    """What is in the checkpoints' way is a disk of its own, which is full once the dataset is made."""
    place = workplaces(corpus, training__save_steps=2)
    place.output.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", place.output], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip(f"a disk cannot be mounted here: {mounted.stderr.decode()}")
    try:
        place.go("--stop-after", "dataset")
        with open(place.output / "fill", "wb", buffering=0) as fill:
            room = os.statvfs(place.output)
            fill.write(b"x" * max(room.f_bavail * room.f_frsize - (1 << 20), 0))  # less than a checkpoint has
        process = place.start("run", place.file, "--grace", 2)
        told = r"waiting   .*No space left on device; [01] MiB are free there: make room, it is tried again every 5 s"
        wait_until(lambda: re.search(told, process.stderr()) or not process.running(), 60, "it says what it waits for")
        assert re.search(told, process.stderr()), process.stderr()
        send(signal.SIGINT, process.pid)
        process.wait()
        assert re.search(r"stopped at step \d+, which is not saved: .*No space left on device; ", process.stderr()), process.stderr()
        after = place.status()
        assert after["state"] == "stopped" and "No space left on device" in after["reason"], after
    finally:
        place.close()
        subprocess.run(["umount", "-l", place.output], check=True)


def threads_of(user):
    """How many threads of this user there are."""
    count = 0
    for process in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            count += len(os.listdir(process / "task")) if process.stat().st_uid == user else 0
    return count


@pytest.mark.skipif(os.getuid() != 0, reason="only root may become somebody else, whose processes are counted")
@pytest.mark.parametrize("what", ["start a process: ", "threads that are needed could be started"])
@pytest.mark.parametrize("daemon", ["worker", "coordinator"])
def test_a_shortage_that_passes_while_a_daemon_is_started_again_ends_no_run(place, reference, daemon, what):
    """`run` can start no process, or the new one no threads; nor can `run` start any for its look at the status."""
    number = 100_000 + os.getpid()  # nobody else's: the limit counts what all tests that run now do as that user
    user = {"user": number, "group": number, "extra_groups": []}
    place.folder.chmod(0o777)
    process = place.start("run", place.file, **user)
    place.wait_for_step(process, 2)

    def limit(threads):
        subprocess.run(["prlimit", f"--pid={process.pid}", f"--nproc={threads}:"], check=True, **user)

    killed = process.children(daemon)[0]
    send(signal.SIGSTOP, process.pid)
    send(signal.SIGKILL, killed)
    wait_until(lambda: not alive(killed), what="it is dead")
    limit(1 if "process" in what else threads_of(user["user"]) + 1)
    send(signal.SIGCONT, process.pid)
    wait_until(lambda: process.stderr().count(what) > 1 or not process.running(), what="it was tried twice")
    assert process.running(), process.stderr()
    limit(1000)
    assert process.wait() == 0, process.stderr()
    assert process.stderr().count(what) > 1
    assert digests(place.status()["result"]) == reference.digests


def test_a_run_that_ends_for_a_worker_gives_its_coordinator_the_grace_to_save(workplaces, corpus, reference):
    place = workplaces(corpus, training__save_steps=0)
    process = place.run()
    place.wait_for_step(process, 2)
    coordinator, (stays, *crashed) = process.children("coordinator"), process.children("worker")
    send(signal.SIGSTOP, *coordinator)  # so it takes long to save
    time.sleep(1)  # the first crash is not one at the very start, whatever the machine
    for _ in range(3):
        send(signal.SIGABRT, crashed[-1])
        crashed += wait_until(lambda: [pid for pid in process.children("worker") if pid not in [stays, *crashed]], what="it is there again")
    send(signal.SIGABRT, crashed[-1])
    time.sleep(7)
    send(signal.SIGCONT, *coordinator)
    place.finish(process, 1)
    assert "worker 2 crashed 3 times as soon as it was started" in process.stderr()
    assert (place.output / f"checkpoint-{max(place.steps())}").exists(), place.events()
    assert digests(place.go()) == reference.digests
