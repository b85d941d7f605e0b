//! HTTP: decodes requests, asks the gateway, encodes the reply.
//!
//! Never decides order, never speaks to MongoDB.

pub mod action;
pub mod auth;
pub mod body;
pub mod browser;
pub mod crowd;
pub mod data_api;
pub mod decode;
pub mod encode;
pub mod error;
pub mod events;
pub mod fields;
pub mod headers;
pub mod leftover;
pub mod log;
pub mod log_stream;
pub mod log_tail;
pub mod metered;
pub mod metrics;
pub mod paths;
pub mod peer_api;
pub mod router;
pub mod server;
pub mod stall;
pub mod stamps;
pub mod status;
pub mod watch;
