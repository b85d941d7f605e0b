//! Text into XML and HTML, where it stays text.

/// For the content of an element and for a quoted attribute. What XML cannot hold at all becomes a
/// replacement character.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            // In an attribute they would be read as spaces.
            '\n' => escaped.push_str("&#10;"),
            '\r' => escaped.push_str("&#13;"),
            '\t' => escaped.push_str("&#9;"),
            // Turning the direction of the text would make it say something else.
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => escaped.push('\u{fffd}'),
            '\u{fffe}' | '\u{ffff}' => escaped.push('\u{fffd}'),
            c if c.is_control() => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}

/// Panics unless every element is closed, in order, and every attribute quoted.
#[cfg(test)]
pub fn assert_well_formed(text: &str) {
    let mut open: Vec<&str> = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find('<') {
        let between = &rest[..at];
        assert!(!between.contains('>'), "a bare > in {between:?}");
        for (amp, _) in between.match_indices('&') {
            let entity = between[amp..].split(';').next().unwrap_or_default();
            assert!(
                entity.len() <= 6 && between[amp..].contains(';'),
                "{entity:?}"
            );
        }
        rest = &rest[at + 1..];
        let end = rest.find('>').expect("a tag ends");
        let tag = &rest[..end];
        rest = &rest[end + 1..];
        if tag.starts_with(['?', '!']) {
            continue;
        }
        assert_eq!(tag.matches('"').count() % 2, 0, "quotes in <{tag}>");
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name), "</{name}> closes another");
            continue;
        }
        if tag.ends_with('/') {
            continue;
        }
        let name = tag.split_whitespace().next().unwrap_or_default();
        if matches!(name, "script" | "style") {
            let close = format!("</{name}>");
            let at = rest.find(&close).expect("it ends");
            rest = &rest[at + close.len()..];
            continue;
        }
        open.push(name);
    }
    assert_eq!(open, [""; 0], "left open");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_stays_text() {
        assert_eq!(
            escape("<script a=\"b\" c='d'>&\n\u{1b}\u{0}\u{202e}é"),
            "&lt;script a=&quot;b&quot; c=&#39;d&#39;&gt;&amp;&#10;\u{fffd}\u{fffd}\u{fffd}é"
        );
    }

    #[test]
    #[should_panic(expected = "closes another")]
    fn what_is_not_well_formed_is_found() {
        assert_well_formed("<a><b></a></b>");
    }
}
