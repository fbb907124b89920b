"""Lanes: the tests of several files at once. A lane is a process that takes the next file when it has done one and tells every result to
the session, which alone counts and prints. Files are never divided, and lanes share nothing: what a session makes once, each lane makes
once. Half of the time of a whole run under test is waiting, for a lease to end or a worker to come back: another lane computes meanwhile.

The order of files is that of the command line: what takes long comes first, so that no lane is alone with it at the end.
"""
import itertools
import multiprocessing
import multiprocessing.connection
import os
import signal
import traceback

import pytest

LANES_MAX = 4  # each makes a corpus and a reference run for itself
STOP_SECONDS = 30  # what a lane has to tear down when the session is interrupted


def lanes_wanted(config, files):
    """1 where a person looks on, or wants to stop at the first failure."""
    if config.option.usepdb or config.option.maxfail or config.option.capture == "no":
        return 1
    wanted = int(os.environ.get("MILLRACE_TEST_LANES") or min(len(os.sched_getaffinity(0)), LANES_MAX))
    return min(wanted, files)


# ---- A lane --------------------------------------------------------------------------------------------------------------------

class Sender:
    def __init__(self, config, pipe):
        self.config, self.pipe = config, pipe

    def pytest_runtest_logreport(self, report):
        self.pipe.send(("report", self.config.hook.pytest_report_to_serializable(config=self.config, report=report)))


def taken(files, pipe):
    """The files of this lane, one after the other."""
    while True:
        pipe.send(("idle", None))
        number = pipe.recv()
        if number is None:
            return
        yield files[number]


def interrupt(_number, _frame):
    raise KeyboardInterrupt


def become_lane(session, pipe):
    signal.signal(signal.SIGINT, lambda *_: None)  # the session decides; not SIG_IGN, which programs would inherit
    signal.signal(signal.SIGTERM, interrupt)
    plugins = session.config.pluginmanager
    plugins.unregister(name="terminalreporter")
    plugins.register(Sender(session.config, pipe))
    capture = plugins.getplugin("capturemanager")  # its files are those of the session
    capture.stop_global_capturing()
    capture.start_global_capturing()
    capture.suspend_global_capture()


def run_lane(session, files, pipe):
    """Never returns."""
    code = 1
    try:
        become_lane(session, pipe)
        try:
            for items in taken(files, pipe):
                for item, following in zip(items, items[1:] + [session]):  # what is made once for a session stays
                    session.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        finally:
            session._setupstate.teardown_exact(None)
        code = 0
    except BaseException:
        pipe.send(("ending", traceback.format_exc()))
    finally:
        os._exit(code)


class Lane:
    def __init__(self, session, files):
        self.pipe, theirs = multiprocessing.Pipe()
        self.pid = os.fork()
        if self.pid == 0:
            self.pipe.close()
            run_lane(session, files, theirs)
        theirs.close()

    def join(self):
        """Waits for its end; what was bad about it, or nothing."""
        code, self.pid = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1]), 0
        return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}" if code else ""

    def stop(self):
        if self.pid:
            os.kill(self.pid, signal.SIGTERM)
            signal.signal(signal.SIGALRM, lambda *_: os.kill(self.pid, signal.SIGKILL))
            signal.alarm(STOP_SECONDS)
            self.join()
            signal.alarm(0)


# ---- The session ---------------------------------------------------------------------------------------------------------------

def listen(config, lanes, files):
    """Hands out the files and passes the reports on, until every lane has ended. Returns the items that failed without telling: those that
    were not done, or else the last one, when a lane ended badly; and why."""
    left = {item.nodeid: item for items in files for item in items}
    done, endings = [], []
    numbers = iter(range(len(files)))
    lanes = {lane.pipe: lane for lane in lanes}
    while lanes:
        for pipe in multiprocessing.connection.wait(list(lanes)):
            try:
                kind, content = pipe.recv()
                if kind == "idle":
                    pipe.send(next(numbers, None))
            except (EOFError, OSError):
                kind, content = "ending", lanes.pop(pipe).join()
            if kind == "report":
                report = config.hook.pytest_report_from_serializable(config=config, data=content)
                config.hook.pytest_runtest_logreport(report=report)
                if report.when == "teardown":
                    done.append(left.pop(report.nodeid))
                    config.hook.pytest_runtest_logfinish(nodeid=report.nodeid, location=report.location)
            elif kind == "ending" and content:
                endings.append(content)
    return list(left.values()) or done[-1:] * bool(endings), "\n".join(endings)


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session):
    config = session.config
    files = [list(items) for _, items in itertools.groupby(session.items, key=lambda item: item.path)]
    count = lanes_wanted(config, len(files))
    if count < 2 or session.testsfailed or config.option.collectonly:
        return None  # pytest's own loop
    config._tmp_path_factory.getbasetemp()  # one folder, which the session's process may remove
    config.pluginmanager.getplugin("terminalreporter").showfspath = False  # results of several files come mixed
    lanes = []
    try:
        for _ in range(count):
            lanes.append(Lane(session, files))
        failed, why = listen(config, lanes, files)
    except BaseException:
        for lane in lanes:
            lane.stop()
        raise
    for item in failed:
        report = pytest.TestReport(item.nodeid, item.location, {}, "failed", f"a lane did not end well:\n{why}", "call")
        config.hook.pytest_runtest_logreport(report=report)
    return True
