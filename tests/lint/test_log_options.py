"""What is made of the table of log options is made of it as it is now."""

from docs import log_options

AGAIN = "run python -m docs.log_options"


def test_page_is_what_the_table_gives() -> None:
    page = log_options.PAGE.read_text(encoding="utf-8")

    assert log_options.render_page(page) == page, AGAIN


def test_loggers_know_the_flags_of_the_table() -> None:
    assert log_options.render_flags() == log_options.FLAGS.read_text(encoding="utf-8"), AGAIN
