"""Whether every line that was written is in the log, once and whole."""

import gzip

LINE = 100
FILLER = b" " + b"x" * (LINE - 19) + b"\n"
# So many bytes are looked at in one go.
CHUNK = 1000 * LINE


def count_lines(files, expected):
    """How many of the lines 0 to `expected` are not there exactly once, and what was seen instead.

    A log in which every line stands where it belongs is compared in large pieces; only where that
    does not hold is each line looked at.
    """
    files = [file for file in files if file.exists()]
    if _in_order(files, expected):
        return 0, None
    seen, doubled, torn = bytearray(expected), 0, 0
    example = None
    for line in _lines(files):
        number = _number(line, expected)
        if number is None:
            torn += 1
            example = example or line[:60]
        elif seen[number]:
            doubled += 1
        else:
            seen[number] = 1
    lost = expected - sum(seen)
    found = [f"{lost} lost, the first is {seen.find(0)}"] if lost else []
    found += [f"{doubled} twice"] if doubled else []
    found += [f"{torn} that are none, such as {example}"] if torn else []
    return lost + doubled, ", ".join(found) or None


def _lines(files):
    """Of all files as if they were one: a rotation may cut where it likes."""
    rest = b""
    for file in files:
        with _open(file) as content:
            for line in content:
                line = rest + line
                if line.endswith(b"\n"):
                    rest = b""
                    yield line
                else:
                    rest = line
    if rest:
        yield rest


def _open(file):
    return gzip.open(file, "rb") if file.suffix == ".gz" else open(file, "rb")


def _number(line, expected):
    if len(line) != LINE or not line.startswith(b"line ") or line[17:] != FILLER:
        return None
    digits = line[5:17]
    if not digits.isdigit() or int(digits) >= expected:
        return None
    return int(digits)


def _in_order(files, expected):
    number = 0
    for file in files:
        with _open(file) as content:
            while chunk := content.read(CHUNK):
                count = len(chunk) // LINE
                wanted = b"".join(b"line %012d" % n + FILLER for n in range(number, number + count))
                if chunk != wanted:
                    return False
                number += count
    return number == expected
