"""docs/settings.md says what the settings classes say: no setting is missing, no text is old."""

import pytest
from pydantic import BaseModel

from docs import settings_tables


def test_page_is_what_the_settings_give() -> None:
    page = settings_tables.PAGE.read_text(encoding="utf-8")

    assert settings_tables.render_page(page) == page, "run python -m docs.settings_tables"


def test_setting_without_a_text_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Bare(BaseModel):
        knob: int = 1

    monkeypatch.setitem(settings_tables.TABLES, "fargate-agent", Bare)

    with pytest.raises(ValueError, match="setting knob has no docstring"):
        settings_tables.render_page(settings_tables.PAGE.read_text(encoding="utf-8"))
