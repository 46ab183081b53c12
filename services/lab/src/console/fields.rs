//! What is sent with a deed: the fields of a form, or of a JSON object; `{"args": {"x": 1}}` is the field `args.x`.
//!
//! A form has texts only; of JSON each field must be of its type. A field that a deed does not know is an error: whoever
//! misspelt one would get something else than was asked for.

use std::collections::BTreeMap;
use std::str::FromStr;

use axum::extract::{FromRequest, Request};
use axum::http::header::CONTENT_TYPE;
use axum::{Form, Json};
use serde_json::{Map, Value};
use web::Error;

use super::app::App;

/// What the page calls a field, where that is another word.
const LABELS: [(&str, &str); 3] = [
    ("rate", "per second"),
    ("size", "bytes each"),
    ("poison", "of them poison"),
];
/// Arguments of a fault are fields that begin so.
pub(super) const ARGS: &str = "args.";
/// So much of what was sent is shown again.
const SHOWN_MAX: usize = 60;

/// As what a field was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// In a form: what it is, its text must tell.
    Form,
    Text,
    Number,
    Flag,
    Other,
}

impl Kind {
    fn words(self) -> &'static str {
        match self {
            Self::Form | Self::Text => "a text",
            Self::Number => "a number",
            Self::Flag => "true or false",
            Self::Other => "a text, a number, true or false",
        }
    }
}

/// All of them.
pub(super) struct Fields {
    all: BTreeMap<String, (Kind, String)>,
    /// A person sees the answer, beside the form.
    page: bool,
}

impl FromRequest<App> for Fields {
    type Rejection = Error;

    async fn from_request(request: Request, app: &App) -> Result<Self, Error> {
        let page = !request.uri().path().starts_with("/lab/api/");
        let media = request.headers().get(CONTENT_TYPE).cloned();
        let is = |wanted: &str| {
            let media = media.as_ref().and_then(|media| media.to_str().ok());
            media.is_some_and(|media| media.starts_with(wanted))
        };
        let all = if is("application/json") {
            let body = Json::<Map<String, Value>>::from_request(request, app).await;
            let Json(object) = body.map_err(|error| Error::bad_request(error.body_text()))?;
            of_json(object)
        } else if is("application/x-www-form-urlencoded") {
            let body = Form::<Vec<(String, String)>>::from_request(request, app).await;
            let Form(pairs) = body.map_err(|error| Error::bad_request(error.body_text()))?;
            let mut all = BTreeMap::new();
            for (name, value) in pairs {
                let field = (Kind::Form, value.trim().to_owned());
                if all.insert(name, field).is_some() {
                    return Err(Error::bad_request("A field is there more than once."));
                }
            }
            all
        } else {
            return Err(Error::unsupported("A form or JSON is needed."));
        };
        Ok(Self { all, page })
    }
}

/// `null` says nothing, as an empty field of a form does.
fn of_json(object: Map<String, Value>) -> BTreeMap<String, (Kind, String)> {
    let mut all = BTreeMap::new();
    for (name, value) in object {
        match value {
            Value::Object(inner) if name == "args" => {
                let named = inner
                    .into_iter()
                    .map(|(name, value)| (format!("{ARGS}{name}"), field(value)));
                all.extend(named);
            }
            value => drop(all.insert(name, field(value))),
        }
    }
    all
}

fn field(value: Value) -> (Kind, String) {
    match value {
        Value::Null => (Kind::Text, String::new()),
        Value::String(text) => (Kind::Text, text),
        Value::Number(number) => (Kind::Number, number.to_string()),
        Value::Bool(flag) => (Kind::Flag, flag.to_string()),
        other => (Kind::Other, other.to_string()),
    }
}

impl Fields {
    /// Whether there are only these; arguments too, where [`ARGS`] is among them.
    pub(super) fn only(&self, known: &[&str]) -> Result<(), Error> {
        let is_known = |name: &str| {
            known
                .iter()
                .any(|one| *one == name || (*one == ARGS && name.starts_with(ARGS)))
        };
        match self.all.keys().find(|name| !is_known(name)) {
            None => Ok(()),
            Some(name) => Err(Error::unprocessable(format!(
                "There is no field {:?} here; there are: {}.",
                cut(name),
                known.join(", ").replace(ARGS, "args")
            ))),
        }
    }

    /// How whoever sent it calls it.
    pub(super) fn called(&self, name: &str) -> String {
        let label = LABELS.iter().find(|(field, _)| *field == name);
        let label = label.map_or(name, |(_, label)| *label);
        if self.page {
            format!("{label:?}")
        } else {
            name.to_owned()
        }
    }

    /// A field that says something, if it was sent as this, or in a form.
    pub(super) fn sent_as(&self, name: &str, wanted: Kind) -> Result<Option<&str>, Error> {
        match self.all.get(name) {
            None => Ok(None),
            Some((_, text)) if text.is_empty() => Ok(None),
            Some((kind, text)) if *kind == wanted || *kind == Kind::Form => Ok(Some(text)),
            Some((_, text)) => Err(self.wrong(name, text, wanted)),
        }
    }

    fn wrong(&self, name: &str, text: &str, wanted: Kind) -> Error {
        let (name, text, right) = (self.called(name), cut(text), wanted.words());
        Error::unprocessable(format!("{name} is {text:?}; right is {right}."))
    }

    pub(super) fn text(&self, name: &str) -> Result<Option<&str>, Error> {
        self.sent_as(name, Kind::Text)
    }

    pub(super) fn number<N: FromStr>(&self, name: &str) -> Result<Option<N>, Error> {
        let Some(text) = self.sent_as(name, Kind::Number)? else {
            return Ok(None);
        };
        let read = text.parse::<N>();
        let read = read.map_err(|_| {
            let (name, text) = (self.called(name), cut(text));
            Error::unprocessable(format!(
                "{name} is {text:?}, no number that can be used here."
            ))
        });
        read.map(Some)
    }

    /// False if nothing is said.
    pub(super) fn flag(&self, name: &str) -> Result<bool, Error> {
        match self.sent_as(name, Kind::Flag)? {
            Some("true" | "on" | "1" | "yes") => Ok(true),
            None | Some("false" | "off" | "0" | "no") => Ok(false),
            Some(text) => Err(self.wrong(name, text, Kind::Flag)),
        }
    }

    /// The arguments of a fault that say something, by their names.
    pub(super) fn args(&self) -> Result<Vec<(&str, &str)>, Error> {
        let mut args = Vec::new();
        for (name, (kind, text)) in &self.all {
            let Some(arg) = name.strip_prefix(ARGS).filter(|_| !text.is_empty()) else {
                continue;
            };
            if *kind == Kind::Other {
                return Err(self.wrong(name, text, Kind::Other));
            }
            args.push((arg, &**text));
        }
        Ok(args)
    }

    /// All as texts, whatever they were sent as.
    pub(super) fn texts(&self) -> BTreeMap<String, String> {
        let all = self.all.iter();
        all.map(|(name, (_, text))| (name.clone(), text.clone()))
            .collect()
    }
}

#[cfg(test)]
impl Fields {
    /// Of a form on a page.
    pub(super) fn form(pairs: &[(&str, &str)]) -> Self {
        let field = |(name, text): &(&str, &str)| {
            let field = (Kind::Form, (*text).to_owned());
            ((*name).to_owned(), field)
        };
        Self {
            all: pairs.iter().map(field).collect(),
            page: true,
        }
    }
}

fn cut(text: &str) -> String {
    text.chars().take(SHOWN_MAX).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn api(object: Value) -> Fields {
        let Value::Object(object) = object else {
            panic!("no object");
        };
        Fields {
            all: of_json(object),
            page: false,
        }
    }

    #[test]
    fn fields_of_json_are_those_of_a_form() {
        let fields = api(
            json!({"fault": "x", "args": {"latency": "1s", "n": 3}, "twin": true, "for": null}),
        );
        let known = ["fault", ARGS, "twin", "for"];
        fields.only(&known).unwrap();
        assert_eq!(fields.args().unwrap(), [("latency", "1s"), ("n", "3")]);
        assert_eq!(fields.text("fault").unwrap(), Some("x"));
        assert_eq!(fields.text("for").unwrap(), None);
        assert!(fields.flag("twin").unwrap() && !fields.flag("absent").unwrap());
        assert_eq!(fields.texts()["args.n"], "3");
        let fields = Fields::form(&[("args.n", "3"), ("args.empty", ""), ("twin", "1")]);
        fields.only(&known).unwrap();
        assert_eq!(fields.args().unwrap(), [("n", "3")]);
        assert!(fields.flag("twin").unwrap());
    }

    #[test]
    fn what_is_unknown_or_of_another_type_is_an_error() {
        let unknown = api(json!({"rates": 5, "args": {"n": 1}}));
        let said = unknown.only(&["rate", ARGS]).unwrap_err();
        assert_eq!(
            said.detail(),
            "There is no field \"rates\" here; there are: rate, args."
        );
        assert!(unknown.only(&["rates"]).is_err());
        let wrong = api(json!({
            "poison": "maybe", "rate": "5", "text": 5, "for": {}, "args": {"n": [1]}
        }));
        assert!(wrong.flag("poison").is_err() && wrong.number::<f64>("rate").is_err());
        assert!(wrong.text("text").is_err() && wrong.text("for").is_err());
        assert!(wrong.args().is_err());
        let wrong = Fields::form(&[("poison", "maybe"), ("rate", "many")]);
        assert!(wrong.flag("poison").is_err() && wrong.number::<f64>("rate").is_err());
    }

    #[test]
    fn a_page_and_a_program_call_a_field_by_their_own_words() {
        assert_eq!(Fields::form(&[]).called("size"), "\"bytes each\"");
        assert_eq!(Fields::form(&[]).called("for"), "\"for\"");
        assert_eq!(api(json!({})).called("size"), "size");
    }
}
