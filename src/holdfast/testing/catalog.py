"""The rules of a catalog."""

from threading import Thread
from typing import Any

from holdfast.core.protocols import Catalog
from holdfast.core.records import Job, Mark, Run
from holdfast.errors import StateError
from holdfast.security import audit
from holdfast.testing.builders import START, a_job, one_of_each, refused


class CatalogRules:
    """What every catalog promises. Needs a fixture `catalog`, empty."""

    def test_a_record_reads_back_as_it_was_put(self, catalog: Catalog) -> None:
        for record in one_of_each():
            with catalog.begin() as transaction:
                transaction.put(record)
            with catalog.read() as view:
                found = view.get(type(record), record.system, record.id)
            assert repr(found) == repr(record)  # NaN does not equal itself, but looks the same

    def test_what_was_never_put_is_none(self, catalog: Catalog) -> None:
        with catalog.read() as view:
            assert view.get(Job, "flights", "job1") is None
            assert view.find(Job, "flights") == []

    def test_records_are_found_in_the_order_they_were_first_put(self, catalog: Catalog) -> None:
        with catalog.begin() as transaction:
            for id in ("b", "a", "c"):
                transaction.put(a_job(id))
        with catalog.begin() as transaction:
            transaction.put(a_job("b", message="again"))
        with catalog.read() as view:
            assert [job.id for job in view.find(Job, "flights")] == ["b", "a", "c"]
            assert [job.id for job in view.find(Job, "flights", newest=2)] == ["a", "c"]
            assert view.find(Job, "flights", newest=0) == []

    def test_records_are_found_by_state(self, catalog: Catalog) -> None:
        with catalog.begin() as transaction:
            for id, state in (("1", "queued"), ("2", "running"), ("3", "queued"), ("4", "done")):
                transaction.put(a_job(id, state=state))
            transaction.put(a_job("1", state="done"))
        with catalog.read() as view:
            assert [job.id for job in view.find(Job, "flights", state=("queued", "running"))] == ["2", "3"]
            assert [job.id for job in view.find(Job, "flights", state=["done"], newest=1)] == ["4"]
            assert view.find(Job, "flights", state=()) == []

    def test_systems_and_kinds_are_kept_apart(self, catalog: Catalog) -> None:
        with catalog.begin() as transaction:
            transaction.put(a_job("1", "flights"))
            transaction.put(a_job("1", "disks"))
            transaction.put(Mark(system="flights", id="1"))
            transaction.put(a_job("2", "flights"))
        with catalog.read() as view:
            assert [job.id for job in view.find(Job, "disks")] == ["1"]
            assert [(job.system, job.id) for job in view.find(Job)] == [
                ("flights", "1"),
                ("disks", "1"),
                ("flights", "2"),
            ]
            assert [job.id for job in view.find(Job, newest=1)] == ["2"]

    def test_a_transaction_sees_its_own_writes(self, catalog: Catalog) -> None:
        with catalog.begin() as transaction:
            transaction.put(a_job("1"))
            transaction.put(a_job("1", state="running"))
            assert transaction.find(Job, "flights", state=["running"]) == [a_job("1", state="running")]
            assert transaction.find(Job, "flights", state=["queued"]) == []

    def test_a_transaction_that_raises_leaves_nothing(self, catalog: Catalog) -> None:
        with catalog.begin() as transaction:
            transaction.put(a_job("1"))
        try:
            with catalog.begin() as transaction:
                transaction.put(a_job("1", state="done"))
                transaction.put(a_job("2"))
                self._audited(transaction, "never")
                raise KeyError("on purpose")
        except KeyError:
            pass
        with catalog.begin() as transaction:
            assert transaction.find(Job, "flights") == [a_job("1")]
            assert transaction.audit_log() == []
            assert self._audited(transaction, "first").seq == 1

    def test_a_view_does_not_change_and_does_not_wait_for_a_writer(self, catalog: Catalog) -> None:
        with catalog.read() as before:
            with catalog.begin() as transaction:
                transaction.put(a_job("1"))
                with catalog.read() as during:
                    assert during.find(Job, "flights") == []
            assert before.find(Job, "flights") == []
            with catalog.read() as after:
                assert after.find(Job, "flights") == [a_job("1")]

    def test_a_view_cannot_write(self, catalog: Catalog) -> None:
        with catalog.read() as view, refused(StateError, "reading only", "begin()"):
            view.put(a_job("1"))
        with catalog.read() as view, refused(StateError, "reading only"):
            self._audited(view, "never")

    def test_a_transaction_inside_another_of_the_same_thread_is_refused(self, catalog: Catalog) -> None:
        with catalog.begin() as outer:
            outer.put(a_job("1"))
            with refused(StateError, "already open"), catalog.begin():
                pass
        with catalog.begin() as transaction:
            assert transaction.find(Job, "flights") == [a_job("1")]

    def test_transactions_of_threads_follow_one_another(self, catalog: Catalog) -> None:
        def count() -> None:
            for _ in range(10):
                with catalog.begin() as transaction:
                    mark = transaction.get(Mark, "flights", "count")
                    so_far = mark.memory["n"] if mark else 0
                    transaction.put(Mark(system="flights", id="count", memory={"n": so_far + 1}))

        threads = [Thread(target=count) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        with catalog.read() as view:
            assert view.get(Mark, "flights", "count") == Mark(system="flights", id="count", memory={"n": 40})

    def test_ids_count_up_per_system_kind_and_prefix(self, catalog: Catalog) -> None:
        with catalog.begin() as transaction:
            for expected in range(1, 12):
                id = transaction.next_id(Job, "flights", "job")
                assert id == f"job{expected}"
                assert transaction.next_id(Job, "flights", "job") == id  # not used yet
                transaction.put(a_job(id))
            assert transaction.next_id(Job, "flights") == "1"
            assert transaction.next_id(Job, "disks", "job") == "job1"
            assert transaction.next_id(Run, "flights", "job") == "job1"

    def test_audit_entries_are_chained_over_all_systems(self, catalog: Catalog) -> None:
        for subject, system in (("a", "flights"), ("b", "disks"), ("c", "flights")):
            with catalog.begin() as transaction:
                self._audited(transaction, subject, system)
        with catalog.begin() as transaction:
            self._audited(transaction, "d")
            self._audited(transaction, "e")
        with catalog.read() as view:
            log = view.audit_log()
            assert [entry.seq for entry in log] == [1, 2, 3, 4, 5]
            audit.verify(log, remembered=log[2].hash)
            assert [entry.subject for entry in view.audit_log("flights", newest=3)] == ["c", "d", "e"]

    def test_a_closed_catalog_can_be_told_apart_from_an_empty_one(self, catalog: Catalog) -> None:
        catalog.close()
        with refused(StateError, "closed"), catalog.read():
            pass
        with refused(StateError, "closed"), catalog.begin():
            pass

    @staticmethod
    def _audited(transaction: Any, subject: str, system: str = "flights") -> Any:
        detail = {"from": ("1", 2), "share": 0.1, "at": START, "none": None}
        return transaction.audit(at=START, actor="me", action="release", system=system, subject=subject, detail=detail)
