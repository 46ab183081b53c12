//! Under which address a request found a service: that of its own port, where its pages begin at `/`, or its path behind the
//! port of all. Links stay there.

/// What stands before the paths of a service: nothing, or its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Under(&'static str);

impl Under {
    pub(crate) const ROOT: Self = Self("");

    /// Of a request for `path`, where the service is at the root and at `prefix`, such as `/notes`.
    pub fn of(path: &str, prefix: &'static str) -> Self {
        let rest = path.strip_prefix(prefix);
        let below = rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        if below { Self(prefix) } else { Self::ROOT }
    }

    /// A path that it was made of, as it is at the root.
    pub fn rest(self, path: &str) -> &str {
        path.strip_prefix(self.0).unwrap_or(path)
    }

    /// The first page.
    pub fn home(self) -> &'static str {
        if self == Self::ROOT { "/" } else { self.0 }
    }

    /// Another page, such as `/login`.
    pub fn page(self, path: &str) -> String {
        format!("{}{path}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_stay_under_the_address_of_the_request() {
        for (path, rest, home, login) in [
            ("/", "/", "/", "/login"),
            ("/createUser", "/createUser", "/", "/login"),
            ("/signups", "/signups", "/", "/login"),
            ("/signup", "", "/signup", "/signup/login"),
            (
                "/signup/createUser",
                "/createUser",
                "/signup",
                "/signup/login",
            ),
        ] {
            let under = Under::of(path, "/signup");
            assert_eq!(under.rest(path), rest, "{path}");
            assert_eq!(
                (under.home(), under.page("/login").as_str()),
                (home, login),
                "{path}"
            );
        }
    }
}
