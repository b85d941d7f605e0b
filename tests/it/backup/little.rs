//! A run reads and writes little, however much the backup holds.

use std::fs;

use bson::doc;
use mongodb::Client;
use tokio::runtime::Runtime;

use super::{Backup, files_in};
use crate::support::{Cluster, SMALL};

/// What a run may write that finds nothing new.
const IDLE_BYTES_MAX: u64 = 4096;

#[test]
fn a_run_reads_the_manifest_alone_and_one_with_nothing_new_writes_that_alone() {
    let runtime = Runtime::new().unwrap();
    let cluster = Cluster::start(&SMALL);
    let insert = |id: i32| {
        runtime.block_on(async {
            let client = Client::with_uri_str(&cluster.info.mongodb_uri).await;
            let orders = client
                .unwrap()
                .database("shop")
                .collection::<bson::Document>("orders");
            orders.insert_one(doc! {"_id": id}).await.unwrap();
        });
    };
    insert(0);
    let backup = Backup::of(&cluster);
    backup.ok(&["--new-base"]);
    backup.ok(&["--new-base"]);
    for id in 1..=30 {
        insert(id);
        assert_eq!(backup.ok(&[])["events"], 1);
    }
    let kept = cluster.sandbox().path("elsewhere");
    fs::create_dir(&kept).unwrap();
    let files = files_in(&backup.folder, ".dlb");
    assert!(files.len() > 30 + 7, "segments and chapters: {files:?}");
    // Older bases are told, so their one small file is read. Nothing else is.
    let is_read = |name: &str| name.contains("-o");
    for file in &files {
        let name = file.file_name().unwrap().to_str().unwrap();
        if !is_read(name) {
            fs::rename(file, kept.join(name)).unwrap();
        }
    }
    let nothing = backup.ok(&[]);
    assert_eq!(nothing["events"], 0, "{nothing}");
    insert(31);
    assert_eq!(backup.ok(&[])["events"], 1);
    for file in files_in(&kept, "") {
        let name = file.file_name().unwrap();
        fs::rename(&file, backup.folder.join(name)).unwrap();
    }
    backup.verify();
    let changed = |before: &[(std::path::PathBuf, std::time::SystemTime)]| {
        let new = times(&backup);
        let mut new: Vec<_> = new.into_iter().filter(|at| !before.contains(at)).collect();
        new.retain(|(path, _)| !path.ends_with("lock"));
        new
    };
    let before = times(&backup);
    backup.ok(&[]);
    let changed = changed(&before);
    let [(path, _)] = changed.as_slice() else {
        panic!("{changed:?}");
    };
    assert!(path.ends_with("manifest.json"), "{path:?}");
    let written = fs::metadata(path).unwrap().len();
    assert!(written < IDLE_BYTES_MAX, "{written} bytes");
}

fn times(backup: &Backup<'_>) -> Vec<(std::path::PathBuf, std::time::SystemTime)> {
    let files = files_in(&backup.folder, "").into_iter();
    let files = files.map(|path| {
        let changed = fs::metadata(&path).unwrap().modified().unwrap();
        (path, changed)
    });
    files.collect()
}
