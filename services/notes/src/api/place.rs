//! Where a request found us: at the root, or under our name. Links stay there.

use axum::http::Uri;

/// Where our paths begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// At `/`.
    Root,
    /// At `/notes`.
    Name,
}

const NAME: &str = "/notes";

impl Place {
    pub(super) fn of(uri: &Uri) -> Self {
        match uri.path().strip_prefix(NAME) {
            Some(rest) if rest.is_empty() || rest.starts_with('/') => Self::Name,
            _ => Self::Root,
        }
    }

    /// The path of a request, without what is before our paths.
    pub(super) fn rest(self, uri: &Uri) -> &str {
        match self {
            Self::Root => uri.path(),
            Self::Name => uri.path().strip_prefix(NAME).unwrap_or_default(),
        }
    }

    /// Of our page.
    pub(super) fn home(self) -> &'static str {
        match self {
            Self::Root => "/",
            Self::Name => NAME,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_ours_at_the_root_and_under_our_name() {
        for (path, place, rest) in [
            ("/", Place::Root, "/"),
            ("/save", Place::Root, "/save"),
            ("/notesave", Place::Root, "/notesave"),
            ("/notes", Place::Name, ""),
            ("/notes/save", Place::Name, "/save"),
        ] {
            let uri = path.parse().unwrap();
            assert_eq!((Place::of(&uri), place.rest(&uri)), (place, rest));
        }
    }
}
