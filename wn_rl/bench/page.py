"""The benchmark page: results as JSON, merged over runs of single sections, and as a page of tables."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from wn_rl.bench.measure import SB3, Row
from wn_rl.run.files import replace_file

TITLES = {
    "matrix": "The rate of matrix products",
    "updates": "One update",
    "emulators": "The emulator",
    "peers": "Whole training loops beside Stable-Baselines3",
    "memory": "Memory of a million-frame replay",
    "cuda_matrix": "The rate of matrix products on a CUDA device",
    "cuda_updates": "One update on a CUDA device",
    "cuda_emulators": "The emulator beside a CUDA device",
    "cuda_peers": "Whole training loops beside Stable-Baselines3 on a CUDA device",
    "cuda_runs": "Whole runs on a CUDA device",
    "cuda_together": "Several learners on one CUDA device",
}
EMULATORS = (
    "Random play, no network; one lane is driven from Python, several are ale-py's C++ lanes. Lanes go in "
    "lockstep, so all wait where one begins a game, as random play often does: where rows are told apart, the "
    "second figure is that of rows in which none does."
)
NOTES = {
    "updates": (
        "Batch 64, drawing and gathering included, four updates a round with one target forward for all. Each "
        "repetition is a process in which the rows of a precision take turns; `weight_norm / normal` is taken "
        "within a turn. Threads: those of the preset, one where the network is small. Reference: the time of the "
        "update's products at the rate of a square product by torch's BLAS with as many threads; dense layers may "
        "go through oneDNN, which may be faster."
    ),
    "emulators": EMULATORS,
    "cuda_emulators": EMULATORS,
    "peers": (
        "The same game, network, batch of 64, one update in four steps, Adamax, replay, exploration and torch "
        "threads in all loops. Each is a process of its own, which waits while another has its turn; checked in "
        "every turn: parameters, threads, steps per update. SB3 steps Atari through its own AtariWrapper, MinAtar "
        "through our Gymnasium environment. `SB3 with our layers` is SB3's loop with "
        "`wn_rl.sb3.WeightNormCnnPolicy`. MinAtar runs with one thread, as its preset says. Ratios are taken "
        "within a turn. What differs: SB3 clips the norm of gradients, as it always does, and steps its lanes one "
        "after the other; ours have emulator threads beside the update. bfloat16 and `compile` are options of "
        "ours alone."
    ),
    "memory": "Every byte written; what the process grew by.",
    "cuda_updates": (
        "The `fast` preset: batch 64, sixteen updates a round with one target forward for all, drawing and "
        "gathering included. `weight_norm / normal` is taken within a turn. Reference: the time of the update's "
        "products at the rate of a large square product; at this size latency is the limit."
    ),
    "cuda_peers": "As on a CPU; our rounds are CUDA graphs.",
    "cuda_runs": (
        "The `fast` preset, weight_norm, bfloat16, at a full replay of a million frames on the device (50,000 "
        "steps of random play, repeated) and one update in four steps. Tests run within the time, 125,000 steps "
        "after each 250,000 of training, whose frames alone count."
    ),
    "cuda_together": (
        "Rounds of sixteen updates (nature_cnn, batch 64, weight_norm), each learner a process with a replay of "
        "its own; no emulators."
    ),
}

IN_SHORT = (
    "In short, medians of agent steps a second; in brackets, how many times SB3's with as many lanes and, after "
    "the comma, with one lane:"
)
LOOPS_IN_SHORT = (  # of peers
    SB3,
    "ours, normal, float32",
    "ours, weight_norm, float32",
    "ours, normal, bfloat16",
    "ours, normal, bfloat16, compile",
)


def section_key(section: str, device_type: str) -> str:
    """Where a section's results stand: those of a CUDA device beside those of a CPU, where there are both."""
    on_cuda = f"cuda_{section}"
    return on_cuda if device_type == "cuda" and on_cuda in TITLES else section


def merge(path: Path, section: str, rows: list[Row], about: dict[str, Any]) -> dict[str, Any]:
    """Put a section's rows into the results at path, beside those of other sections."""
    results: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    results[section] = {**about, "rows": [dataclasses.asdict(row) for row in rows]}
    replace_file(path, (json.dumps(results, indent=1) + "\n").encode())
    return results


def render(results: dict[str, Any]) -> str:
    """The page in Markdown. A section without rows says that it was not measured, and how to measure it."""
    lines = [
        "# Benchmarks",
        "",
        "Median, and least to greatest in brackets, of the repetitions; the matrix rate is the greatest of 20.",
        "Each section names its machine and command; `wn-rl bench SECTION` measures one again and writes this",
        "page anew.",
    ]
    for section, title in TITLES.items():
        lines += ["", f"## {title}", ""]
        if section in NOTES:
            lines += [NOTES[section], ""]
        found = results.get(section)
        if found is None or not found["rows"]:
            lines.append(f"Not measured. `{_command(section)}` fills this in on a machine that has what it needs.")
            continue
        commit = f", commit {found['commit']}" if "commit" in found else ""
        interrupted = "" if found.get("complete", True) else " Interrupted: rows are missing."
        lines += [f"{found['machine']}. `{found['command']}`, {found['date']}{commit}.{interrupted}", ""]
        rows = [Row(**row) for row in found["rows"]]
        if section.endswith("peers"):
            lines += [IN_SHORT, "", *peers_in_short(rows), "", "All loops, with their spreads:", ""]
        lines += _table(rows)
    return "\n".join(lines) + "\n"


def _command(key: str) -> str:
    section = key.removeprefix("cuda_")
    return f"wn-rl bench {section} --device cuda" if section in TITLES and section != key else f"wn-rl bench {key}"


def _table(rows: list[Row]) -> list[str]:
    columns = list(dict.fromkeys(name for row in rows for name in row.what))
    limited = [row for row in rows if row.limit is not None]
    head = [*columns, "result", *(["of the reference"] if limited else [])]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row in rows:
        cells = [str(row.what.get(name, "")) for name in columns]
        cells.append(f"{_number(row.median)} {row.unit} {_spread(row)}".strip())
        if limited:
            cells.append("" if row.limit is None else f"{row.median / row.limit:.2f} x {_number(row.limit)}")
        lines.append("| " + " | ".join(cells) + " |")
    sources = dict.fromkeys(row.limit_source for row in limited)
    if sources:
        lines += ["", "References: " + "; ".join(sources) + "."]
    return lines


def peers_in_short(rows: list[Row]) -> list[str]:
    """A table of one line for each game and number of lanes, from rows of the section peers."""
    medians: dict[tuple[Any, ...], dict[str, float]] = {}
    for row in rows:
        *names, loop = row.what.values()
        medians.setdefault(tuple(names), {})[str(loop)] = row.median
    loops = [loop for loop in LOOPS_IN_SHORT if any(loop in of_place for of_place in medians.values())]
    lines = ["| suite | game | lanes | " + " | ".join(loops) + " |", "|" + "---|" * (3 + len(loops))]
    for place, of_place in medians.items():
        cells = [str(part) for part in place]
        for loop in loops:
            ratios = [of_place.get(f"{loop} / {peer}") for peer in ("SB3", "SB3 with one lane")]
            times = ", ".join(f"{ratio:.2f}" for ratio in ratios if ratio is not None)
            rate = _number(of_place[loop]) if loop in of_place else ""
            cells.append(f"{rate} ({times})" if times else rate)
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _spread(row: Row) -> str:
    least, greatest = row.spread
    return f"({_number(least)} to {_number(greatest)})" if len(row.values) > 1 else ""


def _number(value: float) -> str:
    """Three significant digits, and no exponent."""
    if abs(value) >= 1000:
        return f"{round(value, 2 - len(str(int(abs(value)))) + 1):,.0f}"
    return f"{value:.3g}"
