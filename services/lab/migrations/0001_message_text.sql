-- what the search looks texts and runs up in; made behind the road from sender.message, and never asked what is true:
-- a message that is gone there is not found
create table message_text (
    -- the sender's own number: the order of every page
    number bigint primary key,
    -- number / 20,000: a look-up is bounded to some of them, however common the text
    slice bigint not null,
    run text,
    text text not null
);
create index message_text_run on message_text (run, number) where run is not null;

-- how far it is
create table text_state (
    only_one boolean primary key default true check (only_one),
    -- numbers up to here were looked at; those that were not there are gaps
    upto bigint not null default 0
);
insert into text_state default values;

-- numbers that were not there when the ones after them were: of transactions that commit late, or never
create table text_gap (
    low bigint primary key,
    high bigint not null,
    seen_at timestamptz not null default clock_timestamp(),
    -- when every transaction before this one has ended, what is still missing never comes
    horizon xid8
);

-- without the extensions (see docker/postgres/services.sql) a search walks
do $$
declare
    place text;
begin
    select n.nspname into place from pg_opclass o join pg_namespace n on n.oid = o.opcnamespace
     where o.opcname = 'gin_trgm_ops' and exists (select from pg_opclass where opcname = 'int8_ops'
           and opcmethod = (select oid from pg_am where amname = 'gin'));
    if place is not null then
        execute format(
            'create index message_text_by_text on message_text using gin (slice, text %I.gin_trgm_ops)
               with (gin_pending_list_limit = 1024)', place);
    end if;
exception
    when insufficient_privilege or undefined_object then null;
end $$;
