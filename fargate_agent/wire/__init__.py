"""What crosses the boundary of a process, as pydantic models; nothing else uses pydantic."""
