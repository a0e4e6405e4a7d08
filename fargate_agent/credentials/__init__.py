"""The credentials of tasks' roles: who gives them, and how long they are kept in memory."""
