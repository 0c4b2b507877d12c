"""The journal: nothing is lost, nothing is told twice, nothing grows for ever."""

from pathlib import Path

import pytest

from tandem.notify import journal as journals
from tandem.notify.journal import Journal
from tandem.notify.notice import Notice
from tests.notify.test_channels import notice


class Clock:
    now = 1_769_860_800.0

    def __call__(self) -> float:
        return self.now


def test_what_failed_is_due_again_later(tmp_path: Path):
    clock = Clock()
    journal = Journal(tmp_path, Notice.model_validate_json, clock)
    assert journal.add(notice(), "placed 1", ["desk"])
    first = journal.next("desk")
    assert first is not None
    assert first.notice == notice()
    journal.later(first, 10, "refused")
    assert journal.next("desk") is None
    clock.now += 11
    again = journal.next("desk")
    assert again is not None
    assert again.attempts == 1
    journal.told(again)
    assert journal.next("desk") is None
    assert journal.waiting() == {}


def test_another_journal_goes_on_where_the_last_one_ended(tmp_path: Path):
    first = Journal(tmp_path, Notice.model_validate_json)
    first.add(notice(), "placed 1", ["desk", "guard"])
    delivery = first.next("desk")
    assert delivery is not None
    first.told(delivery)
    first.close()
    second = Journal(tmp_path, Notice.model_validate_json)
    assert second.waiting() == {"guard": 1}
    assert not second.add(notice(), "placed 1", ["desk"])


def test_emergency_goes_before_tests(tmp_path: Path):
    journal = Journal(tmp_path, Notice.model_validate_json)
    journal.add(notice(id="a", test=True), "placed a", ["desk"])
    journal.add(notice(id="b"), "placed b", ["desk"])
    delivery = journal.next("desk")
    assert delivery is not None
    assert delivery.notice.id == "b"


def test_told_is_forgotten_after_its_days_and_untold_is_not(tmp_path: Path):
    clock = Clock()
    journal = Journal(tmp_path, Notice.model_validate_json, clock)
    journal.add(notice(id="a"), "placed a", [])
    journal.add(notice(id="b"), "placed b", ["desk"])
    clock.now = notice().time.timestamp() + 2 * 86400
    assert journal.tidy(1) == 0
    assert journal.add(notice(id="a"), "placed a", [])
    assert not journal.add(notice(id="b"), "placed b", [])


def test_oldest_make_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(journals, "MAX_NOTICES", 2)
    journal = Journal(tmp_path, Notice.model_validate_json)
    for number in range(5):
        journal.add(notice(id=str(number), time=1_769_860_800 + number), str(number), ["desk"])
    assert journal.tidy(30) == 3
    assert journal.waiting() == {"desk": 2}


def test_without_a_disk_it_goes_on_in_memory(tmp_path: Path):
    (tmp_path / "file").touch()
    journal = Journal(tmp_path / "file", Notice.model_validate_json)
    assert journal.failure is not None
    assert journal.add(notice(), "placed 1", ["desk"])
    assert journal.next("desk") is not None
