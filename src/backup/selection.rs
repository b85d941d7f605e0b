//! A part of a backup: some of its collections and views, perhaps under other names. What
//! belonged together in transactions is told, never torn in silence.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use super::catalog::{BUCKETS, Catalog, Uuid};
use super::error::Error;

/// So many left-out collections are named.
const NAMED_MAX: usize = 5;

/// A database and a collection.
type Name = (String, String);

/// A collection or a view, and the name that it is to have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chosen {
    from: Name,
    to: Name,
}

impl FromStr for Chosen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (from, to) = text.split_once('=').unwrap_or((text, text));
        let name = |text: &str| {
            let parts = text.split_once('.');
            let parts = parts.filter(|(database, name)| !database.is_empty() && !name.is_empty());
            let (database, name) =
                parts.ok_or("give DATABASE.COLLECTION, or two of them with =")?;
            match database {
                "admin" | "config" | "local" => Err("MongoDB's own databases are in no backup"),
                "drumline" => Err("the log is restored with everything else, or not at all"),
                _ if name.starts_with("system.") => Err("give the name without what is MongoDB's"),
                _ => Ok((database.to_owned(), name.to_owned())),
            }
        };
        Ok(Self {
            from: name(from)?,
            to: name(to)?,
        })
    }
}

/// What is to be restored. Empty: everything.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Selection(Vec<Chosen>);

impl fmt::Display for Selection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, Chosen { from, to }) in self.0.iter().enumerate() {
            let before = if at == 0 { ", only " } else { ", " };
            write!(f, "{before}{}.{}", from.0, from.1)?;
            if from != to {
                write!(f, "={}.{}", to.0, to.1)?;
            }
        }
        Ok(())
    }
}

impl Selection {
    /// Refuses a name that comes twice, on either side.
    pub fn new(chosen: Vec<Chosen>) -> Result<Self, Error> {
        let from: Vec<_> = chosen.iter().map(|one| &one.from).collect();
        let to: Vec<_> = chosen.iter().map(|one| &one.to).collect();
        for side in [from, to] {
            let mut names = BTreeSet::new();
            for (database, name) in side {
                if !names.insert((database, name)) {
                    let why = format!("{database}.{name} is given twice");
                    return Err(Error::Point(why));
                }
            }
        }
        Ok(Self(chosen))
    }

    pub const fn is_everything(&self) -> bool {
        self.0.is_empty()
    }

    /// What is chosen of a catalogue, under the names that it is to have.
    pub fn of(&self, all: &Catalog) -> Result<Catalog, Error> {
        if self.is_everything() {
            return Ok(all.clone());
        }
        let mut some = Catalog::default();
        for Chosen { from, to } in &self.0 {
            let is_it = |database: &str, name: &str| database == from.0 && name == from.1;
            let found = all
                .collections
                .iter()
                .find(|(_, one)| is_it(&one.database, one.time_series().unwrap_or(&one.name)));
            if let Some((uuid, collection)) = found {
                let mut collection = collection.clone();
                let buckets = collection.time_series().map_or("", |_| BUCKETS);
                collection.name = format!("{buckets}{}", to.1);
                collection.database.clone_from(&to.0);
                some.collections.insert(*uuid, collection);
            } else if let Some(view) = all.views.get(from) {
                some.views.insert(to.clone(), view.clone());
            } else {
                return Err(Error::Point(format!(
                    "{}.{} is not in the backup at that point",
                    from.0, from.1
                )));
            }
        }
        Ok(some)
    }

    /// Which transactions have changed what is chosen and what is not, in a sentence. `together`
    /// counts them by the collections that they changed.
    pub fn torn(
        &self,
        all: &Catalog,
        some: &Catalog,
        together: &BTreeMap<BTreeSet<Uuid>, u64>,
    ) -> Option<String> {
        let is_chosen = |uuid: &Uuid| some.collections.contains_key(uuid);
        let (mut count, mut others) = (0, BTreeSet::new());
        for (uuids, transactions) in together {
            if uuids.iter().any(is_chosen) && !uuids.iter().all(is_chosen) {
                count += transactions;
                others.extend(uuids.iter().filter(|uuid| !is_chosen(uuid)));
            }
        }
        let name = |uuid: &Uuid| {
            let collection = all.collections.get(uuid);
            collection.map_or_else(
                || "a collection that is gone by then".to_owned(),
                |collection| {
                    let name = collection.time_series().unwrap_or(&collection.name);
                    format!("{}.{name}", collection.database)
                },
            )
        };
        let names: BTreeSet<_> = others.into_iter().map(name).collect();
        let mut named: Vec<_> = names.iter().take(NAMED_MAX).cloned().collect();
        if names.len() > NAMED_MAX {
            named.push(format!("{} more", names.len() - NAMED_MAX));
        }
        (count > 0).then(|| {
            format!(
                "{count} transactions since the base changed what is restored and also {}, which is \
                 left out",
                named.join(", ")
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup::catalog::Collection;
    use bson::{Document, doc};

    fn catalog() -> Catalog {
        let mut all = Catalog::default();
        for (number, name) in [(1, "a"), (2, "b"), (3, "system.buckets.t")] {
            let collection = Collection {
                database: "shop".into(),
                name: name.into(),
                options: Document::new(),
                indexes: Vec::new(),
            };
            all.collections.insert([number; 16], collection);
        }
        all.views
            .insert(("shop".into(), "v".into()), doc! {"viewOn": "a"});
        all
    }

    fn selection(texts: &[&str]) -> Result<Selection, String> {
        let chosen = texts.iter().map(|text| text.parse());
        let chosen = chosen.collect::<Result<_, _>>()?;
        Selection::new(chosen).map_err(|error| error.to_string())
    }

    #[test]
    fn collections_series_and_views_are_chosen_and_renamed() {
        let chosen = selection(&["shop.a", "shop.t=old.u", "shop.v=shop.w"]).unwrap();
        assert_eq!(
            chosen.to_string(),
            ", only shop.a, shop.t=old.u, shop.v=shop.w"
        );
        let some = chosen.of(&catalog()).unwrap();
        let names = some.collections.values().map(Collection::namespace);
        assert_eq!(
            names.collect::<Vec<_>>(),
            ["shop.a", "old.system.buckets.u"]
        );
        assert!(some.views.contains_key(&("shop".into(), "w".into())));
        let all = selection(&[]).unwrap();
        assert!(all.is_everything() && all.of(&catalog()).unwrap() == catalog());
        let told = selection(&["shop.x"]).unwrap().of(&catalog()).unwrap_err();
        assert!(told.to_string().starts_with("shop.x is not in the backup"));
    }

    #[test]
    fn bad_names_and_the_log_are_refused() {
        for (texts, why) in [
            (&["shop"][..], "give DATABASE.COLLECTION"),
            (&["shop.=a.b"], "give DATABASE.COLLECTION"),
            (&["drumline.log"], "or not at all"),
            (&["shop.a=drumline.log"], "or not at all"),
            (&["admin.x"], "MongoDB's own"),
            (&["shop.system.buckets.t"], "without what is MongoDB's"),
            (&["shop.a", "shop.a=b.c"], "shop.a is given twice"),
            (&["shop.a=b.c", "shop.b=b.c"], "b.c is given twice"),
        ] {
            let told = selection(texts).unwrap_err();
            assert!(told.contains(why), "{texts:?}: {told}");
        }
    }

    #[test]
    fn transactions_that_are_torn_are_told() {
        let set = |numbers: &[u8]| -> BTreeSet<Uuid> {
            numbers.iter().map(|number| [*number; 16]).collect()
        };
        let together = [
            (set(&[1, 2]), 3),
            (set(&[1, 9]), 1),
            (set(&[2, 3]), 5),
            (set(&[1]), 7),
        ];
        let (all, together) = (catalog(), together.into());
        let chosen = selection(&["shop.a"]).unwrap();
        let torn = chosen.torn(&all, &chosen.of(&all).unwrap(), &together);
        assert_eq!(
            torn.unwrap(),
            "4 transactions since the base changed what is restored and also a collection that is \
             gone by then, shop.b, which is left out"
        );
        let both = selection(&["shop.b", "shop.t"]).unwrap();
        let torn = both.torn(&all, &both.of(&all).unwrap(), &together);
        assert!(torn.unwrap().starts_with("3 transactions"));
        let none = selection(&["shop.t=a.b", "shop.b"]).unwrap();
        let some = none.of(&all).unwrap();
        assert_eq!(none.torn(&all, &some, &[(set(&[2, 3]), 5)].into()), None);
    }
}
