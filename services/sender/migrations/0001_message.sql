-- what was accepted, append-only: a row here means that a client was, or will be at its next try, told yes
create table message (
    message_id uuid primary key,
    -- for people: runs upwards, and skips numbers of transactions that were rolled back
    number bigint generated always as identity unique,
    text text not null,
    accepted_at timestamptz not null default clock_timestamp(),
    node text not null,
    -- the public reference of the session that sent it, if any
    session uuid,
    run text,
    -- one request, whoever repeats it: the client, a browser, the gateway
    idempotency_key text not null,
    -- within a request that brought several
    position integer not null default 0,
    unique (idempotency_key, position)
);
