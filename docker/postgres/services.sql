-- One role and one schema per service, a role that may only read them, and one for what the lab itself keeps.
--
-- For psql 14 or later, as a superuser, connected to the database it should prepare:
--   SENDER_PASSWORD=.. RECEIVER_PASSWORD=.. NOTES_PASSWORD=.. LEASES_PASSWORD=.. SIGNUP_PASSWORD=.. AUDITOR_PASSWORD=.. LAB_PASSWORD=.. \
--     psql -v ON_ERROR_STOP=1 -f services.sql
--
-- Applying it again is safe; it then sets the passwords anew. Roles belong to the whole cluster, schemas and rights to one
-- database, so a second database in the same cluster needs it too, or is created from a template that had it.
-- (CREATE DATABASE .. TEMPLATE copies all of it but the rights on the database itself, which then are Postgres's defaults:
-- everyone may connect.)
--
-- The services migrate their own schemas at start; nothing here knows a table.

\set ON_ERROR_STOP on
\getenv sender_password SENDER_PASSWORD
\getenv receiver_password RECEIVER_PASSWORD
\getenv notes_password NOTES_PASSWORD
\getenv leases_password LEASES_PASSWORD
\getenv signup_password SIGNUP_PASSWORD
\getenv auditor_password AUDITOR_PASSWORD
\getenv lab_password LAB_PASSWORD

\if :{?sender_password}
\else
  do $$ begin raise 'SENDER_PASSWORD is not set'; end $$;
\endif
\if :{?receiver_password}
\else
  do $$ begin raise 'RECEIVER_PASSWORD is not set'; end $$;
\endif
\if :{?notes_password}
\else
  do $$ begin raise 'NOTES_PASSWORD is not set'; end $$;
\endif
\if :{?leases_password}
\else
  do $$ begin raise 'LEASES_PASSWORD is not set'; end $$;
\endif
\if :{?signup_password}
\else
  do $$ begin raise 'SIGNUP_PASSWORD is not set'; end $$;
\endif
\if :{?auditor_password}
\else
  do $$ begin raise 'AUDITOR_PASSWORD is not set'; end $$;
\endif
\if :{?lab_password}
\else
  do $$ begin raise 'LAB_PASSWORD is not set'; end $$;
\endif

set client_min_messages = warning;

-- "if not exists" does not exist for roles; two who prepare two databases at once may both try, and one is told so.
do $$
declare
  wanted text;
begin
  foreach wanted in array array['sender', 'receiver', 'notes', 'leases', 'signup', 'auditor', 'lab'] loop
    begin
      execute format('create role %I', wanted);
    exception
      when duplicate_object or unique_violation then null;
    end;
  end loop;
end $$;

begin;

-- Held until the commit: Postgres refuses two changes of one role or one database at the same moment
-- ("tuple concurrently updated"), and this table of the whole cluster is where all who run this file meet.
lock table pg_catalog.pg_authid in share row exclusive mode;

alter role sender login nosuperuser nocreatedb nocreaterole noinherit password :'sender_password';
alter role receiver login nosuperuser nocreatedb nocreaterole noinherit password :'receiver_password';
alter role notes login nosuperuser nocreatedb nocreaterole noinherit password :'notes_password';
alter role leases login nosuperuser nocreatedb nocreaterole noinherit password :'leases_password';
alter role signup login nosuperuser nocreatedb nocreaterole noinherit password :'signup_password';
alter role auditor login nosuperuser nocreatedb nocreaterole noinherit password :'auditor_password';
alter role lab login nosuperuser nocreatedb nocreaterole noinherit password :'lab_password';

-- A service writes the names of its tables without a schema and cannot reach a table of another by accident.
alter role sender set search_path = sender;
alter role receiver set search_path = receiver;
alter role notes set search_path = notes;
alter role leases set search_path = leases;
alter role signup set search_path = signup;
alter role lab set search_path = lab;

revoke all on database :"DBNAME" from public;
grant connect, temporary on database :"DBNAME" to sender, receiver, notes, leases, signup;
grant connect on database :"DBNAME" to auditor, lab;

-- Nobody shares a schema: a table put into "public" by mistake would be one that every service can read.
revoke all on schema public from public;

create schema if not exists sender authorization sender;
create schema if not exists receiver authorization receiver;
create schema if not exists notes authorization notes;
create schema if not exists leases authorization leases;
create schema if not exists signup authorization signup;
create schema if not exists lab authorization lab;
revoke all on schema sender, receiver, notes, leases, signup, lab from public;

-- The auditor reads the ledgers: what is there now, and what the services create later. Of accounts it reads what a migration
-- of theirs grants, which is no password and no token.
grant usage on schema sender, receiver, notes, leases, signup to auditor;
grant select on all tables in schema sender, receiver, notes, leases to auditor;
grant select on all sequences in schema sender, receiver, notes, leases to auditor;
alter default privileges for role sender in schema sender grant select on tables to auditor;
alter default privileges for role sender in schema sender grant select on sequences to auditor;
alter default privileges for role receiver in schema receiver grant select on tables to auditor;
alter default privileges for role receiver in schema receiver grant select on sequences to auditor;
alter default privileges for role notes in schema notes grant select on tables to auditor;
alter default privileges for role notes in schema notes grant select on sequences to auditor;
alter default privileges for role leases in schema leases grant select on tables to auditor;
alter default privileges for role leases in schema leases grant select on sequences to auditor;
-- The lab reads the same, and keeps an index of texts in its own schema, so that the road pays nothing for the search.
grant usage on schema sender, receiver to lab;
grant select on all tables in schema sender, receiver to lab;
grant select on all sequences in schema sender, receiver to lab;
alter default privileges for role sender in schema sender grant select on tables to lab;
alter default privileges for role sender in schema sender grant select on sequences to lab;
alter default privileges for role receiver in schema receiver grant select on tables to lab;
alter default privileges for role receiver in schema receiver grant select on sequences to lab;

-- A mistake in the auditor's SQL fails instead of changing what it judges.
alter role auditor set default_transaction_read_only = on;

commit;

-- What that index is made with comes with PostgreSQL, but not with every package of it. Without, a search still answers: it
-- walks, and says how far it came.
do $$
begin
  create extension if not exists pg_trgm with schema lab;
  create extension if not exists btree_gin with schema lab;
exception
  when undefined_file or feature_not_supported or insufficient_privilege or unique_violation then null;
end $$;
