"""The result of a serving run: figures as a dictionary, as tables, as data frames and as files."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moesim.study.report.serving import charts, files, page, summary, tables
from moesim.study.serving.findings import ServingFindings
from moesim.study.serving.traces.export import export

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingResult(ServingFindings):
    """What a serving scenario came to: figures, tables, pictures and files."""

    def summary(self) -> dict[str, Any]:
        """Return every figure of the run; names end in their unit, values are in base units."""
        return summary.summary(self)

    def tables(self) -> dict[str, list[dict[str, Any]]]:
        """Return the tables by name, each a list of rows."""
        return tables.tables(self)

    @property
    def frames(self) -> "Mapping[str, pd.DataFrame]":
        """The tables and the requests as pandas data frames."""
        import pandas as pd

        found = {name: pd.DataFrame(rows) for name, rows in self.tables().items()}
        return {**found, "requests": pd.DataFrame(tables.requests(self.model.outcome))}

    @property
    def figures(self) -> "Mapping[str, go.Figure]":
        """The pictures of the report as plotly figures."""
        import plotly.graph_objects as go

        return {name: go.Figure(chart) for name, chart in charts.charts(self).items()}

    def html(self) -> str:
        """Return the report: one page that needs no network."""
        return page.html(self)

    def save(self, directory: str | Path) -> Path:
        """Write all files of the result to `directory`; return it.

        The directory appears whole or not at all; an earlier result there is replaced, anything
        else is left alone. Raises ScenarioError where it cannot be written.
        """
        return files.save(self, Path(directory))

    def save_trace(self, file: str | Path) -> Path:
        """Write the requests of the model's run to `file` as a trace; return it.

        With `serving.workload: {trace: FILE}`, and the same warm_up, they give the same run again:
        also those of closed loops and conversations, which come as they came in this run. Raises
        ScenarioError where it cannot be written.
        """
        return export(self.model.outcome, Path(file))
