//! A stored document as it is, whatever is in it.
//!
//! The driver's own decoder takes subdocuments with keys like `$oid` for Extended JSON, keeps the
//! last of two equal keys, and gives a whole document up for one value that it does not like.
//!
//! Never speaks to MongoDB.

use bson::error::Error;
use bson::spec::{BinarySubtype, ElementType};
use bson::{Binary, Bson, Document, JavaScriptCodeWithScope, RawBsonRef, RawDocument};

/// Bytes of a binary value before its data: its length and its subtype.
const BINARY_HEAD: usize = 5;

/// All of a document. An error tells that it holds text which is not UTF-8, or is no BSON.
///
/// Of two fields with the same key the second gets a name of its own, like `a (2)`. A binary value
/// of the old subtype whose inner length is wrong is given with all its bytes.
pub fn whole(stored: &RawDocument) -> Result<Document, Error> {
    let mut document = Document::new();
    fields(stored, &mut |key, value| insert(&mut document, key, value))?;
    Ok(document)
}

fn fields(stored: &RawDocument, take: &mut dyn FnMut(&str, Bson)) -> Result<(), Error> {
    // After the document's own length.
    let mut at = 4;
    for element in stored.iter_elements() {
        let element = element?;
        let key = element.key().as_str();
        // The type, the key and its end stand before the value.
        let begin = at + 1 + key.len() + 1;
        at = begin + element.size();
        let value = match element.value() {
            Ok(RawBsonRef::Document(inner)) => Bson::Document(whole(inner)?),
            Ok(RawBsonRef::Array(inner)) => {
                let mut values = Vec::new();
                fields(
                    RawDocument::from_bytes(inner.as_bytes())?,
                    &mut |_, value| {
                        values.push(value);
                    },
                )?;
                Bson::Array(values)
            }
            Ok(RawBsonRef::JavaScriptCodeWithScope(code)) => {
                Bson::JavaScriptCodeWithScope(JavaScriptCodeWithScope {
                    code: code.code.to_owned(),
                    scope: whole(code.scope)?,
                })
            }
            Ok(value) => value.try_into()?,
            Err(error) if element.element_type() == ElementType::Binary => {
                let bytes = stored
                    .as_bytes()
                    .get(begin + BINARY_HEAD..at)
                    .ok_or(error)?;
                Bson::Binary(Binary {
                    subtype: BinarySubtype::BinaryOld,
                    bytes: bytes.to_vec(),
                })
            }
            Err(error) => return Err(error),
        };
        take(key, value);
    }
    Ok(())
}

/// Inserts a field under its key, or under a name of its own if the key is taken.
fn insert(document: &mut Document, key: &str, value: Bson) {
    if !document.contains_key(key) {
        document.insert(key, value);
        return;
    }
    let names = (2_u32..).map(|number| format!("{key} ({number})"));
    let mut free = names.filter(|name| !document.contains_key(name));
    if let Some(name) = free.next() {
        document.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::doc;

    /// A document of these bytes of elements.
    fn stored(elements: &[u8]) -> Document {
        let length = i32::try_from(elements.len() + 5).unwrap();
        let bytes = [&length.to_le_bytes(), elements, &[0]].concat();
        whole(RawDocument::from_bytes(&bytes).unwrap()).unwrap()
    }

    #[test]
    fn a_key_that_stands_twice_is_shown_twice() {
        let field = |key: &str, value: u8| [&[0x10], key.as_bytes(), &[0, value, 0, 0, 0]].concat();
        let elements = [
            field("a", 1),
            field("a (2)", 2),
            field("a", 3),
            field("", 4),
            field("", 5),
        ];
        let expected = doc! {"a": 1, "a (2)": 2, "a (3)": 3, "": 4, " (2)": 5};
        assert_eq!(stored(&elements.concat()), expected);
    }

    #[test]
    fn an_old_binary_with_a_wrong_length_is_shown_with_all_its_bytes() {
        let element = |data: &[u8]| {
            let length = i32::try_from(data.len()).unwrap().to_le_bytes();
            stored(&[b"\x05b\0".as_slice(), &length, &[2], data].concat())
        };
        let binary = |bytes: &[u8]| {
            let (subtype, bytes) = (BinarySubtype::BinaryOld, bytes.to_vec());
            doc! {"b": Binary { subtype, bytes }}
        };
        assert_eq!(element(&[1, 0, 0, 0, 7]), binary(&[7]));
        assert_eq!(element(&[9, 0, 0, 0, 7]), binary(&[9, 0, 0, 0, 7]));
        assert_eq!(element(&[9, 9]), binary(&[9, 9]));
    }

    #[test]
    fn keys_of_extended_json_say_nothing() {
        let odd = doc! {"$oid": 1, "v": {"$date": "x", "$scope": []}, "l": [{"$numberLong": "a"}]};
        let bytes = odd.to_vec().unwrap();
        assert_eq!(
            whole(RawDocument::from_bytes(&bytes).unwrap()).unwrap(),
            odd
        );
    }
}
