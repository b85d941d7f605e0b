//! The layout of the source, read as text: who may use whom, and how long a file may be.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

const LINES_MAX: usize = 600;
const MAIN_LINES_MAX: usize = 40;

/// Where a driver's client is made. `store/gate.rs` hands the line's to the calls that it runs, and to nobody else;
/// the others are tools outside a node: the set-up, drills, the comparison.
const DRIVERS: [&str; 4] = [
    "store/line.rs",
    "store/admin.rs",
    "store/direct.rs",
    "store/probe.rs",
];

/// The files below `src`, by their paths in it.
type Tree = BTreeMap<String, String>;

fn read_tree(folder: &Path, prefix: &str, tree: &mut Tree) {
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        let name = format!("{prefix}{}", entry.file_name().to_str().unwrap());
        if path.is_dir() {
            read_tree(&path, &format!("{name}/"), tree);
        } else if name.ends_with(".rs") {
            tree.insert(name, fs::read_to_string(&path).unwrap());
        }
    }
}

/// All that is wrong with a tree, one line each.
fn complaints(tree: &Tree) -> Vec<String> {
    let mut found = Vec::new();
    for (path, text) in tree {
        let code = without_comments(text);
        let module = path.split(['/', '.']).next().unwrap_or(path);
        upward(tree, path, module, &code, &mut found);
        if module != "store" && has_any(&code, &["mongodb::", "use mongodb", "crate mongodb"]) {
            found.push(format!(
                "{path} names the crate mongodb: only store may; give store a function for it"
            ));
        }
        let makes = ["Client::with_options", "Client::with_uri"];
        if !DRIVERS.contains(&path.as_str()) && has_any(&code, &makes) {
            found.push(format!(
                "{path} makes a driver of its own: calls go through store/gate.rs, where nobody drops \
                 them half-way"
            ));
        }
        if module != "config" && has_any(&code, &["env::var(", "env::var_os(", "env::vars("]) {
            found.push(format!(
                "{path} reads the environment: only config may; use config::setting"
            ));
        }
        let lines = text.lines().count();
        let most = match path.as_str() {
            "main.rs" => MAIN_LINES_MAX - 1,
            _ => LINES_MAX,
        };
        if lines > most {
            found.push(format!(
                "{path} has {lines} lines: split it, {most} at most"
            ));
        }
    }
    commands(tree, &mut found);
    found
}

/// A module may use those that lib.rs declares above it.
fn upward(tree: &Tree, path: &str, module: &str, code: &str, found: &mut Vec<String>) {
    let order = declared(&tree["lib.rs"]);
    let place = |name: &str| order.iter().position(|known| *known == name);
    let Some(own) = place(module) else {
        if !matches!(path, "lib.rs" | "main.rs") {
            found.push(format!("{path} belongs to no module that lib.rs declares"));
        }
        return;
    };
    for used in uses(code) {
        if place(used).is_some_and(|used| used > own) {
            found.push(format!(
                "{path} uses crate::{used}, which stands below {module} in lib.rs: a module uses \
                 only what stands above it"
            ));
        }
    }
}

/// The modules in the order of lib.rs.
fn declared(lib: &str) -> Vec<&str> {
    lib.lines()
        .filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'))
        .collect()
}

/// The first column of the table of modules.
fn mapped(architecture: &str) -> Vec<&str> {
    architecture
        .lines()
        .skip_while(|line| !line.starts_with("| Module |"))
        .skip(2)
        .map_while(|line| line.strip_prefix("| `")?.split_once("` |"))
        .map(|(module, _)| module)
        .collect()
}

/// The modules in `crate::a::b` and `crate::{a::b, c::{d, e}}`.
fn uses(code: &str) -> Vec<&str> {
    let mut used = Vec::new();
    for (at, found) in code.match_indices("crate::") {
        let rest = &code[at + found.len()..];
        let Some(group) = rest.strip_prefix('{') else {
            used.extend(first_word(rest));
            continue;
        };
        let mut depth = 1;
        let mut item = 0;
        for (at, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => (),
            }
            if depth == 0 || (c == ',' && depth == 1) {
                used.extend(first_word(&group[item..at]));
                item = at + 1;
            }
            if depth == 0 {
                break;
            }
        }
    }
    used
}

fn first_word(text: &str) -> Option<&str> {
    let text = text.trim_start();
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_');
    Some(&text[..end.unwrap_or(text.len())]).filter(|word| !word.is_empty())
}

/// Each command that cli.rs lists as `Name(module::Args)` has a file with one `run`.
fn commands(tree: &Tree, found: &mut Vec<String>) {
    let listed = tree["cli.rs"].lines().filter_map(|line| {
        let (_, arguments) = line.trim().strip_suffix("::Args),")?.split_once('(')?;
        Some(arguments)
    });
    for command in listed {
        let path = format!("cli/{command}.rs");
        let runs = tree
            .get(&path)
            .map_or(0, |text| text.matches("pub fn run(").count());
        if runs != 1 {
            found.push(format!(
                "{path} has {runs} functions `pub fn run`: it needs one"
            ));
        }
    }
}

fn without_comments(text: &str) -> String {
    let code = |line: &&str| !line.trim_start().starts_with("//");
    text.lines().filter(code).collect::<Vec<_>>().join("\n")
}

/// Whether the code holds one of these, not as the end of a longer name.
fn has_any(code: &str, needles: &[&str]) -> bool {
    let own_word = |at: usize| !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
    needles
        .iter()
        .any(|needle| code.match_indices(needle).any(|(at, _)| own_word(at)))
}

#[test]
fn the_source_keeps_its_layers() {
    let mut tree = Tree::new();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    read_tree(&source, "", &mut tree);
    assert!(tree.len() > 50, "only {} files were found", tree.len());
    let found = complaints(&tree);
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

#[test]
fn the_map_names_each_module_in_the_order_of_the_source() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path| fs::read_to_string(root.join(path)).unwrap();
    let (lib, map) = (read("src/lib.rs"), read("docs/architecture.md"));
    assert_eq!(mapped(&map), declared(&lib), "docs/architecture.md");
}

#[test]
fn a_table_of_modules_is_read_to_its_end_and_no_other_is() {
    let text = "| To add |\n|---|\n| `x` | |\n\n| Module | What |\n|---|---|\n| `a` | b `c` |\n| `d` | |\n\n| `e` | |";
    assert_eq!(mapped(text), ["a", "d"]);
}

/// A small tree that keeps the rules, with one file changed or added.
fn tree_with(path: &str, text: &str) -> Tree {
    let files = [
        (
            "lib.rs",
            "pub mod model;\npub mod config;\npub mod store;\npub mod http;\npub mod cli;",
        ),
        ("main.rs", "fn main() {}"),
        ("model.rs", "pub struct Stamp;"),
        ("config.rs", "fn env() { std::env::var(\"HOME\"); }"),
        (
            "store/mod.rs",
            "use crate::model::Stamp;\nuse mongodb::Client;",
        ),
        (
            "http/router.rs",
            "use crate::{model::{Stamp, Id}, store};\nconst URI: &str = \"mongodb://h\";",
        ),
        ("cli.rs", "enum Command {\n    Get(get::Args),\n}"),
        ("cli/get.rs", "pub fn run() {}"),
    ];
    let mut tree: Tree = files
        .into_iter()
        .map(|(path, text)| (path.to_owned(), text.to_owned()))
        .collect();
    tree.insert(path.to_owned(), text.to_owned());
    tree
}

#[test]
fn a_tree_that_keeps_the_rules_passes() {
    let comment = "// Unlike crate::cli, mongodb::Client is not for us.";
    assert_eq!(complaints(&tree_with("http/body.rs", comment)), [""; 0]);
}

#[test]
fn each_broken_rule_is_told() {
    let long = "\n".repeat(LINES_MAX + 1);
    let cases = [
        (
            "model/order.rs",
            "use crate::store::Store;",
            "model/order.rs uses crate::store",
        ),
        (
            "model/order.rs",
            "use crate::{model::Id, http::{Body, Head}};",
            "uses crate::http",
        ),
        (
            "store/log.rs",
            "fn f() { crate::cli::main() }",
            "store/log.rs uses crate::cli",
        ),
        (
            "http/body.rs",
            "use mongodb::bson;",
            "http/body.rs names the crate mongodb",
        ),
        (
            "http/body.rs",
            "fn f(c: &mongodb::Client) {}",
            "names the crate mongodb",
        ),
        (
            "store/log.rs",
            "fn f() { Client::with_options(options) }",
            "store/log.rs makes a driver of its own",
        ),
        (
            "cli/get.rs",
            "use std::env;\npub fn run() { env::var(\"X\"); }",
            "reads the environment",
        ),
        ("cli/get.rs", "pub fn go() {}", "cli/get.rs has 0 functions"),
        (
            "cli/get.rs",
            "pub fn run() {}\npub fn run(x: i32) {}",
            "cli/get.rs has 2 functions",
        ),
        ("http/body.rs", &long, "http/body.rs has 601 lines"),
        ("main.rs", &long[..MAIN_LINES_MAX], "main.rs has 40 lines"),
        ("extra.rs", "", "extra.rs belongs to no module"),
    ];
    for (path, text, complaint) in cases {
        let found = complaints(&tree_with(path, text));
        assert_eq!(found.len(), 1, "{path}: {text}: {found:?}");
        assert!(
            found[0].contains(complaint),
            "{found:?} lacks '{complaint}'"
        );
    }
}
