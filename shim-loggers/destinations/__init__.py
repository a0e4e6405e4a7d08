"""A module `to_<driver>` for each log driver, and what only these need."""
