"""What is printed where."""

from __future__ import annotations

import pytest

from agent.config import Config, View
from agent.errors import UsageError
from agent.output import view_options


@pytest.mark.parametrize("output", ["csv", "tsv"])
def test_an_unknown_field_names_the_nearest(output: str) -> None:
    config = Config(view=View(output=output, columns=("comm", "remote_adr")))
    with pytest.raises(UsageError, match=r"no column 'remote_adr'; did you mean remote_addr\?"):
        view_options(config, output, {})


@pytest.mark.parametrize("output", ["table", "wide"])
def test_a_table_has_columns_that_are_no_fields(output: str) -> None:
    config = Config(view=View(output=output, columns=("comm", "local")))
    assert view_options(config, output, {}).columns == ("comm", "local")


def test_a_column_of_tables_is_no_field() -> None:
    config = Config(view=View(output="csv", columns=("local",)))
    with pytest.raises(UsageError, match="no column 'local'"):
        view_options(config, "csv", {})
