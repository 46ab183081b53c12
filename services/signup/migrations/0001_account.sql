-- who has an account; a row here has, from the same commit on, a row of the outbox for its welcome mail
create table account (
    user_id uuid primary key,
    -- of the welcome mail
    message_id uuid not null unique,
    first_name text not null,
    last_name text not null,
    email text not null,
    -- Argon2id with its parameters and salt, as a PHC string
    password_hash text not null,
    created_at timestamptz not null default clock_timestamp(),
    node text not null,
    run text
);
-- one account for an address, however it is written; by "C", or the database's collation would say what is lower
create unique index account_email on account (lower(email collate "C"));
-- an audit reads a run in the order of its ids
create index account_run on account (run, message_id) where run is not null;

-- tokens that were given back before their end, by their ids; forgotten when they have ended
create table revoked (
    jti uuid primary key,
    ends_at timestamptz not null
);
create index revoked_ends_at on revoked (ends_at);

-- logins and sign-ups that were tried, by a digest of the address or of the client; as many times as are allowed, at most
create table login_try (
    key bytea primary key,
    tried_at timestamptz[] not null,
    last_at timestamptz not null
);
create index login_try_last_at on login_try (last_at);
