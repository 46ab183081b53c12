-- message ids whose effect is committed; written in the effect's own transaction, so that a second effect cannot be
create table inbox (
    message_id uuid primary key,
    admitted_at timestamptz not null default clock_timestamp()
);

-- failures of the work, one row each, so that recording one twice (a commit of unknown outcome, repeated) counts once
create table failure (
    failure_id uuid primary key,
    message_id uuid not null,
    node text not null,
    attempt integer not null,
    reason text not null,
    failed_at timestamptz not null default clock_timestamp()
);
create index failure_message on failure (message_id);

-- deliveries, for people to read; best effort, never decides anything
create table delivery (
    delivery_id uuid primary key,
    message_id uuid,
    node text not null,
    attempt integer not null,
    redelivered boolean not null,
    started_at timestamptz not null,
    ended_at timestamptz,
    -- null: not settled as far as is known (still in hand, or its node died)
    outcome text check (outcome in ('processed', 'duplicate', 'failed', 'dead-lettered', 'returned')),
    cause text
);

-- messages given up on, kept with all that is known of them
create table dead_letter (
    dead_letter_id bigint generated always as identity primary key,
    -- what makes a dead letter the same one when it is delivered again: the message id, or a hash of a message that is not ours
    fingerprint text not null,
    -- how often it had been sent back on purpose when it died
    redrive integer not null default 0,
    message_id uuid,
    kind text,
    body bytea not null,
    reason text not null,
    attempts integer,
    headers jsonb not null,
    node text not null,
    dead_at timestamptz not null default clock_timestamp(),
    unique (fingerprint, redrive)
);
