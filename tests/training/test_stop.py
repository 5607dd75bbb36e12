"""Signals become a wish; insisting still works."""

import os
import signal
import threading
import time
from importlib.machinery import ExtensionFileLoader

import pytest

from jaxrec.training.stop import Interrupted, StopSignal


@pytest.fixture(autouse=True)
def handlers():
    """What was installed before each test, put back after it."""
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.getsignal(number) for number in numbers}
    yield before
    assert {number: signal.getsignal(number) for number in numbers} == before


def send(number):
    signal.raise_signal(number)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_noted_and_the_program_goes_on(number):
    with StopSignal() as stop:
        assert stop.requested is None
        os.kill(os.getpid(), number)
        assert stop.requested == number.name
    assert stop.requested == number.name


def test_the_first_signal_gives_the_name_and_schedulers_may_repeat_themselves():
    with StopSignal() as stop:
        for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGINT):
            send(number)
        assert stop.requested == "SIGTERM"


def test_a_second_interrupt_is_meant(handlers):
    with StopSignal() as stop:
        send(signal.SIGINT)
        assert stop.requested == "SIGINT"
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) == handlers[signal.SIGINT]


def test_contexts_nest():
    with StopSignal() as outer:
        with StopSignal() as inner:
            send(signal.SIGTERM)
        assert (inner.requested, outer.requested) == ("SIGTERM", None)
        send(signal.SIGINT)
        assert outer.requested == "SIGINT"


def test_work_that_may_be_dropped_is_cut_once_and_cleans_up_in_peace():
    cleaned = []

    def work(stop):
        with stop.raising():
            try:
                send(signal.SIGTERM)
            finally:
                send(signal.SIGTERM)
                cleaned.append(True)

    with StopSignal() as stop:
        for _ in range(2):  # what came before is heard before the work begins
            with pytest.raises(Interrupted, match="SIGTERM"):
                work(stop)
    assert cleaned == [True]


class Compiled(ExtensionFileLoader):
    """A module whose loading calls back into Python, as jaxlib's do: an exception there is a segmentation fault."""

    def create_module(self, spec):
        send(signal.SIGTERM)
        time.sleep(0.1)
        spec.append("loaded")


def test_a_compiled_module_is_loaded_to_its_end():
    seen = []

    def work(stop):
        with stop.raising():
            Compiled("name", "path").create_module(seen)
            time.sleep(5)
            seen.append("slept on")

    with StopSignal() as stop, pytest.raises(Interrupted, match="SIGTERM"):
        work(stop)
    assert seen == ["loaded"]


def test_a_signal_put_off_is_not_lost_when_the_work_ends_before_it_comes_again(handlers):
    with StopSignal() as stop, pytest.raises(Interrupted, match="SIGTERM"), stop.raising():
        Compiled("name", "path").create_module([])
    time.sleep(0.1)  # nothing comes after the end


def test_an_error_of_what_was_cut_off_is_the_signal_and_one_that_was_not_is_itself():
    def work(stop, *numbers):
        with stop.raising():
            try:
                for number in numbers:
                    send(number)
            finally:
                raise TypeError("expected a message argument") from None

    with StopSignal() as stop:
        with pytest.raises(TypeError):
            work(stop)
        with pytest.raises(Interrupted, match="SIGTERM"):
            work(stop, signal.SIGTERM)


def test_a_worker_thread_is_left_alone(handlers):
    seen = []

    def work():
        with StopSignal() as stop:
            seen.append((stop.requested, signal.getsignal(signal.SIGTERM)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(None, handlers[signal.SIGTERM])]
