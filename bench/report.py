"""From what single runs wrote to one table."""

import statistics

# (name in the JSON, field, unit, whether more is better)
FIELDS = (
    ("single", "p50", "ms", False),
    ("single", "p99", "ms", False),
    ("batch100", "median", "ms", False),
    ("bulk", "texts_per_s", "texts/s", True),
    ("bulk", "tokens_per_s", "tokens/s", True),
    ("long", "tokens_per_s", "tokens/s", True),
    ("search1", "p50", "ms", False),
    ("search1", "p99", "ms", False),
    ("search100", "median", "ms", False),
)


def figures(index, contender, results):
    """One entry for each figure of one run."""
    entries = []
    for result in results:
        for name, field, unit, _ in FIELDS:
            if result["name"] == name and result.get(field) is not None:
                entries.append({
                    "round": index, "contender": contender, "workload": name,
                    "rows": result.get("rows") if name.startswith("search") else None,
                    "field": field, "unit": unit, "value": result[field],
                })
    return entries


def summary(entries):
    """Median, least and most of each figure, and how many times as fast sela was, round by round."""
    lines = []
    for name, field, unit, more in FIELDS:
        mine = [entry for entry in entries if (entry["workload"], entry["field"]) == (name, field)]
        for rows in sorted({entry["rows"] or 0 for entry in mine}):
            group = [entry for entry in mine if (entry["rows"] or 0) == rows]
            own = {entry["round"]: entry["value"] for entry in group if entry["contender"] == "sela"}
            for contender in dict.fromkeys(entry["contender"] for entry in sorted(group, key=rank)):
                values = {entry["round"]: entry["value"] for entry in group if entry["contender"] == contender}
                ratios = [own[at] / value if more else value / own[at] for at, value in values.items() if at in own]
                lines.append({
                    "workload": name, "rows": rows or None, "field": field, "unit": unit, "contender": contender,
                    "median": statistics.median(values.values()), "min": min(values.values()),
                    "max": max(values.values()), "rounds": len(values),
                    "sela_is_times_as_fast": spread(ratios) if contender != "sela" else None,
                })
    return lines


def rank(entry):
    return (entry["contender"] != "sela", entry["round"])


def spread(ratios):
    if not ratios:
        return None
    return {"median": statistics.median(ratios), "min": min(ratios), "max": max(ratios)}


def table(lines):
    """The summary as a table of text, a block for each figure."""
    rows, before = [], None
    for line in lines:
        key = (line["workload"], line["rows"], line["field"])
        if key != before:
            place = f", {line['rows']:,} rows" if line["rows"] else ""
            title = f"{line['workload']}{place}, {line['field'].removesuffix('_per_s')} ({line['unit']})"
            rows += ["", f"{title:<44}{'median':>10}{'min':>10}{'max':>10}   sela is"]
            before = key
        ratio = line["sela_is_times_as_fast"]
        times = f"   {ratio['median']:.2f}x ({ratio['min']:.2f} to {ratio['max']:.2f})" if ratio else ""
        numbers = "".join(f"{number(line[part]):>10}" for part in ("median", "min", "max"))
        rows.append(f"  {line['contender']:<42}{numbers}{times}")
    return "\n".join(rows[1:])


def number(value):
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}" if value < 100 else f"{value:.0f}"
