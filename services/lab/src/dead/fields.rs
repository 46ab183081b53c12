//! What a request says: which dead letters are meant, and who asks.

use axum::http::HeaderMap;
use messaging::receive::redrive::Selection;
use web::Error;

/// Fields of a form or a query; some may be there more than once.
pub(super) struct Fields(Vec<(String, String)>);

impl Fields {
    pub(super) fn read(encoded: &[u8]) -> Result<Self, Error> {
        let wrong = |_| Error::bad_request("The form is not valid UTF-8.");
        let text = str::from_utf8(encoded).map_err(wrong)?;
        let mut url = reqwest::Url::parse("form:x").map_err(Error::internal)?;
        url.set_query(Some(text));
        let pairs = url.query_pairs().into_owned().collect();
        Ok(Self(pairs))
    }

    /// A field that is filled in.
    pub(super) fn get(&self, name: &str) -> Option<String> {
        let mut values = self.0.iter().filter(|(field, _)| field == name);
        values
            .next()
            .map(|(_, value)| value.trim().to_owned())
            .filter(|value| !value.is_empty())
    }

    /// What is filtered by; of a form, whether it is that or what is ticked.
    pub(super) fn selection(&self) -> Result<Selection, Error> {
        let filter = Selection {
            reason: self.get("reason"),
            run: self.get("run"),
            node: self.get("node"),
            text: self.get("text"),
            from: self.time("from")?,
            to: self.time("to")?,
            ..Selection::default()
        };
        match self.get("which").as_deref() {
            Some("matching") => Ok(Selection {
                all: filter.is_empty(),
                ..filter
            }),
            Some(_) => {
                let ids = self.0.iter().filter(|(name, _)| name == "id");
                let ids: Result<Vec<i64>, _> = ids.map(|(_, id)| id.parse()).collect();
                let ids = ids.map_err(|_| Error::bad_request("A number is none."))?;
                if ids.is_empty() {
                    return Err(Error::unprocessable("Nothing is ticked."));
                }
                Ok(Selection {
                    ids: Some(ids),
                    ..Selection::default()
                })
            }
            None => Ok(filter),
        }
    }

    fn time(&self, name: &str) -> Result<Option<chrono::DateTime<chrono::Utc>>, Error> {
        let Some(text) = self.get(name) else {
            return Ok(None);
        };
        // as a browser's own field has it, or in full
        let full = if text.ends_with('Z') || text.contains('+') {
            text.clone()
        } else {
            format!("{text}{}Z", if text.len() == 16 { ":00" } else { "" })
        };
        let time = chrono::DateTime::parse_from_rfc3339(&full);
        let time = time.map_err(|_| Error::bad_request(format!("{name} is not a time.")))?;
        Ok(Some(time.to_utc()))
    }
}

/// The address of the list with this filter.
pub(super) fn address(filter: &Selection, below: Option<i64>) -> String {
    let time = |time: Option<chrono::DateTime<chrono::Utc>>| time.map(|time| time.to_rfc3339());
    let below = below.map(|below| below.to_string());
    let all = [
        ("reason", filter.reason.clone()),
        ("run", filter.run.clone()),
        ("node", filter.node.clone()),
        ("text", filter.text.clone()),
        ("from", time(filter.from)),
        ("to", time(filter.to)),
        ("below", below),
    ];
    let pairs = all
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)));
    let url = reqwest::Url::parse_with_params("form:x", pairs);
    let query = url.ok().and_then(|url| url.query().map(str::to_owned));
    format!("/lab/dead?{}", query.unwrap_or_default())
}

/// The address of who asks, as the gateway says it.
pub(super) fn who(headers: &HeaderMap) -> String {
    let address = headers.get("x-real-ip").and_then(|ip| ip.to_str().ok());
    address.unwrap_or("unknown").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selection(form: &str) -> Selection {
        Fields::read(form.as_bytes()).unwrap().selection().unwrap()
    }

    #[test]
    fn a_form_says_what_is_ticked_or_all_that_matches() {
        let ticked = selection("csrf=x&which=ticked&id=3&id=4&reason=r");
        assert_eq!(ticked.ids, Some(vec![3, 4]));
        assert_eq!(ticked.reason, None);
        let matching = selection("which=matching&id=3&reason=its+work%20failed&run=");
        assert_eq!(matching.reason.as_deref(), Some("its work failed"));
        assert!(matching.ids.is_none() && !matching.all);
        assert!(selection("which=matching").all);
        assert!(selection("text=").is_empty());
        let none = Fields::read(b"which=ticked").unwrap();
        assert!(none.selection().is_err());
    }

    #[test]
    fn a_filter_survives_its_own_address() {
        let filter = selection("reason=a%26b%23&text=%C3%A9+x&from=2026-11-22T05:06");
        let address = address(&filter, Some(7));
        let (_, query) = address.split_once('?').unwrap();
        assert_eq!(selection(query), filter);
        assert!(filter.from.is_some() && query.ends_with("below=7"));
    }
}
