"""The errors a user can cause and mend: one sentence each, naming what is wrong and the way out."""


class UserError(Exception):
    """The request itself is wrong (exit code 2). The message is one sentence, shown without a traceback."""


class ImageError(Exception):
    """One image cannot be read or cropped. The run goes on; the sentence becomes a row in `failures`."""


def first_line(error: BaseException, longest: int | None = None) -> str:
    """Of its message, cut to `longest` letters; its type where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:longest]
