//! Who is asking: a person or a program?

use axum::http::{HeaderMap, Uri, header};

/// Whether an answer should be JSON: on the routes of an API always, elsewhere where the client
/// says that it prefers JSON to a page.
pub fn wants_json(uri: &Uri, headers: &HeaderMap) -> bool {
    uri.path().split('/').any(|segment| segment == "api") || prefers_json(headers)
}

fn prefers_json(headers: &HeaderMap) -> bool {
    let mut json = 0;
    let mut page = 0;
    for value in headers.get_all(header::ACCEPT) {
        for range in value.to_str().unwrap_or_default().split(',') {
            let (media, quality) = weigh(range);
            match media.as_str() {
                "application/json" | "application/problem+json" => json = json.max(quality),
                "text/html" | "application/xhtml+xml" => page = page.max(quality),
                _ => {}
            }
        }
    }
    json > page
}

/// The media type and its weight in thousandths.
fn weigh(range: &str) -> (String, u32) {
    let mut parts = range.split(';').map(str::trim);
    let media = parts.next().unwrap_or_default().to_ascii_lowercase();
    let weight = parts
        .filter_map(|parameter| parameter.split_once('='))
        .find(|(name, _)| name.trim().eq_ignore_ascii_case("q"))
        .and_then(|(_, value)| value.trim().parse::<f32>().ok())
        .unwrap_or(1.0);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "clamped to 0..=1"
    )]
    let thousandths = (weight.clamp(0.0, 1.0) * 1000.0) as u32;
    (media, thousandths)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asks(path: &str, accept: &str) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, accept.parse().unwrap());
        wants_json(&path.parse().unwrap(), &headers)
    }

    #[test]
    fn an_api_speaks_json_and_a_page_only_to_those_who_prefer_it() {
        assert!(asks("/api/messages", "text/html"));
        assert!(asks("/received/api/messages", "*/*"));
        assert!(asks("/received", "application/json"));
        assert!(asks("/received", "text/html;q=0.5, application/json"));
        let browser = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
        for accept in [
            browser,
            "*/*",
            "",
            "text/html",
            "application/json;q=0.1, text/html",
        ] {
            assert!(!asks("/received", accept), "{accept}");
        }
        assert!(!asks("/apis", "*/*"));
    }

    #[test]
    fn nonsense_is_weighed_too() {
        for accept in [
            "application/json;q=nan",
            "application/json;q=-1",
            ";;;,,,=",
            "q=1",
        ] {
            assert!(!asks("/", accept), "{accept}");
        }
    }
}
