"""The header of `.npy` files, which says where the rows of an array lie."""

import ast

from cnnsens_bench.utils.reading import read_range

LONGEST_HEADER = 4096


def array_header(file: str) -> tuple[tuple[int, ...], int]:
    """Return the shape of an array of images in a `.npy` file, and the byte at which its values begin.

    Parameters
    ----------
    file
        The path or URI.

    Raises
    ------
    ValueError
        If it is no array (N, H, W, 3) uint8 whose last axis is contiguous.
    StorageError, FileNotFoundError
        If the file cannot be read.
    """
    head = read_range(file, 0, LONGEST_HEADER)
    try:
        if head[:6] != b"\x93NUMPY":
            raise ValueError("its first bytes are not those of .npy files")
        begin = 10 if head[6] == 1 else 12
        start = begin + int.from_bytes(head[8:begin], "little")
        known = ast.literal_eval(head[begin:start].decode("utf-8"))
        shape, kind, transposed = tuple(map(int, known["shape"])), known["descr"], known["fortran_order"]
    except (ValueError, KeyError, TypeError, SyntaxError, IndexError) as error:
        raise ValueError(f"{file} is no array that numpy.save has written ({error})") from None
    if kind not in ("|u1", "u1") or transposed or len(shape) != 4 or shape[3] != 3:
        order = " in Fortran's order" if transposed else ""
        raise ValueError(f"{file} holds {kind} of the shape {shape}{order}: images must be uint8 of (N, H, W, 3)")
    return shape, start
