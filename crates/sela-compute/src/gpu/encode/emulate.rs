//! Cooperative matrices in plain WGSL, slowly: so that the kernels which use them can be tested on
//! GPUs that have none, and those for 8 x 8 elsewhere than on a Mac.
//!
//! 32 threads do as a subgroup. An operand is where it lies in memory, read when it is multiplied;
//! of sums each thread has its share. That holds for kernels in which no memory changes between
//! the load of an operand and its use.

use std::collections::{BTreeSet, HashMap};
use std::fmt::Write;

/// An array and whether the matrix lies in it row by row.
type Place = (String, bool);

/// A shader for GPUs without cooperative matrices and subgroups.
pub(super) fn emulated(source: &str, side: u32) -> String {
    let mut body = String::new();
    let mut functions = BTreeSet::new();
    let mut operands: HashMap<String, Place> = HashMap::new();
    let mut target = String::new();
    for line in source.lines() {
        let gone = [
            "enable wgpu_coop",
            "alias Left",
            "alias Right",
            "alias Sums",
        ];
        if gone.iter().any(|start| line.starts_with(start)) || line.contains("subgroup_id)") {
            continue;
        }
        if line == ") {" {
            body += ") {\nlet subgroup = index / 32u;\nlet lane = index % 32u;\nplayer = lane;\n";
        } else if line.contains("@builtin(subgroup_invocation_id)") {
            body += "@builtin(local_invocation_index) index: u32,\n";
        } else if let Some((name, call)) = line.split_once(" = coop") {
            let name = name.trim().trim_start_matches("let ");
            if let Some(arguments) = call.strip_prefix("MultiplyAdd(") {
                let of = |i| {
                    arguments
                        .split(", ")
                        .nth(i)
                        .and_then(|name| operands.get(name))
                };
                if let (Some(left), Some(right)) = (of(0), of(1)) {
                    functions.insert(multiply(left, right, side));
                    let function = multiply_name(left, right);
                    let _ = writeln!(body, "{name} = {function}({arguments}");
                }
            } else if let Some((kind, rows, array, place)) = load(call) {
                if kind == "Sums" {
                    functions.insert(sums(array, side));
                    let _ = writeln!(body, "{name} = load_{array}({place};");
                } else {
                    operands.insert(name.to_owned(), (array.to_owned(), rows));
                    let _ = writeln!(body, "let {name} = Operand({place};");
                }
            }
        } else if let Some((name, array, place)) = pointer(line) {
            target = array.to_owned();
            let _ = writeln!(body, "let {name} = {place};");
        } else if line.contains("coopStoreT(") {
            functions.insert(sums(&target, side));
            body += &line.replace("coopStoreT(", &format!("store_{target}("));
            body.push('\n');
        } else {
            // Threads next to each other stay so in the GPU's own subgroups.
            body += &line.replace("subgroupBarrier()", "workgroupBarrier()");
            body.push('\n');
        }
    }
    let share = side * side / 32;
    let _ = write!(
        body,
        "var<private> player: u32;
struct Operand {{ at: u32, pitch: u32 }}
struct Sums {{ n: array<f32, {share}> }}
"
    );
    body.extend(functions);
    body
}

/// Name, array and place of `let name = &array[place];`
fn pointer(line: &str) -> Option<(&str, &str, &str)> {
    let (name, rest) = line.trim().strip_prefix("let ")?.split_once(" = &")?;
    let (array, place) = rest.strip_suffix("];")?.split_once('[')?;
    Some((name, array, place))
}

/// Kind of matrix, whether by rows, array, and `place, pitch)` of `Load<kind>(&array[place], pitch);`
fn load(call: &str) -> Option<(&str, bool, &str, String)> {
    let rows = call.starts_with("LoadT<");
    let (_, rest) = call.split_once('<')?;
    let (kind, rest) = rest.split_once(">(&")?;
    let (array, rest) = rest.split_once('[')?;
    let (place, pitch) = rest.rsplit_once("], ")?;
    Some((
        kind,
        rows,
        array,
        format!("{place}, {}", pitch.strip_suffix(';')?),
    ))
}

/// The number at a row and a column of an operand called `name`.
fn number((array, rows): &Place, name: &str, row: &str, col: &str, side: u32) -> String {
    let (line, at) = if *rows { (row, col) } else { (col, row) };
    cell(
        array,
        &format!("{name}.at"),
        &format!("{name}.pitch"),
        line,
        at,
        side,
    )
}

/// A number of an array of cells: vectors of 4 for matrices of 16 x 16, else numbers.
fn cell(array: &str, at: &str, pitch: &str, line: &str, place: &str, side: u32) -> String {
    match side {
        16 => format!("{array}[{at} + ({line}) * {pitch} + ({place}) / 4u][({place}) % 4u]"),
        _ => format!("{array}[{at} + ({line}) * {pitch} + {place}]"),
    }
}

fn multiply_name(left: &Place, right: &Place) -> String {
    format!("multiply_{}_{}", left.0, right.0)
}

/// A thread's share of sums, in a row: the row and the first column.
fn share(side: u32) -> (String, String, u32) {
    let count = side * side / 32;
    let row = format!("player * {count}u / {side}u");
    let col = format!("player * {count}u % {side}u");
    (row, col, count)
}

fn multiply(left: &Place, right: &Place, side: u32) -> String {
    let name = multiply_name(left, right);
    let (row, col, count) = share(side);
    let a = number(left, "a", "row", "k", side);
    let mut text = format!(
        "fn {name}(a: Operand, b: Operand, c: Sums) -> Sums {{
    let row = {row};
    let col = {col};
    var sums = c;
    for (var k = 0u; k < {side}u; k++) {{
        let x = f32({a});
"
    );
    for i in 0..count {
        let b = number(right, "b", "k", &format!("col + {i}u"), side);
        let _ = writeln!(text, "        sums.n[{i}] += x * f32({b});");
    }
    text + "    }\n    return sums;\n}\n"
}

/// How sums go to an array and come from it.
fn sums(array: &str, side: u32) -> String {
    let (row, col, count) = share(side);
    let (mut store, mut load) = (String::new(), String::new());
    for i in 0..count {
        let cell = cell(array, "at", "pitch", "row", &format!("(col + {i}u)"), side);
        let _ = writeln!(store, "    {cell} = sums.n[{i}];");
        let _ = writeln!(load, "    sums.n[{i}] = {cell};");
    }
    format!(
        "fn store_{array}(sums: Sums, at: u32, pitch: u32) {{
    let row = {row};
    let col = {col};
{store}}}
fn load_{array}(at: u32, pitch: u32) -> Sums {{
    let row = {row};
    let col = {col};
    var sums: Sums;
{load}    return sums;
}}
"
    )
}
