//! HTTP: decodes requests, asks the gateway, encodes the reply.
//!
//! Never decides order, never speaks to MongoDB.
