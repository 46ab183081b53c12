//! Programs that say neither what they send nor what they want.
//!
//! curl, as people type it, calls JSON a form and takes anything. Such requests are taken as they are meant, before anything else
//! looks at them. A form is what a foreign page may send without asking first, so [`super::save`] asks where it comes from.

use axum::{
    extract::Request,
    http::{HeaderMap, HeaderValue, header},
    middleware::Next,
    response::Response,
};

use web::Under;

use super::PREFIX;

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Who does not ask for a page wants JSON; and what is sent to `/save` is JSON, whatever it is called.
pub(super) async fn as_they_mean(mut request: Request, next: Next) -> Response {
    let path = request.uri().path();
    let saves = Under::of(path, PREFIX).rest(path) == "/save";
    let headers = request.headers_mut();
    if saves {
        headers.insert(header::CONTENT_TYPE, JSON);
    }
    if saves || !names_a_page(headers) {
        headers.insert(header::ACCEPT, JSON);
    }
    next.run(request).await
}

fn names_a_page(headers: &HeaderMap) -> bool {
    let mut named = headers.get_all(header::ACCEPT).iter();
    named.any(|value| {
        value
            .to_str()
            .is_ok_and(|value| value.contains("text/html"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_browser_names_a_page_and_curl_does_not() {
        let names = |accept| {
            let headers =
                HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static(accept))]);
            names_a_page(&headers)
        };
        assert!(names(
            "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
        ));
        assert!(!names("*/*") && !names("application/json"));
        assert!(!names_a_page(&HeaderMap::new()));
    }
}
