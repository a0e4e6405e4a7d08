"""Functions of the C library that Python has no names for.

`ctypes` takes 3 ms of each start, and the part of it that is used here 0.4.
"""

M_MMAP_THRESHOLD, MMAP_BYTES = -3, 512 * 1024
M_TRIM_THRESHOLD, TRIM_BYTES = -1, 1024 * 1024
"""With small ones the kernel gives, clears and takes back the memory of each copy of a text, which
is half of all processor time; without any, glibc raises them itself. Source: mallopt(3)."""
M_ARENA_MAX = -8
"""With a heap for each thread, what one gives back isn't there for the other. Source: glibc,
malloc/malloc.h."""


def call(name: str, *arguments: int) -> int:
    """Call a function that takes integers and returns an `int`."""
    import _ctypes

    program = _ctypes.dlopen(None, 0)  # type: ignore[arg-type]  # what it is linked with
    return int(_ctypes.call_function(_ctypes.dlsym(program, name), arguments))


def tune_heap() -> None:
    """Keep what is used again and again; to be called before there are threads."""
    call("mallopt", M_MMAP_THRESHOLD, MMAP_BYTES)
    call("mallopt", M_TRIM_THRESHOLD, TRIM_BYTES)
    call("mallopt", M_ARENA_MAX, 1)


def trim_heap() -> None:
    """Let the kernel have what is free, wherever it lies. Source: malloc_trim(3)."""
    call("malloc_trim", 0)
