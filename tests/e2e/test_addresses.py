"""Where workers are reached: the addresses that they announce to the others when their coordinator is not at a loopback address."""

import re
import socket

import pytest

from cluster import digests, refused
from runs import free_port

OPEN = ("--set", "cluster.insecure=true")


def own_address():
    """One of this machine that others could use; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("198.51.100.1", 9))
        except OSError:
            return None
        return probe.getsockname()[0]


@pytest.fixture
def address():
    found = own_address()
    if not found or found.startswith("127."):
        pytest.skip("this machine has no address but the loopback's")
    return found


def run_with(place, address, *options):
    port = free_port()
    coordinator = place.start("coordinator", place.file, "--bind", f"tcp://{address}:{port}", *OPEN)
    join = ("worker", "--connect", f"tcp://{address}:{port}", "--insecure")
    workers = [place.start(*join, *options) for _ in range(2)]
    assert coordinator.wait() == 0, coordinator.stderr()
    for worker in workers:
        assert worker.wait(10) == 0, worker.stderr()
    told = [re.search(r"worker \S+ at (\S+), coordinator", worker.stderr()).group(1) for worker in workers]
    return told, digests(place.go(*OPEN))


def test_a_worker_announces_the_interface_that_leads_to_its_coordinator(place, reference, address):
    told, made = run_with(place, address)
    assert all(endpoint.startswith(f"tcp://{address}:") for endpoint in told), told
    assert made == reference.digests


def test_of_several_addresses_one_that_answers_is_enough(place, reference, address):
    told, made = run_with(place, address, "--advertise", f"198.51.100.1:9,{address},localhost")
    for endpoint in told:
        first, second, third = endpoint.split(",")
        assert first == "tcp://198.51.100.1:9"
        assert second.rsplit(":", 1)[0] == f"tcp://{address}" and third.rsplit(":", 1)[0] == "tcp://localhost"
        assert second.rsplit(":", 1)[1] == third.rsplit(":", 1)[1]
    assert made == reference.digests


def test_addresses_at_which_nobody_can_be_reached_are_refused(address):
    elsewhere = ("worker", "--connect", f"tcp://{address}:5599", "--insecure")
    refused(*elsewhere, "--bind", "tcp://127.0.0.1:*", code=2, says=["--bind tcp://127.0.0.1:*", "this machine alone", "--advertise"])
    for every in ("tcp://*:*", "tcp://0.0.0.0:*", "tcp://[::]:*"):
        refused(*elsewhere, "--bind", every, code=2, says=[f"--bind {every}", "no address that others can be told", "--advertise"])
    # as a machine's own name where /etc/hosts has it at 127.0.1.1: a name of the loopback
    refused("worker", "--connect", "tcp://127.1:5599", "--insecure", code=2,
            says=["--connect tcp://127.1:5599", "this machine alone", "--advertise"])
    refused(*elsewhere, "--advertise", "", code=2, says=["--advertise", "ADDRESS"])
    refused(*elsewhere, "--advertise", "a,,b", code=2, says=["--advertise", "a,,b"])
    refused(*elsewhere, "--advertise", "a,b,c,d,e", code=2, says=["--advertise", "more than 4"])
    refused(*elsewhere, "--advertise", "host:99999", code=2, says=["--advertise", "host:99999"])
    refused("worker", "--connect", "tcp://no-such-host.invalid:5599", "--insecure", code=1, says=["no-such-host.invalid"])
