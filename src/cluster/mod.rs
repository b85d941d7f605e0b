//! The launcher of local clusters: finds mongod, starts the members and the nodes, stops them.
//!
//! Never speaks to MongoDB itself (that is `store`), never touches a process it did not start.

pub mod info;
