"""What a command costs before it does anything, and how long a file with many mistakes takes.

    /bin/true, stigmer --version, stigmer ping ── each so often, in turn
    stigmer validate, config ── a file of many components, without a mistake and with a hundred
"""

import json
from pathlib import Path

from harness.commands import Failed

from growth.amount import COMMAND_AIM_MS, MISTAKES, MISTAKES_AIM_MS
from growth.life import COMMAND_SECONDS

SUBJECT = "commands"
INVALID = 5

# Each makes one mistake in a component, on its line alone.
KINDS = [
    lambda one, _name: one | {"comand": ["x"]},
    lambda one, _name: one | {"depends_on": ["nobody"]},
    lambda one, _name: one | {"stop": {"timeout": "10 parsecs"}},
    lambda one, _name: one | {"stop": {"signal": "SIGNOTHING"}},
    lambda one, _name: one | {"logs": {"max_size": "1"}},
    lambda one, _name: one | {"ports": [99_999_999]},
    lambda one, _name: one | {"replicas": "many"},
    lambda one, _name: {key: value for key, value in one.items() if key != "command"},
    lambda one, _name: one | {"restart": {"policy": "sometimes"}},
    lambda one, name: one | {"depends_on": [name]},
    lambda one, _name: one | {"probes": {"liveness": {"log": "("}}},
    lambda one, _name: one | {"env": {"TOKEN": "${BENCH_IS_NOT_SET:?say which}"}},
]


def manifest(path, count, mistakes):
    """Writes a file of so many components, a line each. Gives the lines with a mistake."""
    every = max(1, count // mistakes) if mistakes else 0
    # The lines that they begin on, counted from 1.
    lines, wrong = ["project: mistakes", "components:"], []
    for number in range(count):
        name = f"c{number:05}"
        one = {"command": ["/bin/sleep", "1d"], "env": {"NUMBER": str(number)}}
        if every and number % every == 0 and len(wrong) < mistakes:
            one = KINDS[len(wrong) % len(KINDS)](one, name)
            wrong.append(len(lines) + 1)
        # JSON is YAML.
        lines.append(f"  {name}: {json.dumps(one)}")
    Path(path).write_text("\n".join(lines) + "\n")
    return wrong


def start_up(stigmer, amount, figures):
    """Commands that do next to nothing; the daemon of `stigmer` runs."""
    whole = {
        "`/bin/true`": ["/bin/true"],
        "`stigmer --version`": [stigmer.stigmer, "--version"],
        "`stigmer ping`": [stigmer.stigmer, "ping"],
    }
    for _ask in range(amount.asks):
        for row, argv in whole.items():
            with figures.about(SUBJECT, row, 0):
                ran = stigmer.run(argv, COMMAND_SECONDS).checked()
                figures.put(SUBJECT, row, 0, ran.seconds * 1e3)


def mistakes(stigmer, amount, figures):
    """Whether a file says all of its mistakes, and how soon."""
    count, folder = amount.declared, stigmer.folder
    right, wrong = folder / "right.yaml", folder / "wrong.yaml"
    manifest(right, count, 0)
    lines = manifest(wrong, count, MISTAKES)
    rows = {
        "`stigmer validate`": ["validate", "-f", right],
        "`stigmer config`": ["config", "-f", right],
    }
    for row, arguments in rows.items():
        with figures.about(SUBJECT, row, count):
            for _ask in range(amount.applies):
                ran = stigmer.run([stigmer.stigmer, *arguments], COMMAND_SECONDS).checked()
                figures.put(SUBJECT, row, count, ran.seconds * 1e3)
    row = f"`stigmer validate`, {MISTAKES} mistakes"
    with figures.about(SUBJECT, row, count):
        for _ask in range(amount.applies):
            argv = [stigmer.stigmer, "validate", "-f", wrong]
            ran = stigmer.run(argv, COMMAND_SECONDS)
            if ran.code != INVALID:
                raise Failed(f"exit {ran.code}: {ran.output[-400:]}")
            figures.put(SUBJECT, row, count, ran.seconds * 1e3)
        told = json.loads(stigmer.run([*argv, "-o", "json"], COMMAND_SECONDS).output)["diagnostics"]
        told = [one["line"] for one in told if one["severity"] == "error"]
        figures.put(SUBJECT, "mistakes told", count, len(set(told) & set(lines)))
        if sorted(told) != lines:
            missed, more = len(set(lines) - set(told)), len(told) - len(lines)
            told = f"{len(told)} of {len(lines)} mistakes told, {missed} lines missed ({more:+})"
            figures.is_wrong(SUBJECT, count, told)


def table(figures, declared):
    """The rows above."""
    lines = ["| command | components | median | |", "|---|--:|--:|---|"]
    for (subject, row, size), figure in figures.by_key.items():
        if subject != SUBJECT or row == "mistakes told":
            continue
        most = COMMAND_AIM_MS if size == 0 else MISTAKES_AIM_MS if "mistakes" in row else None
        value = figure.value()
        cell = "" if value is None else f"{value:.1f} ms"
        verdict = ""
        if most and value is not None and "true" not in row:
            verdict = f"aim {most:.0f} ms{'' if value <= most else ', missed'}"
        told = figures.value(SUBJECT, "mistakes told", declared) if "mistakes" in row else None
        if told is not None:
            verdict += f"; {told:.0f} of {MISTAKES} told"
        lines.append(f"| {row} | {size or ''} | {cell} | {figure.problem or verdict} |")
    return "\n".join(lines) + "\n" if len(lines) > 2 else ""
