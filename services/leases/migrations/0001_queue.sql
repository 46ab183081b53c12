-- a queue and its settings. One is never deleted: a node that has seen a name once may remember its number
create table queue (
    queue_id integer generated always as identity primary key,
    name text not null constraint queue_name unique check (name ~ '^[a-z0-9._-]{1,80}$'),
    -- how long a lease holds where who asks says nothing else
    lease_ms integer not null default 1000 check (lease_ms between 1 and 43200000),
    -- after so many leases that ended without a confirm a message is a dead letter; 0: never
    max_receives integer not null default 20 check (max_receives >= 0),
    created_at timestamptz not null default clock_timestamp()
);
insert into queue (name) values ('default');

-- what was pushed and is not confirmed. One column carries everything: free_at says when the message may be leased. At the push
-- that is the time of the push, at a lease the end of the lease, by the database's clock. So a lease that ends needs nobody to
-- end it, and its message stands at the end of the queue by its order alone
create table message (
    message_id uuid primary key,
    -- no foreign key: each push would lock the row of its queue, and queues stay
    queue_id integer not null,
    free_at timestamptz not null,
    -- of messages that are free since the same moment the one that was pushed first goes first
    seq bigint generated always as identity,
    -- the JSON as it was sent, not as a database would write it: numbers and escapes come back as they were
    body text not null,
    receive_count integer not null default 0,
    -- of the lease, also when that has ended; null: never leased, or given back
    token uuid,
    -- this lease is the last: when it ends the message is a dead letter, so no lease finds it
    final boolean not null default false,
    run text,
    pushed_at timestamptz not null default clock_timestamp()
);
create index message_free on message (queue_id, free_at, seq) where not final;
create index message_final on message (free_at, queue_id) where final;
-- rows only pass through, and what is behind them is read: vacuumed by how many left, not by a share of the table
alter table message set (
    autovacuum_vacuum_scale_factor = 0,
    autovacuum_vacuum_threshold = 5000,
    autovacuum_vacuum_cost_delay = 0
);

-- given up on: leased as often as the queue allows, and never confirmed
create table dead_letter (
    -- what a list is read by
    number bigint generated always as identity primary key,
    message_id uuid not null unique,
    queue_id integer not null,
    body text not null,
    receive_count integer not null,
    run text,
    pushed_at timestamptz not null,
    dead_at timestamptz not null default clock_timestamp()
);
create index dead_letter_queue on dead_letter (queue_id, number);

-- what was pushed under an Idempotency-Key, for a day; a row is one request
create table pushed (
    queue_id integer not null,
    idempotency_key text not null,
    message_ids uuid[] not null,
    -- SHA-256 of the bodies: the messages themselves may be confirmed by then
    digest bytea not null,
    pushed_at timestamptz not null default clock_timestamp(),
    primary key (queue_id, idempotency_key)
);
create index pushed_at on pushed (pushed_at);

-- what each node did in the last second, for the rates on the page; best effort, and gone after a crash
create unlogged table tally (
    queue_id integer not null,
    node text not null,
    at timestamptz not null default clock_timestamp(),
    pushed integer not null,
    leased integer not null,
    confirmed integer not null
);
create index tally_at on tally (at);
