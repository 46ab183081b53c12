-- what must still be published: a row is here from the commit that accepted the message until the broker has confirmed it
create table outbox (
    -- commit order is not id order; the id only gives a stable order within a claim
    outbox_id bigint generated always as identity primary key,
    message_id uuid not null unique,
    kind text not null,
    body bytea not null,
    node text not null,
    run text,
    accepted_at timestamptz not null,
    -- what the broker said of the last try
    state text not null default 'waiting' check (state in ('waiting', 'unroutable', 'refused')),
    tries integer not null default 0,
    -- nobody may publish the row before this time: the end of a lease, or of a back-off
    free_at timestamptz not null default clock_timestamp(),
    -- the publisher session that holds the row until free_at; null: nobody
    lease uuid
);

-- claims take the longest free first, and skip whatever is leased or backs off
create index outbox_free on outbox (free_at);

-- tries at publishing, for people to read; best effort, never decides anything
create table publication (
    publication_id bigint generated always as identity primary key,
    message_id uuid not null,
    node text not null,
    try integer not null,
    outcome text not null check (outcome in ('confirmed', 'unroutable', 'refused')),
    published_at timestamptz not null default clock_timestamp(),
    confirm_ms integer not null
);
