//! Arrays in PostgreSQL's text format.

/// Ids as the text of a `uuid[]`.
pub(in crate::store) fn uuid_array<'a>(ids: impl IntoIterator<Item = &'a uuid::Uuid>) -> String {
    let mut text = String::from("{");
    for id in ids {
        if text.len() > 1 {
            text.push(',');
        }
        text.push_str(id.hyphenated().encode_lower(&mut uuid::Uuid::encode_buffer()));
    }
    text.push('}');
    text
}

/// Texts as the text of a `text[]`, with every element quoted.
pub(in crate::store) fn text_array<'a>(texts: impl IntoIterator<Item = &'a str>) -> String {
    let mut text = String::from("{");
    for element in texts {
        if text.len() > 1 {
            text.push(',');
        }
        text.push('"');
        for character in element.chars() {
            if matches!(character, '"' | '\\') {
                text.push('\\');
            }
            text.push(character);
        }
        text.push('"');
    }
    text.push('}');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn array_literals_are_quoted() {
        assert_eq!(text_array([]), "{}");
        assert_eq!(text_array(["a", "b,c", "d\"e\\f", "NULL", "{}"]), r#"{"a","b,c","d\"e\\f","NULL","{}"}"#);
        assert_eq!(uuid_array([]), "{}");
        let id = uuid::Uuid::from_u128(1);
        let text = "00000000-0000-0000-0000-000000000001";
        assert_eq!(uuid_array([&id, &id]), format!("{{{text},{text}}}"));
    }
}
