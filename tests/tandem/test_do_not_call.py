"""The do-not-call list: for everybody or for one tenant, kept in the records' database."""

import pytest
from typer.testing import CliRunner

from tandem import database
from tandem.cli import app
from tandem.do_not_call import DoNotCall, DoNotCallError
from tests.tandem.site_files import write_site

NUMBER = "+12025550147"


@pytest.fixture
def do_not_call(database_url):
    database.upgrade(database.connect(database_url))
    with DoNotCall(database_url) as listed:
        yield listed


def test_a_number_is_listed_until_it_is_removed(do_not_call):
    assert do_not_call.find(NUMBER, "default") is None
    do_not_call.add(NUMBER, reason="asked")
    do_not_call.add(NUMBER, reason="asked again")
    assert [entry.reason for entry in do_not_call.listed()] == ["asked again"]
    assert do_not_call.find(NUMBER, "any").reason == "asked again"
    assert do_not_call.remove(NUMBER)
    assert not do_not_call.remove(NUMBER)
    assert do_not_call.find(NUMBER, "default") is None


def test_one_tenants_entry_is_no_other_tenants(do_not_call):
    do_not_call.add(NUMBER, tenant="acme")
    assert do_not_call.find(NUMBER, "default") is None
    assert do_not_call.find(NUMBER, "acme").tenant == "acme"


def test_a_database_that_is_not_there_is_an_error_and_not_an_empty_list(tmp_path):
    with DoNotCall(f"sqlite:///{tmp_path}/none/such.db") as listed:
        with pytest.raises(DoNotCallError, match="unable to open"):
            listed.find(NUMBER, "default")


def test_the_command_takes_numbers_as_people_write_them(tmp_path):
    config = str(write_site(tmp_path, {"records/url": "sqlite:///tandem.db"}))

    def tandem(*words: str):
        return CliRunner().invoke(app, ["do-not-call", *words, "--config", config])

    assert tandem("add", "(202) 555-0147", "--reason", "in May").stdout == f"{NUMBER}: not called any more\n"
    assert tandem("list").stdout == f"{NUMBER}  everybody  in May\n"
    assert tandem("remove", "1 202 555 0147").exit_code == 0
    assert tandem("remove", NUMBER).exit_code == 1
    assert "no number that could be called" in tandem("add", "911").stderr
