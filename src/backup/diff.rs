//! What an update changed, as MongoDB's oplog has it (`{$v: 2, diff: ...}`), applied to a document.
//!
//! The form is that of `document_diff`: for a document the sections `d` (gone), `u` (another
//! value), `i` (new, at the end) and `s<field>` (changed within); for an array `a: true`, `l` (its
//! new length), `u<index>` and `s<index>`. Field names stand as they are: with dots, with `$`, of
//! digits alone. That is why a backup takes this form and not `updateDescription`, whose paths are
//! not.
//!
//! As MongoDB's own initial sync relies on it, all changes of a document that are applied again, in
//! order, to a later state of it lead to that state: what does not fit is passed over, because a
//! later change has made it so.

use super::raw::{ARRAY, Builder, DOCUMENT, Element, Malformed, NULL, elements};

/// A change that cannot be applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DiffError {
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// A form that later versions of MongoDB may have.
    #[error("the update has a section '{0}', which this version does not know")]
    Unknown(String),
}

/// How deep a change may go: as deep as MongoDB nests documents.
const DEPTH_MAX: usize = 200;

/// Applies a change to a document.
pub fn apply(document: &[u8], diff: &[u8]) -> Result<Vec<u8>, DiffError> {
    document_at(document, diff, 0)
}

fn document_at(document: &[u8], diff: &[u8], depth: usize) -> Result<Vec<u8>, DiffError> {
    if depth > DEPTH_MAX {
        return Err(Malformed.into());
    }
    let mut fields = elements(document)?
        .map(|field| Ok(Field::of(field?)))
        .collect::<Result<Vec<_>, Malformed>>()?;
    for section in elements(diff)? {
        let section = section?;
        match section.name {
            b"d" => {
                for gone in within(&section)? {
                    let gone = gone?;
                    fields.retain(|field| field.name != gone.name);
                }
            }
            b"u" => {
                for new in within(&section)? {
                    let new = new?;
                    match fields.iter_mut().find(|field| field.name == new.name) {
                        Some(field) => *field = Field::of(new),
                        None => fields.push(Field::of(new)),
                    }
                }
            }
            b"i" => {
                for new in within(&section)? {
                    let new = new?;
                    fields.retain(|field| field.name != new.name);
                    fields.push(Field::of(new));
                }
            }
            [b's', name @ ..] => {
                let sub = within_bytes(&section)?;
                if let Some(field) = fields.iter_mut().find(|field| field.name == name) {
                    field.change(sub, depth)?;
                }
            }
            _ => return Err(unknown(&section)),
        }
    }
    Ok(joined(
        fields.iter().map(|field| (field.name.to_vec(), field)),
    ))
}

fn array_at(array: &[u8], diff: &[u8], depth: usize) -> Result<Vec<u8>, DiffError> {
    if depth > DEPTH_MAX {
        return Err(Malformed.into());
    }
    let mut items = elements(array)?
        .map(|item| Ok(Field::of(item?)))
        .collect::<Result<Vec<_>, Malformed>>()?;
    let mut length = None;
    for section in elements(diff)? {
        let section = section?;
        match section.name {
            b"a" => {}
            b"l" => {
                let new = section.integer().and_then(|new| usize::try_from(new).ok());
                length = Some(new.filter(|new| *new <= ITEMS_MAX).ok_or(Malformed)?);
            }
            [b'u', index @ ..] => {
                let index = index_of(index)?;
                if items.len() <= index {
                    items.resize(index + 1, Field::NULL);
                }
                if let Some(item) = items.get_mut(index) {
                    *item = Field::of(section);
                }
            }
            [b's', index @ ..] => {
                let sub = within_bytes(&section)?;
                if let Some(item) = items.get_mut(index_of(index)?) {
                    item.change(sub, depth)?;
                }
            }
            _ => return Err(unknown(&section)),
        }
    }
    if let Some(length) = length {
        items.resize(length, Field::NULL);
    }
    let items = items.iter().enumerate();
    Ok(joined(
        items.map(|(at, item)| (at.to_string().into_bytes(), item)),
    ))
}

/// No array of a document of 16 MiB has more: each item takes three bytes at least.
const ITEMS_MAX: usize = 16 << 20;

fn index_of(digits: &[u8]) -> Result<usize, Malformed> {
    let index = std::str::from_utf8(digits)
        .ok()
        .and_then(|text| text.parse().ok());
    index.filter(|index| *index < ITEMS_MAX).ok_or(Malformed)
}

/// A field or an item, as it was or as it has become.
#[derive(Debug, Clone)]
struct Field<'a> {
    tag: u8,
    name: &'a [u8],
    value: std::borrow::Cow<'a, [u8]>,
}

impl<'a> Field<'a> {
    const NULL: Self = Self {
        tag: NULL,
        name: b"",
        value: std::borrow::Cow::Borrowed(b""),
    };

    fn of(element: Element<'a>) -> Self {
        Self {
            tag: element.tag,
            name: element.name,
            value: element.value.into(),
        }
    }

    /// Changes what is within, if it is of the kind that the change is for.
    fn change(&mut self, diff: &[u8], depth: usize) -> Result<(), DiffError> {
        let of_array = is_of_array(diff)?;
        let changed = match self.tag {
            DOCUMENT if !of_array => document_at(&self.value, diff, depth + 1)?,
            ARRAY if of_array => array_at(&self.value, diff, depth + 1)?,
            _ => return Ok(()),
        };
        self.value = changed.into();
        Ok(())
    }
}

fn is_of_array(diff: &[u8]) -> Result<bool, Malformed> {
    let first = elements(diff)?.next().transpose()?;
    Ok(first.is_some_and(|first| first.is("a") && first.boolean() == Some(true)))
}

fn joined<'a>(fields: impl Iterator<Item = (Vec<u8>, &'a Field<'a>)>) -> Vec<u8> {
    let mut builder = Builder::with_room(256);
    for (name, field) in fields {
        builder.push(field.tag, &name, &field.value);
    }
    builder.end()
}

fn within<'a>(section: &Element<'a>) -> Result<super::raw::Elements<'a>, DiffError> {
    Ok(elements(within_bytes(section)?)?)
}

fn within_bytes<'a>(section: &Element<'a>) -> Result<&'a [u8], DiffError> {
    section.document().ok_or_else(|| unknown(section))
}

fn unknown(section: &Element<'_>) -> DiffError {
    DiffError::Unknown(String::from_utf8_lossy(section.name).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::{Document, doc};

    #[track_caller]
    fn changed(before: Document, diff: Document) -> Document {
        let after = apply(&before.to_vec().unwrap(), &diff.to_vec().unwrap()).unwrap();
        Document::from_reader(after.as_slice()).unwrap()
    }

    #[track_caller]
    fn is(before: Document, diff: Document, after: Document) {
        let changed = changed(before, diff);
        // Order counts.
        assert_eq!(
            changed.to_vec().unwrap(),
            after.to_vec().unwrap(),
            "{changed}"
        );
    }

    #[test]
    fn fields_go_change_and_come() {
        let diff = doc! {"d": {"a": false}, "u": {"b": "new"}, "i": {"c": 1, "x.y": 2, "$z": 3}};
        let after = doc! {"_id": 1, "b": "new", "e": 0, "c": 1, "x.y": 2, "$z": 3};
        is(doc! {"_id": 1, "a": 1, "b": 1, "e": 0}, diff, after);
    }

    #[test]
    fn what_lies_within_is_changed_by_its_name_whatever_that_is() {
        let before = doc! {"o": {"0": 5, "a.b": {"n": 1}}, "arr": [1, {"k": 1}, 3]};
        let diff = doc! {
            "so": {"u": {"0": 6}, "sa.b": {"u": {"n": 2}}},
            "sarr": {"a": true, "l": 2, "u0": 9, "s1": {"i": {"m": 1}}},
        };
        let after = doc! {"o": {"0": 6, "a.b": {"n": 2}}, "arr": [9, {"k": 1, "m": 1}]};
        is(before, diff, after);
    }

    #[test]
    fn an_array_grows_with_nulls_between() {
        let null = bson::Bson::Null;
        is(
            doc! {"a": [1]},
            doc! {"sa": {"a": true, "u3": 4}},
            doc! {"a": [1, &null, &null, 4]},
        );
        is(
            doc! {"a": [1]},
            doc! {"sa": {"a": true, "l": 2}},
            doc! {"a": [1, null]},
        );
    }

    #[test]
    fn changes_applied_again_to_a_later_state_lead_to_it() {
        let steps = [
            doc! {"i": {"x": 1}},
            doc! {"so": {"i": {"n": 1}}},
            doc! {"i": {"y": 1}},
            doc! {"d": {"x": false}, "sarr": {"a": true, "u2": 7}},
            doc! {"u": {"o": 5}},
            doc! {"sarr": {"a": true, "l": 1}, "i": {"x": 3}},
            doc! {"u": {"o": {"n": 9}, "arr": [4, 5]}},
            doc! {"so": {"u": {"n": 10}, "i": {"m": 1}}, "sarr": {"a": true, "u0": 1}},
        ];
        let mut states = vec![doc! {"_id": 1, "o": {}, "arr": [1, 2]}];
        for step in &steps {
            states.push(changed(states.last().unwrap().clone(), step.clone()));
        }
        let last = states.last().unwrap();
        for (from, state) in states.iter().enumerate() {
            let mut again = state.clone();
            for step in &steps {
                again = changed(again, step.clone());
            }
            assert_eq!(
                again.to_vec().unwrap(),
                last.to_vec().unwrap(),
                "from state {from}"
            );
        }
    }

    #[test]
    fn an_unknown_section_and_a_deep_one_are_refused() {
        let apply =
            |diff: Document| apply(&doc! {"a": 1}.to_vec().unwrap(), &diff.to_vec().unwrap());
        assert_eq!(
            apply(doc! {"b": {"a": 1}}),
            Err(DiffError::Unknown("b".into()))
        );
        assert_eq!(apply(doc! {"u": 1}), Err(DiffError::Unknown("u".into())));
        let (mut deep, mut diff) = (doc! {}, doc! {"u": {"x": 1}});
        for _ in 0..300 {
            deep = doc! {"a": deep};
            diff = doc! {"sa": diff};
        }
        let refused = super::apply(&deep.to_vec().unwrap(), &diff.to_vec().unwrap());
        assert_eq!(refused, Err(DiffError::Malformed(Malformed)));
    }
}
