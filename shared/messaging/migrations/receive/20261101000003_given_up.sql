-- what a receiver gave up on for another reason than failures of the work, which are in failure: the broker carries no
-- reason of ours along to the dead letters, and who parks one may be another node
create table given_up (
    message_id uuid primary key,
    reason text not null,
    attempts integer not null,
    node text not null,
    given_up_at timestamptz not null default clock_timestamp()
);
