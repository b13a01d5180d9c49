//! Figures as a page of HTML that needs nothing else: one file, no script, no network.

use std::fmt::Write;

use serde_json::Value;

use super::saved::{Saved, SavedFigure};

const STYLE: &str = "\
:root{color-scheme:light dark;--ink:#1b1f24;--faint:#667;--line:#d8dce2;--paper:#fff}\
@media(prefers-color-scheme:dark){:root{--ink:#e6e8eb;--faint:#99a;--line:#3a3f47;--paper:#15181c}}\
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);max-width:60em;\
margin:2em auto;padding:0 1em}\
h2{margin:2em 0 .3em;font-size:1.1em}p,td,th,text.unit{color:var(--faint)}\
table{border-collapse:collapse;width:100%}td,th{border-bottom:1px solid var(--line);\
padding:.2em .8em .2em 0;text-align:left;vertical-align:top}td:first-child{color:var(--ink)}\
svg{width:100%;height:auto;display:block}text{font:13px system-ui,sans-serif;fill:var(--ink)}\
text.unit{fill:var(--faint)}";
/// A colour a run, told apart by those who see few colours too (Okabe and Ito's).
const COLOURS: [&str; 7] = [
    "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#888888",
];
/// The drawing's width, where bars begin, how long they are at most, and what a bar takes.
const WIDTH: f64 = 900.0;
const LEFT: f64 = 300.0;
const LONGEST: f64 = 440.0;
const BAR: f64 = 22.0;

/// A bar of a chart.
struct Bar<'a> {
    label: String,
    run: usize,
    value: f64,
    unit: &'a str,
}

/// The page: the machines, then a chart for each thing that was measured, the runs side by side.
/// `runs` are names and figures; a run's name is how it is told from the others.
pub fn html(runs: &[(String, Saved)]) -> String {
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>sela bench</title>\
         <style>{STYLE}</style></head><body>\n<h1>sela bench</h1>\n"
    );
    machines(&mut page, runs);
    let mut names: Vec<&str> = Vec::new();
    for figure in runs.iter().flat_map(|(_, saved)| &saved.results) {
        if !names.contains(&figure.name.as_str()) {
            names.push(&figure.name);
        }
    }
    for name in names {
        chart(&mut page, runs, name);
    }
    for (label, saved) in runs {
        for told in &saved.not_measured {
            line(
                &mut page,
                format_args!("<p>{}: {}</p>", text(label), text(told)),
            );
        }
    }
    page + "</body></html>\n"
}

/// What the machines are: a column a run.
fn machines(page: &mut String, runs: &[(String, Saved)]) {
    page.push_str("<table><tr><th></th>");
    for (at, (label, _)) in runs.iter().enumerate() {
        let colour = COLOURS[at % COLOURS.len()];
        line(
            page,
            format_args!(
                "<th><span style=\"color:{colour}\">&#9632;</span> {}</th>",
                text(label)
            ),
        );
    }
    page.push_str("</tr>\n");
    let names = runs.iter().flat_map(|(_, saved)| saved.machine.keys());
    let names: std::collections::BTreeSet<&String> = names.collect();
    for name in names {
        let cell = |(_, saved): &(String, Saved)| {
            let told = saved.machine.get(name).map(told).unwrap_or_default();
            format!("<td>{}</td>", text(&told))
        };
        let cells: String = runs.iter().map(cell).collect();
        line(
            page,
            format_args!("<tr><td>{}</td>{cells}</tr>", text(&name.replace('_', " "))),
        );
    }
    page.push_str("</table>\n");
}

/// A value as people read it.
fn told(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(string) => string.clone(),
        Value::Array(all) => all.iter().map(told).collect::<Vec<_>>().join("; "),
        Value::Object(all) => {
            let known = all.iter().filter(|(_, value)| !value.is_null());
            let pairs =
                known.map(|(name, value)| format!("{} {}", name.replace('_', " "), told(value)));
            pairs.collect::<Vec<_>>().join(", ")
        }
        other => other.to_string(),
    }
}

/// Every number of the figures of one name, bars of one unit in one scale.
fn chart(page: &mut String, runs: &[(String, Saved)], name: &str) {
    let figures = |saved: &'_ Saved| -> Vec<SavedFigure> {
        let of = saved.results.iter().filter(|figure| figure.name == name);
        of.cloned().collect()
    };
    let all: Vec<(usize, SavedFigure)> = runs
        .iter()
        .enumerate()
        .flat_map(|(run, (_, saved))| figures(saved).into_iter().map(move |f| (run, f)))
        .collect();
    let mut bars: Vec<(&'static str, Bar<'_>)> = Vec::new();
    for (run, figure) in &all {
        for number in figure.numbers() {
            let mut label = figure.device.clone().unwrap_or_default();
            if let Some(rows) = figure.rows {
                let _ = write!(label, " {rows} rows");
            }
            let bar = Bar {
                label,
                run: *run,
                value: number.value,
                unit: number.unit,
            };
            bars.push((number.field, bar));
        }
    }
    let mut fields: Vec<&'static str> = Vec::new();
    bars.iter().for_each(|(field, _)| {
        if !fields.contains(field) {
            fields.push(field);
        }
    });
    for field in fields {
        let mut drawn: Vec<&Bar<'_>> = bars
            .iter()
            .filter(|(of, _)| *of == field)
            .map(|(_, bar)| bar)
            .collect();
        // Like stands beside like.
        drawn.sort_by(|a, b| (&a.label, a.run).cmp(&(&b.label, b.run)));
        let what = match field {
            "p50" => "half of the calls took at most",
            "p99" => "all but one in a hundred took at most",
            "median" => "median",
            "peak" => "peak",
            _ => "",
        };
        line(page, format_args!("<h2>{}</h2><p>{what}</p>", text(name)));
        draw(page, &drawn);
    }
}

fn draw(page: &mut String, bars: &[&Bar<'_>]) {
    let most = bars.iter().map(|bar| bar.value).fold(0.0, f64::max);
    let height = BAR * bars.len() as f64 + 6.0;
    line(
        page,
        format_args!("<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\">"),
    );
    for (at, bar) in bars.iter().enumerate() {
        let (top, colour) = (BAR * at as f64 + 3.0, COLOURS[bar.run % COLOURS.len()]);
        let long = if most > 0.0 {
            (bar.value / most * LONGEST).max(1.0)
        } else {
            1.0
        };
        let (base, end) = (top + 13.0, LEFT + long + 8.0);
        line(
            page,
            format_args!(
                "<text x=\"0\" y=\"{base}\">{}</text>\
                 <rect x=\"{LEFT}\" y=\"{top}\" width=\"{long:.1}\" height=\"16\" rx=\"2\" fill=\"{colour}\"/>\
                 <text x=\"{end:.1}\" y=\"{base}\">{} <tspan class=\"unit\">{}</tspan></text>",
                text(&bar.label),
                number(bar.value),
                text(bar.unit),
            ),
        );
    }
    page.push_str("</svg>\n");
}

/// Three digits, or all of a large number.
fn number(value: f64) -> String {
    match value {
        ..1.0 => format!("{value:.3}"),
        ..10.0 => format!("{value:.2}"),
        ..100.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

fn line(page: &mut String, what: std::fmt::Arguments<'_>) {
    // Writing to a string does not fail.
    let _ = writeln!(page, "{what}");
}

/// Text that means nothing to HTML.
fn text(from: &str) -> String {
    let mut safe = String::with_capacity(from.len());
    for c in from.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            c => safe.push(c),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_page_has_every_number_and_nothing_foreign() {
        let run = |cpu: &str, ms: f64| -> Saved {
            serde_json::from_value(json!({
                "machine": {"cpu": cpu, "devices": [{"device": "cpu", "driver": null}]},
                "results": [
                    {"name": "search1", "device": "cpu", "unit": "ms", "rows": 10_000, "p50": ms, "p99": 9.0},
                    {"name": "bulk", "device": "cpu", "texts_per_s": 1234.5},
                ],
                "not_measured": ["nothing <here>"],
            }))
            .unwrap()
        };
        let page = html(&[
            ("a".into(), run("<script>", 0.125)),
            ("b & c".into(), run("B", 2.5)),
        ]);
        for part in [
            "&lt;script&gt;",
            "b &amp; c",
            "nothing &lt;here&gt;",
            ">0.125 <",
            ">2.50 <",
            ">1234 <",
            "10000 rows",
            "all but one in a hundred",
        ] {
            assert!(page.contains(part), "{part} is not in {page}");
        }
        // A bar for every number of both runs, those of like numbers beside each other.
        assert_eq!(page.matches("<rect").count(), 6);
        assert!(page.find(">0.125 <").unwrap() < page.find(">2.50 <").unwrap());
        for foreign in ["<script", "http:", "https:", "src="] {
            assert!(!page.contains(foreign), "{foreign}");
        }
        assert_eq!(page.matches("<svg").count(), page.matches("</svg>").count());
    }
}
