//! Making a replica set ready for use: initiate, users, waiting for a primary.
