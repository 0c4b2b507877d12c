"""An edge for each test: the real Kamailio on addresses of its own."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tandem.render import render
from tests.edge.needs import missing
from tests.edge.play import Failed, play
from tests.edge.scenario import Scenario, ScenarioError, load
from tests.edge.world import KAMAILIO, Change, Edge, MakeEdge, free_network, load_site


class _Maker:
    """Starts edges, and at the end stops them and looks for errors in their logs."""

    def __init__(self, folder: Path) -> None:
        if not shutil.which(KAMAILIO[0]):
            missing("kamailio is not installed")
        self._folder = folder
        self._made: list[Edge] = []

    def make(self, change: Change | None = None, *options: str, start: bool = True) -> Edge:
        net = free_network()
        folder = self._folder / f"edge-{len(self._made)}"
        edge = Edge(load_site(net, folder, change), folder, net)
        self._made.append(edge)
        render(edge.settings, folder / "site")
        assert edge.workers and edge.carrier and edge.second_carrier and edge.pbx
        if start:
            edge.start(*options)
        return edge

    def close(self) -> None:
        for edge in self._made:
            edge.close()
        for edge in self._made:
            unexpected = edge.unexpected_errors()
            assert not unexpected, "Kamailio logged errors:\n" + "\n".join(unexpected)


@pytest.fixture
def make_edge(tmp_path: Path) -> Iterator[MakeEdge]:
    """Starts an edge: ``make_edge(change)`` with tandem.yaml as ``change`` leaves it. Workers, carriers and PBX listen."""
    maker = _Maker(tmp_path)
    yield maker.make
    maker.close()


@pytest.fixture
def edge(make_edge: MakeEdge) -> Edge:
    """An edge of the test's own."""
    return make_edge()


@pytest.fixture(scope="module")
def shared_maker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MakeEdge]:
    """Starts edges for a module's tables, whose rows neither change their state nor look at calls other than their own."""
    maker = _Maker(tmp_path_factory.mktemp("shared"))
    yield maker.make
    maker.close()


@pytest.fixture(scope="module")
def shared_edge(shared_maker: MakeEdge) -> Edge:
    """One edge for a module's tables."""
    return shared_maker()


class ScenarioFile(pytest.File):
    """scenario.yaml, a test file with one test: so that test processes share out scenarios one by one."""

    def collect(self) -> Iterator[pytest.Item]:
        yield ScenarioItem.from_parent(self, name=self.path.parent.name, scenario=load(self.path))


class ScenarioItem(pytest.Item):
    """A scenario, played against an edge of its own."""

    def __init__(self, *, scenario: Scenario, **options: Any) -> None:
        super().__init__(**options)
        self.scenario = scenario

    def runtest(self) -> None:
        if not shutil.which(KAMAILIO[0]):
            missing("kamailio is not installed")
        with tempfile.TemporaryDirectory(prefix="edge-") as folder:
            play(self.scenario, Path(folder))

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        if isinstance(excinfo.value, Failed | ScenarioError):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, None, str]:
        return self.path, None, f"{self.scenario.name}: {self.scenario.document.rule}"


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> ScenarioFile | None:
    if file_path.name == "scenario.yaml":
        return ScenarioFile.from_parent(parent, path=file_path)
    return None
