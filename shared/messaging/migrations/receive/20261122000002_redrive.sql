-- what a receiver publishes: dead letters that are sent back on purpose. The same tables as a sender's, whose migrations
-- have other numbers and cannot be applied beside these
create table outbox (
    message_id uuid primary key,
    kind text not null,
    body bytea not null,
    node text not null,
    run text,
    accepted_at timestamptz not null,
    state text not null default 'waiting' check (state in ('waiting', 'unroutable', 'refused')),
    tries integer not null default 0,
    free_at timestamptz not null default clock_timestamp(),
    lease uuid,
    redrive integer not null default 0
);
create index outbox_free on outbox (free_at);
alter table outbox set (
    autovacuum_vacuum_scale_factor = 0,
    autovacuum_vacuum_threshold = 5000,
    autovacuum_vacuum_cost_delay = 0
);
create table publication (
    publication_id bigint generated always as identity primary key,
    message_id uuid not null,
    node text not null,
    try integer not null,
    outcome text not null check (outcome in ('confirmed', 'unroutable', 'refused')),
    published_at timestamptz not null default clock_timestamp(),
    confirm_ms integer not null
);

-- what is sent back begins anew: failures, and the word of who gave up, belong to one redrive of the message
alter table failure add column redrive integer not null default 0;
alter table given_up add column redrive integer not null default 0;

-- a dead letter waits for somebody to decide, or somebody has decided. One that is sent back and given up on again is
-- another row, with the next number of redrive
alter table dead_letter add column state text not null default 'parked'
    check (state in ('parked', 'redriven', 'has-effect', 'discarded'));
alter table dead_letter add column decided_at timestamptz;
-- the redrive that took it along
alter table dead_letter add column redriven_by uuid;
-- who threw it away: an address
alter table dead_letter add column discarded_by text;
-- lists and selections read what is parked, the newest first
create index dead_letter_parked on dead_letter (dead_letter_id) where state = 'parked';
create index dead_letter_message on dead_letter (message_id) where message_id is not null;

-- an order to send dead letters back, and how far it is
create table redrive (
    redrive_id uuid primary key,
    state text not null default 'planned' check (state in ('planned', 'running', 'cancelled', 'done')),
    -- what was asked for, as it was asked
    selection jsonb not null,
    -- dead letters of later moments are not in it
    cut_off timestamptz not null default clock_timestamp(),
    per_second integer not null check (per_second > 0),
    who text not null,
    created_at timestamptz not null default clock_timestamp(),
    started_at timestamptz,
    ended_at timestamptz,
    -- counted when it was planned
    selected bigint not null default 0,
    had_effect bigint not null default 0,
    -- matched, and cannot be sent back: not messages of ours
    not_ours bigint not null default 0,
    -- counted as it goes, in the commit that does it
    redriven bigint not null default 0,
    has_effect bigint not null default 0,
    gone bigint not null default 0,
    -- the receiver that is at it, until when: by the database's clock, so a dead one is replaced
    lease uuid,
    leased_until timestamptz
);
create index redrive_running on redrive (started_at) where state = 'running';

-- the dead letters of a redrive, fixed when it is planned
create table redrive_item (
    redrive_id uuid not null references redrive on delete cascade,
    dead_letter_id bigint not null references dead_letter on delete cascade,
    -- gone: somebody else decided first, or it cannot be read
    state text not null default 'selected' check (state in ('selected', 'redriven', 'has-effect', 'gone')),
    done_at timestamptz,
    primary key (redrive_id, dead_letter_id)
);
create index redrive_item_left on redrive_item (redrive_id, dead_letter_id) where state = 'selected';
-- a dead letter that is pruned takes its items along
create index redrive_item_dead_letter on redrive_item (dead_letter_id);
