"""Jobs: asked for once, leased, given up, closed only by who holds them."""

from datetime import timedelta

from holdfast.core.protocols import Transaction
from holdfast.core.records import Job
from holdfast.flow import jobs
from holdfast.testing import START

LATER = START + jobs.LEASE
MINUTE = timedelta(minutes=1)


def submitted(tx: Transaction) -> Job:
    return jobs.submit(tx, "orders", "train", {"cause": "test"}, START)


def test_asking_twice_while_one_is_open_gives_one_job(tx: Transaction) -> None:
    first = submitted(tx)
    assert submitted(tx) == first
    claimed = jobs.claim(tx, "orders", "a", START)
    assert claimed is not None
    assert submitted(tx).id == first.id
    jobs.complete(tx, claimed, {}, START)
    assert submitted(tx).id == "job-2"


def test_another_kind_and_another_system_get_jobs_of_their_own(tx: Transaction) -> None:
    submitted(tx)
    assert jobs.submit(tx, "orders", "score", {}, START).id == "job-2"
    assert jobs.submit(tx, "other", "train", {}, START).id == "job-1"
    assert jobs.claim(tx, "third", "a", START) is None


def test_a_lease_keeps_others_off_until_it_ends(tx: Transaction) -> None:
    submitted(tx)
    mine = jobs.claim(tx, "orders", "a", START)
    assert mine is not None
    assert (mine.state, mine.owner, mine.attempts, mine.lease_until) == ("running", "a", 1, LATER)
    assert jobs.claim(tx, "orders", "b", LATER - MINUTE) is None
    theirs = jobs.claim(tx, "orders", "b", LATER)
    assert theirs is not None
    assert (theirs.owner, theirs.attempts) == ("b", 2)


def test_a_renewed_lease_lasts_longer(tx: Transaction) -> None:
    submitted(tx)
    mine = jobs.claim(tx, "orders", "a", START)
    assert mine is not None
    assert jobs.renew(tx, mine, LATER - MINUTE) is not None
    assert jobs.claim(tx, "orders", "b", LATER) is None


def test_a_lost_lease_is_not_renewed_even_by_an_owner_of_the_same_name(tx: Transaction) -> None:
    submitted(tx)
    first = jobs.claim(tx, "orders", "a", START)
    again = jobs.claim(tx, "orders", "a", LATER)
    assert first is not None
    assert again is not None
    assert jobs.renew(tx, first, LATER) is None
    assert jobs.renew(tx, again, LATER) is not None


def test_a_job_is_given_up_after_its_attempts(tx: Transaction) -> None:
    job = submitted(tx)
    for attempt in range(jobs.ATTEMPTS):
        assert jobs.claim(tx, "orders", "a", START + attempt * jobs.LEASE) is not None
    assert jobs.claim(tx, "orders", "a", START + jobs.ATTEMPTS * jobs.LEASE) is None
    given_up = tx.get(Job, "orders", job.id)
    assert given_up is not None
    assert (given_up.state, given_up.message) == ("failed", "given up after 3 attempts that ended without a result")


def test_a_job_that_is_given_back_is_queued_and_the_attempt_does_not_count(tx: Transaction) -> None:
    submitted(tx)
    mine = jobs.claim(tx, "orders", "a", START)
    assert mine is not None
    jobs.give_back(tx, mine)
    theirs = jobs.claim(tx, "orders", "b", START)
    assert theirs is not None
    assert (theirs.owner, theirs.attempts) == ("b", 1)
    jobs.give_back(tx, mine)
    assert tx.get(Job, "orders", mine.id) == theirs


def test_an_ended_lease_need_not_be_waited_for(tx: Transaction) -> None:
    submitted(tx)
    mine = jobs.claim(tx, "orders", "a", START)
    assert mine is not None
    jobs.expire(tx, mine, START)
    assert jobs.claim(tx, "orders", "b", START) is not None


def test_a_closed_job_keeps_its_result_or_its_message(tx: Transaction) -> None:
    jobs.complete(tx, submitted(tx), {"run": "run-1"}, LATER)
    jobs.fail(tx, submitted(tx), "no rows", LATER)
    done, failed = tx.find(Job, "orders")
    assert (done.state, done.result, done.ended_at) == ("done", {"run": "run-1"}, LATER)
    assert (failed.state, failed.message, failed.lease_until) == ("failed", "no rows", None)
