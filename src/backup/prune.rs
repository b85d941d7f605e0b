//! Takes out old bases with their segments. First a manifest that does not lead to them any more,
//! and says whose files are to go; then the files. A run that is killed between leaves a whole
//! backup, and the next one takes out the rest.

use std::path::Path;

use super::Report;
use super::check::windows;
use super::error::Error;
use super::folder::Folder;
use super::manifest::Base;

/// What is to stay. A base stays if either asks for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Keep {
    /// Bases that reach a point since then, in milliseconds since 1970.
    pub since: Option<i64>,
    /// So many of the last bases that can be restored.
    pub bases: Option<usize>,
}

/// What has gone, or would go.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pruned {
    /// The numbers of the bases.
    pub bases: Vec<u32>,
    pub files: u64,
    pub bytes: u64,
}

/// Takes out the bases that need not stay; with `dry_run` it only says which. Never the base that
/// grows, and never the last that can be restored.
pub fn prune(
    folder: &Path,
    keep: Keep,
    dry_run: bool,
    report: Report<'_>,
) -> Result<Pruned, Error> {
    let (reading, manifest) = Folder::to_read(folder)?;
    let (folder, mut manifest) = match dry_run {
        true => (reading, manifest),
        false => {
            let (folder, manifest) = Folder::to_write(folder)?;
            let gone = || Error::Folder("the backup has gone meanwhile".into());
            (folder, manifest.ok_or_else(gone)?)
        }
    };
    let bases = folder.bases(&manifest)?;
    let gone = chosen(&bases, keep);
    let files = folder.files_of(&gone)?;
    let pruned = Pruned {
        files: u64::try_from(files.len()).unwrap_or(u64::MAX),
        bytes: files.iter().map(|(_, bytes)| bytes).sum(),
        bases: gone.clone(),
    };
    if dry_run || gone.is_empty() {
        return Ok(pruned);
    }
    let stay = bases
        .into_iter()
        .filter(|base| !gone.contains(&base.number));
    folder.set_bases(&mut manifest, stay.collect())?;
    manifest.gone = gone;
    folder.save(&manifest)?;
    report("the manifest does not lead to them any more; the files go");
    folder.take_out_gone(&mut manifest)?;
    Ok(pruned)
}

/// The numbers of the bases that need not stay.
fn chosen(bases: &[Base], keep: Keep) -> Vec<u32> {
    let windows = windows(bases);
    let last = bases.last().map(|base| base.number);
    let restorable = windows.len();
    let stays = |base: &&Base| {
        let at = windows.iter().position(|window| window.base == base.number);
        let Some((at, window)) = at.and_then(|at| Some((at, windows.get(at)?))) else {
            return false; // it was never finished
        };
        let from_last = restorable - at;
        from_last == 1
            || keep.bases.is_some_and(|keep| from_last <= keep)
            || keep.since.is_some_and(|since| window.last.wall >= since)
    };
    let gone = bases.iter().filter(|base| Some(base.number) != last);
    gone.filter(|base| !stays(base))
        .map(|base| base.number)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup::folder::tests::Temporary;
    use crate::backup::folder::{catalog_name, name_of};
    use crate::backup::list::List;
    use crate::backup::manifest::tests::manifest;
    use crate::backup::manifest::{Manifest, Time};
    use std::fs;

    /// Bases that end at these seconds; those at 0 were never finished.
    fn bases(ends: &[u32]) -> Vec<Base> {
        let template = manifest().base.unwrap();
        let bases = ends.iter().zip(1..).map(|(end, number)| {
            let mut base = template.clone();
            base.number = number;
            base.files = List::default();
            base.segments = List::default();
            (base.end.time, base.end.wall) = (Time(*end, 1), i64::from(*end) * 1_000);
            if let Some(window) = &mut base.window {
                window.time = Time(1, 1);
            }
            base
        });
        bases.collect()
    }

    fn of(since: Option<i64>, bases: Option<usize>) -> Keep {
        Keep { since, bases }
    }

    #[test]
    fn what_either_asks_for_stays_and_the_last_that_can_be_restored() {
        let all = bases(&[10, 20, 0, 40, 50]);
        assert_eq!(chosen(&all, of(None, Some(1))), [1, 2, 3, 4]);
        assert_eq!(chosen(&all, of(None, Some(3))), [1, 3]);
        assert_eq!(chosen(&all, of(None, Some(9))), [3]);
        assert_eq!(chosen(&all, of(Some(20_000), None)), [1, 3]);
        assert_eq!(chosen(&all, of(Some(90_000), None)), [1, 2, 3, 4]);
        assert_eq!(chosen(&all, of(Some(40_000), Some(3))), [1, 3]);
        // The one that grows cannot be restored yet: the one before it stays.
        let all = bases(&[10, 20, 0]);
        assert_eq!(chosen(&all, of(None, Some(0))), [1]);
        assert_eq!(chosen(&bases(&[0]), of(None, Some(0))), Vec::<u32>::new());
        assert_eq!(
            chosen(&bases(&[5]), of(Some(9_000), None)),
            Vec::<u32>::new()
        );
    }

    fn written(place: &Temporary) -> (Folder, Manifest) {
        let (folder, _) = Folder::to_write(place.path()).unwrap();
        let mut manifest = manifest();
        folder
            .set_bases(&mut manifest, bases(&[10, 20, 30]))
            .unwrap();
        folder.save(&manifest).unwrap();
        for base in 1..=3 {
            for name in [catalog_name(base), name_of(base, 's', 1)] {
                fs::write(place.path().join(name), "x").unwrap();
            }
        }
        fs::write(place.path().join("b0001-notes.txt"), "x").unwrap();
        (folder, manifest)
    }

    fn names(place: &Temporary) -> Vec<String> {
        let entries = fs::read_dir(place.path()).unwrap().flatten();
        let names = entries.map(|entry| entry.file_name().into_string().unwrap());
        let mut names: Vec<_> = names.filter(|name| name != "lock").collect();
        names.sort();
        names
    }

    #[test]
    fn files_go_when_the_manifest_does_not_lead_to_them() {
        let place = Temporary::new();
        drop(written(&place));
        let before = names(&place);
        let keep = of(None, Some(1));
        let dry = prune(place.path(), keep, true, &|_| {}).unwrap();
        assert_eq!(
            (dry.bases.as_slice(), dry.files, dry.bytes),
            ([1, 2].as_slice(), 4, 4)
        );
        assert_eq!(names(&place), before);
        assert_eq!(prune(place.path(), keep, false, &|_| {}).unwrap(), dry);
        // (The segment of base 3 that its list does not have is a leftover.)
        let left = ["b0001-notes.txt", "b0003-catalog.dlb", "manifest.json"];
        assert_eq!(names(&place), left);
        let (folder, manifest) = Folder::to_read(place.path()).unwrap();
        assert_eq!(folder.bases(&manifest).unwrap(), bases(&[10, 20, 30])[2..]);
        let again = prune(place.path(), keep, false, &|_| {}).unwrap();
        assert_eq!(again, Pruned::default());
    }

    #[test]
    fn a_run_that_was_killed_before_the_files_went_is_gone_on_with() {
        let place = Temporary::new();
        let (folder, mut manifest) = written(&place);
        let stay = bases(&[10, 20, 30]).split_off(1);
        folder.set_bases(&mut manifest, stay.clone()).unwrap();
        manifest.gone = vec![1];
        folder.save(&manifest).unwrap();
        drop(folder);
        // The backup is whole all the time.
        let (folder, read) = Folder::to_read(place.path()).unwrap();
        assert_eq!(folder.bases(&read).unwrap(), stay);
        let (folder, read) = Folder::to_write(place.path()).unwrap();
        let read = read.unwrap();
        assert_eq!(read.gone, Vec::<u32>::new());
        assert_eq!(folder.bases(&read).unwrap(), stay);
        let left = names(&place);
        assert!(!left.contains(&"b0001-catalog.dlb".to_owned()), "{left:?}");
        assert!(left.contains(&"b0002-catalog.dlb".to_owned()), "{left:?}");
        assert!(left.contains(&"b0001-notes.txt".to_owned()), "{left:?}");
        drop(folder);
        let (_, again) = Folder::to_read(place.path()).unwrap();
        assert_eq!(again.gone, Vec::<u32>::new());
    }
}
