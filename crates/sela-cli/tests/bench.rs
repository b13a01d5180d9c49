//! Figures of earlier runs, compared and shown.

mod common;

use std::fs;

fn figures(ms: f64) -> String {
    format!(
        r#"{{"machine": {{"cpu": "Some CPU", "threads": 2}}, "results": [
            {{"name": "single", "device": "cpu", "unit": "ms", "p50": {ms}, "p99": 9.0}}]}}"#
    )
}

#[test]
fn two_runs_are_held_against_each_other_and_drawn() {
    let folder = tempfile::tempdir().unwrap();
    let [first, second] = [("first.json", 2.0), ("second.json", 0.5)].map(|(name, ms)| {
        let path = folder.path().join(name);
        fs::write(&path, figures(ms)).unwrap();
        path
    });
    let run = |arguments: &[&str]| {
        let mut command = common::program();
        let output = command.args(arguments).arg(&first).arg(&second).output();
        let output = output.unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let told = run(&["bench", "compare"]);
    assert!(told.contains("4.00x as good"), "{told}");
    assert!(told.contains("1.00x as good"), "{told}");
    let json = run(&["bench", "compare", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["figures"][0]["times"], 4.0);
    let page = run(&["bench", "report"]);
    assert_eq!(page.matches("<rect").count(), 4, "{page}");
    let file = folder.path().join("page.html");
    run(&["bench", "report", "--output", file.to_str().unwrap()]);
    assert_eq!(fs::read_to_string(file).unwrap(), page);
}

#[test]
fn a_file_that_holds_no_figures_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("other.json");
    for text in [
        "",
        "[]",
        "{\"machine\": {}}",
        "{\"machine\": {}, \"results\": [1]}",
    ] {
        fs::write(&path, text).unwrap();
        for command in ["compare", "report"] {
            let output = common::program()
                .args(["bench", command])
                .args([&path, &path])
                .output()
                .unwrap();
            let told = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(2), "{told}");
            assert!(output.stdout.is_empty());
            assert!(told.contains("other.json` holds no figures"), "{told}");
        }
    }
}
