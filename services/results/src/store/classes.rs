//! The classes that a prediction names: of each object in its array the `class_name`, else the `class`.
//!
//! `predictions` may be any JSON, also what usual parsers refuse (numbers beyond `f64`, a million nested arrays). Nothing
//! is parsed here but the two fields; what is not understood names no class.

use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;

/// Calls `found` with the class of each element of `json` that names one.
pub(super) fn for_each_class(json: &str, found: impl FnMut(&str)) {
    if json.trim_ascii_start().starts_with('[') {
        // The text is JSON: it was when it was stored. If it is not, it names no more classes.
        let _ = serde_json::Deserializer::from_str(json).deserialize_seq(Elements(found));
    }
}

/// Whether an element of `json` has the class `wanted`.
pub(super) fn has_class(json: &str, wanted: &str) -> bool {
    let mut has = false;
    for_each_class(json, |class| has |= class == wanted);
    has
}

struct Elements<F>(F);

impl<'de, F: FnMut(&str)> Visitor<'de> for Elements<F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut elements: A) -> Result<(), A::Error> {
        // As text first: an element that is not understood says nothing about the next one.
        while let Some(element) = elements.next_element::<&RawValue>()? {
            let Ok(Element(Some(class))) = serde_json::from_str(element.get()) else { continue };
            (self.0)(&class);
        }
        Ok(())
    }
}

/// What one element names.
struct Element<'a>(Option<Cow<'a, str>>);

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum Key {
    ClassName,
    Class,
    #[serde(other)]
    Other,
}

impl<'de> Deserialize<'de> for Element<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Element<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Element<'de>, A::Error> {
                let (mut class_name, mut class) = (None, None);
                while let Some(key) = map.next_key()? {
                    match key {
                        Key::ClassName => class_name = text(map.next_value()?),
                        Key::Class => class = text(map.next_value()?),
                        Key::Other => {
                            map.next_value::<IgnoredAny>()?;
                        }
                    }
                }
                Ok(Element(class_name.or(class)))
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

/// A string's text, or the digits of a number: some models name their classes so.
fn text(value: &RawValue) -> Option<Cow<'_, str>> {
    let json = value.get();
    match json.as_bytes().first()? {
        // Without escapes it stands there as it is.
        b'"' if !json.contains('\\') => Some(Cow::Borrowed(json.trim_matches('"'))),
        b'"' => serde_json::from_str(json).ok().map(Cow::Owned),
        b'-' | b'0'..=b'9' => Some(Cow::Borrowed(json)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn classes(json: &str) -> Vec<String> {
        let mut classes = Vec::new();
        for_each_class(json, |class| classes.push(class.to_owned()));
        classes
    }

    #[test]
    fn class_name_comes_before_class() {
        let json =
            r#" [{"class": "vehicle", "class_name": "bus"}, {"class": "car", "bbox": {"class": "no"}}]"#;
        assert_eq!(classes(json), ["bus", "car"]);
        assert!(has_class(json, "bus") && has_class(json, "car") && !has_class(json, "vehicle"));
    }

    #[test]
    fn texts_are_compared_as_what_they_mean() {
        assert_eq!(
            classes(
                r#"[{"class_name":"\u00fc\/\"ü"},{"class_name":null,"class":7},{"class":"a","class":"b"}]"#
            ),
            ["ü/\"ü", "7", "b"]
        );
        assert_eq!(classes(r#"[{"class_name":""}]"#), [""]);
    }

    #[test]
    fn what_is_not_understood_names_nothing_and_hides_nothing() {
        for none in
            ["null", "\"bus\"", r#"{"class_name":"bus"}"#, "1e999", "[]", "[[{\"class\":\"a\"}]]", "", "[{"]
        {
            assert_eq!(classes(none), [""; 0], "{none}");
        }
        let odd = r#"[1e999, {"class_name":"\ud800"}, {"x":1e999,"class_name":"bus"}, {"\ud800":1}, {"class":"car"}]"#;
        assert_eq!(classes(odd), ["bus", "car"]);
        let deep = format!("[{}{},{{\"class\":\"bus\"}}]", "[".repeat(1_000_000), "]".repeat(1_000_000));
        assert_eq!(classes(&deep), ["bus"]);
    }
}
