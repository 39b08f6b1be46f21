"""Tables of `eie report energy`, for a terminal and as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from eie.tables import grouped

if TYPE_CHECKING:
    from eie.output import Output
    from sim.energy_table import Table

__all__ = ["PUBLISHED_COLUMNS", "markdown", "published_rows", "show"]

Report = Mapping[str, Any]
Columns = Sequence[str]
Rows = list[tuple[Any, ...]]

LEAST = 0.0005
"""Share of the energy below which a part has no column."""

PUBLISHED_COLUMNS = ("layer", "array", "µs", "mW", "nJ", "EIE µs", "EIE mW", "EIE nJ", "nJ / EIE nJ")


def published_rows(entries: Sequence[Report]) -> Rows:
    """Layers of the publication: what they take here, what the published array takes, and the ratio."""
    return [
        (
            entry["name"], entry["preset"], entry["us"], round(entry["power_mw"]), round(entry["nj"]),
            entry["published"]["us"], round(entry["published"]["mw"]), round(entry["published"]["nj"]),
            entry["nj"] / entry["published"]["nj"],
        )
        for entry in entries if "published" in entry
    ]  # fmt: skip


def show(output: Output, entry: Report) -> None:
    """Everything about one network."""
    columns, rows = layer_table(entry)
    batch = f"{entry['samples']} sample" + "s" * (entry["samples"] > 1)
    pes = entry["params"]["pes"]
    output.table(
        columns, rows, title=f"{entry['name']}: energy of a sample, {pes} PEs, mean of {batch} ({entry['input']})"
    )
    sources = source_list([entry])
    columns, rows = access_table(entry, sources)
    output.table(columns, rows, title="accesses of a sample")
    for number, source in enumerate(sources, 1):
        output.text(f"[{number}] {source}")
    output.text()
    output.text(
        f"{_short(entry['nj'])} nJ and {_short(entry['us'])} µs a sample at {entry['clock_mhz']:g} MHz: "
        f"{_short(entry['power_mw'])} mW while it runs"
    )
    for kind, words in DENSE.items():
        dense = entry["dense_pj"][kind]
        output.text(f"dense, {words}: {_short(dense / 1000)} nJ, {_short(dense / entry['total_pj'])} times as much")
    if entry["host"]:
        output.text(f"not counted, on the host: {', '.join(entry['host'])}")
    output.text()


def _short(number: float) -> str:
    """Four significant digits, and every digit before the point."""
    return f"{number:,.0f}" if number >= 1000 else f"{number:.4g}"


DENSE = {
    "sram": "weights of 16 bits in the PEs",
    "dram": "each weight fetched from DRAM once a sample",
}


def layer_table(entry: Report) -> tuple[Columns, Rows]:
    """Layers and their sum: cycles, entries, nJ, and % of each part of the array."""
    total = entry["total_pj"]
    parts = [part for part, pj in entry["pj"].items() if pj >= LEAST * total]
    columns = ("layer", "cycles", "entries", "nJ", *(f"{part} %" for part in parts))
    rows: Rows = [
        (
            each["name"], round(each["cycles"]), round(each["counts"]["working_cycles"]), each["total_pj"] / 1000,
            *(100 * each["pj"][part] / max(each["total_pj"], 1e-30) for part in parts),
        )
        for each in [*entry["layers"], {**entry, "name": "all"}]
    ]  # fmt: skip
    return columns, rows


def source_list(entries: Sequence[Report]) -> list[str]:
    """Every source once, in the order of the accesses."""
    return list(dict.fromkeys(each["source"] for entry in entries for each in entry["accesses"]))


def access_table(entry: Report, sources: Sequence[str]) -> tuple[Columns, Rows]:
    """Accesses that there are: how many, what one takes and why."""
    columns = ("access", "a sample", "pJ each", "nJ", "follows from", "source")
    rows: Rows = [
        (
            each["name"].replace("_", " "), round(each["count"]), each["pj"], each["nj"], each["rule"],
            f"[{sources.index(each['source']) + 1}]",
        )
        for each in entry["accesses"] if each["count"]
    ]  # fmt: skip
    return columns, rows


def _markdown_table(columns: Columns, rows: Rows) -> list[str]:
    lines = [list(columns), ["---"] * len(columns), *([grouped(cell) for cell in row] for row in rows)]
    return [f"| {' | '.join(line)} |" for line in lines] + [""]


def markdown(entries: Sequence[Report], table: Table) -> str:
    """The summary: layers of the publication beside it, then each network with its accesses."""
    lines = [
        "# Energy", "",
        ("By `eie report energy`; [energy.md](../energy.md) says how it is counted, and what is left out. "
         f"Table: {table.name}. All figures are for one sample."), "",
    ]  # fmt: skip
    if rows := published_rows(entries):
        lines += [
            "## Layers of the EIE publication", "",
            ("Random matrices of the published sizes and densities (`eie bench eie`), four different vectors. EIE mW "
             "is the one power that the publication gives for 64 PEs (table V), EIE µs the time of its table IV."), "",
            *_markdown_table(PUBLISHED_COLUMNS, rows),
        ]  # fmt: skip
        lines += ["Where it goes, in %, and how much more the dense layer takes:", ""]
        parts = list(entries[0]["pj"])
        lines += _markdown_table(
            ("layer", "array", *parts, "dense, SRAM", "dense, DRAM"),
            [
                (
                    entry["name"], entry["preset"], *(round(100 * entry["share"][part], 1) for part in parts),
                    *(f"{_short(entry['dense_pj'][kind] / entry['total_pj'])}×" for kind in DENSE),
                )
                for entry in entries if "published" in entry
            ],
        )  # fmt: skip
    sources = source_list(entries)
    shown = [entry for entry in entries if "published" not in entry] or list(entries[:1])
    for entry in shown:
        lines += [
            f"## {entry['name']}", "",
            f"{entry['params']['pes']} PEs, input: {entry['input']}. {_short(entry['nj'])} nJ and "
            f"{_short(entry['us'])} µs a sample at {entry['clock_mhz']:g} MHz: {_short(entry['power_mw'])} mW while it "
            "runs. Dense "
            + ", ".join(
                f"with {words}: {_short(entry['dense_pj'][kind] / entry['total_pj'])} times as much"
                for kind, words in DENSE.items()
            ) + ".", "",
            *_markdown_table(*layer_table(entry)), *_markdown_table(*access_table(entry, sources)),
        ]  # fmt: skip
    lines += [f"- [{number}] {source}" for number, source in enumerate(sources, 1)]
    return "\n".join(lines) + "\n"
