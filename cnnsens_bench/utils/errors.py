"""The errors a user can cause and mend: one sentence each, naming what is wrong and the way out."""


class UserError(Exception):
    """The request itself is wrong (exit code 2). The message is one sentence, shown without a traceback."""


class StorageError(OSError):
    """The output cannot be written or reached (a full disk, a server that is gone): the run ends with exit code 1, or
    tries again later. What was computed is kept; the same command goes on. The message is one sentence."""


class ImageError(Exception):
    """One image cannot be read or cropped. The run goes on; the sentence becomes a row in `failures`."""


def first_line(error: BaseException, longest: int | None = None) -> str:
    """Of its message, cut to `longest` letters; its type where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:longest]


def cause_of(error: BaseException, kind: type[BaseException]) -> BaseException | None:
    """The first of that kind among an error and what it came from; Ray wraps what its workers raise."""
    seen: list[BaseException | None] = []
    waiting: list[BaseException | None] = [error]
    while waiting:
        found = waiting.pop(0)
        if isinstance(found, BaseException) and found not in seen:
            if isinstance(found, kind):
                return found
            seen.append(found)
            waiting += [getattr(found, "cause", None), found.__cause__, found.__context__]
    return None
