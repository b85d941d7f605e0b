//! MongoDB's error codes, and what each of them says about the call that met it. One table, for all
//! that judges an error of MongoDB.
//!
//! Never speaks to MongoDB. The names, and most of the judgement, are those of MongoDB's own
//! `error_codes.yml`: what it counts as a network error, an interruption, a change of the primary,
//! retriable or an overload is never the request's fault.

use crate::mutants::{self, Mutant};

/// What an error says about the call that met it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// The request is at fault, beside the data that it meets. This is its answer for good.
    Request,
    /// It passes: nothing was done, and a later try may succeed. Never a request's answer.
    Passing,
    /// Another transaction or operation has what the call needs. Nothing was done; it passes.
    Locked,
    /// The snapshot cannot be had. Nothing was done; the whole transaction may run again.
    Snapshot,
    /// The collection is another than the one that was met before. Nothing was done.
    Renewed,
    /// A connection, a member's state or the transaction itself is gone: whether a write took
    /// effect is unknown.
    Unknown,
    /// A right, a setting or the kind of the server is at fault. Whoever runs the servers can mend
    /// it, so it is no request's answer for good.
    Ground,
    /// The disk is full.
    Disk,
    /// MongoDB does not say whether it passes. A write is treated as if it did, since an answer
    /// that is stored cannot be taken back; whoever waits gets MongoDB's words.
    Vague,
}

pub const UNAUTHORIZED: i32 = 13;
pub const ILLEGAL_OPERATION: i32 = 20;
pub const NAMESPACE_NOT_FOUND: i32 = 26;
pub const INDEX_NOT_FOUND: i32 = 27;
pub const CURSOR_NOT_FOUND: i32 = 43;
pub const NAMESPACE_EXISTS: i32 = 48;
pub const MAX_TIME_EXPIRED: i32 = 50;
pub const VALIDATION_FAILURE: i32 = 121;
pub const QUERY_PLAN_KILLED: i32 = 175;
pub const CURSOR_KILLED: i32 = 237;
pub const SNAPSHOT_TOO_OLD: i32 = 239;
pub const SNAPSHOT_UNAVAILABLE: i32 = 246;
pub const TRANSACTION_TOO_LARGE: i32 = 257;
pub const INVALID_RESUME_TOKEN: i32 = 260;
pub const NOT_IN_TRANSACTION: i32 = 263;
pub const CHANGE_STREAM_FATAL: i32 = 280;
pub const CHANGE_STREAM_HISTORY_LOST: i32 = 286;
pub const COLLECTION_UUID_MISMATCH: i32 = 361;
pub const TRANSACTION_TOO_LARGE_FOR_CACHE: i32 = 388;
pub const BSON_OBJECT_TOO_LARGE: i32 = 10_334;
pub const DUPLICATE_KEY: i32 = 11_000;
pub const INTERRUPTED_BY_STATE_CHANGE: i32 = 11_602;
/// What `listIndexes` says of an index that it cannot show. It has no name.
pub const UNREADABLE_INDEX: i32 = 5_254_501;

/// Codes below this have a name in MongoDB's source. Those above it are numbers of single checks,
/// which MongoDB names `Location` with the number, but for the few that are in the table.
const NAMED_BELOW: i32 = 9_000;

/// Every code that can come out of a read, a write or a commit, by its number, with its name.
#[rustfmt::skip]
const CODES: &[(i32, &str, Class)] = &[
    (1, "InternalError", Class::Vague),
    (2, "BadValue", Class::Request),
    (4, "NoSuchKey", Class::Request),
    (5, "GraphContainsCycle", Class::Request),
    (6, "HostUnreachable", Class::Unknown),
    (7, "HostNotFound", Class::Unknown),
    (8, "UnknownError", Class::Vague),
    (9, "FailedToParse", Class::Request),
    (10, "CannotMutateObject", Class::Request),
    (11, "UserNotFound", Class::Ground),
    (12, "UnsupportedFormat", Class::Request),
    (13, "Unauthorized", Class::Ground),
    (14, "TypeMismatch", Class::Request),
    (15, "Overflow", Class::Request),
    (16, "InvalidLength", Class::Request),
    (17, "ProtocolError", Class::Request),
    (18, "AuthenticationFailed", Class::Ground),
    (19, "CannotReuseObject", Class::Request),
    (20, "IllegalOperation", Class::Request),
    (21, "EmptyArrayOperation", Class::Request),
    (22, "InvalidBSON", Class::Request),
    (24, "LockTimeout", Class::Locked),
    (25, "RemoteValidationError", Class::Request),
    (26, "NamespaceNotFound", Class::Passing),
    (27, "IndexNotFound", Class::Request),
    (28, "PathNotViable", Class::Request),
    (29, "NonExistentPath", Class::Request),
    (30, "InvalidPath", Class::Request),
    (31, "RoleNotFound", Class::Ground),
    (34, "CannotBackfillArray", Class::Request),
    (40, "ConflictingUpdateOperators", Class::Request),
    (42, "LogWriteFailed", Class::Vague),
    (43, "CursorNotFound", Class::Passing),
    (46, "LockBusy", Class::Locked),
    (47, "NoMatchingDocument", Class::Request),
    (48, "NamespaceExists", Class::Passing),
    (50, "MaxTimeMSExpired", Class::Request),
    (52, "DollarPrefixedFieldName", Class::Request),
    (53, "InvalidIdField", Class::Request),
    (54, "NotSingleValueField", Class::Request),
    (55, "InvalidDBRef", Class::Request),
    (56, "EmptyFieldName", Class::Request),
    (57, "DottedFieldName", Class::Request),
    (59, "CommandNotFound", Class::Request),
    (61, "ShardKeyNotFound", Class::Request),
    (64, "WriteConcernTimeout", Class::Unknown),
    (65, "MultipleErrorsOccurred", Class::Request),
    (66, "ImmutableField", Class::Request),
    (67, "CannotCreateIndex", Class::Request),
    (68, "IndexAlreadyExists", Class::Request),
    (69, "AuthSchemaIncompatible", Class::Ground),
    (71, "ReplicaSetNotFound", Class::Ground),
    (72, "InvalidOptions", Class::Request),
    (73, "InvalidNamespace", Class::Request),
    (75, "WriteConcernLegacyOK", Class::Ground),
    (76, "NoReplicationEnabled", Class::Ground),
    (77, "OperationIncomplete", Class::Vague),
    (78, "CommandResultSchemaViolation", Class::Request),
    (79, "UnknownReplWriteConcern", Class::Ground),
    (81, "NoMatchParseContext", Class::Request),
    (82, "NoProgressMade", Class::Vague),
    (83, "RemoteResultsUnavailable", Class::Vague),
    (85, "IndexOptionsConflict", Class::Request),
    (86, "IndexKeySpecsConflict", Class::Request),
    (89, "NetworkTimeout", Class::Unknown),
    (90, "CallbackCanceled", Class::Unknown),
    (91, "ShutdownInProgress", Class::Unknown),
    (93, "InvalidReplicaSetConfig", Class::Ground),
    (94, "NotYetInitialized", Class::Ground),
    (95, "NotSecondary", Class::Unknown),
    (96, "OperationFailed", Class::Vague),
    (97, "NoProjectionFound", Class::Request),
    (100, "UnsatisfiableWriteConcern", Class::Ground),
    (101, "OutdatedClient", Class::Ground),
    (107, "LockFailed", Class::Passing),
    (109, "ConfigurationInProgress", Class::Passing),
    (111, "NotExactValueField", Class::Request),
    (112, "WriteConflict", Class::Locked),
    (115, "CommandNotSupported", Class::Request),
    (116, "DocTooLargeForCapped", Class::Request),
    (117, "ConflictingOperationInProgress", Class::Passing),
    (121, "DocumentValidationFailure", Class::Request),
    (123, "NotAReplicaSet", Class::Ground),
    (125, "CommandFailed", Class::Vague),
    (127, "UnrecoverableRollbackError", Class::Ground),
    (133, "FailedToSatisfyReadPreference", Class::Unknown),
    (134, "ReadConcernMajorityNotAvailableYet", Class::Unknown),
    (135, "StaleTerm", Class::Unknown),
    (136, "CappedPositionLost", Class::Passing),
    (139, "JSInterpreterFailure", Class::Request),
    (142, "JSUncatchableError", Class::Request),
    (143, "CursorInUse", Class::Passing),
    (145, "PooledConnectionsDropped", Class::Unknown),
    (146, "ExceededMemoryLimit", Class::Request),
    (148, "ReadConcernMajorityNotEnabled", Class::Ground),
    (150, "StaleEpoch", Class::Passing),
    (151, "OperationCannotBeBatched", Class::Request),
    (158, "MustUpgrade", Class::Ground),
    (159, "DurationOverflow", Class::Request),
    (161, "IncompatibleCollationVersion", Class::Request),
    (165, "ViewDepthLimitExceeded", Class::Request),
    (166, "CommandNotSupportedOnView", Class::Request),
    (167, "OptionNotSupportedOnView", Class::Request),
    (168, "InvalidPipelineOperator", Class::Request),
    (170, "TooManyMatchingDocuments", Class::Request),
    (171, "CannotIndexParallelArrays", Class::Request),
    (172, "TransportSessionClosed", Class::Unknown),
    (175, "QueryPlanKilled", Class::Passing),
    (181, "AmbiguousIndexKeyPattern", Class::Request),
    (182, "InvalidViewDefinition", Class::Request),
    (187, "LinearizableReadConcernError", Class::Unknown),
    (188, "IncompatibleServerVersion", Class::Ground),
    (189, "PrimarySteppedDown", Class::Unknown),
    (194, "BalancerInterrupted", Class::Passing),
    (195, "ViewPipelineMaxSizeExceeded", Class::Request),
    (197, "InvalidIndexSpecificationOption", Class::Request),
    (200, "ChunkRangeCleanupPending", Class::Passing),
    (201, "CannotBuildIndexKeys", Class::Request),
    (202, "NetworkInterfaceExceededTimeLimit", Class::Unknown),
    (206, "NoSuchSession", Class::Unknown),
    (207, "InvalidUUID", Class::Request),
    (208, "TooManyLocks", Class::Passing),
    (214, "AuthenticationRestrictionUnmet", Class::Ground),
    (215, "DatabaseDropPending", Class::Passing),
    (216, "ElectionInProgress", Class::Passing),
    (217, "IncompleteTransactionHistory", Class::Unknown),
    (218, "UpdateOperationFailed", Class::Request),
    (221, "IndexModified", Class::Passing),
    (224, "QueryFeatureNotAllowed", Class::Request),
    (225, "TransactionTooOld", Class::Unknown),
    (226, "AtomicityFailure", Class::Unknown),
    (227, "CannotImplicitlyCreateCollection", Class::Passing),
    (229, "MustDowngrade", Class::Ground),
    (232, "MaxSubPipelineDepthExceeded", Class::Request),
    (235, "InternalErrorNotSupported", Class::Request),
    (237, "CursorKilled", Class::Passing),
    (238, "NotImplemented", Class::Request),
    (239, "SnapshotTooOld", Class::Snapshot),
    (241, "ConversionFailure", Class::Request),
    (242, "CannotCreateCollection", Class::Request),
    (243, "IncompatibleWithUpgradedServer", Class::Ground),
    (244, "TransactionAborted", Class::Unknown),
    (245, "BrokenPromise", Class::Vague),
    (246, "SnapshotUnavailable", Class::Snapshot),
    (249, "StaleDbVersion", Class::Passing),
    (250, "StaleChunkHistory", Class::Snapshot),
    (251, "NoSuchTransaction", Class::Unknown),
    (256, "TransactionCommitted", Class::Unknown),
    (257, "TransactionTooLarge", Class::Request),
    (258, "UnknownFeatureCompatibilityVersion", Class::Ground),
    (259, "KeyedExecutorRetry", Class::Passing),
    (260, "InvalidResumeToken", Class::Request),
    (261, "TooManyLogicalSessions", Class::Passing),
    (262, "ExceededTimeLimit", Class::Unknown),
    (263, "OperationNotSupportedInTransaction", Class::Request),
    (264, "TooManyFilesOpen", Class::Passing),
    (267, "PreparedTransactionInProgress", Class::Passing),
    (269, "DataModifiedByRepair", Class::Ground),
    (270, "RepairedReplicaSetNode", Class::Ground),
    (271, "JSInterpreterFailureWithStack", Class::Request),
    (272, "MigrationConflict", Class::Snapshot),
    (273, "ProducerConsumerQueueProducerQueueDepthExceeded", Class::Passing),
    (276, "IndexBuildAborted", Class::Passing),
    (279, "ClientDisconnect", Class::Unknown),
    (280, "ChangeStreamFatalError", Class::Request),
    (281, "TransactionCoordinatorSteppingDown", Class::Unknown),
    (282, "TransactionCoordinatorReachedAbortDecision", Class::Unknown),
    (285, "IndexBuildAlreadyInProgress", Class::Passing),
    (286, "ChangeStreamHistoryLost", Class::Request),
    (290, "TransactionExceededLifetimeLimitSeconds", Class::Unknown),
    (291, "NoQueryExecutionPlans", Class::Request),
    (292, "QueryExceededMemoryLimitNoDiskUseAllowed", Class::Request),
    (301, "DataCorruptionDetected", Class::Ground),
    (303, "SplitHorizonChange", Class::Unknown),
    (308, "CurrentConfigNotCommittedYet", Class::Passing),
    (310, "PeriodicJobIsStopped", Class::Unknown),
    (314, "ObjectIsBusy", Class::Passing),
    (317, "ConnectionPoolExpired", Class::Unknown),
    (319, "MovePrimaryInProgress", Class::Passing),
    (322, "APIVersionError", Class::Ground),
    (323, "APIStrictError", Class::Ground),
    (324, "APIDeprecationError", Class::Ground),
    (333, "ServiceExecutorInShutdown", Class::Unknown),
    (334, "MechanismUnavailable", Class::Ground),
    (338, "ReshardCollectionInProgress", Class::Passing),
    (342, "ReshardingCriticalSectionTimeout", Class::Passing),
    (347, "APIMismatchError", Class::Ground),
    (349, "KeyPatternShorterThanBound", Class::Request),
    (352, "UnsupportedOpQueryCommand", Class::Ground),
    (354, "LoadBalancerSupportMismatch", Class::Ground),
    (355, "InterruptedDueToStorageChange", Class::Passing),
    (356, "TxnRetryCounterTooOld", Class::Unknown),
    (357, "InvalidBSONType", Class::Request),
    (358, "InternalTransactionNotSupported", Class::Unknown),
    (359, "CannotConvertIndexToUnique", Class::Request),
    (361, "CollectionUUIDMismatch", Class::Renewed),
    (363, "RetryableTransactionInProgress", Class::Unknown),
    (365, "TemporarilyUnavailable", Class::Passing),
    (371, "UserWritesBlocked", Class::Ground),
    (378, "NonConformantBSON", Class::Request),
    (383, "CollectionIsEmptyLocally", Class::Passing),
    (384, "ConnectionError", Class::Unknown),
    (386, "DuplicateKeyId", Class::Request),
    (388, "TransactionTooLargeForCache", Class::Passing),
    (391, "ReauthenticationRequired", Class::Ground),
    (402, "ResourceExhausted", Class::Passing),
    (406, "MigrationBlockingOperationCoordinatorCleaningUp", Class::Passing),
    (407, "PooledConnectionAcquisitionExceededTimeLimit", Class::Passing),
    (411, "QueryRejectedBySettings", Class::Request),
    (412, "UpdatesStillPending", Class::Passing),
    (413, "TransactionParticipantFailedUnyield", Class::Unknown),
    (433, "AdmissionQueueOverflow", Class::Passing),
    (442, "RetryMultiPlanning", Class::Passing),
    (449, "RateLimitExceeded", Class::Passing),
    (450, "PooledConnectionAcquisitionRejected", Class::Passing),
    (453, "InterruptedDueToReshardingCriticalSection", Class::Passing),
    (462, "IngressRequestRateLimitExceeded", Class::Passing),
    (9001, "SocketException", Class::Unknown),
    (10_003, "CannotGrowDocumentInCappedNamespace", Class::Request),
    (10_058, "LegacyNotPrimary", Class::Unknown),
    (10_107, "NotWritablePrimary", Class::Unknown),
    (10_334, "BSONObjectTooLarge", Class::Request),
    (11_000, "DuplicateKey", Class::Request),
    (11_600, "InterruptedAtShutdown", Class::Unknown),
    (11_601, "Interrupted", Class::Unknown),
    (11_602, "InterruptedDueToReplStateChange", Class::Unknown),
    (12_586, "BackgroundOperationInProgressForDatabase", Class::Passing),
    (12_587, "BackgroundOperationInProgressForNamespace", Class::Passing),
    (13_113, "MergeStageNoMatchingDocument", Class::Request),
    (13_297, "DatabaseDifferCase", Class::Request),
    (13_388, "StaleConfig", Class::Passing),
    (13_435, "NotPrimaryNoSecondaryOk", Class::Unknown),
    (13_436, "NotPrimaryOrSecondary", Class::Unknown),
    (14_031, "OutOfDiskSpace", Class::Disk),
    (17_280, "KeyTooLong", Class::Request),
    (28_769, "NamespaceCannotBeSharded", Class::Request),
    (31_082, "SearchNotEnabled", Class::Request),
    (40_413, "IDLDuplicateField", Class::Request),
    (40_414, "IDLFailedToParse", Class::Request),
    (40_415, "IDLUnknownField", Class::Request),
    (46_841, "ClientMarkedKilled", Class::Unknown),
    (50_768, "NotARetryableWriteCommand", Class::Request),
    (50_915, "BackupCursorOpenConflictWithCheckpoint", Class::Passing),
    (91_331, "RetriableRemoteCommandFailure", Class::Passing),
    (4_938_500, "IndexNotFoundCachedPlan", Class::Passing),
    (10_045_600, "InterruptedDueToFCVChange", Class::Passing),
];

fn known(code: i32) -> Option<&'static (i32, &'static str, Class)> {
    let at = CODES.binary_search_by_key(&code, |(number, _, _)| *number);
    at.ok().and_then(|at| CODES.get(at))
}

/// What a code says. One that is not in the table is of a later MongoDB than this program.
///
/// The number of a single check says that a value or an expression is not what it has to be: such
/// an answer is the request's. A new name may mean anything, so it is vague.
pub fn class_of(code: i32) -> Class {
    let class = match known(code) {
        Some((_, _, class)) => *class,
        None if code >= NAMED_BELOW => Class::Request,
        None => Class::Vague,
    };
    match class {
        Class::Passing | Class::Vague | Class::Ground
            if mutants::active(Mutant::PassingErrorsKept) =>
        {
            Class::Request
        }
        class => class,
    }
}

/// MongoDB's name of a code. Write errors carry none in its replies.
pub fn name_of(code: i32) -> String {
    match known(code) {
        Some((_, name, _)) => (*name).to_owned(),
        None if code >= NAMED_BELOW => format!("Location{code}"),
        None => "WriteError".to_owned(),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// The table, for the tests of those who use it.
    pub fn all() -> impl Iterator<Item = (i32, &'static str, Class)> {
        CODES.iter().copied()
    }

    /// What MongoDB's source puts into the categories NetworkError, NetworkTimeoutError,
    /// Interruption, NotPrimaryError, ShutdownError, CancellationError, ExceededTimeLimitError,
    /// SnapshotError, TwoPhaseDecisionAckError, CursorInvalidatedError, RetriableError,
    /// CloseConnectionError and SystemOverloadedError; without the codes for the inside of a
    /// sharded cluster or of a stream processor, which come out of no read and no write.
    const NOT_THE_REQUEST: &[i32] = &[
        6, 7, 24, 43, 89, 90, 91, 96, 134, 143, 175, 189, 202, 225, 237, 239, 246, 250, 251, 262,
        272, 279, 281, 282, 290, 303, 310, 314, 317, 333, 354, 355, 356, 358, 384, 402, 406, 407,
        412, 433, 449, 450, 453, 462, 9001, 10107, 11600, 11601, 11602, 13435, 13436, 46841, 50915,
        91331, 10_045_600,
    ];
    /// The one interruption that is the request's: its own time is over.
    const TIME: i32 = MAX_TIME_EXPIRED;
    /// What MongoDB's source counts as errors of validation or of parsing.
    const THE_REQUEST: &[i32] = &[15, 22, 378, 40413, 40414, 40415];

    #[test]
    fn the_table_is_in_order_and_names_each_code_once() {
        assert!(CODES.windows(2).all(|pair| pair[0].0 < pair[1].0));
        let names: BTreeSet<_> = CODES.iter().map(|(_, name, _)| name).collect();
        assert_eq!(names.len(), CODES.len());
        for (code, name, class) in all() {
            assert_eq!((class_of(code), name_of(code).as_str()), (class, name));
        }
        println!("{} codes", CODES.len());
    }

    #[test]
    fn what_mongodb_says_of_a_code_decides_its_class() {
        for code in NOT_THE_REQUEST {
            assert!(known(*code).is_some(), "{code} is not in the table");
            assert_ne!(class_of(*code), Class::Request, "{}", name_of(*code));
        }
        for code in THE_REQUEST.iter().chain([&TIME]) {
            assert_eq!(class_of(*code), Class::Request, "{}", name_of(*code));
        }
        assert_eq!(
            class_of(215),
            Class::Passing,
            "a database that is being dropped"
        );
    }

    #[test]
    fn a_code_that_nobody_knows_is_an_answer_only_if_it_is_of_a_single_check() {
        assert_eq!(class_of(499), Class::Vague);
        assert_eq!(class_of(8_999), Class::Vague);
        assert_eq!(class_of(31_034), Class::Request);
        assert_eq!(name_of(4_848_401), "Location4848401");
    }
}
