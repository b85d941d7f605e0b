//! Paths as clients put them together.

use axum::http::Uri;
use axum::http::uri::PathAndQuery;

/// Takes out empty parts. A client that joins a base address and a path knows neither whether the
/// one ends with a slash nor whether the other begins with one: both slashes, or one at the end,
/// mean the same place.
pub fn tidy(uri: &mut Uri) {
    let path = uri.path();
    if !path.contains("//") && (path.len() < 2 || !path.ends_with('/')) {
        return;
    }
    let parts: Vec<_> = path.split('/').filter(|part| !part.is_empty()).collect();
    let mut tidied = format!("/{}", parts.join("/"));
    if let Some(query) = uri.query() {
        tidied.push('?');
        tidied.push_str(query);
    }
    // What was a path stays one without some of its slashes; else it leads nowhere, as it did.
    if let Ok(tidied) = tidied.parse::<PathAndQuery>() {
        *uri = Uri::from(tidied);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_parts_are_left_out() {
        for (path, expected) in [
            ("/", "/"),
            ("//", "/"),
            ("/action/find", "/action/find"),
            ("//action/find", "/action/find"),
            ("/action/find/", "/action/find"),
            ("/action//find//?a=//b/", "/action/find?a=//b/"),
            (
                "/app/x/endpoint/data/v1//action/find",
                "/app/x/endpoint/data/v1/action/find",
            ),
            ("http://node:1//action/find", "/action/find"),
            ("/log?from=1", "/log?from=1"),
            ("/log/?from=1", "/log?from=1"),
            ("/a%2F/b", "/a%2F/b"),
        ] {
            let mut uri: Uri = path.parse().unwrap();
            tidy(&mut uri);
            let found = uri.path_and_query().unwrap().as_str();
            assert_eq!(found, expected, "{path}");
        }
    }
}
