//! The query of a listing: `limit`, `cursor`, `since`, `until`, `model`, `class`.

use crate::error::RequestError;
use crate::store::{Cursor, Filter};
use axum::extract::Query;
use http::Uri;
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use service_kit::identifier;
use utoipa::IntoParams;

/// The most that `limit` may be; without it a listing is whole.
const MAX_LIMIT: u64 = 1_000_000_000;

/// What a listing is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ListQuery {
    /// Which predictions.
    pub(super) filter: Filter,
    /// Behind which place.
    pub(super) from: Cursor,
    /// How many at most.
    pub(super) limit: Option<u64>,
}

/// The parameters as a client writes them; read by [`ListQuery::of`], which says of each mistake what it is.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "it is the documentation of the parameters")]
pub(super) struct ListParameters {
    /// Most predictions in the answer. If there are more, `next_cursor` says where they begin. Without a limit all are
    /// streamed.
    #[param(minimum = 1, maximum = 1_000_000_000)]
    limit: Option<u64>,
    /// The `next_cursor` of an earlier answer: the listing goes on there. It holds no data of a person.
    #[param(pattern = "^[0-9a-f]{32}$", example = "000644a1b2c3d4e5000000000000002a")]
    cursor: Option<String>,
    /// Stored at this instant or later: RFC 3339, or a date, whose midnight in UTC is meant. In a URL, `+` is `%2B`.
    #[param(format = DateTime, example = "2026-11-23T09:00:00Z")]
    since: Option<String>,
    /// Stored before this instant.
    #[param(format = DateTime, example = "2026-11-24T00:00:00Z")]
    until: Option<String>,
    /// Made by the model of this name.
    #[param(min_length = 1, max_length = 256, example = "vehicle-detector")]
    model: Option<String>,
    /// With at least one element of this class: its `class_name`, else its `class`.
    #[param(min_length = 1, max_length = 256, example = "bus")]
    class: Option<String>,
}

const LIMIT: &str = "a whole number from 1 to 1000000000";
const CURSOR: &str = "the next_cursor of an earlier answer";
const INSTANT: &str =
    "an instant such as 2026-11-23T09:00:00Z, or a date such as 2026-11-23 (write + as %2B)";
const NAME: &str = "a text of 1 to 256 bytes";

impl ListQuery {
    /// Reads the query of `uri`, for the predictions of `user_id` or of all users.
    pub(super) fn of(uri: &Uri, user_id: Option<String>) -> Result<Self, RequestError> {
        let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(uri)
            .map_err(|error| RequestError::BadQuery(error.body_text()))?;
        let mut given = Given::default();
        for (name, value) in pairs {
            let place = match name.as_str() {
                "limit" => &mut given.limit,
                "cursor" => &mut given.cursor,
                "since" => &mut given.since,
                "until" => &mut given.until,
                "model" => &mut given.model,
                "class" => &mut given.class,
                // A misspelt filter would silently be none.
                _ => return Err(RequestError::UnknownParameter(name)),
            };
            if place.replace(value).is_some() {
                return Err(RequestError::RepeatedParameter(name));
            }
        }
        given.read(user_id)
    }
}

#[derive(Default)]
struct Given {
    limit: Option<String>,
    cursor: Option<String>,
    since: Option<String>,
    until: Option<String>,
    model: Option<String>,
    class: Option<String>,
}

impl Given {
    fn read(self, user_id: Option<String>) -> Result<ListQuery, RequestError> {
        let limit = wanted("limit", self.limit, LIMIT, |text| {
            text.parse().ok().filter(|limit| (1..=MAX_LIMIT).contains(limit))
        })?;
        let from = wanted("cursor", self.cursor, CURSOR, |text| text.parse().ok())?.unwrap_or(Cursor::NEWEST);
        let filter = Filter {
            user_id,
            since: wanted("since", self.since, INSTANT, instant)?,
            until: wanted("until", self.until, INSTANT, instant)?,
            model: wanted("model", self.model, NAME, name)?,
            class: wanted("class", self.class, NAME, name)?,
        };
        Ok(ListQuery { filter, from, limit })
    }
}

fn wanted<T>(
    field: &'static str,
    value: Option<String>,
    expected: &'static str,
    read: impl FnOnce(&str) -> Option<T>,
) -> Result<Option<T>, RequestError> {
    value.map(|text| read(&text).ok_or(RequestError::WrongField { field, expected })).transpose()
}

fn instant(text: &str) -> Option<Timestamp> {
    if let Ok(instant) = text.parse::<Timestamp>() {
        return Some(instant);
    }
    // Only a date: jiff would take a time without an offset for one as well.
    let date: Date = text.parse().ok().filter(|_| text.len() == "2026-11-23".len())?;
    Some(date.to_zoned(TimeZone::UTC).ok()?.timestamp())
}

fn name(text: &str) -> Option<String> {
    (1..=identifier::MAX_BYTES).contains(&text.len()).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn read(query: &str) -> Result<ListQuery, String> {
        let uri = format!("/predictions/user/u1?{query}").parse().unwrap();
        ListQuery::of(&uri, Some("u1".to_owned())).map_err(|error| error.to_string())
    }

    #[test]
    fn nothing_is_everything() {
        let all = read("").unwrap();
        let filter = Filter { user_id: Some("u1".to_owned()), ..Filter::default() };
        assert_eq!(all, ListQuery { filter, from: Cursor::NEWEST, limit: None });
    }

    #[test]
    fn each_parameter_is_read() {
        let cursor = "000644a1b2c3d4e5ffffffffffffffff";
        let query = read(&format!(
            "limit=7&cursor={cursor}&since=2026-11-23&until=2026-11-23T11:30:00.000001%2B02:00&model=a%26b&class=%C3%BC+x"
        ))
        .unwrap();
        assert_eq!((query.limit, query.from.to_string().as_str()), (Some(7), cursor));
        assert_eq!(query.filter.since, Some("2026-11-23T00:00:00Z".parse().unwrap()));
        assert_eq!(query.filter.until, Some("2026-11-23T09:30:00.000001Z".parse().unwrap()));
        assert_eq!(
            (query.filter.model.as_deref(), query.filter.class.as_deref()),
            (Some("a&b"), Some("ü x"))
        );
    }

    #[test]
    fn each_mistake_has_its_sentence() {
        for (query, sentence) in [
            ("limit=0", "limit must be a whole number from 1 to 1000000000."),
            ("limit=-1", "limit must be"),
            ("limit=1000000001", "limit must be"),
            ("limit=", "limit must be"),
            ("cursor=7", "cursor must be the next_cursor of an earlier answer."),
            ("cursor=000644A1B2C3D4E5000000000000002A", "cursor must be"),
            ("since=yesterday", "since must be an instant"),
            ("since=2026-11-23T09:00:00", "since must be an instant"),
            ("until=2026-11-23T11:30:00+02:00", "until must be an instant"),
            ("until=2026-13-01", "until must be"),
            ("model=", "model must be a text"),
            ("limit=1&limit=1", "The query has limit twice: send it once."),
            ("sicne=2026-11-23", "There is no query parameter `sicne` here."),
        ] {
            let error = read(query).unwrap_err();
            assert!(error.starts_with(sentence), "{query}: {error}");
        }
    }
}
