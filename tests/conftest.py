"""The test harness: every cmocka test of tests/unit is a pytest item of its own beside the Python tests, each item has a time limit, and
the last line is "N passed, N failed, N skipped".

From the environment: MILLRACE_BUILD, the build folder (default build); MILLRACE_TEST_PATIENCE, a factor for the time limits (sanitizers are
slow); MILLRACE_TEST_WRAPPER, a command that unit tests are started with; MILLRACE_TEST_LANES, how many files are tested at once (lanes.py).
"""
import os
import pathlib
import re
import shlex
import signal
import subprocess

import pytest
from lanes import pytest_runtestloop  # noqa: F401 (a hook)

ROOT = pathlib.Path(__file__).resolve().parent.parent
BUILD = pathlib.Path(os.environ.get("MILLRACE_BUILD") or ROOT / "build").resolve()
PATIENCE = float(os.environ.get("MILLRACE_TEST_PATIENCE") or 1)
WRAPPER = shlex.split(os.environ.get("MILLRACE_TEST_WRAPPER") or "")
SECONDS_MAX = 600
# A shell starts what it puts into the background with SIGINT ignored, nohup(1) with SIGHUP, which is inherited; tests send both.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

OUTPUT_SHOWN = 4000  # characters of a failed unit test's output


# ---- Unit tests ----------------------------------------------------------------------------------------------------------------

def run_whole(command, seconds, **options):
    """Runs a command in a process group of its own, standard error into standard output. Returns its exit code, None past the time
    limit, and its output. Whatever it started is gone afterwards."""
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
                               **options)
    try:
        output, code = process.communicate(timeout=seconds)[0], process.returncode
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, code = process.communicate()[0], None
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    return code, output.decode("utf-8", "replace")


def names_in(source):
    """The tests that a C file registers with cmocka, in order."""
    source = re.sub(r"/\*.*?\*/|//[^\n]*", "", source, flags=re.S)
    return re.findall(r"\bcmocka_unit_test(?:_setup_teardown|_setup|_teardown|_prestate(?:_setup_teardown)?)?\s*\(\s*(\w+)", source)


def describe_exit(code, seconds):
    if code is None:
        return f"was stopped after {seconds:g} s"
    if code < 0:
        return f"was killed by {signal.Signals(-code).name}"
    return f"ended with exit code {code}"


def results_of(output, names, code, seconds):
    """What cmocka printed, as one (result, text) for each of names: passed, failed or skipped. A test that was running when the process
    ended has failed, and so has one that never ran."""
    results = {}
    running, begin = None, 0
    for mark in re.finditer(r"\[ +(RUN|OK|FAILED|ERROR|SKIPPED) +\] (\w+)$", output, flags=re.M):
        word, name = mark.groups()
        if word == "RUN":
            running, begin = name, mark.end()
        elif name == running:
            result = {"OK": "passed", "SKIPPED": "skipped"}.get(word, "failed")
            results[name] = (result, output[begin:mark.start()].strip())
            running = None
    ending = describe_exit(code, seconds)
    if running:
        results[running] = ("failed", f"the test program {ending} in this test\n" + output[begin:].strip())
    why = f"did not run: the test program {ending}" + (f" in {running}" if running else "")
    if not results:
        why += f"\n{output[-OUTPUT_SHOWN:].strip()}"
    for name in names:
        results.setdefault(name, ("failed", why))
    unexplained = code != 0 and not any(result == "failed" for result, _ in results.values())
    unlisted = [name for name in results if name not in names]
    if unexplained or any(results[name][0] == "failed" for name in unlisted):
        last = names[-1]
        results[last] = ("failed", f"the test program {ending}, though no test of its file says why\n{output[-OUTPUT_SHOWN:]}")
    return results


class UnitFile(pytest.File):
    def collect(self):
        source = self.path.relative_to(ROOT / "tests" / "unit")
        self.program = BUILD / "tests" / source.with_suffix("")
        self.names = names_in(self.path.read_text())
        self.results = None
        if not self.names:
            raise self.CollectError(f"{source} registers no test with cmocka_unit_test()")
        twice = sorted({name for name in self.names if self.names.count(name) > 1})
        if twice:
            raise self.CollectError(f"{source} registers {', '.join(twice)} twice")
        for name in self.names:
            yield UnitTest.from_parent(self, name=name)

    def result(self, name):
        """Runs the program when the first of its tests is asked for."""
        if self.results is None:
            seconds = SECONDS_MAX * PATIENCE
            if not self.program.exists():
                code, output = 127, f"{self.program} is not there; 'make unit-tests' builds it"
            else:
                environment = {key: value for key, value in os.environ.items() if not key.startswith("CMOCKA_")}
                code, output = run_whole(WRAPPER + [str(self.program)], seconds, cwd=ROOT, env=environment)
            self.results = results_of(output, self.names, code, seconds)
        return self.results[name]


class UnitTest(pytest.Item):
    def runtest(self):
        result, text = self.parent.result(self.name)
        if result == "skipped":
            pytest.skip(text.splitlines()[-1] if text else "no reason was printed")
        if result == "failed":
            raise AssertionError(text)

    def repr_failure(self, excinfo, style=None):
        if isinstance(excinfo.value, AssertionError):
            text = str(excinfo.value)
            return text if len(text) <= OUTPUT_SHOWN else text[:OUTPUT_SHOWN // 2] + "\n[...]\n" + text[-OUTPUT_SHOWN // 2:]
        return super().repr_failure(excinfo)

    def reportinfo(self):
        return self.path, None, self.name


def pytest_collect_file(file_path, parent):
    if file_path.suffix == ".c" and file_path.parent.parent == ROOT / "tests" / "unit":
        return UnitFile.from_parent(parent, path=file_path)
    return None


# ---- Time limits ---------------------------------------------------------------------------------------------------------------

@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_call(item):
    """A test that takes too long fails by itself; unit tests are limited where their program is run."""
    if isinstance(item, UnitTest):
        yield
        return
    marker = item.get_closest_marker("seconds")
    seconds = (marker.args[0] if marker else SECONDS_MAX) * PATIENCE

    def too_long(_signal, _frame):
        pytest.fail(f"took longer than {seconds:g} s")

    before = signal.signal(signal.SIGALRM, too_long)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


# ---- The last line -------------------------------------------------------------------------------------------------------------

def counts_of(stats):
    passed, failed, skipped = (sum(len(stats.get(kind, [])) for kind in kinds)
                               for kinds in (["passed", "xpassed"], ["failed", "error"], ["skipped", "xfailed"]))
    return passed, failed, skipped


def pytest_sessionfinish(session):
    """A session in which nothing was tested has not passed."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    passed, failed, _ = counts_of(reporter.stats)
    if session.exitstatus == 0 and (failed or passed == 0):
        session.exitstatus = 1


def pytest_unconfigure(config):
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter and not config.option.collectonly:
        print("%d passed, %d failed, %d skipped" % counts_of(reporter.stats), flush=True)


# ---- For tests -----------------------------------------------------------------------------------------------------------------

@pytest.fixture(scope="session")
def root():
    """The project's folder."""
    return ROOT


@pytest.fixture(scope="session")
def build():
    """The folder of what was built."""
    return BUILD


@pytest.fixture(scope="session")
def binary():
    """build/millrace; a failure when it is not there."""
    path = BUILD / "millrace"
    assert path.exists(), f"{path} is not there; run 'make'"
    return path
