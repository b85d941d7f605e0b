//! A thin HTTP client to Drumline's nodes: it tries each server until one executes the request.
