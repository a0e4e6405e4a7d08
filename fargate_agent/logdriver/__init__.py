"""Log drivers: options of a task definition become the log URI that a shim is given."""
