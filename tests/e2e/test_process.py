"""What a process inherits: signals ignored or blocked, closed descriptors, limits. Each is borne, or refused at once with one error that
names it."""

import os
import resource
import signal

import pytest

from cluster import digests, send, wait_until


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


def test_closed_descriptors_are_nobodys(place, reference):
    """Else the first files that are opened get the numbers 0 to 2, and a log is written into one of them, or lost."""
    process = place.run("--stop-after", "dataset", preexec_fn=inherits(closed=[0, 2]))
    assert place.finish(process)["dataset_digest"] == reference.digests[0]
    for name in "coordinator", "worker-1":
        assert (place.output / "logs" / f"{name}.log").stat().st_size > 0


LIMITS = [
    ("ulimit -n", resource.RLIMIT_NOFILE, 16),
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


@pytest.mark.skipif(os.getuid() != 0, reason="only root may become somebody else, whose processes are counted")
def test_a_user_who_may_have_few_threads_is_told(workplaces, corpus):
    place = workplaces(corpus)
    place.folder.chmod(0o777)
    process = place.run(user=61234, group=61234, extra_groups=[], preexec_fn=inherits(limits=[(resource.RLIMIT_NPROC, 8)]))
    place.finish(process, 2)
    assert "ulimit -u" in process.stderr() and process.stderr().count("\n") == 1
