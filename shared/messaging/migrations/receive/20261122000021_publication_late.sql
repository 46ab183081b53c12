-- how long after its publish a try was written: as with a sender's
alter table publication add column late_ms integer not null default 0;
create index publication_late on publication (message_id) where late_ms > 60000;
