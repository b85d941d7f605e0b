//! The files of a drill, and the folder that they go to.

use std::fs;
use std::path::{Path, PathBuf};

use crate::drill::report::Report;
use crate::drill::{html, junit};

/// What the names of temporary folders begin with; the pid of their drill follows.
const TEMPORARY: &str = "drumline-drill-";

/// All that a drill may write.
const FILES: [&str; 5] = [
    "report.json",
    "report.html",
    "junit.xml",
    "history.jsonl",
    "log.jsonl",
];

/// Deletes what drills have left that were killed.
fn sweep() {
    for entry in fs::read_dir(std::env::temp_dir())
        .into_iter()
        .flatten()
        .flatten()
    {
        let name = entry.file_name();
        let owner = name.to_str().and_then(|name| {
            name.strip_prefix(TEMPORARY)?
                .split_once('-')?
                .0
                .parse()
                .ok()
        });
        let ended = |pid: u32| !Path::new(&format!("/proc/{pid}")).exists();
        if owner.is_some_and(ended) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Where the files of a drill go: the folder that was asked for, or one that is deleted.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    keep: bool,
}

impl Folder {
    pub fn new(asked: Option<&Path>) -> anyhow::Result<Self> {
        let path = match asked {
            Some(path) => path.to_owned(),
            None => {
                sweep();
                let own = format!("{TEMPORARY}{}-{}", std::process::id(), bson::Uuid::new());
                std::env::temp_dir().join(own)
            }
        };
        fs::create_dir_all(&path)
            .map_err(|error| anyhow::anyhow!("cannot make {}: {error}", path.display()))?;
        let folder = Self {
            path,
            keep: asked.is_some(),
        };
        folder.clear()?;
        Ok(folder)
    }

    /// Deletes the files of an earlier drill: beside those of this one they would tell what never happened.
    fn clear(&self) -> anyhow::Result<()> {
        let mut folders = vec![self.path.clone()];
        let entries = fs::read_dir(&self.path).into_iter().flatten().flatten();
        let is_run = |path: &PathBuf| {
            let name = path.file_name().and_then(|name| name.to_str());
            let number = name.and_then(|name| name.strip_prefix("run-"));
            number.is_some_and(|number| number.parse::<u32>().is_ok())
        };
        folders.extend(entries.map(|entry| entry.path()).filter(is_run));
        for folder in &folders {
            for file in FILES {
                let path = folder.join(file);
                if path.exists() {
                    fs::remove_file(&path).map_err(|error| {
                        anyhow::anyhow!("cannot delete {}: {error}", path.display())
                    })?;
                }
            }
        }
        // One that holds something else stays.
        for run in folders.iter().skip(1) {
            let _ = fs::remove_dir(run);
        }
        Ok(())
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if !self.keep {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// Writes the files of a report, but for the histories, which are there already.
pub fn write(folder: &Path, report: &Report, gate: bool) -> anyhow::Result<()> {
    let file = |name: &str, text: String| {
        let path = folder.join(name);
        fs::write(&path, text)
            .map_err(|error| anyhow::anyhow!("cannot write {}: {error}", path.display()))
    };
    file("report.json", serde_json::to_string_pretty(report)?)?;
    file("report.html", html::page(report))?;
    if gate {
        file("junit.xml", junit::xml(report))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_is_used_again_holds_nothing_of_the_drill_before() {
        let path = std::env::temp_dir().join(format!("drumline-files-{}", bson::Uuid::new()));
        let run = path.join("run-002");
        fs::create_dir_all(&run).unwrap();
        fs::create_dir(path.join("run-away")).unwrap();
        let kept = [path.join("notes"), path.join("run-away/history.jsonl")];
        let gone = [path.join("junit.xml"), run.join("log.jsonl")];
        for file in kept.iter().chain(&gone) {
            fs::write(file, "x").unwrap();
        }
        drop(Folder::new(Some(&path)).unwrap());
        assert!(kept.iter().all(|file| file.exists()));
        assert!(!gone.iter().any(|file| file.exists()) && !run.exists());
        fs::remove_dir_all(&path).unwrap();
    }
}
