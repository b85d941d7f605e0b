//! What Drumline does not let a request do, decided from the request alone.
