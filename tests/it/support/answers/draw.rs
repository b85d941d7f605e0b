//! Requests at random, so that most of them meet a document or the want of one, and many are
//! refused.

use bson::oid::ObjectId;
use bson::raw::cstr;
use bson::spec::BinarySubtype;
use bson::{Binary, Bson, DateTime, Document, JavaScriptCodeWithScope, Regex, Timestamp, doc};
use drumline::model::{Update, Write};
use serde_json::json;

/// Draws numbers from a seed (splitmix64).
#[derive(Debug)]
pub struct Dice(pub u64);

impl Dice {
    pub fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        let mixed = mixed ^ (mixed >> 31);
        usize::try_from(mixed % u64::try_from(end).unwrap()).unwrap()
    }

    pub fn of<T: Clone>(&mut self, among: &[T]) -> T {
        among[self.below(among.len())].clone()
    }

    fn small(&mut self) -> i32 {
        i32::try_from(self.below(5)).unwrap()
    }
}

/// The kinds of requests that write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    InsertOne,
    InsertMany,
    UpdateOne,
    UpdateMany,
    UpdateByPipeline,
    UpdateOrInsert,
    Replace,
    ReplaceOrInsert,
    DeleteOne,
    DeleteMany,
}

impl Kind {
    pub const ALL: [Self; 10] = [
        Self::InsertOne,
        Self::InsertMany,
        Self::UpdateOne,
        Self::UpdateMany,
        Self::UpdateByPipeline,
        Self::UpdateOrInsert,
        Self::Replace,
        Self::ReplaceOrInsert,
        Self::DeleteOne,
        Self::DeleteMany,
    ];

    pub fn draw(self, dice: &mut Dice) -> Write {
        let filter = match self {
            // A filter that MongoDB gives the new `_id` for would give each side another one.
            Self::UpdateOrInsert | Self::ReplaceOrInsert => match dice.below(4) {
                0 => doc! {"_id": id(dice), "v": dice.small()},
                _ => doc! {"_id": id(dice)},
            },
            _ => filter(dice),
        };
        let many = matches!(self, Self::UpdateMany | Self::DeleteMany);
        let upsert = matches!(self, Self::UpdateOrInsert | Self::ReplaceOrInsert);
        match self {
            Self::InsertOne => Write::Insert {
                documents: vec![document(dice)],
            },
            Self::InsertMany => Write::Insert {
                documents: (0..=dice.below(3)).map(|_| document(dice)).collect(),
            },
            Self::UpdateOne | Self::UpdateMany | Self::UpdateOrInsert => Write::Update {
                update: Update::Operators(operators(&filter, dice)),
                filter,
                many,
                upsert,
            },
            Self::UpdateByPipeline => Write::Update {
                filter,
                update: Update::Pipeline(stages(dice)),
                many: dice.below(2) == 0,
                upsert: false,
            },
            Self::Replace | Self::ReplaceOrInsert => {
                let mut replacement = document(dice);
                if dice.below(3) > 0 {
                    replacement.remove("_id");
                }
                Write::Replace {
                    filter,
                    replacement,
                    upsert,
                }
            }
            Self::DeleteOne | Self::DeleteMany => Write::Delete { filter, many },
        }
    }
}

fn binary(subtype: BinarySubtype, bytes: &[u8]) -> Bson {
    let bytes = bytes.to_vec();
    Bson::Binary(Binary { subtype, bytes })
}

/// Values of every type that an `_id` may have, many of them equal to another for MongoDB.
pub fn ids() -> Vec<Bson> {
    let decimal = |text: &str| Bson::Decimal128(text.parse().unwrap());
    let pointer = json!({"$dbPointer": {"$ref": "a.b", "$id": {"$oid": "0".repeat(24)}}});
    let mut ids: Vec<Bson> = vec![
        "a".into(),
        "A".into(),
        "b".into(),
        Bson::Symbol("a".into()),
        Bson::Symbol("A".into()),
        Bson::Symbol("b".into()),
        1.into(),
        1_i64.into(),
        1.0.into(),
        decimal("1"),
        decimal("1.0"),
        0.into(),
        0.0.into(),
        (-0.0).into(),
        decimal("-0"),
        f64::NAN.into(),
        decimal("NaN"),
        f64::INFINITY.into(),
        2.into(),
        Bson::Null,
        true.into(),
        false.into(),
        ObjectId::from_bytes([7; 12]).into(),
        DateTime::from_millis(0).into(),
        DateTime::MAX.into(),
        Bson::Timestamp(Timestamp {
            time: 1,
            increment: 2,
        }),
        Bson::MinKey,
        Bson::MaxKey,
        Bson::JavaScriptCode("a".into()),
        Bson::JavaScriptCodeWithScope(JavaScriptCodeWithScope {
            code: "a".into(),
            scope: doc! {"x": "a"},
        }),
        Bson::try_from(pointer).unwrap(),
        doc! {"a": 1}.into(),
        doc! {"a": 1.0}.into(),
        doc! {"s": "a"}.into(),
        doc! {"s": Bson::Symbol("a".into())}.into(),
        doc! {"s": "A"}.into(),
        doc! {}.into(),
    ];
    let subtypes = (0..=9).chain([0x80, 0xff]);
    ids.extend(subtypes.map(|subtype| binary(BinarySubtype::from(subtype), &[7; 16])));
    ids.push(binary(BinarySubtype::Generic, b""));
    ids
}

/// Mostly the ids that are equal to others, so that they meet.
fn id(dice: &mut Dice) -> Bson {
    let ids = ids();
    match dice.below(3) {
        0 => dice.of(&ids),
        _ => dice.of(&ids[..19]),
    }
}

/// What is no `_id`, but may stand in a filter, or be tried as one.
fn odd(dice: &mut Dice) -> Bson {
    dice.of(&[
        Bson::Array(vec![1.into(), "a".into()]),
        Bson::Array(vec![]),
        Bson::Undefined,
        Bson::RegularExpression(Regex {
            pattern: cstr!("^a").into(),
            options: cstr!("i").into(),
        }),
    ])
}

fn filter(dice: &mut Dice) -> Document {
    match dice.below(16) {
        0 => doc! {"_id": {"$in": [id(dice), id(dice), [1]]}},
        1 => doc! {"_id": {"$gte": id(dice)}},
        2 => doc! {"_id": id(dice), "v": dice.small()},
        3 => doc! {"list": dice.small()},
        4 => doc! {"list": [dice.small(), 2]},
        5 => doc! {"u": dice.small()},
        6 => doc! {"text": dice.of(&["a", "A", "b"])},
        7 => doc! {"_id": odd(dice)},
        8 => doc! {"_id": {"$eq": id(dice)}},
        9 => doc! {"$or": [{"_id": id(dice)}, {"v": dice.small()}]},
        10 => doc! {"v": dice.small()},
        _ => doc! {"_id": id(dice)},
    }
}

fn document(dice: &mut Dice) -> Document {
    let own = match dice.below(24) {
        0 => odd(dice),
        _ => id(dice),
    };
    let mut document = doc! {"_id": own, "v": dice.small()};
    if dice.below(3) == 0 {
        document.insert("u", dice.small());
    }
    if dice.below(2) == 0 {
        document.insert("list", vec![dice.small(), dice.small(), 2]);
    }
    // The validator takes no larger one.
    if dice.below(8) == 0 {
        document.insert("v", 100);
    }
    document.insert("text", dice.of(&["a", "A", "b"]));
    if dice.below(8) == 0 {
        document.insert("value", id(dice));
    }
    document
}

fn operators(filter: &Document, dice: &mut Dice) -> Document {
    match dice.below(14) {
        0 => doc! {"$inc": {"v": dice.small()}},
        1 => doc! {"$set": {"v": dice.small()}},
        2 => doc! {"$inc": {"text": 1}},
        3 => doc! {"$set": {"u": dice.small()}},
        4 => doc! {"$unset": {"v": ""}},
        5 => doc! {"$set": {"_id": id(dice)}},
        6 if filter.contains_key("list") => doc! {"$set": {"list.$": 9}},
        7 => doc! {"$push": {"list": dice.small()}},
        8 => doc! {"$set": {"v": 100}},
        9 => doc! {"$rename": {"text": "other"}},
        10 => doc! {"$set": {"v": 1}, "$inc": {"v": 1}},
        11 => doc! {"$setOnInsert": {"v": dice.small()}},
        12 => doc! {"$set": {"value": id(dice)}},
        _ => doc! {"$set": {"text": dice.of(&["a", "A", "b"])}},
    }
}

fn stages(dice: &mut Dice) -> Vec<Document> {
    match dice.below(4) {
        0 => vec![doc! {"$set": {"v": {"$add": ["$v", dice.small()]}}}],
        1 => vec![doc! {"$unset": "v"}, doc! {"$set": {"text": "$_id"}}],
        2 => vec![doc! {"$set": {"v": {"$divide": [1, "$v"]}}}],
        _ => vec![doc! {"$replaceWith": {"_id": "$_id", "v": dice.small()}}],
    }
}
