"""The life of a task, from RunTask to STOPPED."""
