-- how long after its publish a try was written, in milliseconds. Numbers follow the writing: a mark that was held back writes
-- old times under new numbers. 0 for what was written before this was noted
alter table publication add column late_ms integer not null default 0;
-- such a try is far from where its time would have it, so it is found by its message. All others cost this index nothing
create index publication_late on publication (message_id) where late_ms > 60000;
