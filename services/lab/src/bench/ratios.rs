//! Which figures are told as a share of which.

/// Name, what stands above, what below, and how to read it.
pub(super) const RATIOS: &[(&str, &str, &str, &str)] = &[
    (
        "pipeline/raw",
        "pipeline",
        "raw",
        "one message per request, against bare publishing and consuming at once, acks 100 at once",
    ),
    (
        "pipeline/raw-acks-one-by-one",
        "pipeline",
        "raw-acks-one-by-one",
        "the same, against acks one by one",
    ),
    (
        "pipeline-arrays/raw",
        "pipeline-arrays",
        "raw",
        "arrays of 100, against acks 100 at once",
    ),
    (
        "pipeline-arrays/raw-acks-one-by-one",
        "pipeline-arrays",
        "raw-acks-one-by-one",
        "the same, against acks one by one",
    ),
    (
        "drain/raw-consume",
        "drain",
        "raw-consume",
        "the best number of receivers, against bare consuming with acks 100 at once",
    ),
    (
        "drain/raw-consume-acks-one-by-one",
        "drain",
        "raw-consume-acks-one-by-one",
        "the same, against acks one by one",
    ),
    (
        "drain-most/drain",
        "drain-most",
        "drain",
        "the most receivers, against the best number",
    ),
    (
        "accept/commit",
        "accept",
        "commit",
        "the most connections, against one row per commit on one connection",
    ),
    (
        "accept/commit-500",
        "accept",
        "commit-500",
        "the same against 500 rows per commit",
    ),
    (
        "accept-arrays/commit-500",
        "accept-arrays",
        "commit-500",
        "arrays of 100, against 500 rows per commit",
    ),
    (
        "accept-alone-p50/commit-p50",
        "accept-alone-p50",
        "commit-p50",
        "time of one request of one client alone, against one bare commit: below is better",
    ),
    (
        "watched/unwatched",
        "watched",
        "unwatched",
        "all that the system takes while three watch, against while nobody does",
    ),
    (
        "beside-console/unwatched",
        "beside-console",
        "unwatched",
        "the same beside a console that hears, counts and copies texts to its index",
    ),
    (
        "announcing/silent",
        "unwatched",
        "silent",
        "the same while nobody watches, against nodes that announce nothing",
    ),
    (
        "mission/theory",
        "mission",
        "mission-theory",
        "effects of the default settings, against what the receivers' slots could do",
    ),
    (
        "client/pipeline",
        "client",
        "pipeline",
        "what the load client can do, against what the pipeline took from it: far above 1, or the client is the limit",
    ),
    (
        "growth-accept",
        "accept-few",
        "accept-behind",
        "cost with the most rows behind, against the fewest: 1 is flat",
    ),
    (
        "growth-drain",
        "drain-few",
        "drain-behind",
        "the same of draining",
    ),
    (
        "growth-send-page",
        "home-few",
        "home-behind",
        "the same of the page of the senders",
    ),
    (
        "growth-results-page",
        "received-few",
        "received-behind",
        "the same of the page of the receivers",
    ),
    (
        "growth-audit",
        "audit-behind",
        "audit-few",
        "the same of an audit of one run",
    ),
    (
        "search-far",
        "search-far",
        "search-first",
        "time of the 1,000th page of what nine of ten messages have, against the first",
    ),
    (
        "growth-sessions",
        "sessions-few",
        "sessions-many",
        "cost of a page with the most sessions, against the fewest",
    ),
];
