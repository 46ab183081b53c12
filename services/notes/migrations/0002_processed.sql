-- what is saved: the effect, append-only and on purpose without a unique key on the message id: a second effect must show
create table processed (
    processed_id bigint generated always as identity primary key,
    message_id uuid not null,
    number bigint not null,
    -- the content
    text text not null,
    run text,
    node text not null,
    attempt integer not null,
    redelivered boolean not null,
    received_at timestamptz not null,
    took_ms bigint not null,
    processed_at timestamptz not null default clock_timestamp()
);
create index processed_message on processed (message_id);
-- an audit reads a run in the order of its ids
create index processed_run on processed (run, message_id) where run is not null;
