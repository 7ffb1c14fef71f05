"""Sessions, runs, turns and the looks that stay in memory."""

from __future__ import annotations

import copy
import threading
from pathlib import Path

import pytest

from app.state import Run, Session, Source, Turns
from explorer.clip import VideoInfo
from explorer.errors import Cancelled


def source() -> Source:
    return Source(Path("a.mp4"), "a", VideoInfo(17, 24.0, 0.7, (144, 256)), shipped=True)


def test_each_page_gets_a_session_of_its_own_with_the_same_clip() -> None:
    first = Session(source())
    first.look_id = "private"
    second = copy.deepcopy(first)
    assert second is not first
    assert second.source == first.source
    assert second.look_id is None


def test_stopping_one_session_leaves_the_run_of_another_alone() -> None:
    ada, bob = Session(), Session()
    hers, his = ada.begin(), bob.begin()
    assert bob.stop()
    assert his.stop.is_set()
    assert not hers.stop.is_set()


def test_a_new_run_of_a_session_stops_and_silences_the_one_before() -> None:
    session = Session()
    before = session.begin()
    after = session.begin()
    assert before.stop.is_set()
    assert before.superseded
    assert not after.superseded
    session.end(before)
    assert session.stop()  # the late end of the first run did not forget the second
    assert after.stop.is_set()


def test_stop_without_a_run_says_so() -> None:
    session = Session()
    assert not session.stop()
    session.end(session.begin())
    assert not session.stop()


def test_a_free_place_is_taken_at_once_and_the_next_one_waits_for_it() -> None:
    turns = Turns(at_once=1)
    first, second = Run(), Run()
    assert list(turns.enter(first)) == []
    waiting = turns.enter(second)
    assert next(waiting) == 0
    turns.leave()
    assert list(waiting) == []


def test_waiting_runs_enter_in_the_order_in_which_they_came() -> None:
    turns = Turns(at_once=1)
    holder, first, second = Run(), Run(), Run()
    assert list(turns.enter(holder)) == []
    a, b = turns.enter(first), turns.enter(second)
    assert (next(a), next(b)) == (0, 1)
    turns.leave()
    assert next(b) == 1  # the place is free, but it is not the second one's turn
    assert list(a) == []
    turns.leave()
    assert list(b) == []


def test_a_run_that_is_stopped_while_it_waits_leaves_the_queue() -> None:
    turns = Turns(at_once=1)
    holder, stopped, after = Run(), Run(), Run()
    assert list(turns.enter(holder)) == []
    waiting, next_one = turns.enter(stopped), turns.enter(after)
    next(waiting)
    next(next_one)
    stopped.stop.set()
    with pytest.raises(Cancelled):
        next(waiting)
    turns.leave()
    assert list(next_one) == []


def test_a_closed_page_leaves_the_queue() -> None:
    turns = Turns(at_once=1)
    holder, gone, after = Run(), Run(), Run()
    assert list(turns.enter(holder)) == []
    waiting = turns.enter(gone)
    next(waiting)
    waiting.close()
    turns.leave()
    assert list(turns.enter(after)) == []


def test_many_threads_never_compute_more_at_once_than_allowed() -> None:
    turns = Turns(at_once=2)
    inside, most, lock = 0, 0, threading.Lock()

    def work() -> None:
        nonlocal inside, most
        for _ in turns.enter(Run()):
            pass
        with lock:
            inside += 1
            most = max(most, inside)
        with lock:
            inside -= 1
        turns.leave()

    threads = [threading.Thread(target=work) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert inside == 0
    assert 1 <= most <= 2
