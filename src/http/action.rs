//! The ten actions of the Data API.

/// What a request asks for: the last part of its path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    FindOne,
    Find,
    InsertOne,
    InsertMany,
    UpdateOne,
    UpdateMany,
    ReplaceOne,
    DeleteOne,
    DeleteMany,
    Aggregate,
}

impl Action {
    pub const ALL: [Self; 10] = [
        Self::FindOne,
        Self::Find,
        Self::InsertOne,
        Self::InsertMany,
        Self::UpdateOne,
        Self::UpdateMany,
        Self::ReplaceOne,
        Self::DeleteOne,
        Self::DeleteMany,
        Self::Aggregate,
    ];

    /// The action of a name, written exactly as in the path.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|action| action.name() == name)
    }

    pub const fn name(self) -> &'static str {
        match self {
            Self::FindOne => "findOne",
            Self::Find => "find",
            Self::InsertOne => "insertOne",
            Self::InsertMany => "insertMany",
            Self::UpdateOne => "updateOne",
            Self::UpdateMany => "updateMany",
            Self::ReplaceOne => "replaceOne",
            Self::DeleteOne => "deleteOne",
            Self::DeleteMany => "deleteMany",
            Self::Aggregate => "aggregate",
        }
    }

    /// Whether it changes nothing.
    pub const fn is_read(self) -> bool {
        matches!(self, Self::FindOne | Self::Find | Self::Aggregate)
    }

    /// The fields that its body may hold beside `dataSource`, `database` and `collection`.
    pub const fn fields(self) -> &'static [&'static str] {
        match self {
            Self::FindOne => &["filter", "projection", "sort"],
            Self::Find => &["filter", "projection", "sort", "limit", "skip"],
            Self::InsertOne => &["document"],
            Self::InsertMany => &["documents"],
            Self::UpdateOne | Self::UpdateMany => &["filter", "update", "upsert"],
            Self::ReplaceOne => &["filter", "replacement", "upsert"],
            Self::DeleteOne | Self::DeleteMany => &["filter"],
            Self::Aggregate => &["pipeline"],
        }
    }
}
