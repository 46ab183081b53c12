-- the effect: a mail server took this mail. Append-only, and on purpose without a unique key on the message id: a second
-- effect must show
create table mail (
    mail_id bigint generated always as identity primary key,
    message_id uuid not null,
    user_id uuid not null,
    run text,
    node text not null,
    attempt integer not null,
    redelivered boolean not null,
    received_at timestamptz not null,
    -- the mail server's part of it
    took_ms bigint not null,
    sent_at timestamptz not null default clock_timestamp()
);
create index mail_message on mail (message_id);
create index mail_run on mail (run, message_id) where run is not null;
