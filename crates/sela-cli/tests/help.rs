//! What `--help` says.

mod common;

#[test]
fn help_is_as_written() {
    let pages: [&[&str]; 24] = [
        &[],
        &["embed"],
        &["index"],
        &["search"],
        &["collection"],
        &["collection", "list"],
        &["collection", "info"],
        &["collection", "verify"],
        &["collection", "reindex"],
        &["collection", "snapshot"],
        &["model"],
        &["model", "pull"],
        &["model", "path"],
        &["serve"],
        &["key"],
        &["key", "create"],
        &["key", "revoke"],
        &["init"],
        &["doctor"],
        &["demo"],
        &["bench"],
        &["bench", "compare"],
        &["bench", "report"],
        &["validate"],
    ];
    for page in pages {
        let output = common::program().args(page).arg("--help").output().unwrap();
        assert!(output.status.success());
        let name = if page.is_empty() {
            "sela".to_owned()
        } else {
            page.join("-")
        };
        insta::assert_snapshot!(name, String::from_utf8(output.stdout).unwrap());
    }
}

#[test]
fn a_wrong_flag_is_an_error_of_code_2() {
    for arguments in [
        &["--no-such-flag"][..],
        &["search"],
        &["bench", "--only", "all"],
        &[],
    ] {
        let output = common::program().args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(output.stdout.is_empty());
    }
}
