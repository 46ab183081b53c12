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

    /// What the list is filtered by.
    pub(super) fn filter(&self) -> Result<Selection, Error> {
        Ok(Selection {
            reason: self.get("reason"),
            run: self.get("run"),
            node: self.get("node"),
            text: self.get("text"),
            from: self.time("from")?,
            to: self.time("to")?,
            ..Selection::default()
        })
    }

    /// What a form is about: whatever fits its filter, or what is ticked.
    pub(super) fn selection(&self) -> Result<Selection, Error> {
        match self.get("which").as_deref() {
            Some("matching") => {
                let filter = self.filter()?;
                Ok(Selection {
                    all: filter.is_empty(),
                    ..filter
                })
            }
            Some("ticked") => self.chosen(),
            which => {
                let which = which.unwrap_or_default();
                let detail = format!("which is {which:?}. Right is \"ticked\" or \"matching\".");
                Err(Error::unprocessable(detail))
            }
        }
    }

    fn chosen(&self) -> Result<Selection, Error> {
        let number = |id: &str| {
            let wrong = format!("{id:?} is not the number of a dead letter.");
            id.parse::<i64>().map_err(|_| Error::unprocessable(wrong))
        };
        let ids: Vec<i64> = self.ids().map(number).collect::<Result<_, _>>()?;
        if ids.is_empty() {
            let detail = "Nothing is ticked. Tick the dead letters that you mean, or choose all that match the filter.";
            return Err(Error::unprocessable(detail));
        }
        Ok(Selection {
            ids: Some(ids),
            ..Selection::default()
        })
    }

    /// The dead letters that are ticked.
    pub(super) fn ids(&self) -> impl Iterator<Item = &str> {
        let ids = self.0.iter().filter(|(name, _)| name == "id");
        ids.map(|(_, id)| &**id)
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

/// The address of the list with this filter, and what else it shows.
pub(super) fn address(filter: &Selection, more: Option<(&'static str, i64)>) -> String {
    let time = |time: Option<chrono::DateTime<chrono::Utc>>| time.map(|time| time.to_rfc3339());
    let all = [
        ("reason", filter.reason.clone()),
        ("run", filter.run.clone()),
        ("node", filter.node.clone()),
        ("text", filter.text.clone()),
        ("from", time(filter.from)),
        ("to", time(filter.to)),
    ];
    let more = more.map(|(name, number)| (name, Some(number.to_string())));
    let pairs = all
        .into_iter()
        .chain(more)
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

    fn filter(query: &str) -> Selection {
        Fields::read(query.as_bytes()).unwrap().filter().unwrap()
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
        assert!(filter("text=").is_empty());
    }

    #[test]
    fn what_is_wrong_with_a_form_is_said_in_a_sentence() {
        for (form, right) in [
            ("which=ticked", "Nothing is ticked. "),
            (
                "which=ticked&id=abc",
                "\"abc\" is not the number of a dead letter.",
            ),
            ("which=nonsense&id=3", "which is \"nonsense\". Right is "),
            ("id=3", "which is \"\". Right is "),
        ] {
            let fields = Fields::read(form.as_bytes()).unwrap();
            let error = fields.selection().unwrap_err();
            assert!(error.detail().starts_with(right), "{}", error.detail());
            assert_eq!(error.status(), 422);
        }
    }

    #[test]
    fn a_filter_survives_its_own_address() {
        let asked = filter("reason=a%26b%23&text=%C3%A9+x&from=2026-11-22T05:06");
        let address = address(&asked, Some(("below", 7)));
        let (_, query) = address.split_once('?').unwrap();
        assert_eq!(filter(query), asked);
        assert!(asked.from.is_some() && query.ends_with("below=7"));
    }
}
