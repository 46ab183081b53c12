-- what was accepted, append-only: a row here means that a client was, or will be at its next try, told yes
create table message (
    message_id uuid primary key,
    -- for people: runs upwards, and skips numbers of transactions that were rolled back
    number bigint generated always as identity unique,
    -- the content
    text text not null,
    accepted_at timestamptz not null default clock_timestamp(),
    node text not null,
    -- the public reference of the session that sent it, if any
    session uuid,
    run text,
    -- one request, whoever repeats it: the client, a browser, the gateway
    idempotency_key text not null,
    -- as in the sender's table of this name, where a request may bring several; here always 0
    position integer not null default 0,
    unique (idempotency_key, position)
);
-- an audit reads a run in the order of its ids; notes without a run cost this index nothing
create index message_run on message (run, message_id) where run is not null;
