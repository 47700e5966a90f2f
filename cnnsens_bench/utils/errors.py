"""The errors that a user can cause and mend. Each message is one sentence that says what is wrong and what to do."""


class UserError(Exception):
    """The request itself is wrong: the command ends with exit code 2 and shows the message without a traceback."""


class StorageError(OSError):
    """The output cannot be written or reached, because a disk is full or a server does not answer.

    The run tries again later, or ends with exit code 1. It keeps what was computed, and the same command continues it.
    """


class ImageError(Exception):
    """One image cannot be read or cropped. The run continues, and the message becomes a row of the table `failures`."""


def first_line(error: BaseException, longest: int | None = None) -> str:
    """Return the first line of an error's message, or the name of its type where the message is empty.

    Parameters
    ----------
    error
        The error to describe.
    longest
        The number of characters after which the line is cut; None for no limit.

    Examples
    --------
    >>> first_line(ValueError("too large: 7\\nDetails follow."))
    'too large: 7'
    >>> first_line(ValueError())
    'ValueError'
    """
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:longest]


def cause_of(error: BaseException, kind: type[BaseException]) -> BaseException | None:
    """Return the first error of a type among an error and its causes, or None where there is none.

    Causes are the attributes `cause` (Ray wraps the errors of its workers so), `__cause__` and `__context__`.

    Examples
    --------
    >>> wrapped = RuntimeError("task failed")
    >>> wrapped.cause = StorageError("the disk is full")
    >>> cause_of(wrapped, StorageError)
    StorageError('the disk is full')
    """
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
