"""The figures as tables: what it costs with so many components, and what that is for each of them."""

from harness.report import short

from growth.amount import aim

PASSED = "probes that passed, a second"
# Row, its unit, and by what its cost is divided: by components, crashes of the storm, or nothing.
ROWS = [
    ("start", "ms", "size"),
    ("start, until the command ends", "ms", "size"),
    ("replacement p50", "ms", None),
    ("replacement p99", "ms", None),
    ("storm", "ms", "storm"),
    ("stop", "ms", "size"),
    ("stop, until the command ends", "ms", "size"),
    ("down, until the command ends", "ms", "size"),
    ("status", "ms", "size"),
    ("apply, unchanged", "ms", "size"),
    ("apply, one changed", "ms", "size"),
    ("apply, one changed, until the command ends", "ms", "size"),
    ("memory", "MiB", "size"),
    ("memory, keeper", "MiB", "size"),
    ("memory, engine", "MiB", "size"),
    ("rest: CPU", "%", "probes"),
    ("rest: CPU of a loop that only connects", "%", "probes"),
    ("rest: CPU, keeper", "%", None),
    ("rest: CPU, engine", "%", None),
    ("rest: wake-ups", "/s", "probes"),
    ("rest: wake-ups, keeper", "/s", None),
    ("rest: wake-ups, engine", "/s", None),
    (PASSED, "", None),
    ("largest slot to mean", "", None),
    ("probes that failed last", "", None),
]
# What the bare loop does as well, each in comparison with it.
COMPARED = ["start", "replacement p50", "replacement p99", "storm", "stop"]
BARE = "bare loop"
TITLES = {
    "none": "without probes",
    "tcp": "each with a tcp liveness probe every {interval} s",
    "exec": "each with an exec liveness probe every {interval} s",
}


def tables(figures, sizes, kinds, interval):
    """One for each kind of probes."""
    return "\n".join(_table(figures, sizes, kind, interval) for kind in kinds)


def _table(figures, sizes, kind, interval):
    lines = [f"Components {TITLES[kind].format(interval=interval)}:", ""]
    lines.append("| | " + " | ".join(f"{size:,}" for size in sizes) + " | growth |")
    lines.append("|---|" + "--:|" * (len(sizes) + 1))
    for row, unit, per in ROWS:
        lines += _row(figures, sizes, kind, row, row, unit, per, interval)
        if row in COMPARED:
            lines += _row(figures, sizes, BARE, f"{row}: bare loop", row, unit, per, interval)
            lines += _ratio(figures, sizes, kind, row)
    return "\n".join(lines) + "\n"


def _row(figures, sizes, subject, title, row, unit, per, interval):
    found = [figures.get(subject, row, size) for size in sizes]
    if not any(figure.values or figure.problem for figure in found):
        return []
    cells, costs = [], []
    for size, figure in zip(sizes, found):
        value = figure.value()
        if value is None:
            cells.append(figure.problem or "")
            continue
        probes = figures.value(subject, PASSED, size)
        each = _each(value, unit, per, size, probes)
        costs.append(value if each is None else each[0])
        words = f"{short(value)} {unit}".rstrip()
        if each:
            words += f"; {short(each[0])} {each[1]}"
        if figure.problem:
            words += f" ({figure.problem})"
        cells.append(words + _aim(subject, row, size, value))
    return [f"| {title} | " + " | ".join(cells) + f" | {_growth(costs)} |"]


def _each(value, unit, per, size, probes):
    """The cost of one, and its unit."""
    if per == "probes":
        if not probes:
            return None
        return (value * 1e4 / probes, "µs a probe") if unit == "%" else (value / probes, "a probe")
    if per is None:
        return None
    count = size if per == "size" else -(-size // 10)
    small = {"ms": (1000, "µs each"), "MiB": (1024, "KiB each")}
    factor, words = small[unit]
    return value * factor / count, words


def _ratio(figures, sizes, kind, row):
    cells, ratios = [], []
    for size in sizes:
        mine, least = figures.value(kind, row, size), figures.value(BARE, row, size)
        if not mine or not least:
            cells.append("")
            continue
        ratios.append(mine / least)
        cells.append(f"{mine / least:.2f}" + _aim(kind, f"{row}: ratio", size, mine / least))
    if not ratios:
        return []
    return [f"| {row}: ratio | " + " | ".join(cells) + f" | {_growth(ratios)} |"]


def _aim(kind, row, size, value):
    most = None if kind == BARE else aim(kind, row, size)
    if most is None:
        return ""
    return f" (aim {short(most)}{'' if value <= most else ', missed'})"


def _growth(costs):
    """What one costs with the most of them, to what it costs with the fewest: 1 is a cost that does not
    depend on how many there are."""
    if len(costs) < 2 or not costs[0]:
        return ""
    return f"× {costs[-1] / costs[0]:.2f}"
